//! Small random models of every kind: what they are, their weights, and their files.

use super::model_file::{self, ModelFile, Value};
use super::random::Random;
use anyhow::Result;
use half::{bf16, f16};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::model::spec::{self, GroupSpec, LayerSpec, PartSpec, Presence, Stack};
use powerinfer::model::{
    Activation, Architecture, Config, Defaults, Gating, Groups, Keys, NormKind, Role, RopeKind, Router, SCALES, Scales,
    Step, Temperature, Vector,
};
use powerinfer::profile::{Fingerprint, GroupCounts, Profile, ProfiledText, RouterCounts, Tally};
use powerinfer::progress::Silent;
use powerinfer::quant::GgmlType;
use powerinfer::variant::{self, Draft, Options};
use std::ops::Index;
use std::path::Path;

/// What a model is made of. Sizes are odd on purpose.
#[derive(Clone)]
pub struct Kind {
    pub name: &'static str,
    pub dtype: GgmlType,
    pub n_vocab: usize,
    pub n_embd: usize,
    pub n_ff: Vec<usize>,
    pub n_head: usize,
    pub n_head_kv: usize,
    pub head_dim: usize,
    pub n_rot: usize,
    pub rope_base: f32,
    /// Factor of linear scaling.
    pub rope_factor: f32,
    pub rope_freqs: bool,
    pub rope: Pairing,
    /// Of so many layers, the last one does not rotate.
    pub still_every: Option<usize>,
    /// YaRN instead of linear scaling.
    pub yarn: Option<Yarn>,
    /// What rotated queries and keys are multiplied by.
    pub attn_factor: f32,
    /// What scores are multiplied by; 0 is one over the root of a head's elements.
    pub attention_scale: f32,
    /// Its name, and behind a colon its threshold.
    pub activation: &'static str,
    pub biases: bool,
    pub tied: bool,
    /// Layer normalisation with a bias instead of RMS.
    pub layer_norm: bool,
    pub order: Order,
    /// How much sharper attention grows, and after how many tokens each time.
    pub temperature: Option<(f32, usize)>,
    /// Norms of queries and keys.
    pub head_norms: HeadNorms,
    /// What attention and FFN give is multiplied with this before it is added.
    pub scale: f32,
    /// What embeddings are multiplied with, and what logits are divided by.
    pub embedding_scale: f32,
    pub logit_scale: f32,
    pub gated: bool,
    /// Biases of gate, up and down.
    pub ffn_biases: bool,
    /// Two groups of neurons, stacked in tensors of three dimensions, of which a router chooses.
    pub routed: Option<Routed>,
}

/// How attention, FFN and norms follow each other in a layer.
#[derive(Clone, Copy, PartialEq)]
pub enum Order {
    /// `x += attn(norm(x)); x += ffn(norm(x))`.
    Serial,
    /// `x += attn(norm(x)) + ffn(norm(x))`, one norm.
    Parallel,
    /// The same with a norm each.
    TwoNorms,
    /// `x += norm(attn(x)); x += norm(ffn(x))`.
    PostNorms,
    /// `x += norm(attn(norm(x))); x += norm(ffn(norm(x)))`.
    BothNorms,
    /// `x += mixer(norm(x))`: attention in even layers, the FFN in odd ones.
    OneMixer,
}

/// What is normalised before queries and keys are rotated.
#[derive(Clone, Copy, PartialEq)]
pub enum HeadNorms {
    Absent,
    /// Each head.
    Each,
    /// All heads together.
    Together,
}

