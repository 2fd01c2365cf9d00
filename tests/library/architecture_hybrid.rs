//! What Nemotron-H refuses: kinds of layers that contradict each other, sizes of states that cannot be, tensors that do not fit.

use crate::architecture_forms::{path, refuses_key, refuses_shape, refuses_tensor};
use crate::support::{ModelFile, Tensor, Value};
use anyhow::Result;
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::quant::GgmlType;

/// What opening the changed golden model gives.
fn opened(name: &str, change: impl FnOnce(&mut ModelFile)) -> Result<Model> {
    let mut file = ModelFile::opened(&path(name)).unwrap();
    change(&mut file);
    let folder = tempfile::tempdir().unwrap();
    Model::new(Gguf::open(&file.written(folder.path(), "model.gguf"))?, None)
}

/// Layers of `nemotron_h`: M F A M F M.
#[test]
fn kinds_of_layers_that_contradict_each_other_are_refused() {
    let (neurons, heads) = ("nemotron_h.feed_forward_length", "nemotron_h.attention.head_count_kv");
    let refuses = |key: &str, values: &[u32], wanted: &str| refuses_key("nemotron_h", key, Value::u32s(values), wanted);
    refuses(neurons, &[0, 20, 0, 0, 20], "5 values for 6 layers");
    refuses(heads, &[0, 0, 2, 0, 0, 0, 0], "7 values for 6 layers");
    refuses(heads, &[0, 2, 2, 0, 0, 0], "2 heads in layer 1, but nemotron_h.feed_forward_length gives it 20 neurons");
    refuses(heads, &[2, 0, 1, 0, 0, 0], "1 in layer 2, 2 before");
    refuses(heads, &[0, 0, 3, 0, 0, 0], "4 heads are not a multiple of 3");
    refuses_key("nemotron_h", heads, Value::U32(2), "an array says which");
    refuses("nemotron_h.attention.head_count", &[4, 4, 0, 4, 4, 4], "must not be 0 where a layer attends");
    // A layer that would be of another kind lacks its tensors.
    for (key, values, tensor) in [
        (neurons, [20, 20, 0, 0, 20, 0], "blk.0.ffn_up.weight"),
        (neurons, [0, 0, 0, 0, 20, 0], "blk.1.ssm_in.weight"),
        (heads, [0, 0, 0, 0, 0, 0], "blk.2.ssm_in.weight"),
        (heads, [0, 0, 2, 2, 0, 0], "blk.3.attn_q.weight"),
    ] {
        let change = |file: &mut ModelFile| {
            file.set(key, Value::u32s(&values));
        };
        let line = format!("{:#}", opened("nemotron_h", change).err().unwrap());
        assert!(line.contains(&format!("{tensor}: the tensor is missing")) && !line.contains('\n'), "{line}");
    }
    refuses_key("nemotron_h", "nemotron_h.nextn_predict_layers", Value::U32(6), "6 of 6 layers");
    // Files that llama.cpp has saved say the same once more.
    let key = "nemotron_h.attention.recurrent_layers";
    refuses(key, &[1, 0, 0, 1, 0, 0], "layer 5 does not recur");
    refuses(key, &[1, 1, 0, 1, 0, 1], "layer 1 recurs");
    refuses(key, &[1, 0, 0, 1, 0], "5 values for 6 layers");
    let said = |file: &mut ModelFile| {
        file.set(key, Value::u32s(&[1, 0, 0, 1, 0, 1]));
    };
    assert!(opened("nemotron_h", said).unwrap().notes.is_empty());
}

#[test]
fn states_of_impossible_sizes_are_refused() {
    let refuses = |key: &str, n: u32, wanted: &str| {
        refuses_key("nemotron_h", &format!("nemotron_h.ssm.{key}"), Value::U32(n), wanted);
    };
    let keys = ["conv_kernel", "inner_size", "state_size", "time_step_rank", "group_count"];
    for key in keys {
        refuses(key, 0, "must not be 0");
        refuses(key, u32::MAX, "are accepted");
        let change = |file: &mut ModelFile| {
            file.remove(&format!("nemotron_h.ssm.{key}"));
        };
        let line = format!("{:#}", opened("nemotron_h", change).err().unwrap());
        assert!(line.contains(&format!("nemotron_h.ssm.{key}: the key is missing")) && !line.contains('\n'), "{line}");
    }
    refuses("time_step_rank", 5, "12 is not a multiple of 5 heads");
    refuses("group_count", 3, "4 heads are not a multiple of 3 groups");
    refuses("conv_kernel", 17, "at most 16");
    refuses_key("nemotron_h", "nemotron_h.ssm.dt_b_c_rms", Value::Bool(true), "not supported yet");
    // Sizes that may be, of another model.
    for (key, n) in
        [("conv_kernel", 3), ("inner_size", 16), ("state_size", 5), ("time_step_rank", 2), ("group_count", 1)]
    {
        let change = |file: &mut ModelFile| {
            file.set(&format!("nemotron_h.ssm.{key}"), Value::U32(n));
        };
        let line = format!("{:#}", opened("nemotron_h", change).err().unwrap());
        assert!(line.contains("blk.0.ssm_") && line.contains("follows from the metadata"), "{key}: {line}");
    }
}

