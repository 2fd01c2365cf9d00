//! What every allocation on the graphics card takes, to the byte.
//!
//! One rule: what a layer has on the card is one allocation of the driver, and so are the head and the scratch memory.
//! An allocation is a whole number of [`GRANULE`]s, which is what the driver hands out; inside it every part begins at a
//! multiple of [`ALIGN`]. So accounted is allocated, and a plan is within its budget exactly when the sum is.

use super::choice::{GroupChoice, LayerChoice, Room, Run};
use super::workload::{GroupWork, LayerWork, Workload};
use crate::model::{Mode, Role};
use crate::quant::GgmlType;
use crate::units::Bytes;

/// Parts of an allocation begin at multiples of this.
pub const ALIGN: u64 = 256;
/// The driver's unit of device memory.
pub const GRANULE: u64 = 2 << 20;

/// What a part of `bytes` takes of its allocation.
pub fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGN)
}

/// What an allocation of `bytes` takes of the card.
pub fn allocated(bytes: u64) -> u64 {
    bytes.next_multiple_of(GRANULE)
}

/// What allocations may take together.
pub fn capacity(budget: Bytes) -> u64 {
    budget.0 / GRANULE * GRANULE
}

/// Bytes on the card, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// Matrices of mixers and routers, norms and biases.
    pub attention: u64,
    /// Keys and values of the whole context, and what recurrent layers remember, of all sequences.
    pub kv_cache: u64,
    /// Mask matrices, or the hot rows of them.
    pub mask: u64,
    /// Hot rows of up and down.
    pub hot: u64,
    /// Predictors.
    pub predictor: u64,
    /// The head.
    pub head: u64,
    /// Activations of a batch, logits, and what the two sides exchange.
    pub scratch: u64,
    /// What rounding up to whole granules adds.
    pub rounding: u64,
}

impl Account {
    /// All of it.
    pub fn sum(&self) -> u64 {
        let parts = self.attention + self.kv_cache + self.mask + self.hot + self.predictor + self.head + self.scratch;
        parts + self.rounding
    }

    /// What the card loses.
    pub fn taken(&self) -> Bytes {
        Bytes(self.sum())
    }

    /// The account of one allocation.
    fn rounded(self) -> Self {
        let sum = self.sum();
        Self { rounding: self.rounding + allocated(sum) - sum, ..self }
    }

    /// Adds another account to this one.
    pub fn add(&mut self, other: &Self) {
        self.attention += other.attention;
        self.kv_cache += other.kv_cache;
        self.mask += other.mask;
        self.hot += other.hot;
        self.predictor += other.predictor;
        self.head += other.head;
        self.scratch += other.scratch;
        self.rounding += other.rounding;
    }
}

/// A piece of what a layer has on a card. Those of neurons have the number of their group in the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// One of the matrices that are read as a whole.
    Whole(Role),
    /// Norms and biases, one behind the other.
    Small,
    /// Keys, then values, of the whole context: sequence by sequence, each from a multiple of [`ALIGN`] on.
    Cache,
    /// What a recurrent mixer remembers of each sequence, laid out likewise.
    State,
    /// Where the card finds what it has of each group that a router chooses.
    Index,
    /// The mask matrix, or the hot rows of it.
    Mask(usize),
    /// Hot rows of up.
    Up(usize),
    /// Hot rows of down.
    Down(usize),
    /// What every cold neuron's score needs of the predictor.
    PredictorInput(usize),
    /// What each cold neuron has of its own, without the bias.
    PredictorOutput(usize),
    /// A bias for each cold neuron.
    PredictorBias(usize),
}

/// Bytes of an entry of [`Piece::Index`]: three addresses, and the numbers of hot neurons and of rows of the mask.
const INDEX_ENTRY: u64 = 32;

/// What a layer has on a card under `choice`, in the order in which it lies in the layer's allocation: bytes of each
/// piece, before they are rounded up to [`ALIGN`]. What is not there has none.
pub fn layer_pieces<'a>(
    layer: &'a LayerWork,
    choice: &'a LayerChoice,
    run: &'a Run,
) -> impl Iterator<Item = (Piece, u64)> + 'a {
    let groups = layer.groups.iter().zip(&choice.groups).enumerate();
    let neurons = groups.flat_map(|(i, (group, choice))| group_pieces(i, group, *choice));
    pieces_beside(layer, choice.attention, choice.has_ffn(), run).chain(neurons)
}

