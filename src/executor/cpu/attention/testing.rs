//! What the tests of both ways to attend share: cases, operands, and attention in 64 bits.

use crate::quant::GgmlType;
use crate::quant::convert::{dequantizer, quantizer};
use std::ops::Range;

/// What is attended to, by whom.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub dtype: GgmlType,
    pub head_dim: usize,
    pub value_dim: usize,
    pub group: usize,
    /// Tokens before the first that attends, and those that do.
    pub past: usize,
    pub n: usize,
    pub window: usize,
    /// Rows of the cache.
    pub n_rows: usize,
    pub cap: Option<f32>,
    pub sinks: bool,
}

pub const CASE: Case = Case {
    dtype: GgmlType::F16,
    head_dim: 32,
    value_dim: 32,
    group: 4,
    past: 0,
    n: 150,
    window: usize::MAX,
    n_rows: 512,
    cap: None,
    sinks: false,
};

fn wave(n: usize, seed: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * seed).sin() * 2.0).collect()
}

/// The rows of a cache that has taken in `values` of `width`, and these as they are stored.
fn stored(case: &Case, values: &[f32], width: usize) -> (Vec<u8>, Vec<f32>) {
    let bytes = case.dtype.row_bytes(width).unwrap();
    let (mut rows, mut read) = (vec![0; case.n_rows * bytes], vec![0.0; values.len()]);
    for (position, (value, read)) in values.chunks(width).zip(read.chunks_mut(width)).enumerate() {
        let row = &mut rows[position % case.n_rows * bytes..][..bytes];
        quantizer(case.dtype).unwrap()(value, row);
        dequantizer(case.dtype).unwrap()(row, read);
    }
    (rows, read)
}

pub struct Made {
    pub case: Case,
    pub q: Vec<f32>,
    pub keys: (Vec<u8>, Vec<f32>),
    pub values: (Vec<u8>, Vec<f32>),
}

impl Made {
    pub fn new(case: Case) -> Self {
        let all = case.past + case.n;
        let q = wave(case.n * case.group * case.head_dim, 0.113);
        let keys = stored(&case, &wave(all * case.head_dim, 0.37), case.head_dim);
        let values = stored(&case, &wave(all * case.value_dim, 0.71), case.value_dim);
        Self { case, q, keys, values }
    }

    pub fn seen(&self, token: usize) -> Range<usize> {
        let end = self.case.past + token + 1;
        end.saturating_sub(self.case.window)..end
    }

    pub fn sink(&self, head: usize) -> Option<f32> {
        self.case.sinks.then_some(head as f32 - 1.5)
    }

    pub fn scale(&self) -> f32 {
        0.9 / (self.case.head_dim as f32).sqrt()
    }

    /// One element after the other, in 64 bits.
    pub fn naive(&self) -> Vec<f64> {
        let Case { head_dim, value_dim, group, n, cap, .. } = self.case;
        let mut out = Vec::new();
        for (token, head) in (0..n).flat_map(|token| (0..group).map(move |head| (token, head))) {
            let q = &self.q[(token * group + head) * head_dim..][..head_dim];
            let score = |i: usize| {
                let k = &self.keys.1[i * head_dim..][..head_dim];
                let dot: f64 = q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                let score = dot * f64::from(self.scale());
                cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
            };
            let weights: Vec<f64> = self.seen(token).map(|i| score(i).exp()).collect();
            let sum = weights.iter().sum::<f64>() + self.sink(head).map_or(0.0, |sink| f64::from(sink).exp());
            out.extend((0..value_dim).map(|d| {
                let seen = self.seen(token).zip(&weights);
                seen.map(|(i, w)| w / sum * f64::from(self.values.1[i * value_dim + d])).sum::<f64>()
            }));
        }
        out
    }
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}
