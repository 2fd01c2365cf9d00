//! The other operand of a dot product: activations, in every form that a weight type needs.

use super::pool::Pool;
use super::rounding::round;
use crate::quant::blocks::QK;
use std::ops::{Deref, DerefMut};

/// The form in which a weight type needs the activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActKind {
    /// 32-bit floats.
    F32,
    /// Signed bytes with a scale per 32, so that the products are integers.
    Q8,
    /// The same bytes in the order in which 64-byte vectors of half-byte weights meet them.
    Q8Halves,
    /// The same bytes in the order in which the half-bytes of `Q4_K` and `Q5_K` meet them, and the pairs of bits of `Q2_K`.
    Q8Supers,
}

/// Elements per stored sum: what one 32-bit lane of an 8-bit dot product adds up.
pub const SUM_LEN: usize = 4;

/// Elements in a group of [`Halves`]: four blocks.
pub const GROUP: usize = 4 * QK;
/// 32-bit lanes of the vectors that [`Halves`] is laid out for.
pub const LANES: usize = 16;

/// Four blocks of quantized activations: the first halves of all four, then the second halves, as the low and high halves of
/// the bytes of four `Q4_0` blocks are. What belongs together lies together, so that a kernel needs one address for each vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Halves {
    /// Bytes of the group in that order.
    pub q: [i8; GROUP],
    /// Scale of the block to which each lane belongs.
    pub d: [f32; LANES],
    /// The negated sum of the eight bytes that meet in each lane.
    pub neg_sums: [i32; LANES],
}

impl Default for Halves {
    fn default() -> Self {
        Self { q: [0; GROUP], d: [0.0; LANES], neg_sums: [0; LANES] }
    }
}

/// Elements in a group of [`Supers`]: a super-block.
pub const SUPER: usize = 256;

/// Quantized activations in groups of eight blocks. A super-block of half-bytes has four runs of 32 bytes, whose low
/// halves are the even blocks and whose high halves are the odd ones. So a group holds the first 16 elements of the
/// even blocks, the first 16 of the odd ones, the last 16 of the even ones and the last 16 of the odd ones.
#[derive(Default, Clone, Copy)]
pub struct Supers<'a> {
    /// Bytes of the group in that order.
    pub q: &'a [[i8; SUPER]],
    /// For each block its scale, then the negated product of that and its sum: the factors of scales and minima.
    pub factors: &'a [[f32; 2 * SUPER / QK]],
    /// The negated product of the scale and the sum of every 16 elements: the factors of minima of half blocks.
    pub sums: &'a [[f32; 2 * SUPER / QK]],
}

/// One vector of activations in all its forms. Those that were not asked for are empty.
#[derive(Default, Clone, Copy)]
pub struct ActRow<'a> {
    /// The values; always present.
    pub f32: &'a [f32],
    /// The values as bytes in -127..=127; value = `q * d`.
    pub q: &'a [i8],
    /// One scale per 32 elements.
    pub d: &'a [f32],
    /// `d` times the sum of `q`, per 32 elements.
    pub ds: &'a [f32],
    /// The negated sum of every [`SUM_LEN`] elements of `q`: where a weight type with an offset starts its sums.
    pub neg_sums: &'a [i32],
    /// The same for [`ActKind::Q8Halves`]; the last group is padded with zeros.
    pub halves: &'a [Halves],
    /// The same for [`ActKind::Q8Supers`].
    pub supers: Supers<'a>,
}

/// Values that start on a cache line, so that each 64-byte vector of them lies in a single line.
#[derive(Default)]
struct Buffer<T> {
    all: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Buffer<T> {
    /// Makes room for `len` values, whose contents are unspecified.
    fn resize(&mut self, len: usize) {
        const LINE: usize = 64;
        let needed = len + LINE / size_of::<T>();
        // Never shorter: vectors of several lengths take turns.
        if self.all.len() < needed {
            self.all.resize(needed, T::default());
        }
        self.start = self.all.as_ptr().align_offset(LINE).min(LINE / size_of::<T>());
        self.len = len;
    }

    fn copy_from(&mut self, other: &Self) {
        self.resize(other.len);
        self.copy_from_slice(other);
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.all[self.start..][..self.len]
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.all[self.start..][..self.len]
    }
}

/// `[n_tokens][n]` activations. Quantized once per vector, however many weight rows they meet.
#[derive(Default)]
pub struct Activations {
    n: usize,
    f32: Buffer<f32>,
    quantized: bool,
    q: Buffer<i8>,
    d: Buffer<f32>,
    ds: Buffer<f32>,
    neg_sums: Buffer<i32>,
    halves: Buffer<Halves>,
    n_groups: usize,
    supers_q: Buffer<i8>,
    supers_factors: Buffer<f32>,
    supers_sums: Buffer<f32>,
    n_supers: usize,
}

impl Activations {
    /// Takes `[n_tokens][n]` values and prepares the forms in `kinds`. Keeps its buffers from call to call.
    /// `n` must be a multiple of 32 where `Q8` is asked for; the model's loader has checked that.
    pub fn load(&mut self, x: &[f32], n: usize, kinds: impl IntoIterator<Item = ActKind>) {
        let (mut quantized, mut halves, mut supers) = (false, false, false);
        for kind in kinds {
            quantized |= kind != ActKind::F32;
            halves |= kind == ActKind::Q8Halves;
            supers |= kind == ActKind::Q8Supers;
        }
        self.resize(x, n, quantized);
        self.pieces(x, x.len()).for_each(|mut piece| piece.load());
        if halves {
            self.load_halves();
        }
        if supers {
            self.load_supers();
        }
    }

