//! A LLaMA of a few kilobytes with random weights, written with the library's own writer.

use super::Random;
use powerinfer::gguf::write::{MetadataBuilder, PlannedTensor, Value, Writer};
use powerinfer::quant::GgmlType;
use std::path::{Path, PathBuf};

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// One tensor: its plan and its bytes, or the first of them where the rest are zeros.
type Tensor = (PlannedTensor, Vec<u8>);

/// Metadata and tensors that may be changed before they are written.
#[derive(Clone)]
pub struct Tiny {
    keys: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
}

impl Tiny {
    /// 2 layers, 32 wide, 64 ReLU neurons each, a context of 64 tokens, a SentencePiece vocabulary of letters.
    pub fn new() -> Self {
        Self::sized(32, 64)
    }

    /// Of another width and number of neurons.
    pub fn sized(n_embd: usize, n_ff: usize) -> Self {
        Self::layered(2, n_embd, n_ff)
    }

    /// Of another number of layers, too.
    pub fn layered(n_layer: usize, n_embd: usize, n_ff: usize) -> Self {
        let mut tiny = Self::vocabulary_only();
        for (key, value) in [
            ("llama.block_count", n_layer as u32),
            ("llama.embedding_length", n_embd as u32),
            ("llama.feed_forward_length", n_ff as u32),
            ("llama.attention.head_count", 2),
            ("llama.context_length", 64),
        ] {
            tiny.set(key, Value::U32(value));
        }
        tiny.set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
        tiny.set("powerinfer.activation", Value::Str("relu".to_owned()));
        let mut random = Random(1);
        tiny.add(&mut random, "token_embd.weight", &[n_embd, tokens().len()]);
        for i in 0..n_layer {
            for norm in ["attn_norm", "ffn_norm"] {
                tiny.ones(&format!("blk.{i}.{norm}.weight"), n_embd);
            }
            for matrix in ["attn_q", "attn_k", "attn_v", "attn_output"] {
                tiny.add(&mut random, &format!("blk.{i}.{matrix}.weight"), &[n_embd, n_embd]);
            }
            tiny.add(&mut random, &format!("blk.{i}.ffn_gate.weight"), &[n_embd, n_ff]);
            tiny.add(&mut random, &format!("blk.{i}.ffn_up.weight"), &[n_embd, n_ff]);
            tiny.add(&mut random, &format!("blk.{i}.ffn_down.weight"), &[n_ff, n_embd]);
        }
        tiny.ones("output_norm.weight", n_embd);
        tiny
    }

    /// A file without weights.
    pub fn vocabulary_only() -> Self {
        let tokens = tokens();
        let kind = |id: usize| match id {
            0 => 2,
            1 | 2 => 3,
            3..259 => 6,
            _ => 1,
        };
        let types = (0..tokens.len()).map(kind).collect();
        let scores = (0..tokens.len()).map(|id| -(id as f32)).collect();
        let mut tiny = Self { keys: Vec::new(), tensors: Vec::new() };
        tiny.set("general.architecture", Value::Str("llama".to_owned()));
        tiny.set("general.name", Value::Str("tiny".to_owned()));
        tiny.set("tokenizer.ggml.model", Value::Str("llama".to_owned()));
        tiny.set("tokenizer.ggml.tokens", Value::ArrayStr(tokens));
        tiny.set("tokenizer.ggml.scores", Value::ArrayF32(scores));
        tiny.set("tokenizer.ggml.token_type", Value::ArrayI32(types));
        tiny
    }

