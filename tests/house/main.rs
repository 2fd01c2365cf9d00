//! The repository itself: its map, its style, its generated files.

mod architecture;
mod kernel_manifest;
