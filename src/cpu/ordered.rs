//! Scaled additions to sums that are kept in another order than that of the columns, where a kernel has one of its own.

use super::isa::Isa;
use super::rows::Rows;
use crate::quant::GgmlType;

/// Scaled additions to several vectors of sums that take turns: each is brought into the kernel's order once, not for every few
/// rows. The bits are those of [`super::Kernels::add_scaled`].
pub struct Ordered {
    /// Sums that change places with each other: vectors are a multiple of this long.
    pub columns: usize,
    /// Brings sums into the kernel's order.
    pub begin: fn(&mut [f32]),
    /// As [`super::Kernels::add_scaled`], to sums in that order.
    pub add: fn(Rows, &[f32], &mut [f32]),
    /// Brings sums back.
    pub end: fn(&mut [f32]),
}

impl Isa {
    /// The order in which the scaled additions of `dtype` have the sums, where it is not that of the columns.
    ///
    /// # Panics
    /// When the processor does not have the instruction set.
    pub fn ordered(self, dtype: GgmlType) -> Option<&'static Ordered> {
        assert!(self.is_available(), "this processor does not have {self}");
        #[cfg(target_arch = "x86_64")]
        if self == Self::Avx512 && dtype == GgmlType::Q4_0 {
            return Some(&super::avx512::Q4_0_ORDERED);
        }
        let _ = dtype;
        None
    }
}

#[cfg(test)]
mod tests;
