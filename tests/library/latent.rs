//! PLM, whose keys and values come from a narrow vector.

use crate::architecture_forms::{on_a_card, path, refuses_key, refuses_shape, refuses_tensor};
use crate::support::{ModelFile, Value};
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;

#[test]
fn plm_refuses_what_it_does_not_compute() {
    refuses_key("plm", "plm.attention.head_count_kv", Value::U32(2), "keys and values of its own");
    refuses_key("plm", "plm.attention.kv_lora_rank", Value::U32(0), "must not be 0");
    refuses_key("plm", "plm.attention.kv_lora_rank", Value::U32(u32::MAX), "sizes beyond");
    refuses_key("plm", "plm.attention.q_lora_rank", Value::U32(8), "latent attention");
    refuses_key("plm", "plm.attention.key_length_mla", Value::U32(8), "latent attention");
    refuses_key("plm", "plm.rope.dimension_count", Value::U32(12), "cannot be rotated");
    refuses_tensor("plm", "output.weight", &[32, 40]);
    refuses_tensor("plm", "blk.0.attn_k.weight", &[32, 40]);
    refuses_tensor("plm", "blk.0.ffn_gate.weight", &[32, 36]);
    refuses_shape("plm", "blk.0.attn_kv_a_norm.weight", None);
    refuses_shape("plm", "blk.1.attn_kv_b.weight", Some(&[12, 72]));
    refuses_shape("plm", "blk.2.attn_output.weight", Some(&[40, 32]));
}

/// llama.cpp writes it into every file that it saves.
#[test]
fn a_width_of_values_where_there_is_a_window_is_that_of_all_layers() -> Result<()> {
    const KEY: &str = "plm.attention.value_length_swa";
    let folder = tempfile::tempdir()?;
    let mut file = ModelFile::opened(&path("plm"))?;
    file.set(KEY, Value::U32(8));
    Model::new(Gguf::open(&file.written(folder.path(), "saved.gguf"))?, None)?;
    refuses_key("plm", KEY, Value::U32(10), "a value for layers with a window");
    Ok(())
}

#[test]
fn keys_and_values_have_widths_of_their_own_in_the_cache() -> Result<()> {
    let model = Model::new(Gguf::open(&path("plm"))?, None)?;
    let executor = |kv_type: KvType| {
        let (n_threads, n_ctx, mode, n_ubatch, isa) = (1, 16, Mode::Exact, 4, Isa::detect());
        let params = ExecutorParams { n_threads, n_ctx, kv_type, mode, n_ubatch, isa };
        Executor::new(&model, Placement::all_cold(&model), params)
    };
    // Three layers of 16 tokens, with 4 heads of 10 and of 8 floats.
    assert_eq!(executor(KvType::F32)?.sequence().memory().n_bytes(), 3 * 16 * 4 * (10 + 8) * 4);
    let error = executor(KvType::Q8_0).err().context("heads of 10 elements are no whole blocks")?;
    assert!(error.to_string().contains("heads of 10 are not whole blocks of 32"), "{error}");
    Ok(())
}

#[test]
fn a_card_names_the_narrow_vector_that_it_does_not_compute() -> Result<()> {
    let line = on_a_card(&Model::new(Gguf::open(&path("plm"))?, None)?);
    assert!(line.contains("attn_kv_a_mqa: keys and values from a narrow vector"), "{line}");
    Ok(())
}