    /// The same for products by tiles, which read vectors as floats or as plain bytes (`quantized`), divided among the
    /// threads of `pool`.
    pub fn load_many(&mut self, x: &[f32], n: usize, quantized: bool, pool: &Pool) {
        /// Values that a thread takes: whole blocks.
        const PIECE: usize = 512 * QK;
        self.resize(x, n, quantized);
        let mut pieces: Vec<_> = self.pieces(x, PIECE).collect();
        pool.fill(&mut pieces, 1, |_, pieces| pieces.iter_mut().for_each(Quantizing::load));
    }

    fn resize(&mut self, x: &[f32], n: usize, quantized: bool) {
        debug_assert!(!quantized || n.is_multiple_of(QK));
        (self.n, self.quantized, self.n_groups, self.n_supers) = (n, quantized, 0, 0);
        self.f32.resize(x.len());
        if quantized {
            self.q.resize(x.len());
            self.d.resize(x.len() / QK);
            self.ds.resize(x.len() / QK);
            self.neg_sums.resize(x.len() / SUM_LEN);
        }
    }

    /// `x` and where its forms go, in pieces of `len` values, which are whole blocks where they are quantized.
    fn pieces<'a>(&'a mut self, x: &'a [f32], len: usize) -> impl Iterator<Item = Quantizing<'a>> {
        let (len, quantized) = (len.max(1), self.quantized);
        let mut q = self.q.chunks_mut(len);
        let mut neg_sums = self.neg_sums.chunks_mut((len / SUM_LEN).max(1));
        let mut d = self.d.chunks_mut((len / QK).max(1));
        let mut ds = self.ds.chunks_mut((len / QK).max(1));
        x.chunks(len).zip(self.f32.chunks_mut(len)).map(move |(x, f32)| Quantizing {
            x,
            f32,
            quantized: quantized.then(|| Quantized {
                q: q.next().unwrap_or_default(),
                neg_sums: neg_sums.next().unwrap_or_default(),
                d: d.next().unwrap_or_default(),
                ds: ds.next().unwrap_or_default(),
            }),
        })
    }

    fn load_supers(&mut self) {
        const HALF: usize = QK / 2;
        const BLOCKS: usize = SUPER / QK;
        debug_assert!(self.n.is_multiple_of(SUPER));
        self.n_supers = self.n / SUPER;
        let n_supers = self.n_supers * self.n_tokens();
        self.supers_q.resize(n_supers * SUPER);
        self.supers_factors.resize(n_supers * 2 * BLOCKS);
        self.supers_sums.resize(n_supers * 2 * BLOCKS);
        let sums_of_half = self.neg_sums.as_chunks::<{ HALF / SUM_LEN }>().0;
        for (i, (sum, neg_sums)) in self.supers_sums.iter_mut().zip(sums_of_half).enumerate() {
            *sum = self.d[i / 2] * neg_sums.iter().sum::<i32>() as f32;
        }
        let factors = self.supers_factors.as_chunks_mut::<{ 2 * BLOCKS }>().0;
        let groups = self.supers_q.as_chunks_mut::<SUPER>().0.iter_mut().zip(factors);
        let blocks = self.q.as_chunks::<HALF>().0.chunks_exact(2 * BLOCKS);
        let scales = self.d.chunks_exact(BLOCKS).zip(self.ds.chunks_exact(BLOCKS));
        for (((q, factors), halves), (d, ds)) in groups.zip(blocks).zip(scales) {
            for (i, half) in halves.iter().enumerate() {
                let (block, half_of_block) = (i / 2, i % 2);
                let place = half_of_block * BLOCKS + block % 2 * (BLOCKS / 2) + block / 2;
                q[place * HALF..][..HALF].copy_from_slice(half);
            }
            for (factors, (d, ds)) in factors.as_chunks_mut::<2>().0.iter_mut().zip(d.iter().zip(ds)) {
                *factors = [*d, -ds];
            }
        }
    }

