//! A LLaMA of a few kilobytes with random weights and a vocabulary.

use super::kind::Kind;
use super::model_file::{ModelFile, Tensor, Value};
use powerinfer::quant::GgmlType;

impl ModelFile {
    /// 2 layers, 32 wide, 64 ReLU neurons each, a context of 64 tokens, a SentencePiece vocabulary of letters.
    pub fn tiny() -> Self {
        Self::sized(32, 64)
    }

    /// Of another width and number of neurons.
    pub fn sized(n_embd: usize, n_ff: usize) -> Self {
        Self::layered(2, n_embd, n_ff)
    }

    /// Of another number of layers, too.
    pub fn layered(n_layer: usize, n_embd: usize, n_ff: usize) -> Self {
        let (n_head, head_dim) = (2, n_embd / 2);
        let kind = Kind {
            name: "tiny",
            n_vocab: tokens().len(),
            n_embd,
            n_ff: vec![n_ff; n_layer],
            n_head,
            n_head_kv: n_head,
            head_dim,
            n_rot: head_dim,
            tied: true,
            ..Kind::default()
        };
        let model = kind.file(&kind.weights(1));
        let mut tiny = Self::vocabulary_only();
        tiny.tensors = model.tensors;
        for (key, value) in model.keys {
            tiny.set(&key, value);
        }
        // What goes without saying, and the activation by another key.
        tiny.remove("llama.attention.head_count_kv").remove("llama.rope.").remove("llama.hidden_activation");
        tiny.set("powerinfer.activation", Value::Str("relu".to_owned()));
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
        let types: Vec<i32> = (0..tokens.len()).map(kind).collect();
        let scores: Vec<f32> = (0..tokens.len()).map(|id| -(id as f32)).collect();
        let mut tiny = Self::default();
        tiny.set("general.architecture", Value::Str("llama".to_owned()));
        tiny.set("general.name", Value::Str("tiny".to_owned()));
        tiny.set("tokenizer.ggml.model", Value::Str("llama".to_owned()));
        tiny.set("tokenizer.ggml.tokens", Value::Strings(tokens));
        tiny.set("tokenizer.ggml.scores", Value::f32s(&scores));
        tiny.set("tokenizer.ggml.token_type", Value::i32s(&types));
        tiny
    }

    /// Gives a token another text.
    pub fn rename_token(&mut self, id: usize, text: &str) -> &mut Self {
        let mut tokens = tokens();
        tokens[id] = text.into();
        self.set("tokenizer.ggml.tokens", Value::Strings(tokens))
    }

    /// As [`ModelFile::tiny`], with neurons by the hundred thousand: F16, all zero, and a few seconds' work to split.
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
                *tiny.tensor(&name) = Tensor::zeros(&name, GgmlType::F16, &dims);
            }
        }
        tiny
    }
}

/// `<unk> <s> </s>`, all bytes, the space, the letters.
fn tokens() -> Vec<String> {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(Into::into).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.push("\u{2581}".into());
    tokens.extend(('a'..='z').map(String::from));
    tokens
}
