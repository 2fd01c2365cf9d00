//! The rows of all matrices, each one a function of seed, tensor, layer and row.
//!
//! The first [`N_CONSTANT`] channels of the residual stream hold 1 for every token: only gates read them, and nothing
//! writes to them. A gate row is `a[c / 8] * sign[c]`, of rank `n_embd / 8`, plus noise with a tenth of the variance;
//! on the constant it has minus the threshold that a standard normal number exceeds as often as the neuron should fire.
//!
//! Gate rows and embeddings are all different. The other rows come from a pool, which is quantized only once and makes
//! no difference to speed.

use super::random::{Stream, hash, permutation};
use super::rates::Unit;
use super::spec::{Layout, Spec};
use crate::parallel;
use crate::placement::rates::power_law;
use crate::quant::GgmlType;
use crate::quant::convert::{Quantize, quantizer};
use anyhow::{Context, Result};

/// A block of most types, so that its scale is that of the constant alone.
const N_CONSTANT: usize = 32;
/// Channels that share a factor of the gate.
const GROUP: usize = 8;
/// Share of a gate's variance that is not of low rank.
const NOISE: f32 = 0.1;
/// What all FFNs together add to the variance of the residual stream, which begins at 1: little, so that its norm
/// hardly depends on the token, and the constant remains a constant when normalised.
const FFN_GROWTH: f64 = 0.5;
/// What attention adds when it looks at one token only.
const ATTN_GROWTH: f64 = 0.2;
/// Share of that when it looks at many.
const ATTN_MEAN: f64 = 0.1;
/// Standard deviation of logits.
const LOGITS: f64 = 2.0;
/// Different rows of a pool; their negatives are in it too, so that its mean is zero.
const POOL_ROWS: usize = 2048;

/// Which tensor, or which of the choices behind them: part of the key of its random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TensorKind {
    TokenEmbd,
    Output,
    AttnQ,
    AttnK,
    AttnV,
    AttnOutput,
    FfnGate,
    FfnUp,
    /// Columns or rows of neurons, depending on the layout.
    FfnDown,
    /// The order of neurons.
    Order,
    /// Signs of channels in the gates.
    Signs,
    /// The pools: rows as long as the residual stream, rows as long as all heads, and rows of `ffn_down_t`.
    Inputs,
    Heads,
    Down,
}

/// Fills one row, given memory for its floats.
pub(super) type FillRow<'a> = Box<dyn Fn(usize, &mut [f32], &mut [u8]) + Sync + 'a>;

/// Everything that rows are made from.
pub(super) struct Weights<'a> {
    spec: &'a Spec,
    layout: Layout,
    /// Rates by slot, the same in each layer.
    pub rates: Vec<f64>,
    /// By slot.
    pub units: Vec<Unit>,
    inputs: Pool,
    heads: Pool,
    down: DownPool,
}

/// Rows that are used again and again.
struct Pool {
    bytes: Vec<u8>,
    row_bytes: usize,
}

enum DownPool {
    Rows(Pool),
    /// `[n_embd][POOL_ROWS]`: in a plain file's blocks neurons lie side by side.
    Columns(Vec<f32>),
}

/// A row of a pool: twice its number, plus 1 for its negative. Rows are taken in random order, and only again once all
/// have been.
fn choose([seed, kind, layer, row]: [u64; 4]) -> u16 {
    const N: u64 = 2 * POOL_ROWS as u64;
    let h = hash([seed, kind, layer, row / N]);
    // Odd factors and right shifts with exclusive or are invertible, so no row is taken twice.
    let round = |x: u64, h: u64| {
        let x = x.wrapping_mul(h | 1).wrapping_add(h >> 12) % N;
        x ^ (x >> 6)
    };
    (0..3).fold(row % N, |x, i| round(x, h >> (16 * i))) as u16
}

/// Values with a sum of squares of `square`, the first `n_constant` 0.
fn pool_row(key: [u64; 4], n_constant: usize, square: f64, row: &mut [f32]) {
    let mut stream = Stream::new(key);
    let (constant, data) = row.split_at_mut(n_constant);
    constant.fill(0.0);
    data.iter_mut().for_each(|v| *v = stream.normal());
    scale_to(square, data);
}

fn scale_to(square: f64, values: &mut [f32]) {
    let sum: f32 = values.iter().map(|v| v * v).sum();
    let scale = (square / f64::from(sum)).sqrt() as f32;
    values.iter_mut().for_each(|v| *v *= scale);
}

