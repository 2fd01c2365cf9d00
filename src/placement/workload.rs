//! What one decoded token needs of a model, as plain sizes: all that planning must know of it.

use crate::model::{ColdQuantiles, Down, Layer, Matrix, Model, NeuronGroup, Part, Predictor, Role};
use crate::quant::GgmlType;
use crate::shapes::Sized;
use anyhow::{Result, ensure};

/// A matrix that is read as a whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Whole {
    /// Its bytes.
    pub bytes: u64,
    /// Type of its weights.
    pub dtype: GgmlType,
}

impl Whole {
    fn of(m: &Matrix, row: &dyn Fn(&Matrix) -> NeuronRows) -> Self {
        let NeuronRows { row_bytes, dtype } = row(m);
        Self { bytes: row_bytes * m.n_rows as u64, dtype }
    }
}

/// A matrix of which each neuron has a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NeuronRows {
    /// Bytes of one neuron.
    pub row_bytes: u64,
    /// Type of its weights.
    pub dtype: GgmlType,
}

/// What is known of the neurons of one group, by slot.
#[derive(Debug, Clone, PartialEq)]
pub struct NeuronStats {
    /// Share of tokens for which the neuron fires, falling.
    pub rates: Vec<f32>,
    /// Mean activation mass.
    pub mass: Vec<f32>,
    /// Share of tokens for which the neuron's row of `up` is read; where it is absent, all of these neurons fire.
    pub open_rates: Option<Vec<f32>>,
    /// The distribution; where it is absent it follows from the rates.
    pub cold: Option<ColdQuantiles>,
}

/// What a group's predictor reads.
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

/// A group of neurons.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupWork {
    /// The matrix that tells which neurons fire: gate, or up where there is none.
    pub mask: NeuronRows,
    /// Up, where there is a gate.
    pub up: Option<NeuronRows>,
    /// Down, by neuron.
    pub down: NeuronRows,
    /// Whether down is stored by columns, as plain files have it: then it cannot be divided, and nothing of it skipped.
    pub down_by_columns: bool,
    /// Whether some of its neurons may be on a card: not where down is stored by columns, or losslessly.
    pub divisible: bool,
    /// Which neurons fire how often.
    pub stats: NeuronStats,
    /// Absent where the mask is computed exactly.
    pub predictor: Option<PredictorWork>,
}

impl GroupWork {
    /// Number of neurons.
    pub fn n_ff(&self) -> usize {
        self.stats.rates.len()
    }

    /// Bytes of one neuron in all matrices.
    pub fn neuron_bytes(&self) -> u64 {
        self.mask.row_bytes + self.up.map_or(0, |u| u.row_bytes) + self.down.row_bytes
    }

    fn of(group: &NeuronGroup, row: &dyn Fn(&Matrix) -> NeuronRows) -> Self {
        let n_ff = group.n_ff();
        let down = match group.ffn_down() {
            Down::Rows(m) => row(m),
            Down::Lossless(d) => NeuronRows { row_bytes: (d.n_bytes() / n_ff) as u64, dtype: d.dtype() },
            Down::Columns(m) => {
                let column = row(m);
                NeuronRows { row_bytes: column.row_bytes * m.n_rows as u64 / n_ff as u64, ..column }
            }
        };
        let stats = match &group.index {
            Some(index) => NeuronStats {
                rates: index.rates.clone(),
                mass: index.mass.clone(),
                open_rates: index.open_rates.clone(),
                cold: index.cold.clone(),
            },
            None => NeuronStats { rates: vec![1.0; n_ff], mass: vec![1.0; n_ff], open_rates: None, cold: None },
        };
        Self {
            mask: row(group.mask_matrix()),
            up: group.gate.is_some().then(|| row(group.ffn_up())),
            down,
            down_by_columns: matches!(group.ffn_down(), Down::Columns(_)),
            divisible: matches!(group.ffn_down(), Down::Rows(_)),
            stats,
            predictor: group.predictor.as_ref().map(PredictorWork::from),
        }
    }
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerWork {
    /// Matrices that are read as a whole: those of attention.
    pub blocks: Vec<(Role, Whole)>,
    /// Bytes of norms and biases.
    pub small_bytes: u64,
    /// Elements of all query heads; 0 without attention.
    pub n_q: usize,
    /// Elements of all key heads, as many of the values; 0 without attention.
    pub n_kv: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Tokens that a token looks back on, itself among them, where that is limited.
    pub window: Option<usize>,
    /// Its groups of neurons.
    pub groups: Vec<GroupWork>,
}

impl LayerWork {
    /// Number of neurons.
    pub fn n_ff(&self) -> usize {
        self.groups.iter().map(GroupWork::n_ff).sum()
    }

    /// Whether the neurons of all groups may be divided between devices.
    pub fn is_divisible(&self) -> bool {
        self.groups.iter().all(|g| g.divisible)
    }

