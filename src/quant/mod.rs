//! Block formats: their geometry, their bytes, and conversion to and from 32-bit floats.

mod types;
pub mod blocks;
pub mod decoded;
pub mod legacy;
pub mod mxfp4;
pub mod k_quants;
pub mod iq4;
mod lanes;
mod grid;
#[cfg(target_arch = "aarch64")]
mod halves;
mod search;
mod k_affine;
mod k_symmetric;
pub mod k_quantize;
pub mod convert;

pub use types::GgmlType;

#[cfg(test)]
mod k_plain;
#[cfg(test)]
mod tests;
