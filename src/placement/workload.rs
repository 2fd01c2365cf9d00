//! What one decoded token needs of a model, as plain sizes: all that planning must know of it.

use crate::model::{ColdQuantiles, Down, Matrix, Model, Predictor};
use crate::quant::GgmlType;
use crate::shapes::Sized;
use anyhow::Result;

/// A matrix that is read as a whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block {
    /// Its bytes.
    pub bytes: u64,
    /// Type of its weights.
    pub dtype: GgmlType,
}

/// A matrix of which each neuron has a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NeuronRows {
    /// Bytes of one neuron.
    pub row_bytes: u64,
    /// Type of its weights.
    pub dtype: GgmlType,
}

/// What is known of the neurons of one layer, by slot.
#[derive(Debug, Clone, PartialEq)]
pub struct NeuronStats {
    /// Share of tokens for which the neuron fires, falling.
    pub rates: Vec<f32>,
    /// Mean activation mass.
    pub mass: Vec<f32>,
    /// The distribution; where it is absent it follows from the rates.
    pub cold: Option<ColdQuantiles>,
}

/// What a layer's predictor reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PredictorWork {
    /// Hidden values; 0 where there are none.
    pub n_hidden: usize,
    /// Bytes however many neurons are scored.
    pub fixed_bytes: u64,
    /// Bytes per neuron that is scored.
    pub row_bytes: u64,
    /// Type by which its speed is looked up.
    pub dtype: GgmlType,
    /// Neurons that it names for each one that fires.
    pub active_per_fired: f64,
    /// Slots from the first on that are always active: they are not scored.
    pub n_always: usize,
}

impl PredictorWork {
    /// A predictor of these sizes that names a share `active` of the neurons where a share `fired` fires.
    pub fn new(fixed_bytes: usize, row_bytes: usize, dtype: GgmlType, active: f32, fired: f32) -> Self {
        let ratio = f64::from(active) / f64::from(fired);
        // Nothing fired on few tokens: that tells nothing.
        let active_per_fired = if ratio.is_finite() { ratio } else { ASSUMED_ACTIVE };
        let (fixed_bytes, row_bytes) = (fixed_bytes as u64, row_bytes as u64);
        Self { n_hidden: 0, fixed_bytes, row_bytes, dtype, active_per_fired, n_always: 0 }
    }

    /// Of `n_ff` neurons those behind the first `n_hot` that are scored.
    pub fn n_scored(&self, n_ff: usize, n_hot: usize) -> usize {
        n_ff.saturating_sub(n_hot.max(self.n_always))
    }

    /// Pieces of work that it takes: two products, or one.
    pub fn regions(&self) -> f64 {
        if self.fixed_bytes > 0 { 2.0 } else { 1.0 }
    }

    /// Bytes that scoring them reads.
    pub fn bytes(&self, n_ff: usize, n_hot: usize) -> u64 {
        match self.n_scored(n_ff, n_hot) as u64 {
            0 => 0,
            n => self.fixed_bytes + n * self.row_bytes,
        }
    }
}

impl From<&Predictor> for PredictorWork {
    fn from(predictor: &Predictor) -> Self {
        let (fixed, row, dtype) = predictor.sizes();
        let (active, fired) = predictor.measured.map_or((0.0, 0.0), |m| (m.active, m.fired));
        let n_hidden = predictor.input().map_or(0, |m| m.n_rows);
        Self { n_hidden, n_always: predictor.n_always, ..Self::new(fixed, row, dtype, active, fired) }
    }
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerWork {
    /// Query, key, value and output matrices.
    pub attention: Vec<Block>,
    /// Bytes of norms and biases.
    pub small_bytes: u64,
    /// Elements of all query heads.
    pub n_q: usize,
    /// Elements of all key heads; as many of the values.
    pub n_kv: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// The matrix that tells who fires: gate, or up where there is none.
    pub mask: NeuronRows,
    /// Up, where there is a gate.
    pub up: Option<NeuronRows>,
    /// Down, by neuron.
    pub down: NeuronRows,
    /// Whether down is stored by columns, as plain files have it: then it cannot be divided, and nothing of it skipped.
    pub down_by_columns: bool,
    /// Whether some of its neurons may be on a card: not where down is stored by columns, or losslessly.
    pub divisible: bool,
    /// Who fires.
    pub stats: NeuronStats,
    /// Absent where the mask is computed exactly.
    pub predictor: Option<PredictorWork>,
}

impl LayerWork {
    /// Number of neurons.
    pub fn n_ff(&self) -> usize {
        self.stats.rates.len()
    }
}

/// A model.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// What people call it.
    pub name: String,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Entries of the vocabulary.
    pub n_vocab: usize,
    /// The head.
    pub head: Block,
    /// The layers, by number.
    pub layers: Vec<LayerWork>,
}

impl Workload {
    /// What the file `model` needs as it is, with its predictors. Without an index every neuron counts as firing always.
    pub fn of(model: &Model) -> Self {
        Self::with_types(model, &|_, dtype, _| dtype)
    }

