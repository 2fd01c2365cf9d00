//! The kernels of each instruction set.
#![allow(unsafe_code, reason = "features that a kernel is compiled for are checked at run time")]

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::tiles;
use super::{Lanes, Product, Running, Soften, fused};
use crate::cpu::Isa;
use crate::quant::GgmlType;
use crate::quant::convert::{self, Dequantize};

/// Of a scale, a cap, the largest score so far and the scores.
type Weigh = fn(f32, Option<f32>, f32, &mut [f32]) -> (f32, f32);

/// What the processor does with strips of queries. What becomes of a lane depends on that lane only.
pub struct Kernels {
    /// Adds a product to some rows.
    pub add: fn(&Product, &mut [Lanes]),
    /// The same, where 0 times anything is 0: the same bits where all factors are numbers.
    pub add_where: fn(&Product, &mut [Lanes]),
    /// Scores become weights, relative to the largest score so far; the sum of weights and what was gathered follow it.
    pub soften: fn(&Soften, &mut [Lanes], &mut Running, &mut [Lanes]),
    /// Scores of one query, times a scale and below a cap, become weights, relative to the largest of them and of those
    /// before: that, and their sum.
    pub weigh: Weigh,
    /// Reads floats of 16 bits.
    read_f16: Dequantize,
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

    /// Reads rows of a cache of this type; `None` where it cannot be read.
    pub fn reader(&self, dtype: GgmlType) -> Option<Dequantize> {
        if dtype == GgmlType::F16 { Some(self.read_f16) } else { convert::dequantizer(dtype).ok() }
    }
}

static PLAIN: Kernels = Kernels {
    add: fused::add::<false, false>,
    add_where: fused::add::<false, true>,
    soften: fused::soften::<false>,
    weigh: fused::weigh::<false>,
    read_f16: convert::from_f16,
};

/// Kernels compiled with these features.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernels {
    ($features:literal, $add:path, $read_f16:expr) => {{
        #[target_feature(enable = $features)]
        fn add(of: &Product, out: &mut [Lanes]) {
            $add(of, out);
        }
        #[target_feature(enable = $features)]
        fn add_where(of: &Product, out: &mut [Lanes]) {
            fused::add::<true, true>(of, out);
        }
        #[target_feature(enable = $features)]
        fn soften(of: &Soften, scores: &mut [Lanes], running: &mut Running, out: &mut [Lanes]) {
            fused::soften::<true>(of, scores, running, out);
        }
        #[target_feature(enable = $features)]
        fn weigh(scale: f32, cap: Option<f32>, max: f32, scores: &mut [f32]) -> (f32, f32) {
            fused::weigh::<true>(scale, cap, max, scores)
        }
        Kernels {
            // SAFETY: `Kernels::of` gave this table out, so the processor has the features; as below.
            add: |of, out| unsafe { add(of, out) },
            // SAFETY: as above.
            add_where: |of, out| unsafe { add_where(of, out) },
            // SAFETY: as above.
            soften: |of, scores, running, out| unsafe { soften(of, scores, running, out) },
            // SAFETY: as above.
            weigh: |scale, cap, max, scores| unsafe { weigh(scale, cap, max, scores) },
            read_f16: $read_f16,
        }
    }};
}

/// SAFETY: `Kernels::of` gives it out where the processor has AVX2, and all that are taken then have F16C.
#[cfg(target_arch = "x86_64")]
const READ_F16: Dequantize = |stored, out| unsafe { tiles::read_f16(stored, out) };
#[cfg(target_arch = "x86_64")]
static AVX2: Kernels = kernels!("avx2,fma", tiles::avx2, READ_F16);
#[cfg(target_arch = "x86_64")]
static AVX512: Kernels = kernels!("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", tiles::avx512, READ_F16);
#[cfg(target_arch = "aarch64")]
static NEON: Kernels = kernels!("neon", tiles::neon, convert::from_f16);
