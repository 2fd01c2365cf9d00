//! Small random models of every kind: what they are, their weights, and their files.

use super::model_file::{self, ModelFile, Value};
use super::random::Random;
use half::{bf16, f16};
use powerinfer::quant::GgmlType;
use std::ops::Index;

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
    pub activation: &'static str,
    pub biases: bool,
    pub tied: bool,
    /// Layer normalisation with a bias instead of RMS.
    pub layer_norm: bool,
    pub parallel: bool,
    pub gated: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Pairing {
    Interleaved,
    Halves,
    Absent,
}

pub const EPS: f32 = 1e-5;

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
            activation: "relu",
            biases: false,
            tied: false,
            layer_norm: false,
            parallel: false,
            gated: true,
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

impl Kind {
    /// Random weights, such that attention is uneven and activations have about unit size. Norms' biases, and weights
    /// that a file of architecture `llama` cannot hold, are `extra.*`: no part of the file.
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
                if self.biases && part.starts_with("attn") {
                    add(name(part) + ".bias", vec![n_out], GgmlType::F32, 0.0, 0.5);
                }
            }
            add(name("attn_norm.weight"), vec![n_embd], GgmlType::F32, 1.0, 0.3);
            add(name("ffn_norm.weight"), vec![n_embd], GgmlType::F32, 1.0, 0.3);
            add(format!("extra.{i}.attn_norm.bias"), vec![n_embd], GgmlType::F32, 0.0, 0.3);
            add(format!("extra.{i}.ffn_norm.bias"), vec![n_embd], GgmlType::F32, 0.0, 0.3);
        }
        add("output_norm.weight".into(), vec![n_embd], GgmlType::F32, 1.0, 0.3);
        add("extra.output_norm.bias".into(), vec![n_embd], GgmlType::F32, 0.0, 0.3);
        if self.rope_freqs {
            add("rope_freqs.weight".into(), vec![self.n_rot / 2], GgmlType::F32, 2.0, 1.0);
        }
        if !self.tied {
            add("output.weight".into(), vec![n_embd, self.n_vocab], self.dtype, 0.0, spread(n_embd));
        }
        tensors
    }

    /// A file of architecture `llama` with these weights.
    pub fn file(&self, weights: &Tensors) -> ModelFile {
        let stored = weights.0.iter().filter(|t| !t.name.starts_with("extra."));
        ModelFile { keys: self.keys(), tensors: stored.map(Tensor::stored).collect() }
    }

    fn keys(&self) -> Vec<(String, Value)> {
        let key = |k: &str| format!("llama.{k}");
        let size = |n: usize| Value::U32(n as u32);
        let same = self.n_ff.iter().all(|n| *n == self.n_ff[0]);
        let n_ff = match same {
            true => size(self.n_ff[0]),
            false => Value::i32s(&self.n_ff.iter().map(|n| *n as i32).collect::<Vec<_>>()),
        };
        let mut out = vec![
            ("general.architecture".to_owned(), Value::Str("llama".to_owned())),
            ("general.name".to_owned(), Value::Str(self.name.to_owned())),
            (key("context_length"), size(64)),
            (key("embedding_length"), size(self.n_embd)),
            (key("block_count"), size(self.n_ff.len())),
            (key("feed_forward_length"), n_ff),
            (key("attention.head_count"), size(self.n_head)),
            (key("attention.head_count_kv"), size(self.n_head_kv)),
            (key("attention.layer_norm_rms_epsilon"), Value::F32(EPS)),
            (key("rope.dimension_count"), size(self.n_rot)),
            (key("rope.freq_base"), Value::F32(self.rope_base)),
            (key("hidden_activation"), Value::Str(self.activation.to_owned())),
        ];
        if self.n_head * self.head_dim != self.n_embd {
            out.push((key("attention.key_length"), size(self.head_dim)));
            out.push((key("attention.value_length"), size(self.head_dim)));
        }
        if self.rope_factor != 1.0 {
            out.push((key("rope.scaling.type"), Value::Str("linear".to_owned())));
            out.push((key("rope.scaling.factor"), Value::F32(self.rope_factor)));
        }
        out
    }
}
