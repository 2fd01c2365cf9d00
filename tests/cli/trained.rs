//! The trained models with experts and with recurrent layers: their stories are English, their neurons rest, and all experts are in
//! use.

use crate::support::{Outcome, tool};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::tokenizer::{Special, Tokenizer, read_vocab};
use serde_json::Value;
use std::path::PathBuf;

const N_TOKENS: usize = 200;
const N_EXPERTS: usize = 8;
const N_USED: usize = 2;
const STORY: &str = include_str!("../../src/measure/story.txt");

fn model(form: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("models/tiny-stories-{form}-f16.gguf"))
}

/// Perplexity over the beginning of a story that the model has not seen.
fn perplexity(form: &str, mode: &str) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let story = folder.path().join("story.txt");
    std::fs::write(&story, STORY).unwrap();
    let mut bench = tool("bench");
    bench.arg("-m").arg(model(form)).arg("--perplexity").arg(story).args(["-c", "128", "--chunks", "2", "-t", "2"]);
    let out = Outcome::from(bench.args(["--cache-type", "f32", "--mode", mode, "-o", "json"]).output().unwrap()).ok();
    serde_json::from_str::<Value>(&out.stdout).unwrap()[0]["perplexity"].as_f64().unwrap()
}

#[test]
fn their_stories_are_english() {
    // A model of this vocabulary that knows nothing has 2048.
    for (form, measured) in [("experts", 21.66), ("hybrid", 22.73)] {
        for mode in ["dense", "exact"] {
            let perplexity = perplexity(form, mode);
            assert!((perplexity / measured - 1.0).abs() < 0.01, "{form}, {mode}: {perplexity}");
        }
        let mut run = tool("run");
        run.arg("-m").arg(model(form)).args(["-p", "Once upon a time", "-n", "8", "--temp", "0", "-t", "2"]);
        let text = Outcome::from(run.output().unwrap()).ok().stdout;
        assert!(text.starts_with("Once upon a time, there was a little girl named"), "{form}: {text}");
    }
}

#[test]
fn most_neurons_rest_and_no_expert_is_forgotten() {
    let model = Model::new(Gguf::open(&model("experts")).unwrap(), None).unwrap();
    let tokenizer = Tokenizer::new(read_vocab(&model.gguf).unwrap()).unwrap();
    let tokens = tokenizer.encode(STORY, Special::AsText).unwrap();
    let params = ExecutorParams {
        n_threads: 2,
        n_ctx: 256,
        kv_type: KvType::F32,
        mode: Mode::Exact,
        n_ubatch: 16,
        isa: Isa::detect(),
    };
    let mut executor = Executor::new(&model, Placement::all_cold(&model), params).unwrap();
    for token in &tokens[..N_TOKENS] {
        executor.decode(*token).unwrap();
    }
    for (i, layer) in model.weights.layers.iter().enumerate() {
        let groups = layer.first_group..layer.first_group + layer.groups.len();
        assert_eq!(groups.len(), N_EXPERTS);
        let density = executor.stats().density_where_computed(groups.clone()).unwrap();
        assert!((0.06..0.15).contains(&density), "layer {i}: {density}");
        let shares: Vec<f64> = groups.map(|group| executor.stats().share_computed(group).unwrap()).collect();
        assert!((shares.iter().sum::<f64>() - N_USED as f64).abs() < 1e-9, "layer {i}: {shares:?}");
        assert!(shares.iter().all(|share| (0.08..0.6).contains(share)), "layer {i}: {shares:?}");
    }
}

/// One line per layer, however many experts there are.
#[test]
fn what_fires_in_experts_is_told_by_layer() {
    let mut run = tool("run");
    run.arg("-m").arg(model("experts")).args([
        "-p",
        "Once upon a time",
        "-n",
        "24",
        "--temp",
        "0",
        "-t",
        "2",
        "--stats",
    ]);
    let told = Outcome::from(run.output().unwrap()).ok().stderr;
    let layers: Vec<&str> = told.lines().filter(|line| line.starts_with("layer ")).collect();
    assert_eq!(layers.len(), 5, "{told}");
    for line in layers {
        assert!(line.contains("% of the neurons of 2 experts of 8 fired"), "{line}");
    }
    assert!(told.contains(", of chosen experts 9"), "{told}");
    // Of 5.68 MiB a token reads 0.5 beside the experts, and a quarter of these.
    assert!(told.contains(" MiB of 2.") && told.contains("weights read per token: 1."), "{told}");
}