#[derive(Clone, Copy, PartialEq)]
pub struct Routed {
    /// Groups of the two that are chosen.
    pub n_used: usize,
    /// Whether the weights of the chosen ones are divided by their sum.
    pub normalised: bool,
    /// Whether the router reads the layer's raw input instead of the FFN's.
    pub early: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Pairing {
    Interleaved,
    Halves,
    Absent,
}

/// What YaRN has beside the factor.
#[derive(Clone, Copy, PartialEq)]
pub struct Yarn {
    /// Context before scaling.
    pub n_ctx: usize,
    pub beta_fast: f32,
    pub beta_slow: f32,
    /// How much of it is done.
    pub share: f32,
    /// 0 where the file does not say.
    pub log_multiplier: f32,
}

pub const EPS: f32 = 1e-5;
/// Groups of neurons that a router chooses from.
pub const N_GROUPS: usize = 2;
const NORMS: [&str; 5] = ["attn_norm", "attn_norm_2", "post_attention_norm", "ffn_norm", "post_ffw_norm"];

impl Default for Kind {
    fn default() -> Self {
        Self {
            name: "plain",
            dtype: GgmlType::F32,
            n_vocab: 61,
            n_embd: 40,
            n_ff: vec![56, 56, 56],
            n_head: 4,
            n_head_kv: 4,
            head_dim: 10,
            n_rot: 10,
            rope_base: 10_000.0,
            rope_factor: 1.0,
            rope_freqs: false,
            rope: Pairing::Interleaved,
            still_every: None,
            yarn: None,
            attn_factor: 1.0,
            attention_scale: 0.0,
            activation: "relu",
            biases: false,
            tied: false,
            layer_norm: false,
            order: Order::Serial,
            temperature: None,
            head_norms: HeadNorms::Absent,
            scale: 1.0,
            embedding_scale: 1.0,
            logit_scale: 1.0,
            gated: true,
            ffn_biases: false,
            routed: None,
        }
    }
}

/// Values as the file's type holds them; row length first.
pub struct Tensor {
    name: String,
    pub dtype: GgmlType,
    pub dims: Vec<usize>,
    pub values: Vec<f32>,
}

impl Tensor {
    fn stored(&self) -> model_file::Tensor {
        let bytes = |v: &f32| match self.dtype {
            GgmlType::F32 => v.to_le_bytes().to_vec(),
            GgmlType::F16 => f16::from_f32(*v).to_le_bytes().to_vec(),
            GgmlType::BF16 => bf16::from_f32(*v).to_le_bytes().to_vec(),
            other => panic!("{other}"),
        };
        let bytes = self.values.iter().flat_map(bytes).collect();
        model_file::Tensor { name: self.name.clone(), dtype: self.dtype, dims: self.dims.clone(), bytes }
    }
}

/// Tensors in the order of the file, to be had by name.
#[derive(Default)]
pub struct Tensors(Vec<Tensor>);

impl<Name: AsRef<str> + ?Sized> Index<&Name> for Tensors {
    type Output = Tensor;

    fn index(&self, name: &Name) -> &Tensor {
        self.0.iter().find(|t| t.name == name.as_ref()).expect("a tensor of that name")
    }
}

/// A variant of `model` by a made-up profile.
pub fn split(model: &Model, to: &Path) -> Result<()> {
    let mut random = Random::new(5);
    let groups = model.weights.group_sizes().into_iter().map(|n| GroupCounts {
        fired: (0..n).map(|_| random.below(100) as u64).collect(),
        mass: (0..n).map(|_| random.below(1000) as u64).collect(),
        opened: if model.has_two_masks() { vec![100; n].into() } else { Tally::new(0) },
    });
    let mut routers = RouterCounts::of_model(model);
    for router in &mut routers {
        router.chosen[0].fill(100);
        router.first = router.total();
    }
    let profile = Profile {
        fingerprint: Fingerprint::of(model)?,
        arch: model.config.arch.clone(),
        name: model.config.name.clone(),
        activation: model.config.activation.activation.to_string(),
        layer_of: model.weights.groups().map(|(layer, _)| layer as u32).collect(),
        groups: groups.collect(),
        texts: vec![ProfiledText { sha256: [0; 32], n_tokens: 100, n_ctx: 64 }],
        reuse: None,
        routers,
        fired_sets: None,
        unions: None,
        thresholds: None,
    };
    variant::write(model, &Draft::new(model, &profile, Options::default())?, None, to, &Silent)
}

impl Kind {
    /// Opens a file of that kind; of those that `llama` is, as such.
    pub fn load(&self, path: &Path) -> Result<Model> {
        match self.name() {
            "llama" => Model::new(Gguf::open(path)?, None),
            _ => Model::of_architectures(Gguf::open(path)?, None, &[self]),
        }
    }

