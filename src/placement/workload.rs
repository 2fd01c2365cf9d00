//! What one decoded token needs of a model, as plain sizes: all that planning must know of it.

use super::union::at_least_once;
use crate::model::{ColdQuantiles, Down, Layer, Matrix, Model, NeuronGroup, Part, Predictor, Role, SetHits, Step};
use crate::quant::GgmlType;
use std::sync::Arc;

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

/// What is known of the neurons of one group, by slot, over the tokens for which the group is computed.
#[derive(Debug, Clone, PartialEq)]
pub struct NeuronStats {
    /// Share of these tokens for which the neuron fires, falling.
    pub rates: Vec<f32>,
    /// Mean activation mass.
    pub mass: Vec<f32>,
    /// Share of these tokens for which the neuron's row of `up` is read; where it is absent, all of these neurons fire.
    pub open_rates: Option<Vec<f32>>,
    /// How many of the tokens of a pass want the neuron on average, where several are computed at once.
    pub wanted: Option<Vec<f32>>,
    /// The distribution; where it is absent it follows from the rates.
    pub cold: Option<ColdQuantiles>,
}

impl NeuronStats {
    /// The same for a group that a share `chosen` of all tokens is computed for, where these shares are of all tokens.
    pub fn of_chosen(mut self, chosen: f64) -> Self {
        // What is never chosen never fires.
        if chosen > 0.0 && chosen < 1.0 {
            let divisor = chosen as f32;
            let rates = self.rates.iter_mut().chain(self.open_rates.iter_mut().flatten());
            rates.for_each(|rate| *rate = (*rate / divisor).min(1.0));
            self.mass.iter_mut().for_each(|mass| *mass /= divisor);
            self.cold = None;
        }
        self
    }

    /// The same for a pass of `n` tokens of different texts at once, of which a share `chosen` each is to compute the group: over
    /// passes in which any of them is.
    fn at_once(&self, n: usize, chosen: f64) -> Self {
        let times = n as f64;
        let computed = at_least_once(chosen, times);
        let any = |rate: &f32| match computed > 0.0 {
            true => (at_least_once(chosen * f64::from(*rate), times) / computed).min(1.0) as f32,
            false => 0.0,
        };
        let each = if computed > 0.0 { times * chosen / computed } else { 0.0 };
        Self {
            rates: self.rates.iter().map(any).collect(),
            // What is covered of it is a share, in which the number of tokens does not count.
            mass: self.mass.clone(),
            open_rates: self.open_rates.as_ref().map(|open| open.iter().map(any).collect()),
            wanted: Some(self.rates.iter().map(|rate| (each * f64::from(*rate)) as f32).collect()),
            // What was counted is of one token.
            cold: None,
        }
    }
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
#[derive(Debug, Clone)]
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
    /// Whether a router chooses it.
    pub routed: bool,
    /// Share of tokens for which it is computed: 1 where no router chooses.
    pub chosen: f64,
    /// Which neurons fire how often. Groups that are alike share it.
    pub stats: Arc<NeuronStats>,
    /// Absent where the mask is computed exactly.
    pub predictor: Option<PredictorWork>,
}

impl PartialEq for GroupWork {
    fn eq(&self, other: &Self) -> bool {
        let sizes = |g: &Self| (g.mask, g.up, g.down, g.down_by_columns, g.divisible, g.routed, g.chosen, g.predictor);
        // Most groups of a shape share one.
        sizes(self) == sizes(other) && (Arc::ptr_eq(&self.stats, &other.stats) || self.stats == other.stats)
    }
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

    /// A group that is computed for a share `chosen` of all tokens.
    fn of(group: &NeuronGroup, chosen: f64, row: &dyn Fn(&Matrix) -> NeuronRows) -> Self {
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
                wanted: None,
                cold: index.cold.clone(),
            }
            .of_chosen(chosen),
            None => NeuronStats {
                rates: vec![1.0; n_ff],
                mass: vec![1.0; n_ff],
                open_rates: None,
                wanted: None,
                cold: None,
            },
        };
        Self {
            mask: row(group.mask_matrix()),
            up: group.gate.is_some().then(|| row(group.ffn_up())),
            down,
            down_by_columns: matches!(group.ffn_down(), Down::Columns(_)),
            divisible: matches!(group.ffn_down(), Down::Rows(_)),
            routed: group.is_routed(),
            chosen,
            stats: Arc::new(stats),
            predictor: group.predictor.as_ref().map(PredictorWork::from),
        }
    }
}

/// A recurrent mixer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recurrence {
    /// Bytes that a sequence remembers: read and written for every token.
    pub state_bytes: u64,
    /// Values of a token between its two matrices.
    pub n_values: usize,
    /// Of these what the second one reads.
    pub n_inner: usize,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerWork {
    /// Matrices that are read as a whole: those of the mixer, of the router, and what leads to groups of another width.
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
    /// Where it recurs.
    pub recurrence: Option<Recurrence>,
    /// Groups that a router chooses for a token; 0 without one.
    pub n_used: usize,
    /// Elements of what groups read, where a matrix leads to them; 0 elsewhere.
    pub n_latent: usize,
    /// Its groups of neurons.
    pub groups: Vec<GroupWork>,
}

