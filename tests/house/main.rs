//! The repository itself: its map, its style, its generated files.

mod architecture;
mod excerpts;
mod kernel_manifest;