    /// Sets or replaces a key.
    pub fn set(&mut self, key: &str, value: Value) -> &mut Self {
        match self.keys.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => self.keys.push((key.to_owned(), value)),
        }
        self
    }

    /// Adds a key even if it is there.
    pub fn set_again(&mut self, key: &str, value: Value) -> &mut Self {
        self.keys.push((key.to_owned(), value));
        self
    }

    /// Takes out all keys that begin so.
    pub fn remove(&mut self, prefix: &str) -> &mut Self {
        let before = self.keys.len();
        self.keys.retain(|(k, _)| !k.starts_with(prefix));
        assert!(self.keys.len() < before, "{prefix}: no such key");
        self
    }

    /// Gives a token another text.
    pub fn rename_token(&mut self, id: usize, text: &str) -> &mut Self {
        let mut tokens = tokens();
        tokens[id] = text.into();
        self.set("tokenizer.ggml.tokens", Value::ArrayStr(tokens))
    }

    /// A tensor, to be changed.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|(t, _)| t.name == name).expect("a tensor of that name")
    }

    /// Adds a tensor even if one of that name is there.
    pub fn push(&mut self, tensor: Tensor) -> &mut Self {
        self.tensors.push(tensor);
        self
    }

    /// Overwrites one element of an F32 tensor.
    pub fn poke(&mut self, name: &str, element: usize, value: f32) -> &mut Self {
        self.tensor(name).1[4 * element..][..4].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// As [`Tiny::new`], with neurons by the hundred thousand: F16, all zero, and a few seconds' work to split.
    pub fn large() -> Self {
        Self::zeros(2, 1 << 18)
    }

    /// Of many neurons in many layers: F16, all zero.
    pub fn zeros(n_layer: usize, n_ff: usize) -> Self {
        let mut tiny = Self::layered(n_layer, 64, 64);
        tiny.set("llama.feed_forward_length", Value::U32(n_ff as u32));
        for i in 0..n_layer {
            for (matrix, dims) in [("gate", [64, n_ff]), ("up", [64, n_ff]), ("down", [n_ff, 64])] {
                let name = format!("blk.{i}.ffn_{matrix}.weight");
                let plan = PlannedTensor { name: name.clone(), dtype: GgmlType::F16, dims: dims.to_vec() };
                *tiny.tensor(&name) = (plan, Vec::new());
            }
        }
        tiny
    }

    fn add(&mut self, random: &mut Random, name: &str, dims: &[usize]) {
        let n = dims.iter().product();
        // Wide layers add up more products.
        let scale = 2.0 / (dims[0] as f32).sqrt();
        self.floats(name, dims, (0..n).map(|_| scale * random.weight()).collect());
    }

    fn ones(&mut self, name: &str, n: usize) {
        self.floats(name, &[n], vec![1.0; n]);
    }

    fn floats(&mut self, name: &str, dims: &[usize], values: Vec<f32>) {
        let plan = PlannedTensor { name: name.to_owned(), dtype: GgmlType::F32, dims: dims.to_vec() };
        self.push((plan, values.iter().flat_map(|v| v.to_le_bytes()).collect()));
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) {
        let mut metadata = MetadataBuilder::default();
        for (key, value) in &self.keys {
            metadata.add(key, value);
        }
        let planned: Vec<_> = self.tensors.iter().map(|(t, _)| t.clone()).collect();
        let mut writer = Writer::create(path, &metadata, &planned, 32).expect("a header");
        for (plan, bytes) in &self.tensors {
            writer.append(bytes).expect("room on the disk");
            // Large tensors are given without data: zeros.
            let mut left = plan.n_bytes().expect("whole blocks") - bytes.len();
            while left > 0 {
                let n = left.min(ZEROS.len());
                writer.append(&ZEROS[..n]).expect("room on the disk");
                left -= n;
            }
        }
        writer.finish().expect("room on the disk");
    }

    /// The file in that folder.
    pub fn written(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        self.write(&path);
        path
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::read(self.written(folder.path(), "tiny.gguf")).expect("the file just written")
    }
}

/// `<unk> <s> </s>`, all bytes, the space, the letters.
fn tokens() -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = ["<unk>", "<s>", "</s>"].map(Into::into).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>").into_bytes()));
    tokens.push("\u{2581}".into());
    tokens.extend(('a'..='z').map(|letter| letter.to_string().into_bytes()));
    tokens
}
