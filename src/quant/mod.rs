//! Block formats: their geometry, their bytes, and conversion to and from 32-bit floats.

mod types;
pub mod blocks;
pub mod decoded;
pub mod legacy;
pub mod mxfp4;
pub mod k_quants;
pub mod k_quantize;
pub mod iq4;
pub mod convert;

pub use types::GgmlType;

#[cfg(test)]
mod tests;
