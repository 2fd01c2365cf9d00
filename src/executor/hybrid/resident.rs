//! What of a model is in the card's memory, laid out as it was accounted.

mod recurrent;

use crate::gpu::matrix::{DeviceMatrix, takes_floats};
use crate::gpu::ops::experts::{Hot, Index, index_bytes};
use crate::gpu::ops::norm::Norm as NormOp;
use crate::gpu::ops::rope::KvLayer;
use crate::gpu::{Arena, Kernels, Ptr, Stream, Uploader};
use crate::model::{
    Chosen, Config, Down, Layer, Matrix, Model, NeuronGroup, Part, Predictor, Role, SMALL_ALIGN, Scores,
};
use crate::placement::budget::{Piece, aligned, allocated, head_small_bytes, layer_pieces, tile_bytes};
use crate::placement::plan::{GroupChoice, LayerChoice, Plan, Run};
use crate::placement::workload::Workload;
use crate::units::Bytes;
use anyhow::{Context, Result, bail, ensure};
pub(super) use recurrent::CardRecurrent;
use recurrent::Floats;

/// A matrix on the card, and its bias.
#[derive(Clone, Copy)]
pub(super) struct CardLinear {
    pub matrix: DeviceMatrix,
    /// [`Ptr::NULL`] where there is none.
    pub bias: Ptr,
}

/// A norm of queries or keys.
#[derive(Clone, Copy)]
pub(super) struct CardNorm {
    pub norm: NormOp,
    /// Values that it normalises together: a head's, or those of all heads.
    pub n: usize,
}

/// Attention of a layer.
pub(super) struct CardAttention {
    pub q: CardLinear,
    pub k: CardLinear,
    pub v: CardLinear,
    pub output: CardLinear,
    pub q_norm: Option<CardNorm>,
    pub k_norm: Option<CardNorm>,
    pub cache: KvLayer,
}

/// How the scores of cold neurons come about.
pub(super) enum CardScores {
    /// Rows of signs.
    Signs(Ptr),
    /// Two matrices; the second has the cold neurons only.
    Factors { input: DeviceMatrix, hidden_bias: Ptr, output: DeviceMatrix },
}

/// A group's predictor.
pub(super) struct CardPredictor {
    pub scores: CardScores,
    /// `[n_ff - n_hot]`.
    pub bias: Ptr,
    /// Slots below it are active, whatever their score.
    pub n_always: usize,
}

/// What the card has of a group of neurons.
pub(super) struct CardGroup {
    pub choice: GroupChoice,
    /// All rows, or the hot ones.
    pub mask: Option<DeviceMatrix>,
    /// Hot rows; absent where there is no gate: the mask matrix is up then.
    pub up: Option<DeviceMatrix>,
    pub down: Option<DeviceMatrix>,
    pub biases: CardBiases,
    pub predictor: Option<CardPredictor>,
}

/// Biases of a group's neurons; [`Ptr::NULL`] where there are none.
#[derive(Clone, Copy, Default)]
pub(super) struct CardBiases {
    /// `[n_ff]`, of the mask matrix.
    pub mask: Ptr,
    /// `[n_ff]`, of up, where that is not the mask matrix.
    pub up: Ptr,
    /// `[n_embd]`, of down.
    pub down: Ptr,
}

impl CardBiases {
    /// Whether those of gate and up are absent.
    pub fn none_of_rows(&self) -> bool {
        self.mask.is_null() && self.up.is_null()
    }
}

/// What the card has of the groups that a router chooses among.
pub(super) struct CardRouted {
    pub router: CardLinear,
    /// What is added to scores for the choice only; [`Ptr::NULL`] where there is nothing.
    pub bias: Ptr,
    /// What the card has of each; `None` where that is nothing.
    pub index: Option<Index>,
    /// Where the index is, for what is counted.
    pub entries: Ptr,
}

/// The matrices before and behind groups of another width than the residual stream's.
#[derive(Clone, Copy)]
pub(super) struct CardLatent {
    pub down: CardLinear,
    pub up: CardLinear,
}

impl CardLatent {
    /// Elements of what these groups read and give.
    pub fn width(&self) -> usize {
        self.down.matrix.n_stored()
    }
}

