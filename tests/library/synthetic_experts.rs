//! Synthetic models with experts: how often each is chosen, how often neurons fire, and which types a file has.

use crate::support::compare::same_bits;
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::{Chosen, Model};
use powerinfer::placement::Placement;
use powerinfer::progress::Silent;
use powerinfer::quant::GgmlType;
use powerinfer::synthetic::{Layout, Spec, write};
use std::path::PathBuf;

/// A file of this model in a folder of its own.
fn file(spec: &str, layout: Layout) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let spec: Spec = spec.parse().unwrap();
    let path = folder.path().join(spec.file_name(layout));
    write(&spec, layout, &path, &Silent).unwrap();
    (folder, path)
}

/// Numbers of a tensor, which is F32.
fn floats(gguf: &Gguf, name: &str) -> Vec<f32> {
    let tensor = gguf.tensor(name).unwrap_or_else(|| panic!("{name} is missing"));
    assert_eq!(tensor.dtype, GgmlType::F32, "{name}");
    gguf.data(tensor).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// How often each expert should be chosen, the most popular first: a power of the rank.
fn law(n: usize, n_used: usize, exponent: f64) -> Vec<f64> {
    let powers: Vec<f64> = (1..=n).map(|rank| (rank as f64).powf(-exponent)).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum * n_used as f64).collect()
}

#[test]
fn routers_choose_experts_as_often_as_was_asked_for() {
    const N_EMBD: usize = 256;
    for (exponent, spec) in
        [(0.0, "test-early-1:f32:0.1:0"), (0.5, "test-early-1:f32"), (0.8, "test-early-1:f32:0.1:0.8")]
    {
        let (_folder, path) = file(spec, Layout::Plain);
        let gguf = Gguf::open(&path).unwrap();
        // The first layer's router sees tokens as they are.
        let (tokens, router) = (floats(&gguf, "token_embd.weight"), floats(&gguf, "blk.0.ffn_gate_inp.weight"));
        let mut counts = vec![0f64; router.len() / N_EMBD];
        for token in tokens.chunks_exact(N_EMBD) {
            let score = |row: &[f32]| row.iter().zip(token).map(|(w, x)| w * x).sum::<f32>();
            let scores: Vec<f32> = router.chunks_exact(N_EMBD).map(score).collect();
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            order[..2].iter().for_each(|i| counts[*i] += 1.0);
        }
        let n = (tokens.len() / N_EMBD) as f64;
        counts.sort_by(|a, b| b.total_cmp(a));
        for (count, share) in counts.iter().zip(law(counts.len(), 2, exponent)) {
            let error = (share * (1.0 - share) / n).sqrt();
            assert!((count / n - share).abs() < 4.0 * error, "{spec}: {} instead of {share}", count / n);
        }
    }
}

#[test]
fn files_with_experts_are_the_same_whatever_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    for spec in ["test-experts:q8_0", "test-early-2", "test-silu-1:f16"] {
        for layout in [Layout::Plain, Layout::Variant] {
            let spec: Spec = spec.parse().unwrap();
            let bytes = [1, 3].map(|n_threads| {
                let path = folder.path().join(n_threads.to_string());
                let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
                pool.install(|| write(&spec, layout, &path, &Silent)).unwrap();
                std::fs::read(path).unwrap()
            });
            assert!(bytes[0] == bytes[1], "{}", spec.file_name(layout));
        }
    }
}