impl LayerWork {
    /// Number of neurons.
    pub fn n_ff(&self) -> usize {
        self.groups.iter().map(GroupWork::n_ff).sum()
    }

    /// Whether a router chooses among its groups.
    pub fn is_routed(&self) -> bool {
        self.n_used > 0
    }

    /// Neurons that are computed at once for a token, or for a prompt where it comes to more: of all chosen groups, or of
    /// the largest one where no router chooses.
    pub fn n_at_once(&self) -> usize {
        let of = |routed: bool| self.groups.iter().filter(move |g| g.routed == routed).map(GroupWork::n_ff);
        let most = |routed: bool| of(routed).max().unwrap_or(0);
        if self.is_routed() { self.n_used * most(true) + of(false).sum::<usize>() } else { most(false) }
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
        let recurs = layer.steps.iter().any(|step| matches!(step, Step::Recurrent { .. }));
        let n_routed = layer.groups.iter().filter(|group| group.is_routed()).count();
        let n_used = layer.router.map_or(0, |router| router.n_used);
        // Where nobody has counted, all are chosen equally often.
        let counted = |group: &NeuronGroup| group.index.as_ref().and_then(|index| index.chosen);
        let chosen = |group: &NeuronGroup| match counted(group) {
            Some(share) => f64::from(share),
            None if group.is_routed() => n_used as f64 / n_routed as f64,
            None => 1.0,
        };
        let block = |part: &Part| (part.role, Whole::of(part.matrix(), row));
        Self {
            blocks: layer.parts.iter().filter(whole).map(block).collect(),
            small_bytes: layer.all_parts().map(Part::small_bytes).sum(),
            n_q: if attends { config.n_q() } else { 0 },
            n_kv: if attends { config.n_kv() } else { 0 },
            head_dim: config.head_dim,
            window: config.windows[i],
            recurrence: config.ssm.filter(|_| recurs).map(|ssm| Recurrence {
                state_bytes: (4 * ((ssm.n_conv - 1) * ssm.n_channels() + ssm.n_inner * ssm.n_state)) as u64,
                n_values: ssm.n_in() + ssm.n_inner,
                n_inner: ssm.n_inner,
            }),
            n_used,
            n_latent: layer.find(Role::LatentDown).map_or(0, |part| part.matrix().n_rows),
            groups: layer.groups.iter().map(|group| GroupWork::of(group, chosen(group), row)).collect(),
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
    /// What sets of groups hit; none where nobody has counted.
    pub hits: Vec<SetHits>,
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
        Self { name: config.name.clone(), n_embd, n_vocab, head, n_head_bias, layers, hits: model.set_hits.clone() }
    }

    /// Gives every layer a predictor of two factors of its mask matrix, of rank `n_embd / 8` in `Q4_0`, and a threshold
    /// for each neuron; but not groups that a router chooses, whose masks are hardly larger.
    pub fn assume_predictors(&mut self) {
        let dtype = GgmlType::Q4_0;
        let rank = (self.n_embd / 8).next_multiple_of(dtype.block_len());
        let bytes = |n: usize| n.div_ceil(dtype.block_len()) * dtype.block_bytes();
        let sized = PredictorWork::new(rank * bytes(self.n_embd), bytes(rank) + 4, dtype, 0.0, 0.0);
        let predictor = PredictorWork { n_hidden: rank, ..sized };
        let dense = self.layers.iter_mut().filter(|l| !l.is_routed());
        dense.flat_map(|l| &mut l.groups).for_each(|g| g.predictor = Some(predictor));
    }

    /// Bytes of all weights that decoding reads at the most.
    pub fn n_bytes(&self) -> u64 {
        let neurons = |l: &LayerWork| l.groups.iter().map(|g| g.neuron_bytes() * g.n_ff() as u64).sum::<u64>();
        let blocks = |l: &LayerWork| l.blocks.iter().map(|(_, b)| b.bytes).sum::<u64>();
        self.layers.iter().map(|l| blocks(l) + l.small_bytes + neurons(l)).sum::<u64>() + self.head.bytes
    }

    /// What a pass needs that computes a token each of `n` texts at once: a neuron that any of them wants is read once. For one it is
    /// the model as it is.
    #[must_use]
    pub fn at_once(&self, n: usize) -> Self {
        let mut work = self.clone();
        if n <= 1 {
            return work;
        }
        // Groups that are alike share their statistics, and still do.
        let mut known: Vec<(*const NeuronStats, f64, Arc<NeuronStats>)> = Vec::new();
        for group in work.layers.iter_mut().flat_map(|layer| &mut layer.groups) {
            let key = (Arc::as_ptr(&group.stats), group.chosen);
            let found = known.iter().rev().take(KNOWN).find(|(of, chosen, _)| (*of, *chosen) == key);
            let stats = found.map_or_else(|| Arc::new(group.stats.at_once(n, group.chosen)), |(.., s)| Arc::clone(s));
            if found.is_none() {
                known.push((key.0, key.1, Arc::clone(&stats)));
            }
            (group.stats, group.chosen) = (stats, at_least_once(group.chosen, n as f64));
        }
        work
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
/// Statistics among which is looked for those that a group shares: as many as a layer has experts.
const KNOWN: usize = 1024;