impl Pool {
    fn new(key: [u64; 3], dtype: GgmlType, n_cols: usize, n_constant: usize, square: f64) -> Result<Self> {
        let quantize = quantizer(dtype)?;
        let row_bytes = dtype.row_bytes(n_cols).context("rows are not whole blocks")?;
        let mut bytes = vec![0; 2 * POOL_ROWS * row_bytes];
        parallel::each(bytes.chunks_exact_mut(2 * row_bytes), |i, out| {
            let mut row = vec![0.0; n_cols];
            pool_row([key[0], key[1], key[2], i as u64], n_constant, square, &mut row);
            let (positive, negative) = out.split_at_mut(row_bytes);
            quantize(&row, positive);
            row.iter_mut().for_each(|v| *v = -*v);
            quantize(&row, negative);
        });
        Ok(Self { bytes, row_bytes })
    }

    fn row(&self, chosen: u16) -> &[u8] {
        &self.bytes[usize::from(chosen) * self.row_bytes..][..self.row_bytes]
    }
}

/// The size of the residual stream at a normalisation, and so the norm's weights that give data of variance 1 and a
/// constant of 1.
pub(super) struct Norms {
    data: f32,
    constant: f32,
}

impl Norms {
    /// Before the FFN of `layer`, or before its attention.
    pub fn new(spec: &Spec, layer: usize, after_attention: bool) -> Self {
        let per_layer = (FFN_GROWTH + ATTN_GROWTH * ATTN_MEAN) / spec.sized.n_layer as f64;
        let attention = ATTN_GROWTH * ATTN_MEAN / spec.sized.n_layer as f64;
        let variance = 1.0 + layer as f64 * per_layer + if after_attention { attention } else { 0.0 };
        let (n, constant) = (spec.sized.shape.n_embd as f64, N_CONSTANT as f64);
        let square = ((n - constant) * variance + constant) / n;
        Self { data: (square / variance).sqrt() as f32, constant: square.sqrt() as f32 }
    }

    /// Weights of a norm; only gates may see the constant.
    pub fn weights(&self, n_embd: usize, with_constant: bool) -> Vec<f32> {
        let constant = if with_constant { self.constant } else { 0.0 };
        (0..n_embd).map(|c| if c < N_CONSTANT { constant } else { self.data }).collect()
    }
}

impl<'a> Weights<'a> {
    /// Fills the pools.
    ///
    /// # Errors
    /// When the type cannot be written or rows are not whole blocks.
    pub fn new(spec: &'a Spec, layout: Layout) -> Result<Self> {
        let shape = spec.sized.shape;
        let (n_embd, n_layer, dtype) = (shape.n_embd, spec.sized.n_layer as f64, spec.sized.dtype);
        let rates = power_law(shape.n_ff, spec.density());
        let units: Vec<Unit> = rates.iter().map(|r| Unit::firing(*r)).collect();
        let n_data = (n_embd - N_CONSTANT) as f64;
        // `up` gives numbers of variance 1, so this is the total variance that rows of square 1 would have.
        let squares: f64 = units.iter().map(|u| u.square).sum();
        let down_square = FFN_GROWTH / n_layer / squares * n_data;
        let key = |kind: TensorKind| [spec.seed, kind as u64, 0];
        let down = match layout {
            Layout::Variant => {
                DownPool::Rows(Pool::new(key(TensorKind::Down), dtype, n_embd, N_CONSTANT, down_square)?)
            }
            Layout::Plain => DownPool::Columns(down_columns(key(TensorKind::Down), n_embd, down_square)),
        };
        let heads = Pool::new(key(TensorKind::Heads), dtype, n_embd, 0, ATTN_GROWTH / n_layer)?;
        let inputs = Pool::new(key(TensorKind::Inputs), dtype, n_embd, N_CONSTANT, 1.0)?;
        Ok(Self { spec, layout, rates, units, inputs, heads, down })
    }

    fn key(&self, kind: TensorKind, layer: usize, row: usize) -> [u64; 4] {
        [self.spec.seed, kind as u64, layer as u64, row as u64]
    }

    /// Which neuron lies in each slot of a variant.
    pub fn ids(&self, layer: usize) -> Vec<u32> {
        permutation(self.key(TensorKind::Order, layer, 0), self.spec.sized.shape.n_ff)
    }

    /// By row of the file, the slot of its neuron in the variant.
    fn slots(&self, layer: usize) -> Vec<u32> {
        if self.layout == Layout::Variant {
            return (0..self.spec.sized.shape.n_ff as u32).collect();
        }
        let ids = self.ids(layer);
        let mut slots = vec![0; ids.len()];
        ids.iter().enumerate().for_each(|(slot, id)| slots[*id as usize] = slot as u32);
        slots
    }