/// The pieces that are not of neurons, where the card has the mixer, or a part of the FFN.
fn pieces_beside<'a>(
    layer: &'a LayerWork,
    mixer: bool,
    ffn: bool,
    run: &'a Run,
) -> impl Iterator<Item = (Piece, u64)> + 'a {
    let n_head_kv = (layer.n_kv / layer.head_dim) as u64;
    let row = run.kv_type.row_bytes(layer.head_dim, layer.head_dim) as u64;
    let n_sequences = run.room.n_sequences as u64;
    let cache = given(mixer, n_sequences * aligned(run.n_ctx as u64 * n_head_kv * row));
    let blocks = layer.blocks.iter().map(move |(role, block)| (Piece::Whole(*role), given(mixer, block.bytes)));
    let small = given(mixer || ffn, layer.small_bytes);
    let state = given(mixer, n_sequences * aligned(layer.recurrence.map_or(0, |r| r.state_bytes)));
    let index = given(ffn && layer.is_routed(), INDEX_ENTRY * layer.groups.len() as u64);
    blocks.chain([(Piece::Small, small), (Piece::Cache, cache), (Piece::State, state), (Piece::Index, index)])
}

fn given(there: bool, bytes: u64) -> u64 {
    if there { bytes } else { 0 }
}

/// The pieces of group number `i` of a layer.
fn group_pieces(i: usize, group: &GroupWork, choice: GroupChoice) -> [(Piece, u64); 6] {
    const BIAS: u64 = 4;
    let (n_ff, n_hot) = (group.n_ff() as u64, choice.n_hot as u64);
    let (fixed, per_neuron) =
        group.predictor.filter(|_| choice.predictor).map_or((0, 0), |p| (p.fixed_bytes, p.row_bytes));
    let n_scored = given(per_neuron > 0, n_ff - n_hot);
    [
        (Piece::Mask(i), group.mask.row_bytes * if choice.mask { n_ff } else { n_hot }),
        (Piece::Up(i), group.up.map_or(0, |up| up.row_bytes * n_hot)),
        (Piece::Down(i), group.down.row_bytes * n_hot),
        (Piece::PredictorInput(i), given(n_scored > 0, fixed)),
        (Piece::PredictorOutput(i), per_neuron.saturating_sub(BIAS) * n_scored),
        (Piece::PredictorBias(i), BIAS * n_scored),
    ]
}

/// What a group takes of its layer's allocation under `choice`.
pub fn of_group(group: &GroupWork, choice: GroupChoice) -> u64 {
    group_pieces(0, group, choice).iter().map(|(_, bytes)| aligned(*bytes)).sum()
}

/// What a layer takes of its allocation beside its neurons, where the card has the mixer, or a part of the FFN.
pub fn beside_groups(layer: &LayerWork, mixer: bool, ffn: bool, run: &Run) -> u64 {
    pieces_beside(layer, mixer, ffn, run).map(|(_, bytes)| aligned(bytes)).sum()
}

/// What a layer takes on the card under `choice`.
pub fn of_layer(layer: &LayerWork, choice: &LayerChoice, run: &Run) -> Account {
    let mut account = Account::default();
    for (piece, bytes) in layer_pieces(layer, choice, run) {
        let place = match piece {
            Piece::Whole(_) | Piece::Small => &mut account.attention,
            Piece::Cache | Piece::State => &mut account.kv_cache,
            Piece::Mask(_) => &mut account.mask,
            Piece::Up(_) | Piece::Down(_) | Piece::Index => &mut account.hot,
            Piece::PredictorInput(_) | Piece::PredictorOutput(_) | Piece::PredictorBias(_) => &mut account.predictor,
        };
        *place += aligned(bytes);
    }
    account.rounded()
}

/// Bytes of the head's norm, its bias with it, and of a bias of the head itself, of so many values.
pub fn head_small_bytes(n_embd: usize, n_bias: usize) -> u64 {
    (8 * n_embd + 4 * n_bias) as u64
}

/// What the head takes.
pub fn of_head(work: &Workload) -> Account {
    let small = head_small_bytes(work.n_embd, work.n_head_bias);
    Account { head: aligned(work.head.bytes) + aligned(small), ..Account::default() }.rounded()
}

/// Bytes of weights that travel to the card at once: for a prefill, and when they are loaded. No more than the largest
/// group's neurons have.
pub fn tile_bytes(work: &Workload) -> u64 {
    const MOST: u64 = 16 << 20;
    let rows = |g: &GroupWork| (g.mask.row_bytes + g.up.map_or(0, |up| up.row_bytes)).max(g.down.row_bytes);
    let most = work.groups().map(|g| rows(g) * g.n_ff() as u64 + 2 * ALIGN).max().unwrap_or(0);
    allocated(most.min(MOST))
}

/// Buffers of so many bytes on the card: two that the bus fills, and one for what is taken apart.
const TILES: u64 = 3;

