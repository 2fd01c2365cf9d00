//! GGUF files: header, metadata, vocabulary, and the model in them.

use super::models;
use super::parts::Parts;
use super::target::Target;
use anyhow::Result;
use powerinfer::gguf::{Gguf, Metadata};
use powerinfer::model::Model;
use powerinfer::tokenizer::{Special, Tokenizer, Vocab, read_vocab};

/// What readers look for, and values that mean something to them.
const WORDS: &[&str] = &[
    "general.architecture",
    "general.name",
    "general.alignment",
    "llama.context_length",
    "llama.embedding_length",
    "llama.block_count",
    "llama.feed_forward_length",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.attention.key_length",
    "llama.attention.value_length",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.attention.scale",
    "llama.rope.dimension_count",
    "llama.rope.freq_base",
    "llama.rope.scaling.type",
    "llama.rope.scaling.factor",
    "llama.rope.scale_linear",
    "llama.rope.scaling.attn_factor",
    "llama.expert_count",
    "llama.expert_used_count",
    "llama.expert_feed_forward_length",
    "llama.expert_gating_func",
    "blk.0.ffn_gate_inp.weight",
    "blk.0.ffn_gate_up_exps.weight",
    "blk.1.ffn_up.1.weight",
    "blk.1.ffn_down_exps.weight",
    "llama.hidden_activation",
    "powerinfer.activation",
    "powerinfer.version",
    "powerinfer.n_hot",
    "powerinfer.sparse_threshold",
    "generic.gpu_index",
    "blk.0.fc1.weight",
    "blk.1.fc2.weight",
    "blk.0.ffn_down_t.weight",
    "powerinfer.synthetic",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.pre",
    "tokenizer.chat_template",
    "llama",
    "arcee",
    "relu",
    "silu",
    "linear",
    "yarn",
    "gpt2",
    "llama-bpe",
    "deepseek-llm",
    "blk.0.attn_q.bias",
    "blk.1.ffn_down.weight",
    "blk.2.ffn_up.weight",
    "output.weight",
    "rope_freqs.weight",
    "\u{2581}a",
    "<0x61>",
    "</s>",
];

pub struct Files(Vec<Parts>);

impl Files {
    pub fn new() -> Self {
        let parts = |file: crate::support::ModelFile| Parts::of(&models::open(&file.bytes()).expect("a file"));
        Self(models::plain().into_iter().map(parts).collect())
    }
}

impl Target for Files {
    type Form = Parts;

    fn name(&self) -> &'static str {
        "gguf"
    }

    fn seeds(&self) -> Vec<Parts> {
        self.0.clone()
    }

    fn words(&self) -> &[&str] {
        WORDS
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        let gguf = models::open(input)?;
        read_all(gguf.metadata());
        read_data(&gguf, input);
        // Those of the other kind take a millisecond each, and have a target of their own.
        let letters = |vocab: &Vocab| vocab.model != "gpt2";
        if let Some(tokenizer) = read_vocab(&gguf).ok().filter(letters).and_then(|vocab| Tokenizer::new(vocab).ok()) {
            let ids = tokenizer.encode_prompt("a <s>b", Special::Parse, true)?;
            let _ = tokenizer.decode(&ids);
        }
        models::try_out(&Model::new(gguf, None)?)
    }
}

/// Every key as every type.
fn read_all(metadata: &Metadata) {
    for entry in metadata.entries() {
        let key = &entry.key;
        assert!(metadata.has(key));
        let single = [
            metadata.u64(key).is_ok(),
            metadata.u32(key).is_ok(),
            metadata.f32(key).is_ok(),
            metadata.bool(key).is_ok(),
            metadata.str(key).is_ok(),
        ];
        let Ok(Some(array)) = metadata.array(key) else { continue };
        assert_eq!(single, [false; 5], "{key}: is an array and a single value");
        let lengths = [
            array.strings().map(|items| items.len()),
            array.integers().map(|items| items.len()),
            array.floats().map(|items| items.len()),
        ];
        assert!(lengths.into_iter().flatten().all(|n| n == array.len), "{key}: has lost elements");
    }
}

/// Tensors are inside the file, and apart.
fn read_data(gguf: &Gguf, input: &[u8]) {
    let total: usize = gguf.tensors().iter().map(|tensor| gguf.data(tensor).len()).sum();
    assert!(total <= input.len(), "{total} bytes of tensors in {}", input.len());
    for tensor in gguf.tensors() {
        let row = tensor.dtype.row_bytes(tensor.n_cols()).expect("whole blocks");
        assert_eq!(gguf.data(tensor).len(), row * tensor.n_rows(), "{}", tensor.name);
        assert!(tensor.data.start.is_multiple_of(8), "{}", tensor.name);
    }
}
