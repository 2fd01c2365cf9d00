//! Small random models: what they are, their weights, and their GGUF files of any version.

use half::{bf16, f16};
use powerinfer::quant::GgmlType;
use std::collections::BTreeMap;

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
    pub dtype: GgmlType,
    pub dims: Vec<usize>,
    pub values: Vec<f32>,
}

impl Tensor {
    pub fn bytes(&self) -> Vec<u8> {
        let bytes = |v: &f32| match self.dtype {
            GgmlType::F32 => v.to_le_bytes().to_vec(),
            GgmlType::F16 => f16::from_f32(*v).to_le_bytes().to_vec(),
            GgmlType::BF16 => bf16::from_f32(*v).to_le_bytes().to_vec(),
            other => panic!("{other}"),
        };
        self.values.iter().flat_map(bytes).collect()
    }
}

pub type Tensors = BTreeMap<String, Tensor>;

/// xorshift64*
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n as u64) as usize
    }

    /// Evenly from -1 to 1.
    pub fn value(&mut self) -> f32 {
        (self.below(1 << 24) as f64 / f64::from(1 << 23) - 1.0) as f32
    }
}

/// Random weights, such that attention is uneven and activations have about unit size. Norms' biases, and weights
/// that a file of architecture `llama` cannot hold, are `extra.*`: no part of the file.
pub fn weights(kind: &Kind, seed: u64) -> Tensors {
    let mut random = Random::new(seed);
    let mut tensors = Tensors::new();
    let mut add = |name: String, dims: Vec<usize>, dtype: GgmlType, mean: f32, spread: f32| {
        let n = dims.iter().product();
        let round = |v: f32| match dtype {
            GgmlType::F16 => f16::from_f32(v).to_f32(),
            GgmlType::BF16 => bf16::from_f32(v).to_f32(),
            _ => v,
        };
        let values = (0..n).map(|_| round(mean + spread * random.value())).collect();
        tensors.insert(name, Tensor { dtype, dims, values });
    };
    let (n_embd, q, kv) = (kind.n_embd, kind.n_head * kind.head_dim, kind.n_head_kv * kind.head_dim);
    let spread = |n: usize| 1.7 * 1.4 / (n as f32).sqrt();
    add("token_embd.weight".into(), vec![n_embd, kind.n_vocab], kind.dtype, 0.0, 1.5);
    for (i, n_ff) in kind.n_ff.iter().enumerate() {
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
            add(name(part) + ".weight", vec![n_in, n_out], kind.dtype, 0.0, spread(n_in));
            if kind.biases && part.starts_with("attn") {
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
    if kind.rope_freqs {
        add("rope_freqs.weight".into(), vec![kind.n_rot / 2], GgmlType::F32, 2.0, 1.0);
    }
    if !kind.tied {
        add("output.weight".into(), vec![n_embd, kind.n_vocab], kind.dtype, 0.0, spread(n_embd));
    }
    tensors
}

/// A metadata value with its GGUF type number.
pub enum Scalar {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(String),
    U64(u64),
    I64(i64),
    F64(f64),
    /// Element type, number of elements, their bytes; no strings.
    Array(u32, usize, Vec<u8>),
    Strings(Vec<&'static str>),
}

pub fn metadata(kind: &Kind) -> Vec<(String, Scalar)> {
    let key = |k: &str| format!("llama.{k}");
    let size = |n: usize| Scalar::U32(n as u32);
    let same = kind.n_ff.iter().all(|n| *n == kind.n_ff[0]);
    let n_ff = match same {
        true => size(kind.n_ff[0]),
        false => Scalar::Array(5, kind.n_ff.len(), kind.n_ff.iter().flat_map(|n| (*n as i32).to_le_bytes()).collect()),
    };
    let mut out = vec![
        ("general.architecture".to_owned(), Scalar::Str("llama".to_owned())),
        ("general.name".to_owned(), Scalar::Str(kind.name.to_owned())),
        (key("context_length"), size(64)),
        (key("embedding_length"), size(kind.n_embd)),
        (key("block_count"), size(kind.n_ff.len())),
        (key("feed_forward_length"), n_ff),
        (key("attention.head_count"), size(kind.n_head)),
        (key("attention.head_count_kv"), size(kind.n_head_kv)),
        (key("attention.layer_norm_rms_epsilon"), Scalar::F32(EPS)),
        (key("rope.dimension_count"), size(kind.n_rot)),
        (key("rope.freq_base"), Scalar::F32(kind.rope_base)),
        (key("hidden_activation"), Scalar::Str(kind.activation.to_owned())),
    ];
    if kind.n_head * kind.head_dim != kind.n_embd {
        out.push((key("attention.key_length"), size(kind.head_dim)));
        out.push((key("attention.value_length"), size(kind.head_dim)));
    }
    if kind.rope_factor != 1.0 {
        out.push((key("rope.scaling.type"), Scalar::Str("linear".to_owned())));
        out.push((key("rope.scaling.factor"), Scalar::F32(kind.rope_factor)));
    }
    out
}

/// A whole GGUF file. Version 1 has 32-bit counts, lengths and dimensions where later ones have 64 bits; tensor
/// offsets always have 64.
pub fn gguf(version: u32, metadata: &[(String, Scalar)], tensors: &Tensors) -> Vec<u8> {
    let length =
        |n: usize| if version == 1 { (n as u32).to_le_bytes().to_vec() } else { (n as u64).to_le_bytes().to_vec() };
    let string = |s: &str| [length(s.len()), s.as_bytes().to_vec()].concat();
    let tensors: Vec<_> = tensors.iter().filter(|(name, _)| !name.starts_with("extra.")).collect();
    let mut out = b"GGUF".to_vec();
    out.extend(version.to_le_bytes());
    out.extend(length(tensors.len()));
    out.extend(length(metadata.len()));
    for (key, value) in metadata {
        out.extend(string(key));
        let (id, bytes): (u32, Vec<u8>) = match value {
            Scalar::U8(v) => (0, vec![*v]),
            Scalar::I8(v) => (1, v.to_le_bytes().to_vec()),
            Scalar::U16(v) => (2, v.to_le_bytes().to_vec()),
            Scalar::I16(v) => (3, v.to_le_bytes().to_vec()),
            Scalar::U32(v) => (4, v.to_le_bytes().to_vec()),
            Scalar::I32(v) => (5, v.to_le_bytes().to_vec()),
            Scalar::F32(v) => (6, v.to_le_bytes().to_vec()),
            Scalar::Bool(v) => (7, vec![u8::from(*v)]),
            Scalar::Str(v) => (8, string(v)),
            Scalar::U64(v) => (10, v.to_le_bytes().to_vec()),
            Scalar::I64(v) => (11, v.to_le_bytes().to_vec()),
            Scalar::F64(v) => (12, v.to_le_bytes().to_vec()),
            Scalar::Array(element, n, bytes) => {
                (9, [element.to_le_bytes().to_vec(), length(*n), bytes.clone()].concat())
            }
            Scalar::Strings(items) => {
                let bytes = items.iter().flat_map(|s| string(s)).collect();
                (9, [8u32.to_le_bytes().to_vec(), length(items.len()), bytes].concat())
            }
        };
        out.extend(id.to_le_bytes());
        out.extend(bytes);
    }
    let mut data = Vec::new();
    for (name, tensor) in tensors {
        out.extend(string(name));
        out.extend((tensor.dims.len() as u32).to_le_bytes());
        tensor.dims.iter().for_each(|d| out.extend(length(*d)));
        out.extend(tensor.dtype.id().to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        data.extend(tensor.bytes());
        data.resize(data.len().next_multiple_of(32), 0);
    }
    out.resize(out.len().next_multiple_of(32), 0);
    [out, data].concat()
}