/// A part of the memory that is needed as soon as anything is computed on the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScratchPart {
    /// State of the tokens of a pass of decode.
    Token,
    /// Frequencies of the rotary embedding, and of that of layers with a window.
    Frequencies,
    /// Residual streams.
    X,
    /// The same, normalised.
    Normed,
    /// The same of the tokens of a pass of decode, quantized.
    Normed8,
    /// What attention adds.
    AttnOut,
    /// What the hot neurons add.
    FfnOut,
    /// Queries, and the same for keys, values, and what attention made of them.
    Q,
    /// See above.
    K,
    /// See above.
    V,
    /// See above.
    Attn,
    /// What attention made of the queries of such tokens, or a recurrent mixer of its values, quantized.
    Attn8,
    /// Partial results of attention.
    AttnPartial,
    /// Activations of neurons, then what their vectors are multiplied with.
    Act,
    /// Hot slots that are active for such a token, and how many they are.
    List,
    /// See above.
    ListLen,
    /// Partial sums of neurons, token by token.
    DownPartial,
    /// Neurons that were active for each of them, by group.
    Counts,
    /// Scores of a predictor.
    Scores,
    /// Hidden values of a predictor.
    Hidden,
    /// The same, quantized.
    Hidden8,
    /// Logits of each of them.
    Logits,
    /// Activations of a batch, as products read them.
    Packed,
    /// Scores of the groups that a router chooses among, which were chosen, and their weights.
    Routes,
    /// What groups of neurons read and give that have another width.
    Latent,
    /// The same of one token, quantized: first what they read, then what they gave.
    Latent8,
    /// Values of a batch between the matrices of a recurrent mixer: first what the second one reads.
    Recurrent,
}

/// How attention of a token is divided among blocks of threads. The same for all cards, so that they all sum in the same order.
#[derive(Debug, Clone, Copy)]
pub struct AttentionGrid {
    /// Query heads.
    pub n_head: usize,
    /// Query heads that share loads.
    pub sharing: usize,
    /// Rows of the grid.
    pub n_rows: usize,
    /// Blocks that share the positions of a row.
    pub n_splits: usize,
}

impl AttentionGrid {
    /// That of so many heads over a cache of `dtype` with `n_ctx` positions; query heads are a multiple of the others.
    pub fn new(n_head: usize, n_head_kv: usize, dtype: GgmlType, n_ctx: usize) -> Self {
        /// The most blocks that share the positions of a head, and the fewest positions of one.
        const MAX_SPLITS: usize = 64;
        const MIN_PIECE: usize = 64;
        /// Blocks that fill a large card.
        const BLOCKS: usize = 512;
        let group = n_head / n_head_kv.max(1);
        // 32-bit floats are for comparison, not for speed.
        let most_sharing = if dtype == GgmlType::F32 { 1 } else { 8 };
        let sharing = group.next_power_of_two().min(most_sharing);
        let n_rows = n_head_kv * group.div_ceil(sharing);
        let n_splits = (BLOCKS / n_rows.max(1)).clamp(1, MAX_SPLITS).min(n_ctx.div_ceil(MIN_PIECE));
        Self { n_head, sharing, n_rows, n_splits }
    }
}

/// Bytes of what the blocks of a token's attention hand to each other.
pub fn attention_bytes(grid: &AttentionGrid, head_dim: usize) -> u64 {
    (size_of::<f32>() * (grid.n_head * grid.n_splits * (head_dim + 2) + grid.n_rows)) as u64
}

/// Bytes of the partial sums of a token's hot neurons, where there may be those of several: a bound for all layers.
pub fn down_bytes(work: &Workload) -> u64 {
    /// Blocks of a launch, columns of the longest tile, rows of a part at the least, and counters.
    const SUMS: usize = 384 * 256;
    const TILE: usize = 256;
    const ROWS: usize = 64;
    const COUNTERS: usize = 1024;
    let n_ff = work.groups().map(GroupWork::n_ff).max().unwrap_or(0);
    let columns = work.n_embd + TILE;
    let words = COUNTERS + (n_ff.div_ceil(ROWS).max(1) * columns).min(SUMS.max(columns));
    aligned((size_of::<f32>() * words) as u64)
}

/// What rows of quantized activations are multiples of where several tokens are computed at once.
pub const WIDTH_STEP: usize = 64;

/// Tokens that decode computes at once on a card, where `run` asks for as many: 1 where anything in the model has kernels for one
/// alone.
pub fn tokens_at_once(work: &Workload, run: &Run) -> usize {
    let guesses = matches!(run.mode, Mode::Predicted | Mode::Thresholded);
    let alone = |layer: &LayerWork| layer.is_routed() || layer.recurrence.is_some();
    let odd = |layer: &LayerWork| !layer.n_q.is_multiple_of(WIDTH_STEP);
    if guesses || !work.n_embd.is_multiple_of(WIDTH_STEP) || work.layers.iter().any(|layer| alone(layer) || odd(layer))
    {
        return 1;
    }
    run.room.n_at_once.min(run.n_ubatch).clamp(1, Room::MOST_AT_ONCE)
}