    fn load_halves(&mut self) {
        self.n_groups = self.n.div_ceil(GROUP);
        let n_tokens = self.n_tokens();
        self.halves.resize(n_tokens * self.n_groups);
        for token in 0..n_tokens {
            for group in 0..self.n_groups {
                let to = &mut self.halves[token * self.n_groups + group];
                let n_blocks = ((self.n - group * GROUP) / QK).min(GROUP / QK);
                if n_blocks < GROUP / QK {
                    *to = Halves::default();
                }
                let Halves { q, d, neg_sums: sums } = to;
                for block in 0..n_blocks {
                    const HALF: usize = QK / 2;
                    const LANES_OF_BLOCK: usize = LANES * QK / GROUP;
                    let from = (token * self.n + group * GROUP) / QK + block;
                    let values = &self.q[from * QK..][..QK];
                    q[block * HALF..][..HALF].copy_from_slice(&values[..HALF]);
                    q[GROUP / 2 + block * HALF..][..HALF].copy_from_slice(&values[HALF..]);
                    let lane_sums = &self.neg_sums[from * QK / SUM_LEN..][..QK / SUM_LEN];
                    for i in 0..LANES_OF_BLOCK {
                        d[block * LANES_OF_BLOCK + i] = self.d[from];
                        sums[block * LANES_OF_BLOCK + i] = lane_sums[i] + lane_sums[LANES_OF_BLOCK + i];
                    }
                }
            }
        }
    }

    /// Becomes a copy of `other`, keeping its buffers.
    pub fn copy_from(&mut self, other: &Self) {
        (self.n, self.quantized) = (other.n, other.quantized);
        (self.n_groups, self.n_supers) = (other.n_groups, other.n_supers);
        self.f32.copy_from(&other.f32);
        if other.quantized {
            self.q.copy_from(&other.q);
            self.d.copy_from(&other.d);
            self.ds.copy_from(&other.ds);
            self.neg_sums.copy_from(&other.neg_sums);
        }
        if other.n_groups > 0 {
            self.halves.copy_from(&other.halves);
        }
        if other.n_supers > 0 {
            self.supers_q.copy_from(&other.supers_q);
            self.supers_factors.copy_from(&other.supers_factors);
            self.supers_sums.copy_from(&other.supers_sums);
        }
    }

    /// Number of vectors.
    pub fn n_tokens(&self) -> usize {
        self.f32.len().checked_div(self.n).unwrap_or(0)
    }

    /// Vector `token`.
    pub fn row(&self, token: usize) -> ActRow<'_> {
        let n = if self.quantized { self.n } else { 0 };
        ActRow {
            f32: &self.f32[token * self.n..][..self.n],
            q: &self.q[token * n..][..n],
            d: &self.d[token * n / QK..][..n / QK],
            ds: &self.ds[token * n / QK..][..n / QK],
            neg_sums: &self.neg_sums[token * n / SUM_LEN..][..n / SUM_LEN],
            halves: &self.halves[token * self.n_groups..][..self.n_groups],
            supers: Supers {
                q: &self.supers_q.as_chunks().0[token * self.n_supers..][..self.n_supers],
                factors: &self.supers_factors.as_chunks().0[token * self.n_supers..][..self.n_supers],
                sums: &self.supers_sums.as_chunks().0[token * self.n_supers..][..self.n_supers],
            },
        }
    }
}

/// Some values, and where their forms go.
struct Quantizing<'a> {
    x: &'a [f32],
    f32: &'a mut [f32],
    quantized: Option<Quantized<'a>>,
}

struct Quantized<'a> {
    q: &'a mut [i8],
    neg_sums: &'a mut [i32],
    d: &'a mut [f32],
    ds: &'a mut [f32],
}

impl Quantizing<'_> {
    fn load(&mut self) {
        self.f32.copy_from_slice(self.x);
        let Some(Quantized { q, neg_sums, d, ds }) = &mut self.quantized else { return };
        let blocks = self.x.as_chunks::<QK>().0.iter().zip(q.as_chunks_mut::<QK>().0);
        let sums = neg_sums.as_chunks_mut::<{ QK / SUM_LEN }>().0;
        for (((x, q), sums), (d, ds)) in blocks.zip(sums).zip(d.iter_mut().zip(ds.iter_mut())) {
            *d = quantize(x, q, sums);
            *ds = *d * -sums.iter().sum::<i32>() as f32;
        }
    }
}

