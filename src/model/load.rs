//! Taking the tensors of a file, as the architecture names them.

mod chosen;
mod consecutive;
mod experts;
mod fused;

use super::cold::ColdQuantiles;
use super::down::Down;
use super::group::{Chosen, NeuronGroup};
use super::layer::Layer;
use super::lossless::LosslessDown;
use super::matrix::Matrix;
use super::neurons::{CONSECUTIVE_SIZES, NeuronIndex};
use super::part::{Access, Part, Role, Tensor};
use super::predictor::{ActiveShare, Predictor, PredictorInput, Scores, Signs};
use super::pwri;
use super::spec::{Dims, GroupSpec, LayerSpec, PartSpec, Presence, Stack};
use super::step::{self, Vector};
use crate::gguf::{Gguf, Metadata, TensorInfo};
use crate::quant::{GgmlType, convert};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Layouts of variants in docs/formats.md: 1; 2 where `ffn_down` is lossless; 3 where a layer has several groups.
const VARIANT_VERSIONS: [u32; 3] = [1, 2, 3];

/// Takes tensors, and remembers which.
pub(super) struct Loader<'a> {
    gguf: &'a Gguf,
    arch: &'a str,
    n_embd: usize,
    /// Planned hot prefixes, by group; none in a plain file.
    n_hot: Vec<usize>,
    /// Shares of tokens that groups are computed for, where the file says.
    shares: Option<Vec<f32>>,
    /// Shares of neurons that fire for any of some consecutive tokens, by group, where the file says.
    consecutive: Option<Vec<[f32; CONSECUTIVE_SIZES.len()]>>,
    /// Kinds of the predictors, by group, where the file says.
    kinds: Option<Vec<String>>,
    /// Of predictors, by group.
    measured: Option<Vec<ActiveShare>>,
    /// What predictors look at.
    reads: PredictorInput,
    /// In a file of PowerInfer's with predictors, the score from which on a neuron is active.
    threshold: Option<f32>,
    taken: HashSet<String>,
    /// Floats of this layer that are of several groups.
    decoded: HashMap<String, Arc<[f32]>>,
    n_groups: usize,
}

/// Gate and up of several groups in one tensor, without `blk.N.` and what stands behind roles.
const GATE_UP: &str = "ffn_gate_up";

/// The whole of a tensor's rows, or one of several equal shares of them.
#[derive(Clone, Copy)]
struct Share {
    at: usize,
    of: usize,
}

impl From<Option<Stack>> for Share {
    fn from(stack: Option<Stack>) -> Self {
        let Stack { at, of } = stack.unwrap_or(Stack { at: 0, of: 1 });
        Self { at, of }
    }
}

impl Share {
    /// The dimensions of a tensor of which each group has `dims`.
    fn dims(self, dims: &[usize]) -> Vec<usize> {
        let mut all = dims.to_vec();
        if self.of > 1 {
            all.push(self.of);
        }
        all
    }

    fn of_values<T>(self, values: &[T]) -> &[T] {
        let n = values.len() / self.of;
        &values[self.at * n..][..n]
    }
}

