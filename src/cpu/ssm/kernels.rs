//! The kernels of each instruction set.
#![allow(unsafe_code, reason = "features that a kernel is compiled for are checked at run time")]

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::blocks;
use super::{fused, plain};
use crate::cpu::Isa;

/// What a convolution is made of.
pub struct Convolution<'a> {
    /// `[K][n]`, oldest first.
    pub taps: &'a [f32],
    /// `[n]`.
    pub bias: &'a [f32],
    /// The channels of the last `K` tokens, `[n]` each, the token's own at the end.
    pub window: &'a [&'a [f32]],
}

/// One token of a head.
#[derive(Clone, Copy)]
pub struct Token<'a> {
    /// What is left of the state: `exp(delta a)`.
    pub decay: f32,
    /// Step width.
    pub delta: f32,
    /// `[P]`.
    pub x: &'a [f32],
    /// `[N]`: what goes into the state.
    pub b: &'a [f32],
    /// `[N]`: what is read out of it.
    pub c: &'a [f32],
}

/// A product of matrices: row `i` of it is the sum over `k < depth` of `factors[i * strides.0 + k * strides.1]` times the
/// row `rows[k * stride..]`.
pub struct Product<'a> {
    /// Factors.
    pub factors: &'a [f32],
    /// From row to row of the result, and from term to term of a sum.
    pub strides: (usize, usize),
    /// Terms of a sum.
    pub depth: usize,
    /// Rows that are added.
    pub rows: &'a [f32],
    /// From one to the next.
    pub stride: usize,
}

/// What the processor does with a state-space model. Every number is one sum in its natural order: it depends on nothing
/// but its operands.
pub struct Kernels {
    /// [`plain::step`].
    pub step: fn(&mut [f32], Token, &mut [f32]),
    /// Adds a product to rows of `n` elements.
    pub add_product: fn(&Product, n: usize, &mut [f32]),
    /// [`plain::convolve`] of some channels: those from the given one on, as many as there is room for.
    pub convolve: fn(&Convolution, first: usize, &mut [f32]),
    /// [`plain::gate`].
    pub gate: fn(&[f32], &mut [f32]),
}

impl Kernels {
    /// Those of an instruction set.
    ///
    /// # Panics
    /// When this processor has it not.
    pub fn of(isa: Isa) -> &'static Self {
        assert!(isa.is_available(), "this processor does not have {isa}");
        match isa {
            Isa::Plain => &PLAIN,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => &AVX2,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &AVX512,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::DotProd | Isa::I8mm => &NEON,
            _ => &PLAIN,
        }
    }
}

static PLAIN: Kernels = Kernels {
    step: plain::step,
    add_product: |of, n, out| fused::products::<false, 8>(of, n, out, fused::product_block::<false, 8>),
    convolve: fused::convolve::<false, 16>,
    gate: plain::gate,
};

/// Kernels compiled with these features, with so many columns at a time.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernels {
    ($features:literal, $channels:literal, $block:path, $width:literal) => {{
        #[target_feature(enable = $features)]
        fn step(state: &mut [f32], of: Token, y: &mut [f32]) {
            fused::step::<true, 64>(state, &of, y);
        }
        #[target_feature(enable = $features)]
        fn add_product(of: &Product, n: usize, out: &mut [f32]) {
            fused::products::<true, $width>(of, n, out, |factors, rows, n, out, at| $block(factors, rows, n, out, at));
        }
        #[target_feature(enable = $features)]
        fn convolve(of: &Convolution, first: usize, out: &mut [f32]) {
            fused::convolve::<true, $channels>(of, first, out);
        }
        #[target_feature(enable = $features)]
        fn gate(z: &[f32], y: &mut [f32]) {
            fused::gate::<true>(z, y);
        }
        Kernels {
            // SAFETY: `Kernels::of` gave this table out, so the processor has the features; as below.
            step: |state, of, y| unsafe { step(state, of, y) },
            // SAFETY: as above.
            add_product: |of, n, out| unsafe { add_product(of, n, out) },
            // SAFETY: as above.
            convolve: |of, first, out| unsafe { convolve(of, first, out) },
            // SAFETY: as above.
            gate: |z, y| unsafe { gate(z, y) },
        }
    }};
}

#[cfg(target_arch = "x86_64")]
static AVX2: Kernels = kernels!("avx2,fma", 32, blocks::avx2, 16);
#[cfg(target_arch = "x86_64")]
static AVX512: Kernels = kernels!("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", 64, blocks::avx512, 32);
#[cfg(target_arch = "aarch64")]
static NEON: Kernels = kernels!("neon", 16, blocks::neon, 16);
