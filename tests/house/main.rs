//! The repository itself: its map, its style, its generated files.

mod architecture;
mod converter;
mod excerpts;
#[cfg(target_os = "linux")]
mod gpu_check;
mod kernel_manifest;
mod targets;