    /// [`split`] of a file of that kind.
    pub fn split(&self, plain: &Path, to: &Path) -> Result<()> {
        split(&self.load(plain)?, to)
    }

    /// Random weights, such that attention is uneven and activations have about unit size: of all kinds, so that a model
    /// and the reference of another kind can be given the same ones.
    pub fn weights(&self, seed: u64) -> Tensors {
        let mut random = Random::new(seed);
        let mut tensors = Tensors::default();
        let mut add = |name: String, dims: Vec<usize>, dtype: GgmlType, mean: f32, spread: f32| {
            let n = dims.iter().product();
            let round = |v: f32| match dtype {
                GgmlType::F16 => f16::from_f32(v).to_f32(),
                GgmlType::BF16 => bf16::from_f32(v).to_f32(),
                _ => v,
            };
            let values = (0..n).map(|_| round(mean + spread * random.value())).collect();
            tensors.0.push(Tensor { name, dtype, dims, values });
        };
        let (n_embd, q, kv) = (self.n_embd, self.n_head * self.head_dim, self.n_head_kv * self.head_dim);
        let spread = |n: usize| 1.7 * 1.4 / (n as f32).sqrt();
        add("token_embd.weight".into(), vec![n_embd, self.n_vocab], self.dtype, 0.0, 1.5);
        for (i, n_ff) in self.n_ff.iter().enumerate() {
            let name = |part: &str| format!("blk.{i}.{part}");
            for norm in NORMS {
                add(name(norm) + ".weight", vec![n_embd], GgmlType::F32, 1.0, 0.3);
                add(name(norm) + ".bias", vec![n_embd], GgmlType::F32, 0.0, 0.3);
            }
            let matrices = [
                ("attn_q", n_embd, q),
                ("attn_k", n_embd, kv),
                ("attn_v", n_embd, kv),
                ("attn_output", q, n_embd),
                ("ffn_gate", n_embd, *n_ff),
                ("ffn_up", n_embd, *n_ff),
                ("ffn_down", *n_ff, n_embd),
            ];
            for (part, n_in, n_out) in matrices {
                add(name(part) + ".weight", vec![n_in, n_out], self.dtype, 0.0, spread(n_in));
                add(name(part) + ".bias", vec![n_out], GgmlType::F32, 0.0, 0.5);
                if part.starts_with("ffn") {
                    let stack = vec![n_in, n_out, N_GROUPS];
                    add(name(part) + "_exps.weight", stack, self.dtype, 0.0, spread(n_in));
                    add(name(part) + "_exps.bias", vec![n_out, N_GROUPS], GgmlType::F32, 0.0, 0.5);
                }
            }
            add(name("ffn_gate_inp.weight"), vec![n_embd, N_GROUPS], GgmlType::F32, 0.0, spread(n_embd));
        }
        add("output_norm.weight".into(), vec![n_embd], GgmlType::F32, 1.0, 0.3);
        add("output_norm.bias".into(), vec![n_embd], GgmlType::F32, 0.0, 0.3);
        add("rope_freqs.weight".into(), vec![self.n_rot / 2], GgmlType::F32, 2.0, 1.0);
        add("output.weight".into(), vec![n_embd, self.n_vocab], self.dtype, 0.0, spread(n_embd));
        for i in 0..self.n_ff.len() {
            let [q_norm, k_norm] = self.head_norm_sizes();
            add(format!("blk.{i}.attn_q_norm.weight"), vec![q_norm], GgmlType::F32, 1.0, 0.5);
            add(format!("blk.{i}.attn_k_norm.weight"), vec![k_norm], GgmlType::F32, 1.0, 0.5);
        }
        tensors
    }

