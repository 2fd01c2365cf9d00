//! The product of many tokens with a matrix whose rows belong to neurons: each token adds the rows of its own.
//!
//! Some columns of 64 neurons at a time are converted to floats; then each token adds the rows of the neurons that have
//! fired for it, while its sums stay in registers. Every element of the result gets one multiply-add per neuron, in the
//! order of the neurons, however columns or tokens are divided.

use super::ahead::Ahead;
use super::bytes;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::tile::{Form, Line};
#[cfg(target_arch = "x86_64")]
use super::{sparse256, sparse512, unpack512};
use crate::cpu::{Isa, Pool, Rows};
use crate::quant::GgmlType;
use crate::quant::decoded::dequantize;

/// Neurons converted to floats at a time: as many as a word of flags has bits.
pub(super) const NEURONS: usize = u64::BITS as usize;
/// Columns of a strip: its sums fit in the registers, the weights of all neurons in a first-level cache.
pub(super) const STRIP: usize = 128;
/// Strips converted to floats at a time, so that enough of a row is read at once.
const STRIPS: usize = 4;
/// Threads should take a multiple of this many columns: what is worked on at a time.
pub const COL_GRAIN: usize = STRIPS * STRIP;

/// Tokens after which some of the next rows are fetched.
const TOKENS: usize = 8;

/// The columns of a strip, of one neuron's weights or one token's sums.
pub(super) type Strip = Line<[f32; STRIP]>;

const NO_STRIP: Strip = Line([0.0; STRIP]);

/// `[n_tokens][n_neurons]` factors of neurons, without the zeros if those are to be skipped.
#[derive(Default)]
pub struct Factors {
    n_tokens: usize,
    n_neurons: usize,
    zeros: bool,
    tiles: Vec<TileFactors>,
}

/// The factors of [`NEURONS`] neurons.
#[derive(Default)]
struct TileFactors {
    /// For each token a bit for each neuron that has a factor, lowest first.
    fired: Vec<u64>,
    /// The factors of all tokens, one after the other.
    h: Vec<f32>,
    /// The neurons that have a factor for any token.
    needed: u64,
}

impl Factors {
    /// Takes `[n_tokens][n_neurons]` factors; `skip` leaves out zeros. Keeps its buffers from call to call.
    pub fn load(&mut self, isa: Isa, h: &[f32], n_neurons: usize, skip: bool, pool: &Pool) {
        /// Neurons of a token that are read at a time.
        const TILES: usize = 8;
        assert!(isa.is_available(), "this processor does not have {isa}");
        (self.n_tokens, self.n_neurons) = (h.len().checked_div(n_neurons).unwrap_or(0), n_neurons);
        self.zeros = !skip;
        self.tiles.resize_with(n_neurons.div_ceil(NEURONS), Default::default);
        pool.fill(&mut self.tiles, TILES, |start, tiles| {
            for (i, tiles) in tiles.chunks_mut(TILES).enumerate() {
                let first = (start + i * TILES) * NEURONS;
                for tile in &mut *tiles {
                    tile.fired.clear();
                    tile.h.clear();
                    tile.needed = 0;
                }
                for h in h.chunks_exact(n_neurons) {
                    for (tile, h) in tiles.iter_mut().zip(h[first..].chunks(NEURONS)) {
                        let all = u64::MAX >> (NEURONS - h.len());
                        let fired = if skip { nonzero(isa, h) } else { all };
                        tile.fired.push(fired);
                        tile.needed |= fired;
                        if fired == all {
                            tile.h.extend_from_slice(h);
                        } else {
                            ones(fired).for_each(|i| tile.h.push(h[i]));
                        }
                    }
                }
            }
        });
    }
}

/// The numbers of the bits that are set.
fn ones(mut left: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (left != 0).then_some(left.trailing_zeros() as usize)?;
        left &= left - 1;
        Some(bit)
    })
}

/// Factors of some tokens for the neurons of a tile.
#[derive(Clone, Copy)]
pub(super) struct TokenFactors<'a> {
    /// For each token a bit for each neuron that has a factor, lowest first.
    pub fired: &'a [u64],
    /// The factors of all these tokens, one after the other; more may follow.
    pub h: &'a [f32],
    /// Whether there may be zeros among them.
    pub zeros: bool,
}

