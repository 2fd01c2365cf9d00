//! Kernels for AArch64: NEON, its 8-bit dot products (`dotprod`) and its 8-bit products of matrices (`i8mm`).

use crate::cpu::Kernels;

/// NEON alone.
pub static TABLE: [Kernels; 0] = [];
/// With dot products.
pub static DOTPROD_TABLE: [Kernels; 0] = [];
/// With products of matrices.
pub static I8MM_TABLE: [Kernels; 0] = [];