    /// The rows of a matrix of type `dtype`.
    ///
    /// # Errors
    /// When the type cannot be written.
    pub fn rows(&self, kind: TensorKind, layer: usize, dtype: GgmlType) -> Result<FillRow<'_>> {
        let quantize = quantizer(dtype)?;
        Ok(match kind {
            TensorKind::TokenEmbd => Box::new(move |token, row, out| {
                let n_data = row.len() - N_CONSTANT;
                pool_row(self.key(kind, 0, token), N_CONSTANT, n_data as f64, row);
                row[..N_CONSTANT].fill(1.0);
                quantize(row, out);
            }),
            TensorKind::Output => Box::new(move |token, row, out| {
                pool_row(self.key(kind, 0, token), N_CONSTANT, LOGITS * LOGITS, row);
                quantize(row, out);
            }),
            TensorKind::FfnGate => self.gates(layer, quantize),
            TensorKind::FfnUp => {
                let slots = self.slots(layer);
                Box::new(move |row, _, out| {
                    let chosen = choose(self.key(kind, layer, slots[row] as usize));
                    out.copy_from_slice(self.inputs.row(chosen));
                })
            }
            TensorKind::FfnDown => self.down(layer, quantize),
            TensorKind::AttnOutput => Box::new(move |row, values, out| {
                if row < N_CONSTANT {
                    values.fill(0.0);
                    quantize(values, out);
                } else {
                    out.copy_from_slice(self.heads.row(choose(self.key(kind, layer, row))));
                }
            }),
            _ => Box::new(move |row, _, out| {
                out.copy_from_slice(self.inputs.row(choose(self.key(kind, layer, row))));
            }),
        })
    }

    fn gates(&self, layer: usize, quantize: Quantize) -> FillRow<'_> {
        let slots = self.slots(layer);
        let mut stream = Stream::new(self.key(TensorKind::Signs, layer, 0));
        let sign = |_| if stream.next() & 1 == 0 { 1.0 } else { -1.0 };
        let signs: Vec<f32> = (0..self.spec.sized.shape.n_embd).map(sign).collect();
        let (common, noise) = ((1.0 - NOISE).sqrt(), NOISE.sqrt());
        Box::new(move |row, values, out| {
            let slot = slots[row] as usize;
            let mut stream = Stream::new(self.key(TensorKind::FfnGate, layer, slot));
            let (constant, data) = values.split_at_mut(N_CONSTANT);
            constant.fill((-self.units[slot].threshold / N_CONSTANT as f64) as f32);
            for (group, signs) in data.chunks_exact_mut(GROUP).zip(signs[N_CONSTANT..].chunks_exact(GROUP)) {
                let factor = stream.normal() * common;
                for (values, signs) in group.chunks_exact_mut(4).zip(signs.chunks_exact(4)) {
                    for ((v, s), n) in values.iter_mut().zip(signs).zip(stream.uniform4()) {
                        *v = factor * s + noise * n;
                    }
                }
            }
            scale_to(1.0, data);
            quantize(values, out);
        })
    }

    fn down(&self, layer: usize, quantize: Quantize) -> FillRow<'_> {
        let choose = move |slot: usize| choose(self.key(TensorKind::FfnDown, layer, slot));
        match &self.down {
            DownPool::Rows(pool) => Box::new(move |row, _, out| out.copy_from_slice(pool.row(choose(row)))),
            DownPool::Columns(columns) => {
                let chosen: Vec<u16> = self.slots(layer).iter().map(|slot| choose(*slot as usize)).collect();
                Box::new(move |row, values, out| {
                    let pool = &columns[row * POOL_ROWS..][..POOL_ROWS];
                    for (v, chosen) in values.iter_mut().zip(&chosen) {
                        let value = pool[usize::from(chosen >> 1)];
                        *v = if chosen & 1 == 0 { value } else { -value };
                    }
                    quantize(values, out);
                })
            }
        }
    }
}

/// The pool of [`TensorKind::Down`] before it is quantized, transposed.
fn down_columns(key: [u64; 3], n_embd: usize, square: f64) -> Vec<f32> {
    let mut rows = vec![0.0; POOL_ROWS * n_embd];
    parallel::each(rows.chunks_exact_mut(n_embd), |i, row| {
        pool_row([key[0], key[1], key[2], i as u64], N_CONSTANT, square, row);
    });
    let mut columns = vec![0.0; rows.len()];
    parallel::each(columns.chunks_exact_mut(POOL_ROWS), |c, column| {
        column.iter_mut().enumerate().for_each(|(i, v)| *v = rows[i * n_embd + c]);
    });
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_a_pool_is_taken_before_one_is_taken_again() {
        for layer in 0..3 {
            let mut seen = vec![0; 2 * POOL_ROWS];
            (0..4 * POOL_ROWS as u64).for_each(|row| seen[usize::from(choose([7, 1, layer, row]))] += 1);
            assert!(seen.iter().all(|n| *n == 2));
        }
    }

    #[test]
    fn rows_are_as_long_as_they_should_be_and_have_nothing_on_the_constant() {
        let mut row = vec![1.0; 256];
        pool_row([1, 2, 3, 4], N_CONSTANT, 5.0, &mut row);
        assert_eq!(row[..N_CONSTANT], [0.0; N_CONSTANT]);
        let square: f32 = row.iter().map(|v| v * v).sum();
        assert!((square - 5.0).abs() < 1e-4, "{square}");
    }
}