    /// Elements of the norms of queries and of keys, where there are such.
    fn head_norm_sizes(&self) -> [usize; 2] {
        match self.head_norms {
            HeadNorms::Together => [self.n_head * self.head_dim, self.n_head_kv * self.head_dim],
            HeadNorms::Absent | HeadNorms::Each => [self.head_dim; 2],
        }
    }

    /// A file with these weights, as far as a model of this kind has them.
    pub fn file(&self, weights: &Tensors) -> ModelFile {
        let stored = weights.0.iter().filter(|t| self.has(&t.name));
        ModelFile { keys: self.keys(), tensors: stored.map(Tensor::stored).collect() }
    }

    /// Whether the mixer of layer `i` is, or has, attention; and an FFN.
    pub fn mixers(&self, i: usize) -> (bool, bool) {
        match self.order {
            Order::OneMixer => (i.is_multiple_of(2), !i.is_multiple_of(2)),
            Order::Serial | Order::Parallel | Order::TwoNorms | Order::PostNorms | Order::BothNorms => (true, true),
        }
    }

    /// Whether layer `i` rotates.
    pub fn rotates(&self, i: usize) -> bool {
        self.still_every.is_none_or(|n| !(i + 1).is_multiple_of(n))
    }

    /// Norms of a layer.
    pub fn norms(&self) -> &'static [&'static str] {
        match self.order {
            Order::Serial => &["attn_norm", "ffn_norm"],
            Order::Parallel | Order::OneMixer => &["attn_norm"],
            Order::TwoNorms => &["attn_norm", "attn_norm_2"],
            Order::PostNorms => &["post_attention_norm", "post_ffw_norm"],
            Order::BothNorms => &["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"],
        }
    }

    fn has(&self, name: &str) -> bool {
        let Some((layer, part)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
            return match name {
                "output_norm.bias" => self.layer_norm,
                "rope_freqs.weight" => self.rope_freqs,
                "output.weight" => !self.tied,
                _ => true,
            };
        };
        let (stem, end) = part.split_once('.').expect("weight or bias");
        let (attention, ffn) = self.mixers(layer.parse().expect("a number"));
        let bias = end == "bias";
        if ["attn_q_norm", "attn_k_norm"].contains(&stem) {
            return attention && self.head_norms != HeadNorms::Absent;
        }
        if stem.contains("norm") {
            return self.norms().contains(&stem) && (!bias || self.layer_norm);
        }
        if stem.starts_with("attn") {
            return attention && (!bias || self.biases);
        }
        if stem == "ffn_gate_inp" {
            return ffn && self.routed.is_some();
        }
        let gate = stem.starts_with("ffn_gate");
        ffn && stem.ends_with("_exps") == self.routed.is_some() && (self.gated || !gate) && (!bias || self.ffn_biases)
    }

    /// Name and threshold.
    pub fn activation(&self) -> (&'static str, Option<f32>) {
        let Some((name, threshold)) = self.activation.split_once(':') else { return (self.activation, None) };
        (name, Some(threshold.parse().expect("a number")))
    }