/// Tokens that a pass has, one of each of so many sequences: of all of them on the processor alone, and of as many as kernels compute
/// at once where there is a card.
pub fn tokens_per_pass(has_card: bool, work: &Workload, run: &Run) -> usize {
    let n = run.room.n_sequences;
    if has_card { n.min(tokens_at_once(work, run)) } else { n }
}

/// What is needed as soon as anything is computed on the card, in the order in which it lies in its allocation: bytes of
/// each part, before they are rounded up to [`ALIGN`].
pub fn scratch_parts(work: &Workload, run: &Run) -> [(ScratchPart, u64); 27] {
    use ScratchPart as P;
    const FLOAT: u64 = 4;
    let most = |of: fn(&LayerWork) -> usize| work.layers.iter().map(of).max().unwrap_or(0) as u64;
    let (n_embd, n_q, n_kv) = (work.n_embd as u64, most(|l| l.n_q), most(|l| l.n_kv));
    let n_ff = work.groups().map(GroupWork::n_ff).max().unwrap_or(0) as u64;
    let at_once = most(LayerWork::n_at_once);
    let n_routed = most(|l| if l.is_routed() { l.groups.len() + 2 * l.n_used } else { 0 });
    let n_latent = most(|l| l.n_latent);
    let n_recurrent = most(|l| l.recurrence.map_or(0, |r| r.n_values));
    // What the last matrix of a mixer reads.
    let n_mixed = n_q.max(most(|l| l.recurrence.map_or(0, |r| r.n_inner)));
    let head_dim = most(|l| l.head_dim);
    let n_head = n_q / head_dim.max(1);
    let n_head_kv = n_kv / head_dim.max(1);
    let grid = AttentionGrid::new(n_head as usize, n_head_kv as usize, run.kv_type.k, run.n_ctx);
    let at_once_tokens = tokens_at_once(work, run) as u64;
    let few = |bytes: u64| bytes * at_once_tokens;
    let batch = |n: u64| FLOAT * n * run.n_ubatch as u64;
    let quantized = |n: u64| n + n / 4;
    // Halves, and a scale for each 32 of them.
    let packed = n_embd.max(n_mixed).max(n_ff).div_ceil(32) * (32 * 2 + FLOAT) * run.n_ubatch as u64;
    let hidden = work.groups().filter_map(|g| g.predictor).map(|p| p.n_hidden).max().unwrap_or(0) as u64;
    // Bounds of what the kernels ask for: 4096 pieces of heads, or all heads; 384 tiles of 256 columns, or all columns.
    let attention = FLOAT * (n_head.max(4096) * (head_dim + 2) + n_head);
    let down = FLOAT * (1024 + (384 * 256).max(n_embd + 256));
    [
        (P::Token, 256),
        (P::Frequencies, FLOAT * head_dim),
        (P::X, batch(n_embd)),
        (P::Normed, batch(n_embd)),
        (P::Normed8, few(quantized(n_embd))),
        (P::AttnOut, batch(n_embd)),
        (P::FfnOut, batch(n_embd)),
        (P::Q, batch(n_q)),
        (P::K, batch(n_kv)),
        (P::V, batch(n_kv)),
        (P::Attn, batch(n_q)),
        (P::Attn8, few(quantized(n_mixed))),
        (P::AttnPartial, attention.max(few(attention_bytes(&grid, head_dim as usize)))),
        // A prompt is computed group by group.
        (P::Act, batch(n_ff).max(FLOAT * at_once)),
        (P::List, FLOAT * at_once),
        (P::ListLen, FLOAT),
        (P::DownPartial, down.max(few(down_bytes(work)))),
        (P::Counts, few(2 * FLOAT * work.groups().count() as u64)),
        (P::Scores, FLOAT * at_once),
        (P::Hidden, FLOAT * hidden),
        (P::Hidden8, quantized(hidden)),
        (P::Logits, few(FLOAT * work.n_vocab as u64)),
        (P::Packed, packed),
        (P::Routes, batch(n_routed)),
        (P::Latent, batch(2 * n_latent)),
        (P::Latent8, quantized(n_latent)),
        (P::Recurrent, batch(n_recurrent)),
    ]
}

/// What [`scratch_parts`] take.
pub fn scratch(work: &Workload, run: &Run) -> Account {
    let bytes = scratch_parts(work, run).iter().map(|(_, bytes)| aligned(*bytes)).sum();
    let tiles = TILES * tile_bytes(work);
    Account { scratch: allocated(bytes) + tiles, rounding: 0, ..Account::default() }
}