/// What the card has of a layer.
pub(super) struct CardLayer {
    pub norms: Vec<(Role, NormOp)>,
    pub attention: Option<CardAttention>,
    pub recurrent: Option<CardRecurrent>,
    pub routed: Option<CardRouted>,
    /// What leads to the groups that a router chooses, and back, where these have a width of their own.
    pub latent: Option<CardLatent>,
    pub groups: Vec<CardGroup>,
    /// Owns all of it.
    arena: Option<Arena>,
}

impl CardGroup {
    /// Whether any of its matrices reads quantized activations.
    pub fn reads_quantized(&self) -> bool {
        let input = self.predictor.as_ref().and_then(|p| match &p.scores {
            CardScores::Factors { input, .. } => Some(input),
            CardScores::Signs(_) => None,
        });
        self.mask.iter().chain(&self.up).chain(input).any(|matrix| !takes_floats(matrix.dtype()))
    }
}

impl CardLayer {
    /// The norm with that role, where the card has anything of the layer.
    pub fn norm(&self, role: Role) -> Option<&NormOp> {
        self.norms.iter().find(|(of, _)| *of == role).map(|(_, norm)| norm)
    }

    /// Whether the card has a part of the FFN.
    pub fn has_ffn(&self) -> bool {
        self.groups.iter().any(|group| group.choice.is_any())
    }
}

/// The head.
pub(super) struct CardHead {
    pub norm: NormOp,
    pub matrix: DeviceMatrix,
    /// [`Ptr::NULL`] where there is none.
    pub bias: Ptr,
    arena: Arena,
}

/// The weights on the card.
pub(super) struct Resident {
    /// By number.
    pub layers: Vec<CardLayer>,
    pub head: Option<CardHead>,
}

/// Takes weights to the card.
struct Loader<'a> {
    kernels: &'a Kernels,
    stream: &'a Stream,
    config: &'a Config,
    uploader: Uploader,
}

impl Resident {
    /// Allocates and uploads what `plan` has on the card.
    pub fn load(
        model: &Model,
        work: &Workload,
        run: &Run,
        plan: &Plan,
        kernels: &Kernels,
        stream: &Stream,
    ) -> Result<Self> {
        let device = stream.device();
        let uploader = Uploader::new(device, Bytes(tile_bytes(work)))?;
        let mut loader = Loader { kernels, stream, config: &model.config, uploader };
        let mut layers = Vec::with_capacity(plan.layers.len());
        for (i, planned) in plan.layers.iter().enumerate() {
            let pieces: Vec<_> = layer_pieces(&work.layers[i], &planned.choice, run).collect();
            let layer = &model.weights.layers[i];
            layers.push(loader.layer(i, layer, &planned.choice, &pieces, run).with_context(|| format!("layer {i}"))?);
        }
        let head = plan.head.is_card().then(|| loader.head(model).context("head")).transpose()?;
        // The staging memory is in use until here.
        stream.synchronize()?;
        Ok(Self { layers, head })
    }

    /// Bytes that were allocated.
    pub fn n_bytes(&self) -> u64 {
        let layers = self.layers.iter().filter_map(|l| l.arena.as_ref());
        layers.chain(self.head.as_ref().map(|h| &h.arena)).map(|a| a.buffer().len()).sum()
    }
}

/// Writes small vectors one behind the other.
struct Vectors<'a> {
    stream: &'a Stream,
    next: Ptr,
    end: u64,
}

impl Vectors<'_> {
    fn take(&mut self, values: Option<&[f32]>) -> Result<Ptr> {
        let Some(values) = values else { return Ok(Ptr::NULL) };
        let at = self.next;
        self.next = at.offset((size_of_val(values) as u64).next_multiple_of(SMALL_ALIGN));
        ensure!(self.next.0 <= self.end, "norms and biases take more than was planned for");
        self.stream.write(at, values)?;
        Ok(at)
    }

    fn norm(&mut self, config: &Config, norm: &Part) -> Result<NormOp> {
        let weight = self.take(Some(norm.vector()))?;
        let bias = self.take(norm.bias.as_deref())?;
        Ok(NormOp { kind: config.norm, eps: config.norm_eps, weight, bias })
    }
}