#[test]
fn a_variant_has_the_neurons_of_each_expert_in_its_own_order() {
    let spec = "test-experts-3:f32";
    let ((_variant, variant), (_plain, plain)) = (file(spec, Layout::Variant), file(spec, Layout::Plain));
    let [variant, plain] = [variant, plain].map(|path| Gguf::open(&path).unwrap());
    for (suffix, n_ff, n_experts, width) in [("_exps", 128, 16, 128), ("_shexp", 256, 1, 256)] {
        let name = |what: &str| format!("blk.1.{what}{suffix}");
        let ids = variant.tensor(&name("ffn_neuron_id")).unwrap();
        let ids: Vec<usize> =
            variant.data(ids).chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap()) as usize).collect();
        assert_eq!(ids.len(), n_ff * n_experts);
        let [ups, theirs] = [&variant, &plain].map(|gguf| floats(gguf, &format!("{}.weight", name("ffn_up"))));
        let rows = floats(&variant, &format!("{}.weight", name("ffn_down_t")));
        let columns = floats(&plain, &format!("{}.weight", name("ffn_down")));
        for (slot, id) in ids.iter().enumerate() {
            let (expert, slot) = (slot / n_ff, slot % n_ff);
            let row = |of: usize| (expert * n_ff + of) * width..(expert * n_ff + of + 1) * width;
            assert!(ups[row(slot)] == theirs[row(*id)], "expert {expert}, slot {slot}");
            let column = (0..width).map(|i| columns[(expert * width + i) * n_ff + id]);
            assert!(rows[row(slot)].iter().copied().eq(column), "expert {expert}, slot {slot}");
        }
        let rates = floats(&variant, &name("ffn_neuron_rate"));
        assert!(rates.chunks_exact(n_ff).all(|of_expert| of_expert.is_sorted_by(|a, b| a >= b)));
        // A tenth of the neurons of each expert fires where it is chosen.
        let share = if n_experts == 1 { 1.0 } else { 4.0 / n_experts as f32 };
        let mean = rates.iter().sum::<f32>() / rates.len() as f32;
        assert!((mean / (0.1 * share) - 1.0).abs() < 0.01, "{suffix}: {mean}");
    }
}

fn executor(model: &Model, mode: Mode) -> Executor<'_> {
    let params =
        ExecutorParams { n_threads: 2, n_ctx: 128, kv_type: KvType::F32, mode, n_ubatch: 16, isa: Isa::detect() };
    Executor::new(model, Placement::all_cold(model), params).unwrap()
}

/// Logits after each of `n` tokens that have nothing to do with each other.
fn decode(executor: &mut Executor, n: u32) -> Vec<Vec<f32>> {
    (0..n).map(|i| executor.decode(i * 37 % 512).unwrap().to_vec()).collect()
}

#[test]
fn every_layer_chooses_experts_and_fires_as_asked_for() {
    const N: u32 = 128;
    for (spec, n_used, exponent, density) in [
        ("test-early:q8_0:0.1:0.8", 2, 0.8, 0.1),
        ("test-early:f16:0.4", 2, 0.5, 0.4),
        ("test-silu", 4, 0.5, 1.0),
        ("test-experts:q8_0", 4, 0.5, 0.1),
    ] {
        let (_folder, path) = file(spec, Layout::Plain);
        let model = Model::new(Gguf::open(&path).unwrap(), None).unwrap();
        let mut executor = executor(&model, Mode::Exact);
        decode(&mut executor, N);
        for (i, layer) in model.weights.layers.iter().enumerate().filter(|(_, layer)| !layer.groups.is_empty()) {
            let groups = layer.first_group..layer.first_group + layer.groups.len();
            let fired = executor.stats().density_where_computed(groups.clone()).unwrap();
            assert!((fired / density - 1.0).abs() < 0.3, "{spec}: layer {i}: {fired} of the neurons fire");
            // An expert that all tokens have is the last.
            let shared = layer.groups.iter().filter(|group| group.chosen == Chosen::Always).count();
            let routed = groups.start..groups.end - shared;
            let mut shares: Vec<f64> = routed.map(|group| executor.stats().share_computed(group).unwrap()).collect();
            shares.sort_by(|a, b| b.total_cmp(a));
            for (rank, (share, wanted)) in shares.iter().zip(law(shares.len(), n_used, exponent)).enumerate() {
                let error = (wanted * (1.0 - wanted) / f64::from(N)).sqrt();
                assert!((share - wanted).abs() < 4.0 * error, "{spec}: layer {i}, rank {rank}: {share}, {wanted}");
            }
        }
    }
}

#[test]
fn exact_is_dense_bit_for_bit_with_experts() {
    for spec in ["test-early:q8_0", "test-silu", "test-experts"] {
        let (_folder, path) = file(spec, Layout::Plain);
        let model = Model::new(Gguf::open(&path).unwrap(), None).unwrap();
        let [dense, exact] = [Mode::Dense, Mode::Exact].map(|mode| decode(&mut executor(&model, mode), 24));
        same_bits(&dense, &exact).unwrap();
    }
}
