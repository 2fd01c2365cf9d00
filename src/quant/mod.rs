//! Block formats: their geometry, their bytes, and the way to and from 32-bit floats.

pub mod blocks;
pub mod convert;
pub mod decoded;
pub mod iq4;
pub mod k_quants;
pub mod k_quantize;
pub mod legacy;
mod types;

pub use types::GgmlType;