impl Loader<'_> {
    /// An allocation of `bytes`. The driver may wait for what runs, and that without a limit.
    fn arena(&self, bytes: u64, what: &str) -> Result<Arena> {
        self.stream.synchronize()?;
        Arena::new(self.stream.device(), bytes, what)
    }

    /// The rows of `matrix` from `first` on, `n` of them, at `ptr`.
    fn rows(&mut self, ptr: Ptr, matrix: &Matrix, first: usize, n: usize) -> Result<DeviceMatrix> {
        let on_card = DeviceMatrix::at(ptr, matrix.dtype(), n, matrix.n_cols);
        let on_card = on_card.with_context(|| matrix.name().to_owned())?;
        let bytes = &matrix.bytes()[first * matrix.row_bytes()..][..n * matrix.row_bytes()];
        self.uploader.rows(self.kernels, self.stream, &on_card, 0, bytes).with_context(|| matrix.name().to_owned())?;
        Ok(on_card)
    }

    fn layer(
        &mut self,
        i: usize,
        layer: &Layer,
        choice: &LayerChoice,
        pieces: &[(Piece, u64)],
        run: &Run,
    ) -> Result<CardLayer> {
        let total: u64 = pieces.iter().map(|(_, bytes)| aligned(*bytes)).sum();
        let nothing = |choice: &GroupChoice| {
            let biases = CardBiases::default();
            CardGroup { choice: *choice, mask: None, up: None, down: None, biases, predictor: None }
        };
        if total == 0 {
            let groups = choice.groups.iter().map(nothing).collect();
            return Ok(CardLayer {
                norms: Vec::new(),
                attention: None,
                recurrent: None,
                routed: None,
                latent: None,
                groups,
                arena: None,
            });
        }
        let mut arena = self.arena(total, &format!("weights of layer {i}"))?;
        let mut places = Vec::with_capacity(pieces.len());
        for (piece, bytes) in pieces {
            places.push((*piece, if *bytes > 0 { arena.take(*bytes, &format!("{piece:?}"))? } else { Ptr::NULL }));
        }
        let place = |wanted: Piece| places.iter().find(|(p, _)| *p == wanted).map_or(Ptr::NULL, |(_, ptr)| *ptr);
        let small = place(Piece::Small);
        let n_small = pieces.iter().find(|(p, _)| *p == Piece::Small).map_or(0, |(_, n)| *n);
        let mut vectors = Vectors { stream: self.stream, next: small, end: small.0 + n_small };
        let config = self.config;
        let (mut norms, mut linears, mut head_norms) = (Vec::new(), Vec::new(), Vec::new());
        let (mut router_bias, mut floats) = (Ptr::NULL, Vec::new());
        for part in &layer.parts {
            match part.role {
                Role::OutputNorm
                | Role::AttnNorm
                | Role::AttnNorm2
                | Role::PostAttnNorm
                | Role::FfnNorm
                | Role::PostFfnNorm => norms.push((part.role, vectors.norm(config, part)?)),
                Role::AttnQ
                | Role::AttnK
                | Role::AttnV
                | Role::AttnOutput
                | Role::LatentDown
                | Role::LatentUp
                | Role::SsmIn
                | Role::SsmOut
                | Role::Router
                    if choice.attention =>
                {
                    let bias = vectors.take(part.bias.as_deref())?;
                    let matrix = self.rows(place(Piece::Whole(part.role)), part.matrix(), 0, part.matrix().n_rows)?;
                    linears.push((part.role, CardLinear { matrix, bias }));
                }
                Role::AttnQ | Role::AttnK | Role::AttnV | Role::AttnOutput | Role::Router => {}
                Role::LatentDown | Role::LatentUp => {}
                Role::SsmIn | Role::SsmOut => {}
                Role::SsmConv | Role::SsmDt | Role::SsmA | Role::SsmD | Role::SsmNorm => {
                    let (weight, bias) = (vectors.take(Some(part.vector()))?, vectors.take(part.bias.as_deref())?);
                    floats.push(Floats { role: part.role, weight, bias });
                }
                Role::RouterBias => router_bias = vectors.take(Some(part.vector()))?,
                Role::AttnQNorm | Role::AttnKNorm => {
                    let norm = CardNorm { norm: vectors.norm(config, part)?, n: part.vector().len() };
                    head_norms.push((part.role, norm));
                }
                Role::TokenEmbd
                | Role::PositionEmbd
                | Role::Output
                | Role::RopeFreqs
                | Role::RopeFactorsLong
                | Role::RopeFactorsShort
                | Role::AttnKvA
                | Role::AttnKvANorm
                | Role::AttnKvB
                | Role::AttnSinks
                | Role::FfnGate
                | Role::FfnUp
                | Role::FfnDown => bail!("{} has no place on the card", part.role.tensor()),
            }
        }
        let linear = |role: Role| {
            let found = linears.iter().find(|(of, _)| *of == role).map(|(_, linear)| *linear);
            found.with_context(|| format!("{} is missing", role.tensor()))
        };
        let attention = if choice.attention && layer.has_attention() {
            let cache = KvLayer {
                ptr: place(Piece::Cache),
                dtype: run.kv_type.k,
                n_ctx: run.n_ctx,
                n_head_kv: config.n_head_kv,
                head_dim: config.head_dim,
            };
            let (q, k, v) = (linear(Role::AttnQ)?, linear(Role::AttnK)?, linear(Role::AttnV)?);
            let head_norm = |role: Role| head_norms.iter().find(|(of, _)| *of == role).map(|(_, norm)| *norm);
            let (q_norm, k_norm) = (head_norm(Role::AttnQNorm), head_norm(Role::AttnKNorm));
            Some(CardAttention { q, k, v, output: linear(Role::AttnOutput)?, q_norm, k_norm, cache })
        } else {
            None
        };
        let recurrent = match layer.find(Role::SsmIn).filter(|_| choice.attention) {
            Some(_) => Some(CardRecurrent::new(config, &floats, place(Piece::State), linear)?),
            None => None,
        };
        let mut groups = Vec::with_capacity(layer.groups.len());
        for (i, (group, choice)) in layer.groups.iter().zip(&choice.groups).enumerate() {
            let biases = CardBiases {
                mask: vectors.take(group.mask().bias.as_deref())?,
                up: vectors.take(group.gate.as_ref().and(group.up.bias.as_deref()))?,
                down: vectors.take(group.down.bias.as_deref())?,
            };
            // Where a router chooses, the CPU looks for its own neurons by itself.
            let mask = choice.mask && layer.router.is_none();
            groups.push(self.group(i, group, GroupChoice { mask, ..*choice }, biases, &place)?);
        }
        let routed = match layer.router.filter(|_| choice.attention) {
            Some(_) => Some(self.routed(layer, linear(Role::Router)?, router_bias, &groups, place(Piece::Index))?),
            None => None,
        };
        let latent = match layer.find(Role::LatentDown).filter(|_| choice.attention) {
            Some(_) => Some(CardLatent { down: linear(Role::LatentDown)?, up: linear(Role::LatentUp)? }),
            None => None,
        };
        let chosen =
            layer.groups.iter().zip(&choice.groups).any(|(group, choice)| group.is_routed() && choice.n_hot > 0);
        ensure!(routed.is_some() || !chosen, "experts on the card whose router is not there");
        Ok(CardLayer { norms, attention, recurrent, routed, latent, groups, arena: Some(arena) })
    }

    /// Writes the index of the groups among which a layer's router chooses to `entries`.
    fn routed(
        &mut self,
        layer: &Layer,
        router: CardLinear,
        bias: Ptr,
        groups: &[CardGroup],
        entries: Ptr,
    ) -> Result<CardRouted> {
        let mut rows = vec![(None, 0); router.matrix.n_stored()];
        for (i, (group, on_card)) in layer.groups.iter().zip(groups).enumerate() {
            let Chosen::ByRouter(row) = group.chosen else { continue };
            let hot = match (on_card.mask, on_card.down) {
                (Some(mask), Some(down)) => Some(Hot { mask, up: on_card.up, down }),
                _ => None,
            };
            *rows.get_mut(row).context("a group that is no row of its router")? = (hot, i);
        }
        let like = rows.iter().find_map(|(hot, _)| *hot);
        let most_hot = rows.iter().filter_map(|(hot, _)| Some(hot.as_ref()?.mask.n_stored())).max().unwrap_or(0);
        if entries.is_null() {
            ensure!(like.is_none(), "an index of experts that was not planned for");
        } else {
            self.stream.write(entries, &index_bytes(&rows)?)?;
        }
        Ok(CardRouted { router, bias, index: like.map(|like| Index { ptr: entries, most_hot, like }), entries })
    }

    /// Group number `i` of a layer.
    fn group(
        &mut self,
        i: usize,
        group: &NeuronGroup,
        choice: GroupChoice,
        biases: CardBiases,
        place: &dyn Fn(Piece) -> Ptr,
    ) -> Result<CardGroup> {
        let (n_ff, n_hot) = (group.n_ff(), choice.n_hot);
        let n_mask = if choice.mask { n_ff } else { n_hot };
        let mask =
            (n_mask > 0).then(|| self.rows(place(Piece::Mask(i)), group.mask_matrix(), 0, n_mask)).transpose()?;
        let up = group.gate.as_ref().filter(|_| n_hot > 0).map(|_| group.ffn_up());
        let up = up.map(|up| self.rows(place(Piece::Up(i)), up, 0, n_hot)).transpose()?;
        let down = match group.ffn_down() {
            Down::Rows(down) if n_hot > 0 => Some(self.rows(place(Piece::Down(i)), down, 0, n_hot)?),
            Down::Rows(_) | Down::Columns(_) | Down::Lossless(_) => None,
        };
        ensure!(n_hot == 0 || down.is_some(), "its neurons cannot be divided");
        let predictor = match group.predictor.as_ref().filter(|_| choice.predictor && n_hot < n_ff) {
            Some(p) => Some(self.predictor(i, p, n_hot, place)?),
            None => None,
        };
        Ok(CardGroup { choice, mask, up, down, biases, predictor })
    }

    fn predictor(
        &mut self,
        group: usize,
        p: &Predictor,
        n_hot: usize,
        place: &dyn Fn(Piece) -> Ptr,
    ) -> Result<CardPredictor> {
        let n_cold = p.bias.len() - n_hot;
        let bias = place(Piece::PredictorBias(group));
        self.stream.write(bias, &p.bias[n_hot..])?;
        let scores = match &p.scores {
            Scores::Signs(signs) => {
                let at = place(Piece::PredictorOutput(group));
                self.stream.write(at, signs.rows(n_hot, n_cold))?;
                CardScores::Signs(at)
            }
            Scores::Factors { input, bias, output } => {
                let on_card = self.rows(place(Piece::PredictorInput(group)), input, 0, input.n_rows)?;
                let hidden_bias = match bias {
                    Some(bias) => {
                        let at = on_card.ptr().offset(input.n_bytes() as u64);
                        ensure!(at.0.is_multiple_of(4), "{}: an odd number of bytes", input.name());
                        self.stream.write(at, bias)?;
                        at
                    }
                    None => Ptr::NULL,
                };
                let output = self.rows(place(Piece::PredictorOutput(group)), output, n_hot, n_cold)?;
                CardScores::Factors { input: on_card, hidden_bias, output }
            }
        };
        Ok(CardPredictor { scores, bias, n_always: p.n_always })
    }

    fn head(&mut self, model: &Model) -> Result<CardHead> {
        let (matrix, norm) = (model.weights.head(), model.weights.part(Role::OutputNorm));
        let bias = model.weights.head_part().bias.as_deref();
        let (bytes, small) = (matrix.n_bytes() as u64, head_small_bytes(matrix.n_cols, bias.map_or(0, <[f32]>::len)));
        let mut arena = self.arena(allocated(aligned(bytes) + aligned(small)), "the head")?;
        let at = arena.take(bytes, "its matrix")?;
        let vectors = arena.take(small, "its norm")?;
        let matrix = self.rows(at, matrix, 0, matrix.n_rows)?;
        let mut vectors = Vectors { stream: self.stream, next: vectors, end: vectors.0 + small };
        let norm = vectors.norm(self.config, norm)?;
        // The last one: it need not be a multiple of 4.
        let at = bias.map_or(Ptr::NULL, |_| vectors.next);
        if let Some(bias) = bias {
            self.stream.write(at, bias)?;
        }
        Ok(CardHead { norm, matrix, bias: at, arena })
    }
}