    /// Layer number `i` of `model`.
    fn of(i: usize, layer: &Layer, model: &Model, row: &dyn Fn(&Matrix) -> NeuronRows) -> Self {
        let config = &model.config;
        let whole = |part: &&Part| is_block(part.role);
        let attends = layer.has_attention();
        let block = |part: &Part| (part.role, Whole::of(part.matrix(), row));
        Self {
            blocks: layer.parts.iter().filter(whole).map(block).collect(),
            small_bytes: layer.all_parts().map(Part::small_bytes).sum(),
            n_q: if attends { config.n_q() } else { 0 },
            n_kv: if attends { config.n_kv() } else { 0 },
            head_dim: config.head_dim,
            window: config.windows[i],
            groups: layer.groups.iter().map(|group| GroupWork::of(group, row)).collect(),
        }
    }
}

/// Whether parts with that role are matrices of a layer's mixer, which is on one device as a whole.
fn is_block(role: Role) -> bool {
    match role {
        Role::AttnQ | Role::AttnK | Role::AttnV | Role::AttnKvA | Role::AttnKvB | Role::AttnOutput => true,
        Role::SsmIn | Role::SsmOut => true,
        // Small, and computed where the layer's input is.
        Role::Router | Role::LatentDown | Role::LatentUp => true,
        // Floats, beside the layers, or of neurons.
        Role::TokenEmbd
        | Role::OutputNorm
        | Role::PositionEmbd
        | Role::Output
        | Role::RopeFreqs
        | Role::RopeFactorsLong
        | Role::RopeFactorsShort
        | Role::AttnNorm
        | Role::AttnNorm2
        | Role::PostAttnNorm
        | Role::FfnNorm
        | Role::PostFfnNorm
        | Role::AttnQNorm
        | Role::AttnKNorm
        | Role::AttnSinks
        | Role::SsmConv
        | Role::SsmDt
        | Role::SsmA
        | Role::SsmD
        | Role::SsmNorm
        | Role::RouterBias
        | Role::AttnKvANorm
        | Role::FfnGate
        | Role::FfnUp
        | Role::FfnDown => false,
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
    pub head: Whole,
    /// Values of its bias; 0 where it has none.
    pub n_head_bias: usize,
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
        let config = &model.config;
        let layers = model.weights.layers.iter().enumerate();
        let layers = layers.map(|(i, layer)| LayerWork::of(i, layer, model, &row)).collect();
        let (n_embd, n_vocab) = (config.n_embd, config.n_vocab);
        let n_head_bias = model.weights.head_part().bias.as_ref().map_or(0, |bias| bias.len());
        let head = Whole::of(model.weights.head(), &row);
        Self { name: config.name.clone(), n_embd, n_vocab, head, n_head_bias, layers }
    }

    /// The workload of a known shape (the head as `split` makes it), whose neurons fire by the power law.
    ///
    /// # Errors
    /// When a row is not whole blocks of the type.
    pub fn of_shape(sized: &Sized) -> Result<Self> {
        let (shape, dtype, density) = (sized.shape, sized.dtype, sized.density());
        ensure!(shape.experts.is_none(), "shape \"{}\" has experts; plans are made without", shape.name);
        let (n_embd, n_kv) = (shape.n_embd, shape.n_kv());
        let bytes = sized.row_bytes(dtype, n_embd)? as u64;
        let block = |n_rows: usize| Whole { bytes: bytes * n_rows as u64, dtype };
        let rows = NeuronRows { row_bytes: bytes, dtype };
        let rates: Vec<f32> = super::rates::power_law(shape.n_ff, density).iter().map(|r| *r as f32).collect();
        let group = GroupWork {
            mask: rows,
            up: shape.gated.then_some(rows),
            down: rows,
            down_by_columns: false,
            divisible: true,
            // What fires counts the same, whichever neuron it is.
            stats: NeuronStats { mass: rates.clone(), rates, open_rates: None, cold: None },
            predictor: None,
        };
        let layer = LayerWork {
            blocks: vec![
                (Role::AttnQ, block(n_embd)),
                (Role::AttnK, block(n_kv)),
                (Role::AttnV, block(n_kv)),
                (Role::AttnOutput, block(n_embd)),
            ],
            small_bytes: 8 * n_embd as u64,
            n_q: n_embd,
            n_kv,
            head_dim: n_embd / shape.n_head,
            window: None,
            groups: vec![group],
        };
        let head = sized.outer_type();
        Ok(Self {
            name: format!("{} {dtype} d={density}", sized.with_suffix(shape.name)),
            n_embd,
            n_vocab: shape.n_vocab,
            head: Whole { bytes: sized.row_bytes(head, n_embd)? as u64 * shape.n_vocab as u64, dtype: head },
            n_head_bias: 0,
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
        self.layers.iter_mut().flat_map(|l| &mut l.groups).for_each(|g| g.predictor = Some(predictor));
    }

    /// Bytes of all weights that decoding reads at the most.
    pub fn n_bytes(&self) -> u64 {
        let neurons = |l: &LayerWork| l.groups.iter().map(|g| g.neuron_bytes() * g.n_ff() as u64).sum::<u64>();
        let blocks = |l: &LayerWork| l.blocks.iter().map(|(_, b)| b.bytes).sum::<u64>();
        self.layers.iter().map(|l| blocks(l) + l.small_bytes + neurons(l)).sum::<u64>() + self.head.bytes
    }

    /// All groups of neurons, by number.
    pub fn groups(&self) -> impl Iterator<Item = &GroupWork> {
        self.layers.iter().flat_map(|l| &l.groups)
    }

    /// Whether neurons can be divided between devices: not in plain files.
    pub fn can_be_divided(&self) -> bool {
        self.layers.iter().all(LayerWork::is_divisible)
    }
}

/// Neurons that a predictor is assumed to name for each one that fires, where none has been measured. Factors of rank
/// `n_embd / 8` name 1.4 on synthetic models of 7B, which are made of such, and 1.9 on the embedded one at `n_embd / 2`.
const ASSUMED_ACTIVE: f64 = 1.5;