impl<'a> Loader<'a> {
    /// A loader for the file of a model of `arch` with `n_groups` groups of neurons in all layers.
    pub fn new(gguf: &'a Gguf, arch: &'a str, n_embd: usize, n_groups: usize) -> Result<Self> {
        let measured = ActiveShare::read(gguf, n_groups)?;
        let kinds = stored_kinds(gguf, n_groups)?;
        let n_hot = planned_n_hot(gguf, n_groups)?;
        let (shares, consecutive) = (chosen::shares(gguf, n_groups)?, consecutive::shares(gguf, n_groups)?);
        let reads = PredictorInput::read(gguf.metadata())?;
        let threshold = pwri::threshold(gguf)?;
        let (taken, decoded, n_groups) = (HashSet::new(), HashMap::new(), 0);
        Ok(Self {
            gguf,
            arch,
            n_embd,
            n_hot,
            shares,
            consecutive,
            kinds,
            measured,
            reads,
            threshold,
            taken,
            decoded,
            n_groups,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    fn take(&mut self, name: &str) -> Result<&'a TensorInfo> {
        let tensor = self.gguf.tensor(name).with_context(|| format!("{name}: the tensor is missing"))?;
        self.taken.insert(name.to_owned());
        Ok(tensor)
    }

    fn matrix(&mut self, name: &str, n_rows: usize, n_cols: usize, share: Share) -> Result<Matrix> {
        let tensor = self.take(name)?;
        // Rows lie in further dimensions only where these are groups; dimensions of 1 at the end need not be there.
        let dims = share.dims(&[n_cols, n_rows]);
        let alike = trimmed(&tensor.dims) == trimmed(&dims);
        ensure!(alike, "{name}: shape {:?}, but {dims:?} follows from the metadata", tensor.dims);
        Ok(Matrix::new(self.gguf, tensor, n_rows * share.of, n_cols)?.slice(share.at * n_rows, n_rows))
    }

    /// A vector of floats, decoded: a few kilobytes that every use wants as floats.
    fn vector(&mut self, name: &str, n: usize) -> Result<Option<Vec<f32>>> {
        self.floats(name, &[n])
    }

    fn floats(&mut self, name: &str, dims: &[usize]) -> Result<Option<Vec<f32>>> {
        if !self.has(name) {
            return Ok(None);
        }
        let tensor = self.take(name)?;
        // Of several vectors a dimension of 1 may stand anywhere: it orders nothing.
        let sizes = |dims: &[usize]| dims.iter().copied().filter(|n| *n != 1).collect::<Vec<_>>();
        let alike = trimmed(&tensor.dims) == trimmed(dims) || dims.len() > 1 && sizes(&tensor.dims) == sizes(dims);
        ensure!(alike, "{name}: shape {:?}, but {dims:?} follows from the metadata", tensor.dims);
        let floats = matches!(tensor.dtype, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16);
        ensure!(floats, "{name}: has type {} where floats are wanted", tensor.dtype);
        let mut values = vec![0.0; dims.iter().product()];
        convert::dequantizer(tensor.dtype)?(self.gguf.data(tensor), &mut values);
        Ok(Some(values))
    }

    /// The share of a vector of which each group has `dims`.
    fn share_of_floats(&mut self, name: &str, dims: &[usize], share: Share) -> Result<Option<Vec<f32>>> {
        if share.of == 1 {
            return self.floats(name, dims);
        }
        if !self.decoded.contains_key(name) {
            let Some(values) = self.floats(name, &share.dims(dims))? else { return Ok(None) };
            self.decoded.insert(name.to_owned(), values.into());
        }
        Ok(Some(share.of_values(&self.decoded[name]).to_vec()))
    }

    fn bias(&mut self, stem: &str, n: usize, presence: Presence, share: Share) -> Result<Option<Arc<[f32]>>> {
        let name = format!("{stem}.bias");
        let bias = match presence {
            Presence::Absent => None,
            Presence::Optional => self.share_of_floats(&name, &[n], share)?,
            Presence::Required => {
                let bias = self.share_of_floats(&name, &[n], share)?;
                Some(bias.with_context(|| format!("{name}: the tensor is missing"))?)
            }
        };
        Ok(bias.map(Into::into))
    }

    /// The tensor of `spec`, whose name begins with `prefix`; `None` where it is missing and may be.
    pub fn part(&mut self, prefix: &str, spec: &PartSpec) -> Result<Option<Part>> {
        let (mut stem, ending) = (format!("{prefix}{}", spec.role.tensor()), spec.role.ending());
        let alias = spec.role.alias().map(|alias| format!("{prefix}{alias}"));
        if let Some(alias) = alias.filter(|alias| self.has(&format!("{alias}{ending}"))) {
            ensure!(
                !self.has(&format!("{stem}{ending}")),
                "{stem}{ending}: stands beside {alias}{ending}; which one counts?"
            );
            stem = alias;
        }
        let name = format!("{stem}{ending}");
        let wanted = match spec.weight {
            Presence::Required => true,
            Presence::Optional => self.has(&name),
            Presence::Absent => false,
        };
        if !wanted {
            return Ok(None);
        }
        let share = Share::from(None);
        let (tensor, n) = match spec.dims {
            Dims::Vector(n) => {
                let vector = self.vector(&name, n)?;
                (Tensor::Vector(vector.with_context(|| format!("{name}: the tensor is missing"))?), n)
            }
            Dims::Vectors { n_rows, n_cols } => {
                let vectors = self.floats(&name, &[n_cols, n_rows])?;
                let vectors = vectors.with_context(|| format!("{name}: the tensor is missing"))?;
                (Tensor::Vector(vectors), n_rows)
            }
            Dims::Matrix { n_rows, n_cols } => (Tensor::Matrix(self.matrix(&name, n_rows, n_cols, share)?), n_rows),
        };
        let bias = self.bias(&stem, n, spec.bias, share)?;
        let part = Part { role: spec.role, tensor, bias, access: access(spec.role) };
        check_values(&part).with_context(|| name)?;
        Ok(Some(part))
    }

    /// Layer number `i`.
    pub fn layer(&mut self, i: usize, spec: &LayerSpec) -> Result<Layer> {
        self.decoded.clear();
        let prefix = format!("blk.{i}.");
        let (arch, n_experts) = (self.arch, spec.groups.iter().filter(|group| group.routed).count());
        let of_experts = || format!("{arch}.expert_count says that there are {n_experts} experts");
        let mut parts = self.fused_qkv(&prefix, &spec.parts)?;
        for part in &spec.parts {
            if parts.iter().all(|fused| fused.role != part.role) {
                let found = self.part(&prefix, part);
                parts.extend(if part.role == Role::Router { found.with_context(of_experts) } else { found }?);
            }
        }
        let first_group = self.n_groups;
        let mut groups = Vec::with_capacity(spec.groups.len());
        let mut n_routed = 0;
        for group in &spec.groups {
            let chosen = if group.routed { Chosen::ByRouter(n_routed) } else { Chosen::Always };
            n_routed += usize::from(group.routed);
            let loaded = self.group(i, group, chosen);
            groups.push(if group.routed { loaded.with_context(of_experts) } else { loaded }?);
            self.n_groups += 1;
        }
        let layer = Layer { parts, groups, first_group, router: spec.router, steps: spec.steps.clone() };
        check_layer(&layer, n_routed, self.n_embd).with_context(|| format!("architecture {}, layer {i}", self.arch))?;
        Ok(layer)
    }

    fn group(&mut self, i: usize, spec: &GroupSpec, chosen: Chosen) -> Result<NeuronGroup> {
        let (n_embd, n_ff) = (spec.width.unwrap_or(self.n_embd), spec.n_ff);
        let (suffix, share) = self.place_of(i, spec)?;
        let stem = |role: Role| format!("blk.{i}.{}{suffix}", role.tensor());
        let both = format!("blk.{i}.{GATE_UP}{suffix}.weight");
        let both_in_one = spec.gated && spec.stack.is_some() && self.has(&both);
        let rows = |loader: &mut Self, role: Role| -> Result<Part> {
            let stem = stem(role);
            let matrix = loader.matrix(&format!("{stem}.weight"), n_ff, n_embd, share)?;
            let bias = loader.bias(&stem, n_ff, spec.bias, share)?;
            Ok(Part { role, tensor: Tensor::Matrix(matrix), bias, access: access(role) })
        };
        let (gate, up) = if spec.fused {
            let name = format!("{}.weight", stem(Role::FfnUp));
            let (gate, up) = self.fused_gate_and_up(&name, n_ff, n_embd, share)?;
            (Some(gate), up)
        } else if both_in_one {
            let (gate, up) = self.fused_gate_and_up(&both, n_ff, n_embd, share)?;
            (Some(gate), up)
        } else {
            (spec.gated.then(|| rows(self, Role::FfnGate)).transpose()?, rows(self, Role::FfnUp)?)
        };
        let name = |what: &str| format!("blk.{i}.{what}{suffix}");
        let (transposed, quants) = (name("ffn_down_t") + ".weight", name("ffn_down_t_q"));
        let mut down_stem = stem(Role::FfnDown);
        let (down, mut index) = if self.gguf.is_pwri() {
            ensure!(share.of == 1, "{transposed}: of several groups, which PowerInfer's files are not known to have");
            self.refuse_hot_prefix(&name)?;
            down_stem = name("ffn_down_t");
            (Down::Rows(self.matrix(&transposed, n_ff, n_embd, share)?), None)
        } else if self.has(&quants) {
            ensure!(share.of == 1, "{quants}: of several groups, which cannot be lossless");
            let (q, scales) = (self.take(&quants)?, self.take(&name("ffn_down_scale"))?);
            let index = self.index(&name, n_ff, share)?;
            let down = LosslessDown::new(self.gguf, q, scales, index.ids(), n_embd)?;
            (Down::Lossless(down), Some(index))
        } else if self.has(&transposed) {
            let down = Down::Rows(self.matrix(&transposed, n_ff, n_embd, share)?);
            (down, Some(self.index(&name, n_ff, share)?))
        } else {
            self.refuse_hot_prefix(&name)?;
            (self.plain_down(&format!("{down_stem}.weight"), n_ff, n_embd, share)?, None)
        };
        if let Some((index, shares)) = index.as_mut().zip(self.shares.as_ref()) {
            chosen::note(index, chosen, shares[self.n_groups], self.n_groups)?;
        }
        if let Some((index, shares)) = index.as_mut().zip(self.consecutive.as_ref()) {
            index.consecutive = Some(shares[self.n_groups]);
        }
        let access = match &down {
            Down::Columns(_) => Access::Whole,
            Down::Rows(_) | Down::Lossless(_) => Access::PerNeuron,
        };
        let bias = self.bias(&down_stem, n_embd, spec.down_bias, share)?;
        let down = Part { role: Role::FfnDown, tensor: Tensor::Down(down), bias, access };
        let predictor = match self.threshold {
            Some(threshold) => Some(self.predictor_of_powerinfer(i, n_ff, threshold)?),
            None if share.of == 1 && spec.width.is_none() => self.predictor(&name, n_ff)?,
            None => None,
        };
        if let Some(kinds) = &self.kinds {
            let (stated, found) = (&kinds[self.n_groups], predictor.as_ref().map_or(NO_PREDICTOR, Predictor::kind));
            ensure!(
                stated == found,
                "{KINDS}: the predictor of group {} is \"{}\", but the tensors of {} are those of \"{found}\"",
                self.n_groups,
                stated.chars().take(60).collect::<String>().escape_debug(),
                name("ffn_pred_*")
            );
        }
        Ok(NeuronGroup { gate, up, down, chosen, index, predictor })
    }

    /// Its rows are by slot, so a file without an index has them in the model's own order.
    fn predictor(&mut self, name: &dyn Fn(&str) -> String, n_ff: usize) -> Result<Option<Predictor>> {
        let (n_embd, whole) = (self.n_embd, Share::from(None));
        let name = |suffix: &str| name(&format!("ffn_pred_{suffix}"));
        let (signs, input) = (name("sign"), name("in.weight"));
        let scores = if self.has(&signs) {
            Scores::Signs(Signs::new(self.gguf, self.take(&signs)?, n_ff, n_embd)?)
        } else if self.has(&input) {
            let n_hidden = self.take(&input)?.n_rows();
            let input = self.matrix(&input, n_hidden, n_embd, whole)?;
            let bias = self.vector(&name("in.bias"), n_hidden)?;
            let output = self.matrix(&name("out.weight"), n_ff, n_hidden, whole)?;
            Scores::Factors { input, bias, output }
        } else {
            return Ok(None);
        };
        let bias_name = name("bias");
        let bias = self.vector(&bias_name, n_ff)?.with_context(|| format!("{bias_name}: the tensor is missing"))?;
        let mut predictor = Predictor::new(scores, bias).with_context(|| bias_name)?;
        predictor.reads = self.reads;
        predictor.measured = self.measured.as_ref().map(|groups| groups[self.n_groups]);
        Ok(Some(predictor))
    }

    /// That of layer `i` in a file of PowerInfer's, whose rows are in the model's own order.
    fn predictor_of_powerinfer(&mut self, i: usize, n_ff: usize, threshold: f32) -> Result<Predictor> {
        let whole = Share::from(None);
        let [inner, outer] = pwri::predictor_names(i);
        let n_hidden = self.take(&inner)?.n_rows();
        let input = self.matrix(&inner, n_hidden, self.n_embd, whole)?;
        let n_cols = self.take(&outer)?.n_cols();
        ensure!(n_cols == n_hidden, "{outer}: rows of {n_cols}, but {inner} gives {n_hidden} values");
        let output = self.matrix(&outer, n_ff, n_hidden, whole)?;
        let scores = Scores::Factors { input, bias: Some(vec![0.0; n_hidden]), output };
        let mut predictor = Predictor::new(scores, vec![-threshold; n_ff])?;
        predictor.reads = PredictorInput::Residual;
        Ok(predictor)
    }

    /// Refuses a planned hot prefix where neurons have the model's own order.
    fn refuse_hot_prefix(&self, name: &dyn Fn(&str) -> String) -> Result<()> {
        let n_hot = self.n_hot.get(self.n_groups).copied().unwrap_or(0);
        ensure!(n_hot == 0, "powerinfer.n_hot: a hot prefix of {n_hot}, but {} is missing", name("ffn_neuron_id"));
        Ok(())
    }

    fn index(&mut self, name: &dyn Fn(&str) -> String, n_ff: usize, share: Share) -> Result<NeuronIndex> {
        let id_name = name("ffn_neuron_id");
        let tensor = self.take(&id_name)?;
        let dims = share.dims(&[n_ff]);
        ensure!(tensor.dims == dims, "{id_name}: shape {:?}, but {dims:?} follows from the metadata", tensor.dims);
        ensure!(tensor.dtype == GgmlType::I32, "{id_name}: has type {} where I32 is wanted", tensor.dtype);
        let bytes = share.of_values(self.gguf.data(tensor)).chunks_exact(4);
        let ids = bytes.map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let mut floats = |name: &str| {
            self.share_of_floats(name, &[n_ff], share)?.with_context(|| format!("{name}: the tensor is missing"))
        };
        let (rate_name, mass_name) = (name("ffn_neuron_rate"), name("ffn_neuron_mass"));
        let (rates, mass) = (floats(&rate_name)?, floats(&mass_name)?);
        NeuronIndex::check_rates(&rates).with_context(|| rate_name)?;
        NeuronIndex::check_mass(&mass).with_context(|| mass_name)?;
        let open_name = name("ffn_neuron_open_rate");
        let open_rates = self.share_of_floats(&open_name, &[n_ff], share)?;
        if let Some(open) = &open_rates {
            NeuronIndex::check_open_rates(open, &rates).with_context(|| open_name)?;
        }
        let n_hot = self.n_hot.get(self.n_groups).copied().context("powerinfer.n_hot: the key is missing")?;
        ensure!(n_hot <= n_ff, "powerinfer.n_hot: a hot prefix of {n_hot} in the {n_ff} neurons of {id_name}");
        let mut index = NeuronIndex::new(ids, rates, mass, n_hot).with_context(|| id_name)?;
        index.open_rates = open_rates;
        index.cold = self.cold(&name("ffn_cold_fired"), n_ff, share)?;
        Ok(index)
    }

    /// Quantiles of cold neurons, where the profile had seen tokens one by one.
    fn cold(&mut self, name: &str, n_ff: usize, share: Share) -> Result<Option<ColdQuantiles>> {
        if !self.has(name) {
            return Ok(None);
        }
        let tensor = self.take(name)?;
        ensure!(tensor.dtype == GgmlType::F32, "{name}: has type {} where F32 is wanted", tensor.dtype);
        let n_dims = if share.of > 1 { 3 } else { 2 };
        ensure!(tensor.dims.len() == n_dims, "{name}: has {} dimensions where {n_dims} are wanted", tensor.dims.len());
        ensure!(share.of == 1 || tensor.dims[2] == share.of, "{name}: is not of {} groups", share.of);
        let bytes = share.of_values(self.gguf.data(tensor)).chunks_exact(4);
        let values: Vec<f32> = bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        ColdQuantiles::new(&values, tensor.dims[1], tensor.n_cols(), n_ff).with_context(|| name.to_owned()).map(Some)
    }

    /// Refuses tensors that have not been taken and that `skips` does not name: leaving one out would give a different
    /// model.
    pub fn finish(self, skips: &dyn Fn(&str) -> bool) -> Result<()> {
        let unknown = self.gguf.tensors().iter().find(|t| !self.taken.contains(&t.name) && !skips(&t.name));
        if let Some(tensor) = unknown {
            let arch = self.arch;
            bail!("{}: is not known for architecture {arch}; without it the model would be another one", tensor.name);
        }
        Ok(())
    }
}

/// How much of a part a token reads, as plain files have it.
fn access(role: Role) -> Access {
    match role {
        Role::TokenEmbd | Role::PositionEmbd => Access::PerToken,
        Role::FfnGate | Role::FfnUp => Access::PerNeuron,
        Role::OutputNorm
        | Role::Output
        | Role::RopeFreqs
        | Role::RopeFactorsLong
        | Role::RopeFactorsShort
        | Role::AttnNorm
        | Role::AttnNorm2
        | Role::PostAttnNorm
        | Role::FfnNorm
        | Role::PostFfnNorm
        | Role::AttnQ
        | Role::AttnK
        | Role::AttnV
        | Role::AttnQNorm
        | Role::AttnKNorm
        | Role::AttnKvA
        | Role::AttnKvANorm
        | Role::AttnKvB
        | Role::AttnOutput
        | Role::Router
        | Role::AttnSinks
        | Role::SsmIn
        | Role::SsmConv
        | Role::SsmDt
        | Role::SsmA
        | Role::SsmD
        | Role::SsmNorm
        | Role::SsmOut
        | Role::RouterBias
        | Role::LatentDown
        | Role::LatentUp
        | Role::FfnDown => Access::Whole,
    }
}

fn check_values(part: &Part) -> Result<()> {
    if [Role::RopeFreqs, Role::RopeFactorsLong, Role::RopeFactorsShort].contains(&part.role) {
        ensure!(part.vector().iter().all(|f| *f > 0.0 && f.is_finite()), "a divisor is not positive, or infinite");
    }
    if part.role == Role::SsmA {
        let wrong = part.vector().iter().find(|a| !(f32::MIN..=0.0).contains(*a));
        ensure!(wrong.is_none(), "{}: states fade by a finite number, not above 0", wrong.unwrap_or(&0.0));
    }
    if part.role == Role::RouterBias {
        ensure!(!part.vector().iter().any(|b| b.is_nan()), "NaN: experts are chosen by numbers");
    }
    Ok(())
}

/// Whether steps and parts need each other: what a step needs is there, and what is there some step uses.
fn check_layer(layer: &Layer, n_routed: usize, n_embd: usize) -> Result<()> {
    step::check(&layer.steps, n_routed > 0)?;
    let mut used: Vec<Role> = Vec::new();
    let mut not_needed: Vec<Role> = Vec::new();
    for step in &layer.steps {
        match *step {
            step::Step::Norm { of, .. } => used.push(of),
            step::Step::Attention { .. } => {
                used.extend([Role::AttnQ, Role::AttnOutput]);
                match layer.find(Role::AttnKvA) {
                    Some(_) => used.extend([Role::AttnKvA, Role::AttnKvANorm, Role::AttnKvB]),
                    None => used.extend([Role::AttnK, Role::AttnV]),
                }
                not_needed.extend([Role::AttnQNorm, Role::AttnKNorm, Role::AttnSinks]);
            }
            step::Step::Recurrent { .. } => used.extend([
                Role::SsmIn,
                Role::SsmConv,
                Role::SsmDt,
                Role::SsmA,
                Role::SsmD,
                Role::SsmNorm,
                Role::SsmOut,
            ]),
            step::Step::Project { of, from, to } => {
                used.push(of);
                ensure!(layer.find(of).is_some(), "a step needs {}", of.tensor());
                let matrix = layer.part(of).matrix();
                let wide = |vector: Vector, n: usize| vector.is_latent() || n == n_embd;
                ensure!(wide(from, matrix.n_cols) && wide(to, matrix.n_rows), "{}: of another width", of.tensor());
            }
            step::Step::Router { .. } => {
                used.push(Role::Router);
                not_needed.push(Role::RouterBias);
            }
            step::Step::Ffn { from, groups, .. } => {
                let mut own = layer.groups.iter().filter(|group| groups.has(group.is_routed())).peekable();
                ensure!(own.peek().is_some(), "an FFN without neurons");
                let latent = layer.find(Role::LatentDown).map(|part| part.matrix().n_rows);
                let width = if from.is_latent() { latent } else { Some(n_embd) };
                ensure!(
                    own.all(|group| Some(group.ffn_up().n_cols) == width),
                    "neurons that read another width than they are given"
                );
            }
            step::Step::Add { .. } => {}
        }
    }
    for role in &used {
        ensure!(layer.find(*role).is_some(), "a step needs {}", role.tensor());
    }
    used.append(&mut not_needed);
    if let Some(part) = layer.parts.iter().find(|part| !used.contains(&part.role)) {
        bail!("no step uses {}", part.role.tensor());
    }
    let used = |group: &NeuronGroup| {
        layer.steps.iter().any(|s| matches!(s, step::Step::Ffn { groups, .. } if groups.has(group.is_routed())))
    };
    ensure!(layer.groups.iter().all(used), "no step uses its neurons");
    ensure!((n_routed > 0) == layer.router.is_some(), "groups to choose and a router belong together");
    if let (Some(router), Some(part)) = (&layer.router, layer.find(Role::Router)) {
        let n = part.matrix().n_rows;
        ensure!(n == n_routed && (1..=n).contains(&router.n_used), "{} of {n_routed} groups chosen", router.n_used);
    }
    Ok(())
}

/// `dims` without those of 1 at the end, of which ggml writes none.
fn trimmed(dims: &[usize]) -> &[usize] {
    let n = dims.iter().rposition(|n| *n != 1).map_or(0, |last| last + 1);
    &dims[..n]
}

/// What `split` writes for people and other programs, and nothing here depends on: it must at least be what it is said to be.
fn check_own_keys(metadata: &Metadata) -> Result<()> {
    for key in ["powerinfer.source_fingerprint", "powerinfer.profile_sha256"] {
        metadata.str(key)?;
    }
    metadata.u64("powerinfer.profile_tokens")?;
    metadata.bool(super::SYNTHETIC_KEY)?;
    Ok(())
}

fn planned_n_hot(gguf: &Gguf, n_groups: usize) -> Result<Vec<usize>> {
    check_own_keys(gguf.metadata())?;
    if let Some(version) = gguf.metadata().u32("powerinfer.version")? {
        let known = VARIANT_VERSIONS.contains(&version);
        ensure!(
            known,
            "powerinfer.version: {version} is not known; 1 to 3 are; take a newer powerinfer, or split again"
        );
    }
    const KEY: &str = "powerinfer.n_hot";
    let Some(array) = gguf.metadata().array(KEY)? else { return Ok(Vec::new()) };
    let values = array.integers().context(KEY)?;
    ensure!(values.len() == n_groups, "{KEY}: {} values for {n_groups} groups of neurons", values.len());
    let count = |n: i64| usize::try_from(n).map_err(|_| anyhow!("{KEY}: {n} is not a number of neurons"));
    values.into_iter().map(count).collect()
}

/// Of predictors: names of their kinds, by group.
const KINDS: &str = "powerinfer.predictor.kinds";
/// The name where a group has none.
const NO_PREDICTOR: &str = "none";

/// What a file says of the predictors that were packed into it, as far as it is the same for all kinds.
fn stored_kinds(gguf: &Gguf, n_groups: usize) -> Result<Option<Vec<String>>> {
    const VERSION: &str = "powerinfer.predictor.version";
    if let Some(version) = gguf.metadata().u32(VERSION)? {
        let known = (1..=2).contains(&version);
        ensure!(known, "{VERSION}: {version} is not known; 1 and 2 are; take a newer powerinfer, or pack it in again");
    }
    let Some(array) = gguf.metadata().array(KINDS)? else { return Ok(None) };
    let kinds = array.strings().context(KINDS)?;
    ensure!(kinds.len() == n_groups, "{KINDS}: {} values for {n_groups} groups of neurons", kinds.len());
    Ok(Some(kinds.into_iter().map(|kind| String::from_utf8_lossy(kind).into_owned()).collect()))
}
