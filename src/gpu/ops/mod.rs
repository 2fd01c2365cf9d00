//! What the kernels compute: one file per `.cu`, which checks sizes, chooses the grid, and enqueues on a stream.
