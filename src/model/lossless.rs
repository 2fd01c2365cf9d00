//! `ffn_down` of a lossless variant: transposed quants, and the scales of the source's blocks beside them.

use super::neurons::NeuronId;
use crate::cpu::{Isa, Quants, Which, shared_scales};
use crate::gguf::{Gguf, Source, TensorInfo};
use crate::quant::GgmlType;
use crate::quant::blocks::QK;
use anyhow::{Result, ensure};
use std::ops::Range;
use std::sync::Arc;

/// The weights of a `Q8_0` or `Q4_0` `ffn_down` bit for bit: `[n_ff][n_embd]` quants by slot, `[n_ff / 32][n_embd]`
/// scales, one row for each 32 neighbours of the original model. Cloning is cheap and never copies them.
#[derive(Clone)]
pub struct LosslessDown {
    /// Each with where in its file it lies, which need not be the same one.
    q: (Source, Range<usize>),
    scales: (Source, Range<usize>),
    quants: Quants,
    n_embd: usize,
    /// Which row of scales, by slot.
    scale_rows: Arc<[u32]>,
}

impl LosslessDown {
    /// Takes and checks both tensors; `ids` are the neurons by slot.
    ///
    /// # Errors
    /// When a tensor has another shape or type than the neurons need.
    pub fn new(gguf: &Gguf, q: &TensorInfo, scales: &TensorInfo, ids: &[NeuronId], n_embd: usize) -> Result<Self> {
        let (n_ff, i8) = (ids.len(), GgmlType::I8);
        ensure!(q.dtype == i8, "{}: has type {} where I8 is wanted", q.name, q.dtype);
        ensure!(
            n_ff.is_multiple_of(QK) && n_embd.is_multiple_of(QK),
            "{}: {n_ff} neurons of {n_embd} are not whole blocks of {QK}",
            q.name
        );
        let quants = [Quants::Bytes, Quants::HalfBytes].into_iter().find(|k| q.dims == [k.n_bytes(n_embd), n_ff]);
        let Some(quants) = quants else {
            anyhow::bail!("{}: shape {:?}, but [{n_embd}, {n_ff}] or half of it is wanted", q.name, q.dims)
        };
        let (name, dims) = (&scales.name, [n_embd, n_ff / QK]);
        ensure!(scales.dtype == GgmlType::F16, "{name}: has type {} where F16 is wanted", scales.dtype);
        ensure!(scales.dims == dims, "{name}: shape {:?}, but {dims:?} follows from the metadata", scales.dims);
        let scale_rows = ids.iter().map(|id| id.0 / QK as u32).collect();
        let [q, scales] = [q, scales].map(|tensor| (gguf.source_of(tensor).clone(), tensor.data.clone()));
        Ok(Self { q, scales, quants, n_embd, scale_rows })
    }

    /// The type that the source had.
    pub fn dtype(&self) -> GgmlType {
        match self.quants {
            Quants::Bytes => GgmlType::Q8_0,
            Quants::HalfBytes => GgmlType::Q4_0,
        }
    }

    /// `n_ff` and `n_embd`.
    pub fn shape(&self) -> (usize, usize) {
        (self.scale_rows.len(), self.n_embd)
    }

    /// Bytes of both tensors.
    pub fn n_bytes(&self) -> usize {
        self.q.1.len() + self.scales.1.len()
    }

    /// Has the system read all of it soon, where it is in a mapped file.
    pub fn will_need(&self) {
        for (source, range) in [&self.q, &self.scales] {
            source.will_need(range.clone());
        }
    }

    /// Bytes read for `n` neurons, which share no more rows of scales than there are.
    pub fn bytes_for(&self, n: f64) -> f64 {
        let n_scale_rows = (self.scale_rows.len() / QK) as f64;
        n * self.quants.n_bytes(self.n_embd) as f64 + n.min(n_scale_rows) * (2 * self.n_embd) as f64
    }

    /// Adds to `y`, which are the columns from `first` on, the neurons in these slots in their order, each times its `h`.
    pub fn add(&self, isa: Isa, slots: Which, h: &[f32], first: usize, y: &mut [f32]) {
        let [q, scales] = [&self.q, &self.scales].map(|(source, range)| &source[range.clone()]);
        let (row, start, len) =
            (self.quants.n_bytes(self.n_embd), self.quants.n_bytes(first), self.quants.n_bytes(y.len()));
        for (slot, h) in slots.iter().zip(h) {
            let q = &q[slot * row + start..][..len];
            let scales = &scales[2 * (self.scale_rows[slot] as usize * self.n_embd + first)..][..2 * y.len()];
            shared_scales::add_scaled(isa, self.quants, q, scales, *h, y);
        }
    }
}
