//! What one decoded token needs of a model of a known shape.

use super::rates;
use super::workload::{GroupWork, LayerWork, NeuronRows, NeuronStats, Recurrence, Whole, Workload};
use crate::model::Role;
use crate::quant::GgmlType;
use crate::shapes::{LayerKind, MambaShape, Sized};
use anyhow::Result;
use std::sync::Arc;

/// Makes the parts of a layer.
struct Maker<'a> {
    sized: &'a Sized,
    /// Of the neurons of an FFN, or of an expert.
    stats: Arc<NeuronStats>,
    /// Of those of the expert that every token has.
    shared: Arc<NeuronStats>,
    /// Share of tokens for which each expert is chosen.
    chosen: Vec<f64>,
}

impl Workload {
    /// The workload of a known shape (the head as `split` makes it), whose neurons fire by a power law, and whose experts are
    /// chosen by another.
    ///
    /// # Errors
    /// When a row is not whole blocks of the type.
    pub fn of_shape(sized: &Sized) -> Result<Self> {
        let shape = sized.shape;
        let chosen = shape.experts.map(|e| rates::popularity(e.n, e.router.n_used, sized.popularity()));
        let maker = Maker {
            sized,
            stats: stats(shape.n_ff, sized.density()),
            shared: stats(shape.experts.map_or(0, |e| e.n_ff_shared), sized.density()),
            chosen: chosen.unwrap_or_default(),
        };
        let (head, head_row) = sized.row(sized.outer_type(), shape.n_embd)?;
        Ok(Self {
            name: sized.described(),
            n_embd: shape.n_embd,
            n_vocab: shape.n_vocab,
            head: Whole { bytes: head_row as u64 * shape.n_vocab as u64, dtype: head },
            n_head_bias: 0,
            layers: (0..sized.n_layer).map(|i| maker.layer(i)).collect::<Result<_>>()?,
            hits: Vec::new(),
        })
    }
}

/// Neurons whose firings count the same, whichever neuron it is.
fn stats(n_ff: usize, density: f64) -> Arc<NeuronStats> {
    let rates: Vec<f32> = rates::power_law(n_ff, density).iter().map(|r| *r as f32).collect();
    Arc::new(NeuronStats { mass: rates.clone(), rates, open_rates: None, wanted: None, cold: None })
}

impl Maker<'_> {
    fn layer(&self, i: usize) -> Result<LayerWork> {
        let shape = self.sized.shape;
        let kind = shape.kind(i);
        let (n_q, n_kv) = if kind.attends() { (shape.n_q(), shape.n_kv()) } else { (0, 0) };
        let mut blocks = Vec::new();
        if kind.attends() {
            let n_embd = shape.n_embd;
            blocks.push((Role::AttnQ, self.block(n_q, n_embd)?));
            blocks.push((Role::AttnK, self.block(n_kv, n_embd)?));
            blocks.push((Role::AttnV, self.block(n_kv, n_embd)?));
            blocks.push((Role::AttnOutput, self.block(n_embd, n_q)?));
        }
        let mamba = shape.mamba.filter(|_| kind == LayerKind::Recurrent);
        if let Some(mamba) = mamba {
            blocks.push((Role::SsmIn, self.block(mamba.n_in(), shape.n_embd)?));
            blocks.push((Role::SsmOut, self.block(shape.n_embd, mamba.inner)?));
        }
        let experts = shape.experts.filter(|_| kind.has_ffn());
        if let Some(experts) = experts {
            let router = 4 * (experts.n * shape.n_embd) as u64;
            blocks.push((Role::Router, Whole { bytes: router, dtype: GgmlType::F32 }));
            if let Some(latent) = experts.latent {
                blocks.push((Role::LatentDown, self.block(latent, shape.n_embd)?));
                blocks.push((Role::LatentUp, self.block(shape.n_embd, latent)?));
            }
        }
        let mut groups = Vec::new();
        match experts {
            Some(experts) => {
                let width = experts.latent.unwrap_or(shape.n_embd);
                for chosen in &self.chosen {
                    groups.push(self.group(width, Some(*chosen), &self.stats)?);
                }
                if experts.n_ff_shared > 0 {
                    groups.push(self.group(shape.n_embd, None, &self.shared)?);
                }
            }
            None if kind.has_ffn() => groups.push(self.group(shape.n_embd, None, &self.stats)?),
            None => {}
        }
        // A norm for each block: two where attention and FFN are one layer.
        let norms = if kind == LayerKind::Block { 8 } else { 4 } * shape.n_embd;
        let beside = experts.map_or(0, |e| if e.biased { 4 * e.n } else { 0 }) + mamba.map_or(0, small_floats) * 4;
        Ok(LayerWork {
            blocks,
            small_bytes: (norms + beside) as u64,
            n_q,
            n_kv,
            head_dim: shape.head_dim,
            window: shape.window_of(i).filter(|_| kind.attends()),
            recurrence: mamba.map(|m| Recurrence {
                state_bytes: 4 * m.n_state() as u64,
                n_values: m.n_in() + m.inner,
                n_inner: m.inner,
            }),
            n_used: experts.map_or(0, |e| e.router.n_used),
            n_latent: experts.and_then(|e| e.latent).unwrap_or(0),
            groups,
        })
    }

    /// A matrix of so many rows, of so many elements each.
    fn block(&self, n_rows: usize, n_cols: usize) -> Result<Whole> {
        let (dtype, row_bytes) = self.sized.row(self.sized.dtype, n_cols)?;
        Ok(Whole { bytes: (row_bytes * n_rows) as u64, dtype })
    }

    fn group(&self, width: usize, chosen: Option<f64>, stats: &Arc<NeuronStats>) -> Result<GroupWork> {
        let (dtype, row_bytes) = self.sized.row(self.sized.dtype, width)?;
        let rows = NeuronRows { row_bytes: row_bytes as u64, dtype };
        Ok(GroupWork {
            mask: rows,
            up: self.sized.shape.gated.then_some(rows),
            down: rows,
            down_by_columns: false,
            divisible: true,
            routed: chosen.is_some(),
            chosen: chosen.unwrap_or(1.0),
            stats: Arc::clone(stats),
            predictor: None,
        })
    }
}

/// Floats of a Mamba-2 layer beside its matrices: the convolution with its bias, three values for each head, and a norm.
fn small_floats(mamba: MambaShape) -> usize {
    (mamba.n_conv + 1) * mamba.n_channels() + 3 * mamba.heads + mamba.inner
}
