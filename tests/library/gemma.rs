//! Gemma 2 and 3: what no key says, what they refuse, and what a card says of them and of windows.

use crate::architecture_forms::{on_a_card, path, refuses_key, refuses_shape, refuses_tensor};
use crate::support::{ModelFile, Tensor, Value};
use anyhow::{Context, Result};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;

#[test]
fn gemma2_refuses_what_it_does_not_compute() {
    refuses_key("gemma2", "gemma2.attn_logit_softcapping", Value::F32(-1.0), "negative");
    refuses_key("gemma2", "gemma2.final_logit_softcapping", Value::F32(f32::INFINITY), "finite number");
    refuses_key("gemma2", "gemma2.rope.freq_base_swa", Value::F32(-5.0), "not positive");
    refuses_key("gemma2", "gemma2.rope.dimension_count_swa", Value::U32(2), "a value for layers with a window");
    refuses_key("gemma2", "gemma2.attention.sliding_window", Value::F32(-3.0), "number of tokens");
    refuses_key("gemma2", "gemma2.expert_count", Value::U32(8), "mixture");
    refuses_tensor("gemma2", "output.weight", &[32, 273]);
    refuses_tensor("gemma2", "rope_freqs.weight", &[2]);
    refuses_tensor("gemma2", "blk.0.attn_q_norm.weight", &[4]);
    refuses_shape("gemma2", "blk.4.post_ffw_norm.weight", None);
    refuses_shape("gemma2", "blk.0.post_attention_norm.weight", Some(&[16]));
}

#[test]
fn gemma3_refuses_what_it_does_not_compute() {
    refuses_key("gemma3", "gemma3.attn_logit_softcapping", Value::F32(50.0), "soft caps");
    refuses_key("gemma3", "gemma3.rope.scaling.type", Value::Str("yarn".to_owned()), "beside layers with a window");
    refuses_key("gemma3", "gemma3.embedding_length_per_layer_input", Value::U32(8), "embeddings of each layer");
    refuses_key("gemma3-wide", "gemma3.final_logit_softcapping", Value::F32(-30.0), "negative");
    refuses_tensor("gemma3", "blk.0.attn_q.scale", &[1]);
    refuses_shape("gemma3", "blk.6.attn_k_norm.weight", None);
    refuses_shape("gemma3", "blk.0.attn_q_norm.weight", Some(&[16]));
}

/// Layers whose keys nobody has written: a window of 4096 in every second one of Gemma 2, none in Gemma 3.
#[test]
fn windows_and_caps_that_no_key_says_are_those_of_the_makers() -> Result<()> {
    let base = Model::new(Gguf::open(&path("gemma2-base"))?, None)?;
    assert_eq!(base.config.windows, [Some(4096), None, Some(4096)]);
    assert_eq!((base.config.caps.scores, base.config.caps.logits), (Some(50.0), Some(30.0)));
    let wide = Model::new(Gguf::open(&path("gemma3-wide"))?, None)?;
    assert_eq!(wide.config.windows, [None, None]);
    let third = Model::new(Gguf::open(&path("gemma3"))?, None)?;
    assert_eq!(third.config.windows.iter().position(Option::is_none), Some(5));
    assert_eq!((third.config.rope_of(0).base, third.config.rope_of(0).scale), (5.0, 1.0));
    assert_eq!((third.config.rope_of(5).base, third.config.rope_of(5).scale), (20.0, 0.4));
    Ok(())
}

/// Of the largest ones the scale of attention is that of heads of another width.
#[test]
fn the_largest_gemma_models_have_a_scale_of_attention_of_their_own() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (name, n_layer) in [("gemma2-base", 46), ("gemma3-wide", 62)] {
        let mut file = ModelFile::opened(&path(name))?;
        let arch = name.split('-').next().context("an architecture")?;
        file.set(&format!("{arch}.block_count"), Value::U32(n_layer));
        let first: Vec<Tensor> = file.tensors.iter().filter(|t| t.name.starts_with("blk.0.")).cloned().collect();
        file.tensors.retain(|t| !t.name.starts_with("blk."));
        for layer in 0..n_layer {
            for tensor in &first {
                file.push(Tensor { name: tensor.name.replace("blk.0.", &format!("blk.{layer}.")), ..tensor.clone() });
            }
        }
        let model = Model::new(Gguf::open(&file.written(folder.path(), "model.gguf"))?, None)?;
        // 32 of 4 heads, which have 4 elements each.
        assert_eq!(model.config.attention_scale, 1.0 / 8f32.sqrt(), "{name}");
    }
    Ok(())
}

#[test]
fn a_card_names_caps_that_it_does_not_compute() -> Result<()> {
    let line = on_a_card(&Model::new(Gguf::open(&path("gemma2"))?, None)?);
    assert!(line.contains("a soft cap of attention (attn_logit_softcapping)"), "{line}");
    Ok(())
}