    fn keys(&self) -> Vec<(String, Value)> {
        let arch = self.name();
        let key = |k: &str| format!("{arch}.{k}");
        let eps = if self.layer_norm { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" };
        let size = |n: usize| Value::U32(n as u32);
        let same = self.n_ff.iter().all(|n| *n == self.n_ff[0]);
        let n_ff = match same {
            true => size(self.n_ff[0]),
            false => Value::i32s(&self.n_ff.iter().map(|n| *n as i32).collect::<Vec<_>>()),
        };
        let mut out = vec![
            ("general.architecture".to_owned(), Value::Str(arch.to_owned())),
            ("general.name".to_owned(), Value::Str(self.name.to_owned())),
            (key("context_length"), size(64)),
            (key("embedding_length"), size(self.n_embd)),
            (key("block_count"), size(self.n_ff.len())),
            (key("feed_forward_length"), n_ff),
            (key("attention.head_count"), size(self.n_head)),
            (key("attention.head_count_kv"), size(self.n_head_kv)),
            (key(eps), Value::F32(EPS)),
            (key("rope.dimension_count"), size(self.n_rot)),
            (key("rope.freq_base"), Value::F32(self.rope_base)),
            (key("hidden_activation"), Value::Str(self.activation().0.to_owned())),
        ];
        if let Some(threshold) = self.activation().1 {
            out.push((key("activation_threshold"), Value::F32(threshold)));
        }
        if self.n_head * self.head_dim != self.n_embd {
            out.push((key("attention.key_length"), size(self.head_dim)));
            out.push((key("attention.value_length"), size(self.head_dim)));
        }
        if self.rope_factor != 1.0 {
            let kind = if self.yarn.is_some() { "yarn" } else { "linear" };
            out.push((key("rope.scaling.type"), Value::Str(kind.to_owned())));
            out.push((key("rope.scaling.factor"), Value::F32(self.rope_factor)));
        }
        if let Some(yarn) = self.yarn {
            out.push((key("rope.scaling.original_context_length"), size(yarn.n_ctx)));
            out.push((key("rope.scaling.yarn_beta_fast"), Value::F32(yarn.beta_fast)));
            out.push((key("rope.scaling.yarn_beta_slow"), Value::F32(yarn.beta_slow)));
            out.push((key("rope.scaling.yarn_ext_factor"), Value::F32(yarn.share)));
            out.push((key("rope.scaling.yarn_log_multiplier"), Value::F32(yarn.log_multiplier)));
        }
        if self.attn_factor != 1.0 {
            out.push((key("rope.scaling.attn_factor"), Value::F32(self.attn_factor)));
        }
        if self.embedding_scale != 1.0 {
            out.push((key("embedding_scale"), Value::F32(self.embedding_scale)));
        }
        if self.logit_scale != 1.0 {
            out.push((key("logit_scale"), Value::F32(self.logit_scale)));
        }
        if self.attention_scale != 0.0 {
            out.push((key("attention.scale"), Value::F32(self.attention_scale)));
        }
        out
    }
}

/// A kind is an architecture of its own, but for those that `llama` is.
impl Architecture for Kind {
    fn name(&self) -> &'static str {
        let llama = self.order == Order::Serial && self.scale == 1.0 && self.gated;
        let llama = llama && self.head_norms == HeadNorms::Absent;
        let llama = llama && self.temperature.is_none();
        let llama = llama && self.still_every.is_none() && self.embedding_scale == 1.0 && self.logit_scale == 1.0;
        match llama && !self.layer_norm && self.routed.is_none() && self.rope == Pairing::Interleaved {
            true => "llama",
            false => "kind",
        }
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let config = keys.decoder(Defaults {
            norm: if self.layer_norm { NormKind::Layer } else { NormKind::Rms },
            rope: match self.rope {
                Pairing::Interleaved => RopeKind::Interleaved,
                Pairing::Halves => RopeKind::Halves,
                Pairing::Absent => RopeKind::None,
            },
            activation: Activation::Silu,
            computed: SCALES,
        })?;
        let rotated = (0..config.n_layer).map(|layer| self.rotates(layer)).collect();
        let temperature = self.temperature.map(|(scale, n_ctx)| Temperature { scale, n_ctx });
        Ok(Config { scales: keys.scales(Scales::NONE)?, rotated, temperature, ..config })
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let (attention, ffn) = self.mixers(layer);
        let role = |name: &str| Role::ALL.iter().copied().find(|role: &Role| role.tensor() == name).expect("a role");
        let mut parts: Vec<PartSpec> = self.norms().iter().map(|name| spec::norm(config, role(name))).collect();
        if attention {
            parts.extend(spec::attention(config));
            if self.head_norms != HeadNorms::Absent {
                let [q_norm, k_norm] = self.head_norm_sizes();
                parts.extend([PartSpec::vector(Role::AttnQNorm, q_norm), PartSpec::vector(Role::AttnKNorm, k_norm)]);
            }
        }
        let bias = if self.ffn_biases { Presence::Required } else { Presence::Absent };
        let dense = GroupSpec { bias, down_bias: bias, ..GroupSpec::dense(config.n_ff[layer], self.gated) };
        let stacked =
            |at| GroupSpec { suffix: "_exps", stack: Some(Stack { at, of: N_GROUPS }), routed: true, ..dense.clone() };
        let groups = match self.routed {
            _ if !ffn => Vec::new(),
            Some(_) => (0..N_GROUPS).map(stacked).collect(),
            None => vec![dense],
        };
        let router = self.routed.filter(|_| ffn).map(|routed| Router {
            gating: Gating::Softmax,
            n_used: routed.n_used,
            normalised: routed.normalised,
            scale: 1.0,
        });
        if router.is_some() {
            parts.push(PartSpec::matrix(Role::Router, N_GROUPS, config.n_embd));
        }
        LayerSpec { parts, groups, router, steps: self.steps(layer) }
    }
}