    /// The same when each matrix gets the type that `types(name, type, n_cols)` gives.
    pub fn with_types(model: &Model, types: &dyn Fn(&str, GgmlType, usize) -> GgmlType) -> Self {
        let row = |m: &Matrix| {
            let dtype = types(m.name(), m.dtype(), m.n_cols);
            let row_bytes = dtype.row_bytes(m.n_cols).unwrap_or(m.row_bytes()) as u64;
            NeuronRows { row_bytes, dtype }
        };
        let block = |m: &Matrix| Block { bytes: row(m).row_bytes * m.n_rows as u64, dtype: row(m).dtype };
        let config = &model.config;
        let layers = model.weights.layers.iter().map(|layer| {
            let linears = [&layer.attn_q, &layer.attn_k, &layer.attn_v, &layer.attn_output];
            let floats = |v: &[f32]| std::mem::size_of_val(v) as u64;
            let biases: u64 = linears.iter().filter_map(|l| l.bias.as_deref()).map(floats).sum();
            let norms = [Some(&layer.attn_norm), layer.ffn_norm.as_ref()];
            let norms: u64 =
                norms.into_iter().flatten().map(|n| floats(&n.weight) + n.bias.as_deref().map_or(0, floats)).sum();
            let group = &layer.ffn[0];
            let n_ff = group.n_ff();
            let down = match &group.ffn_down {
                Down::Rows(m) => row(m),
                Down::Lossless(d) => NeuronRows { row_bytes: (d.n_bytes() / n_ff) as u64, dtype: d.dtype() },
                Down::Columns(m) => NeuronRows { row_bytes: block(m).bytes / n_ff as u64, dtype: row(m).dtype },
            };
            let stats = match &group.index {
                Some(index) => {
                    NeuronStats { rates: index.rates.clone(), mass: index.mass.clone(), cold: index.cold.clone() }
                }
                None => NeuronStats { rates: vec![1.0; n_ff], mass: vec![1.0; n_ff], cold: None },
            };
            LayerWork {
                attention: linears.iter().map(|l| block(&l.weight)).collect(),
                small_bytes: biases + norms,
                n_q: config.n_head * config.head_dim,
                n_kv: config.n_head_kv * config.head_dim,
                head_dim: config.head_dim,
                mask: row(group.mask_matrix()),
                up: group.ffn_gate.is_some().then(|| row(&group.ffn_up)),
                down,
                down_by_columns: matches!(group.ffn_down, Down::Columns(_)),
                divisible: matches!(group.ffn_down, Down::Rows(_)),
                stats,
                predictor: group.predictor.as_ref().map(PredictorWork::from),
            }
        });
        let layers = layers.collect();
        let (n_embd, n_vocab) = (config.n_embd, config.n_vocab);
        Self { name: config.name.clone(), n_embd, n_vocab, head: block(model.weights.head()), layers }
    }

    /// The workload of a known shape (the head as `split` makes it), whose neurons fire by the power law.
    ///
    /// # Errors
    /// When a row is not whole blocks of the type.
    pub fn of_shape(sized: &Sized) -> Result<Self> {
        let (shape, dtype, density) = (sized.shape, sized.dtype, sized.density.unwrap_or(sized.shape.density));
        let (n_embd, n_kv) = (shape.n_embd, shape.n_kv());
        let bytes = sized.row_bytes(dtype, n_embd)? as u64;
        let block = |n_rows: usize| Block { bytes: bytes * n_rows as u64, dtype };
        let rows = NeuronRows { row_bytes: bytes, dtype };
        let rates: Vec<f32> = super::rates::power_law(shape.n_ff, density).iter().map(|r| *r as f32).collect();
        let layer = LayerWork {
            attention: vec![block(n_embd), block(n_kv), block(n_kv), block(n_embd)],
            small_bytes: 8 * n_embd as u64,
            n_q: n_embd,
            n_kv,
            head_dim: n_embd / shape.n_head,
            mask: rows,
            up: shape.gated.then_some(rows),
            down: rows,
            down_by_columns: false,
            divisible: true,
            // What fires counts the same, whichever neuron it is.
            stats: NeuronStats { mass: rates.clone(), rates, cold: None },
            predictor: None,
        };
        let head = sized.outer_type();
        Ok(Self {
            name: format!("{} {dtype} d={density}", sized.with_suffix(shape.name)),
            n_embd,
            n_vocab: shape.n_vocab,
            head: Block { bytes: sized.row_bytes(head, n_embd)? as u64 * shape.n_vocab as u64, dtype: head },
            layers: vec![layer; sized.n_layer],
        })
    }

    /// Gives every layer a predictor of two factors of its mask matrix, of rank `n_embd / 8` in `Q4_0`, and a threshold
    /// for each neuron.
    pub fn assume_predictors(&mut self) {
        let dtype = GgmlType::Q4_0;
        let rank = (self.n_embd / 8).next_multiple_of(dtype.block_len());
        let bytes = |n: usize| n.div_ceil(dtype.block_len()) * dtype.block_bytes();
        let sized = PredictorWork::new(rank * bytes(self.n_embd), bytes(rank) + 4, dtype, 0.0, 0.0);
        let predictor = PredictorWork { n_hidden: rank, ..sized };
        self.layers.iter_mut().for_each(|l| l.predictor = Some(predictor));
    }

    /// Bytes of all weights that decoding reads at the most.
    pub fn n_bytes(&self) -> u64 {
        let rows = |l: &LayerWork| l.mask.row_bytes + l.up.map_or(0, |u| u.row_bytes) + l.down.row_bytes;
        let attention = |l: &LayerWork| l.attention.iter().map(|b| b.bytes).sum::<u64>();
        self.layers.iter().map(|l| attention(l) + l.small_bytes + rows(l) * l.n_ff() as u64).sum::<u64>()
            + self.head.bytes
    }

    /// Whether neurons can be divided between devices: not in plain files.
    pub fn can_be_divided(&self) -> bool {
        self.layers.iter().all(|l| l.divisible)
    }
}

/// Neurons that a predictor is assumed to name for each one that fires, where none has been measured. Factors of rank
/// `n_embd / 8` name 1.4 on synthetic models of 7B, which are made of such, and 1.9 on the embedded one at `n_embd / 2`.
const ASSUMED_ACTIVE: f64 = 1.5;
