//! What is too short for a vector, with zeros behind it.

/// A copy of fewer than `N` values, padded with zeros.
#[inline]
pub(super) fn padded<T: Zero, const N: usize>(values: &[T]) -> [T; N] {
    let mut all = [T::ZERO; N];
    all[..values.len()].copy_from_slice(values);
    all
}

/// What [`padded`] pads with.
pub(super) trait Zero: Copy {
    const ZERO: Self;
}

impl Zero for u8 {
    const ZERO: Self = 0;
}

impl Zero for i8 {
    const ZERO: Self = 0;
}

impl Zero for f32 {
    const ZERO: Self = 0.0;
}

impl<const N: usize> Zero for [u8; N] {
    const ZERO: Self = [0; N];
}
