//! Block formats: their geometry, their bytes, and the way to and from 32-bit floats.

pub mod blocks;
pub mod convert;
mod types;

pub use types::GgmlType;