impl Kind {
    fn steps(&self, layer: usize) -> Vec<Step> {
        use Vector::{Fed, Mixed, Normed, Residual};
        let norm = |of, from, to| Step::Norm { of, from, to };
        let add = |from| Step::Add { from, scale: self.scale };
        let attention = |from| Step::Attention { from, to: Mixed };
        let ffn = |from| Step::Ffn { from, to: Fed, groups: Groups::All };
        let mut steps = match self.order {
            Order::Serial => vec![
                norm(Role::AttnNorm, Residual, Normed),
                attention(Normed),
                add(Mixed),
                norm(Role::FfnNorm, Residual, Normed),
                ffn(Normed),
                add(Fed),
            ],
            Order::Parallel => {
                vec![norm(Role::AttnNorm, Residual, Normed), attention(Normed), ffn(Normed), add(Mixed), add(Fed)]
            }
            Order::TwoNorms => vec![
                norm(Role::AttnNorm2, Residual, Normed),
                attention(Normed),
                norm(Role::AttnNorm, Residual, Normed),
                ffn(Normed),
                add(Mixed),
                add(Fed),
            ],
            Order::PostNorms => vec![
                attention(Residual),
                norm(Role::PostAttnNorm, Mixed, Mixed),
                add(Mixed),
                ffn(Residual),
                norm(Role::PostFfnNorm, Fed, Fed),
                add(Fed),
            ],
            Order::BothNorms => vec![
                norm(Role::AttnNorm, Residual, Normed),
                attention(Normed),
                norm(Role::PostAttnNorm, Mixed, Mixed),
                add(Mixed),
                norm(Role::FfnNorm, Residual, Normed),
                ffn(Normed),
                norm(Role::PostFfnNorm, Fed, Fed),
                add(Fed),
            ],
            Order::OneMixer if self.mixers(layer).0 => {
                vec![norm(Role::AttnNorm, Residual, Normed), attention(Normed), add(Mixed)]
            }
            Order::OneMixer => vec![norm(Role::AttnNorm, Residual, Normed), ffn(Normed), add(Fed)],
        };
        if let Some(routed) = self.routed.filter(|_| self.mixers(layer).1) {
            let ffn = steps.iter().position(|step| matches!(step, Step::Ffn { .. })).expect("an FFN");
            let (at, from) = if routed.early { (0, Residual) } else { (ffn, steps[ffn].reads()) };
            steps.insert(at, Step::Router { from });
        }
        steps
    }
}
