//! How fast this machine can read weights at best: what achieved bandwidths are a share of.

use crate::cpu::{Activations, Isa, Pool};
use crate::model::{Layer, Matrix, Model, Tensor};
use std::time::Instant;

/// Bytes that a pass reads at the most: enough to leave every cache behind.
const PASS_BYTES: usize = 1 << 30;
/// Passes of each kind; the best counts.
const PASSES: usize = 5;
/// Bytes that a thread takes at a time.
const PIECE: usize = 1 << 20;

/// Bandwidths of reading a model's weights with all threads, in bytes per second.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Wide loads that do nothing with what they read but add it up.
    pub probe: f64,
    /// Our own matrix-vector products over the same matrices.
    pub mat_vec: f64,
}

impl Limit {
    /// The better of the two: the denominator of shares.
    pub fn best(self) -> f64 {
        self.probe.max(self.mat_vec)
    }
}

/// Measures [`Limit`] on the FFN matrices of `model`, in the order in which a token reads them, up to 1 GiB; on the others of
/// its layers where none of them has neurons. A model that fits in the processor's caches is limited by these, and so is its
/// measure.
pub fn limit(model: &Model, isa: Isa, pool: &Pool) -> Limit {
    let mut left = PASS_BYTES;
    let groups = model.weights.groups().map(|(_, group)| group);
    let mut matrices: Vec<&Matrix> = groups.flat_map(|g| g.ffn_gate().into_iter().chain([g.ffn_up()])).collect();
    if matrices.is_empty() {
        matrices = model.weights.layers.iter().flat_map(beside_neurons).collect();
    }
    let matrices: Vec<&Matrix> = matrices
        .into_iter()
        .take_while(|m| {
            let wanted = left > 0;
            left = left.saturating_sub(m.n_bytes());
            wanted
        })
        .collect();
    let n_bytes: usize = matrices.iter().map(|m| m.n_bytes()).sum();
    let best = |pass: &mut dyn FnMut()| {
        let seconds = (0..=PASSES).map(|_| {
            let start = Instant::now();
            pass();
            start.elapsed().as_secs_f64()
        });
        n_bytes as f64 / seconds.fold(f64::INFINITY, f64::min)
    };
    let mut sums = Vec::new();
    let probe = best(&mut || {
        for matrix in &matrices {
            let bytes = matrix.bytes();
            sums.resize(bytes.len().div_ceil(PIECE), 0u64);
            pool.fill(&mut sums, 1, |first, sums| {
                for (sum, piece) in sums.iter_mut().zip(bytes[first * PIECE..].chunks(PIECE)) {
                    *sum = add_up(piece);
                }
            });
        }
    });
    std::hint::black_box(&sums);
    let (mut x, mut out) = (Activations::default(), Vec::new());
    let mat_vec = best(&mut || {
        for matrix in &matrices {
            let kernels = isa.kernels(matrix.dtype());
            let ones = vec![1.0; matrix.n_cols];
            x.load(&ones, matrix.n_cols, [kernels.act]);
            out.resize(matrix.n_rows, 0.0);
            pool.fill(&mut out, 16, |first, out| (kernels.dot)(matrix.rows(first, out.len()), x.row(0), out));
        }
    });
    Limit { probe, mat_vec }
}

/// The matrices of a layer that are not of neurons.
fn beside_neurons(layer: &Layer) -> impl Iterator<Item = &Matrix> {
    layer.parts.iter().filter_map(|part| match &part.tensor {
        Tensor::Matrix(matrix) => Some(matrix),
        Tensor::Vector(_) | Tensor::Down(_) => None,
    })
}

/// Adds up all whole words, in as many sums as make full use of vector loads.
fn add_up(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 16];
    for chunk in bytes.as_chunks::<128>().0 {
        for (sum, word) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_all_added() {
        let bytes: Vec<u8> = (0..1024u32).flat_map(|i| u64::from(i).to_le_bytes()).collect();
        assert_eq!(add_up(&bytes), 1023 * 1024 / 2);
    }
}
