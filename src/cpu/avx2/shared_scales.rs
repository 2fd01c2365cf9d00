//! The plain addition of rows whose scales lie apart, compiled for AVX2.
#![allow(unsafe_code, reason = "features are checked at run time")]

use crate::cpu::isa::Isa;
use crate::cpu::shared_scales::{Quants, add};

/// See [`crate::cpu::shared_scales::add_scaled`].
pub fn add_shared_scales(isa: Isa, quants: Quants, q: &[u8], scales: &[u8], a: f32, y: &mut [f32]) {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn compiled(quants: Quants, q: &[u8], scales: &[u8], a: f32, y: &mut [f32]) {
        add(quants, q, scales, a, y);
    }
    assert!(isa >= Isa::Avx2 && isa.is_available());
    // SAFETY: the line above: every instruction set from AVX2 on has these features.
    unsafe { compiled(quants, q, scales, a, y) }
}
