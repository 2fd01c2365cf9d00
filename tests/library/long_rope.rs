//! Phi 3, and rotations whose frequencies depend on the length of the context.

use crate::architecture_forms::{path, refuses_key, refuses_shape, refuses_tensor};
use crate::support::compare::same_bits;
use crate::support::{ModelFile, Value};
use anyhow::Result;
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use std::path::Path;

/// Logits after each of seven tokens in a context of `n_ctx`.
fn logits(file: &Path, n_ctx: usize) -> Result<Vec<Vec<f32>>> {
    let model = Model::new(Gguf::open(file)?, None)?;
    let (n_threads, kv_type, mode, n_ubatch, isa) = (1, KvType::F32, Mode::Exact, 4, Isa::detect());
    let params = ExecutorParams { n_threads, n_ctx, kv_type, mode, n_ubatch, isa };
    let mut executor = Executor::new(&model, Placement::all_cold(&model), params)?;
    [3, 17, 5, 5, 0, 39, 21].iter().map(|token| Ok(executor.decode(*token)?.to_vec())).collect()
}

/// The original context of both is 8.
#[test]
fn long_factors_are_for_contexts_beyond_the_original_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for name in ["phi3", "llama-long"] {
        let original = path(name);
        let mut file = ModelFile::opened(&original)?;
        for tensor in &mut file.tensors {
            tensor.name = match &*tensor.name {
                "rope_factors_long.weight" => "rope_factors_short.weight".to_owned(),
                "rope_factors_short.weight" => "rope_factors_long.weight".to_owned(),
                other => other.to_owned(),
            };
        }
        let swapped = file.written(folder.path(), "swapped.gguf");
        let (short, long) = (logits(&original, 8)?, logits(&original, 9)?);
        assert_ne!(short, long, "{name}");
        same_bits(&long, &logits(&original, 400)?)?;
        same_bits(&short, &logits(&swapped, 9)?)?;
        same_bits(&long, &logits(&swapped, 7)?)?;
    }
    Ok(())
}

#[test]
fn a_window_that_a_phi3_file_states_changes_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut file = ModelFile::opened(&path("phi3"))?;
    file.set("phi3.attention.sliding_window", Value::U32(2));
    same_bits(&logits(&path("phi3"), 9)?, &logits(&file.written(folder.path(), "window.gguf"), 9)?)
}

#[test]
fn what_phi3_and_longrope_do_not_compute_is_refused() {
    refuses_key("phi3", "phi3.rope.scaling.type", Value::Str("su".to_owned()), "none, linear, yarn and longrope are");
    refuses_key("phi3", "phi3.expert_count", Value::U32(16), "mixture");
    refuses_key("phi3", "phi3.rope.scaling.attn_factor", Value::F32(-1.0), "not positive");
    refuses_key("llama-yarn", "llama.rope.scaling.type", Value::Str("longrope".to_owned()), "rope_factors_long.weight");
    // Gate is in one tensor with up.
    refuses_tensor("phi3", "blk.0.ffn_gate.weight", &[32, 36]);
    refuses_tensor("llama-yarn", "rope_factors_long.weight", &[4]);
    refuses_shape("phi3", "blk.0.ffn_up.weight", Some(&[32, 36]));
    refuses_shape("phi3", "blk.1.ffn_down.weight", Some(&[72, 32]));
    refuses_shape("phi3", "rope_factors_short.weight", None);
    refuses_shape("phi3", "rope_factors_long.weight", Some(&[4]));
}

#[test]
fn divisors_of_two_kinds_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut file = ModelFile::opened(&path("phi3"))?;
    let mut freqs = file.tensor("rope_factors_long.weight").clone();
    freqs.name = "rope_freqs.weight".to_owned();
    file.push(freqs);
    let error = Model::new(Gguf::open(&file.written(folder.path(), "both.gguf"))?, None).err();
    let line = error.map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(line.contains("rope_freqs.weight: stands beside rope_factors_long.weight"), "{line}");
    Ok(())
}
