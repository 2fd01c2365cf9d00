//! Computing on the CPU: kernels per tensor type, prepared activations, the thread pool.

pub mod activations;
pub mod kernels;
pub mod pool;
pub mod scalar;

pub use activations::{ActRow, Activations};
pub use kernels::{Kernels, kernels};
pub use pool::Pool;