/// Adds `h[t][i]` times row `i` to `y[t]`, for each token `t` and each neuron `i`. `rows` are the neurons' rows or a
/// piece of their columns, `y` is `[n_tokens][columns]`. Zero times anything changes nothing: the result has the same
/// bits whether zeros were left out of `h` or not. Uses the calling thread only.
///
/// # Panics
/// When the lengths do not agree, or the type cannot be computed with.
pub fn add_rows(isa: Isa, dtype: GgmlType, rows: Rows, h: &Factors, y: &mut [f32]) {
    assert!(isa.is_available(), "this processor does not have {isa}");
    let n_tokens = h.n_tokens;
    let n_cols = rows.bytes() / dtype.block_bytes() * dtype.block_len();
    assert_eq!(rows.len(), h.n_neurons, "factors are for other neurons");
    assert_eq!(y.len(), n_tokens * n_cols);
    if y.is_empty() {
        return;
    }
    let (form, zeros) = (Form::of(dtype), h.zeros);
    let mut sums = vec![NO_STRIP; STRIPS * n_tokens];
    let mut weights = vec![[NO_STRIP; NEURONS]; STRIPS];
    let mut row = [0.0; COL_GRAIN];
    for start in (0..n_cols).step_by(row.len()) {
        let row = &mut row[..(n_cols - start).min(COL_GRAIN)];
        let piece = rows.piece(bytes(dtype, start), bytes(dtype, row.len()));
        for (t, y) in y.chunks_exact(n_cols).enumerate() {
            for (s, y) in y[start..][..row.len()].chunks(STRIP).enumerate() {
                sums[s * n_tokens + t].0[..y.len()].copy_from_slice(y);
            }
        }
        for (i, tile) in h.tiles.iter().enumerate() {
            for n in ones(tile.needed) {
                to_floats(isa, form, piece.get(i * NEURONS + n), row);
                let (strips, rest) = row.as_chunks();
                strips.iter().zip(&mut weights).for_each(|(row, weights)| weights[n].0 = *row);
                weights[strips.len() % STRIPS][n].0[..rest.len()].copy_from_slice(rest);
            }
            let next = h.tiles.get(i + 1).map_or(0, |next| next.needed);
            let mut ahead = Ahead::new(ones(next).map(|n| piece.get((i + 1) * NEURONS + n)));
            let n_strips = row.len().div_ceil(STRIP);
            let n_lines = next.count_ones() as usize * piece.bytes().div_ceil(64);
            let n_calls = n_strips * n_tokens.div_ceil(TOKENS);
            for (sums, w) in sums.chunks_exact_mut(n_tokens).zip(&weights).take(n_strips) {
                let mut h = &tile.h[..];
                for (sums, fired) in sums.chunks_mut(TOKENS).zip(tile.fired.chunks(TOKENS)) {
                    h = add_strip(isa, w, TokenFactors { fired, h, zeros }, sums);
                    ahead.fetch(n_lines.div_ceil(n_calls));
                }
            }
        }
        for (t, y) in y.chunks_exact_mut(n_cols).enumerate() {
            for (s, y) in y[start..][..row.len()].chunks_mut(STRIP).enumerate() {
                y.copy_from_slice(&sums[s * n_tokens + t].0[..y.len()]);
            }
        }
    }
}

fn to_floats(isa: Isa, form: Form, row: &[u8], out: &mut [f32]) {
    match (form, isa) {
        #[cfg(target_arch = "x86_64")]
        (Form::Float(dtype @ (GgmlType::F16 | GgmlType::BF16), _), Isa::Avx512) => {
            unpack512::halves_to_floats(dtype, row, out);
        }
        (Form::Float(_, read), _) => read(row, out),
        #[cfg(target_arch = "x86_64")]
        (Form::Blocks(format), Isa::Avx512) => unpack512::to_floats(format, row, out),
        (Form::Blocks(format), _) => dequantize(format, row, out),
    }
}

/// A bit for each of up to [`NEURONS`] factors, set where it is not zero.
fn nonzero(isa: Isa, h: &[f32]) -> u64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => sparse512::nonzero(h),
        _ => h.iter().enumerate().fold(0, |flags, (i, h)| flags | u64::from(*h != 0.0) << i),
    }
}

/// Adds the rows of some neurons to the sums of some tokens; returns the factors of the tokens that follow.
fn add_strip<'a>(isa: Isa, w: &[Strip; NEURONS], x: TokenFactors<'a>, sums: &mut [Strip]) -> &'a [f32] {
    match isa {
        Isa::Plain => add_strip_plain(w, x, sums),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::AvxVnni => sparse256::add_strip(w, x, sums),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => sparse512::add_strip(w, x, sums),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::DotProd | Isa::I8mm => neon::sparse::add_strip(w, x, sums),
        _ => add_strip_plain(w, x, sums),
    }
}

/// The specification. The weights of neurons without a factor are unspecified.
fn add_strip_plain<'a>(w: &[Strip; NEURONS], x: TokenFactors<'a>, sums: &mut [Strip]) -> &'a [f32] {
    let mut left = x.h;
    for (sums, fired) in sums.iter_mut().zip(x.fired) {
        let (h, rest) = left.split_at(fired.count_ones() as usize);
        left = rest;
        for (i, h) in ones(*fired).zip(h).filter(|(_, h)| **h != 0.0) {
            sums.0.iter_mut().zip(&w[i].0).for_each(|(sum, w)| *sum += h * w);
        }
    }
    left
}