/// Scale `max|x| / 127`, values rounded half to even. Returns the scale: NaN unless all of `x` is finite, so that a bad
/// input does not lead to a plausible result.
#[inline]
fn quantize(x: &[f32; QK], q: &mut [i8; QK], neg_sums: &mut [i32; QK / SUM_LEN]) -> f32 {
    /// Of infinity; what is not a number has more. As integers the bits of magnitudes are in the order of the values, and
    /// the largest of integers is found many at a time.
    const INFINITE: u32 = f32::INFINITY.to_bits();
    let (mut largest, mut max) = (0, 0);
    for bits in x.iter().map(|v| v.abs().to_bits()) {
        largest = largest.max(bits);
        max = max.max(if bits > INFINITE { 0 } else { bits });
    }
    let max = f32::from_bits(max);
    let d = if largest >= INFINITE { f32::NAN } else { max / 127.0 };
    // Values too small to have a finite inverse count as zero.
    let inverse = Some(127.0 / max).filter(|i| i.is_finite()).unwrap_or(0.0);
    round(x, inverse, q, neg_sums);
    d
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantized_values_are_within_half_a_step_and_sums_are_theirs() {
        let x: Vec<f32> = (0..128).map(|i| (i as f32 * 0.7).sin() * (i as f32 - 60.0)).collect();
        let mut acts = Activations::default();
        acts.load(&x, 64, [ActKind::Q8, ActKind::F32]);
        assert_eq!(acts.n_tokens(), 2);
        for t in 0..2 {
            let row = acts.row(t);
            for (i, x) in row.f32.iter().enumerate() {
                let (q, d) = (f32::from(row.q[i]), row.d[i / QK]);
                assert!((q * d - x).abs() <= d * 0.5001, "{i}: {x}");
            }
            for (i, sum) in row.neg_sums.iter().enumerate() {
                assert_eq!(-sum, row.q[4 * i..4 * i + 4].iter().map(|q| i32::from(*q)).sum::<i32>());
            }
        }
    }

    #[test]
    fn what_threads_prepare_together_is_what_one_prepares() {
        let x: Vec<f32> = (0..3 * 16384).map(|i| (i as f32 * 0.37).sin() * (i % 77) as f32).collect();
        let (mut one, mut all) = (Activations::default(), Activations::default());
        for quantized in [true, false] {
            one.load(&x, 96, [if quantized { ActKind::Q8 } else { ActKind::F32 }]);
            all.load_many(&x, 96, quantized, &Pool::new(3).unwrap());
            assert_eq!(one.n_tokens(), all.n_tokens());
            for t in 0..one.n_tokens() {
                let (one, all) = (one.row(t), all.row(t));
                assert_eq!((one.f32, one.q, one.neg_sums), (all.f32, all.q, all.neg_sums));
                assert_eq!((one.d, one.ds), (all.d, all.ds));
            }
        }
    }

    #[test]
    fn tiny_and_huge_values_keep_to_the_range_of_bytes() {
        for scale in [1e-45, 1e-38, 1e-30, 1e30, 3e38] {
            let x: Vec<f32> = (0..32).map(|i| (i as f32 / 31.0 * 2.0 - 1.0) * scale).collect();
            let mut acts = Activations::default();
            acts.load(&x, 32, [ActKind::Q8]);
            assert!(acts.row(0).q.iter().all(|q| *q != -128), "{scale}");
        }
    }

    #[test]
    fn something_infinite_poisons_its_block() {
        let mut x = [1.0; 64];
        x[3] = f32::INFINITY;
        let mut acts = Activations::default();
        acts.load(&x, 64, [ActKind::Q8]);
        assert!(acts.row(0).d[0].is_nan() && acts.row(0).d[1] == 1.0 / 127.0);
    }

    #[test]
    fn beside_what_is_no_number_bytes_are_those_of_the_others() {
        let mut x: [f32; 32] = std::array::from_fn(|i| i as f32 - 7.0);
        let bytes = |x: &[f32]| {
            let mut acts = Activations::default();
            acts.load(x, 32, [ActKind::Q8]);
            (acts.row(0).q.to_vec(), acts.row(0).d[0].is_nan())
        };
        let (mut expected, _) = bytes(&x);
        (x[4], expected[4]) = (f32::from_bits(0x7fc0_0077), 0);
        assert_eq!(bytes(&x), (expected, true));
    }
}