#[test]
fn tensors_of_recurrent_layers_must_be_there_and_fit() {
    for (tensor, dims) in [
        ("ssm_in.weight", &[16, 51][..]),
        ("ssm_conv1d.weight", &[3, 36]),
        ("ssm_conv1d.bias", &[35]),
        ("ssm_dt.bias", &[5]),
        ("ssm_a", &[1, 3]),
        ("ssm_d", &[4, 2]),
        ("ssm_norm.weight", &[12, 2]),
        ("ssm_out.weight", &[16, 12]),
    ] {
        refuses_shape("nemotron_h", &format!("blk.3.{tensor}"), Some(dims));
        refuses_shape("nemotron_h", &format!("blk.0.{tensor}"), None);
    }
    // Where heads have one number each, it does not matter whether a dimension says so.
    let flat = |file: &mut ModelFile| {
        for layer in [0, 3, 5] {
            for name in ["ssm_a", "ssm_d"] {
                file.tensor(&format!("blk.{layer}.{name}")).dims = vec![4];
            }
        }
    };
    assert!(opened("nemotron_h", flat).is_ok());
    refuses_tensor("nemotron_h", "blk.0.attn_q.weight", &[16, 24]);
    refuses_tensor("nemotron_h", "blk.1.ssm_in.weight", &[16, 52]);
    refuses_tensor("nemotron_h", "blk.2.ffn_up.weight", &[16, 20]);
    refuses_tensor("nemotron_h", "blk.6.attn_norm.weight", &[16]);
    refuses_tensor("nemotron_h", "blk.1.ffn_gate.weight", &[16, 20]);
    refuses_tensor("nemotron_h", "rope_freqs.weight", &[2]);
}

/// Layers of `nemotron_h_moe`: M E A E M, with six experts of which two are chosen.
#[test]
fn experts_that_do_not_fit_are_refused() {
    let refuses = |name: &str, key: &str, value: Value, wanted: &str| {
        refuses_key(name, &format!("nemotron_h_moe.{key}"), value, wanted);
    };
    let (plain, narrow) = ("nemotron_h_moe", "nemotron_h_moe-latent");
    refuses(plain, "expert_used_count", Value::U32(7), "7 experts chosen");
    refuses(plain, "expert_used_count", Value::u32s(&[0, 0, 0, 2, 0]), "0 of 6 experts chosen in layer 1");
    refuses(plain, "expert_used_count", Value::u32s(&[2, 2]), "2 values for 5 layers");
    refuses(plain, "expert_group_count", Value::U32(2), "groups of experts");
    refuses(plain, "expert_shared_feed_forward_length", Value::U32(0), "says 0");
    refuses(plain, "expert_gating_func", Value::U32(9), "is not known");
    let line = |name: &str, key: &str, n: u32| {
        let change = |file: &mut ModelFile| {
            file.set(&format!("nemotron_h_moe.{key}"), Value::U32(n));
        };
        let line = format!("{:#}", opened(name, change).err().unwrap());
        assert!(!line.contains('\n'), "{line}");
        line
    };
    for (name, key, n, wanted) in [
        (plain, "expert_count", 5, "blk.1."),
        (plain, "expert_feed_forward_length", 11, "blk.1.ffn_up_exps.weight"),
        (plain, "expert_shared_feed_forward_length", 13, "blk.1.ffn_up_shexp.weight"),
        (plain, "moe_latent_size", 9, "blk.1.ffn_latent_down.weight: the tensor is missing"),
        (narrow, "moe_latent_size", 8, "blk.0.ffn_latent_down.weight"),
        ("nemotron_h_moe-old", "expert_used_count", 3, "blk.1.ffn_up_exps.weight"),
    ] {
        let line = line(name, key, n);
        assert!(line.contains(wanted), "{name}, {key}: {line}");
    }
    refuses_key("nemotron_h", "nemotron_h.expert_used_count", Value::U32(2), "experts without a number of them");
    refuses_shape(plain, "blk.1.exp_probs_b.bias", None);
    refuses_shape(plain, "blk.1.exp_probs_b.bias", Some(&[5]));
    refuses_shape(narrow, "blk.0.ffn_latent_up.weight", None);
    refuses_tensor(plain, "blk.1.ffn_gate_exps.weight", &[16, 10, 6]);
    let both = |file: &mut ModelFile| {
        file.push(Tensor::zeros("blk.0.ffn_latent_in.weight", GgmlType::F32, &[16, 9]));
    };
    let line = format!("{:#}", opened(narrow, both).err().unwrap());
    assert!(line.contains("which one counts?"), "{line}");
}

#[test]
fn what_predicts_further_tokens_is_passed_over_where_keys_say_so() {
    // Behind the four layers stands such a block.
    let model = opened("nemotron_h_moe-ahead", |_| {}).unwrap();
    assert_eq!((model.config.n_layer, model.weights.layers.len()), (4, 4));
    // Of which files that llama.cpp has saved say nothing.
    let saved = |file: &mut ModelFile| {
        file.set("nemotron_h_moe.feed_forward_length", Value::u32s(&[0, 10, 0, 10]));
        file.set("nemotron_h_moe.attention.head_count_kv", Value::u32s(&[0, 0, 2, 0]));
        file.set("nemotron_h_moe.expert_used_count", Value::u32s(&[0, 2, 0, 3]));
        file.set("nemotron_h_moe.attention.recurrent_layers", Value::u32s(&[1, 0, 0, 0]));
    };
    assert_eq!(opened("nemotron_h_moe-ahead", saved).unwrap().notes, [""; 0]);
    let key = "nemotron_h_moe.nextn_predict_layers";
    let change = |file: &mut ModelFile| {
        file.remove(key);
    };
    let line = format!("{:#}", opened("nemotron_h_moe-ahead", change).err().unwrap());
    assert!(line.contains("2 heads in layer 4"), "{line}");
    refuses_tensor("nemotron_h_moe-ahead", "blk.5.nextn.enorm.weight", &[16]);
    refuses_tensor("nemotron_h_moe-ahead", "blk.3.nextn.enorm.weight", &[16]);
}
