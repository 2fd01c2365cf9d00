//! Models whose layers differ in kind: experts, some of them in a narrow vector or in MXFP4, and layers that recur; as plain
//! files, and as variants with several groups of neurons in a layer.

use super::models;
use super::parts::Parts;
use super::profile;
use super::target::Target;
use super::variant;
use crate::support::ModelFile;
use crate::support::real::repository;
use anyhow::Result;
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::profile::{Profile, RouterCounts};
use powerinfer::progress::Silent;
use powerinfer::quant::GgmlType;
use powerinfer::variant::{Draft, Options, write};
use std::path::Path;

const WORDS: &[&str] = &[
    "nemotron_h",
    "nemotron_h_moe",
    "nemotron_h_moe.block_count",
    "nemotron_h_moe.feed_forward_length",
    "nemotron_h_moe.attention.head_count_kv",
    "nemotron_h_moe.attention.recurrent_layers",
    "nemotron_h_moe.expert_count",
    "nemotron_h_moe.expert_used_count",
    "nemotron_h_moe.expert_shared_count",
    "nemotron_h_moe.expert_feed_forward_length",
    "nemotron_h_moe.expert_shared_feed_forward_length",
    "nemotron_h_moe.expert_group_count",
    "nemotron_h_moe.expert_gating_func",
    "nemotron_h_moe.expert_weights_scale",
    "nemotron_h_moe.moe_latent_size",
    "nemotron_h_moe.nextn_predict_layers",
    "nemotron_h_moe.ssm.conv_kernel",
    "nemotron_h_moe.ssm.inner_size",
    "nemotron_h_moe.ssm.state_size",
    "nemotron_h_moe.ssm.time_step_rank",
    "nemotron_h_moe.ssm.group_count",
    "powerinfer.n_hot",
    "powerinfer.version",
    "powerinfer.group_rates",
    "powerinfer.experts.sets",
    "powerinfer.experts.cache_hits",
    "blk.0.ffn_gate_inp.weight",
    "blk.0.exp_probs_b.bias",
    "blk.0.ffn_latent_down.weight",
    "blk.0.ffn_latent_up.weight",
    "blk.0.ffn_up_exps.weight",
    "blk.0.ffn_down_exps.weight",
    "blk.0.ffn_down_t_exps.weight",
    "blk.0.ffn_neuron_id_exps",
    "blk.0.ffn_up_shexp.weight",
    "blk.1.ssm_in.weight",
    "blk.1.ssm_conv1d.weight",
    "blk.1.ssm_a",
    "mtp.layers.0.weight",
];

/// The golden model of that name.
fn golden(name: &str) -> Result<ModelFile> {
    ModelFile::opened(&repository(&format!("tests/golden/arch/{name}.gguf")))
}

/// Experts in MXFP4, with scales of all sizes.
fn mxfp4() -> ModelFile {
    let mut file = models::experts(&models::wide(), true);
    for tensor in file.tensors.iter_mut().filter(|tensor| tensor.name.contains("_exps")) {
        tensor.dtype = GgmlType::MXFP4;
        let n = tensor.dims.iter().product::<usize>() / 32 * 17;
        tensor.bytes = (0..n).map(|i| if i % 17 == 0 { 118 + (i / 17 % 12) as u8 } else { (i * 37) as u8 }).collect();
    }
    file
}

/// A made-up profile, whose routers have chosen some experts more often than others.
fn counted(model: &Model) -> Profile {
    let mut profile = profile::counts(model);
    profile.routers = RouterCounts::of_model(model);
    for router in &mut profile.routers {
        for half in &mut router.chosen {
            half.iter_mut().zip([50, 30, 45]).for_each(|(chosen, n)| *chosen = n);
        }
        router.first = router.total();
        let chosen = router.n_chosen();
        for (group, chosen) in router.groups.iter().zip(chosen) {
            let counts = &mut profile.groups[*group as usize];
            counts.fired = (0..counts.fired.len() as u64).map(|i| (i * 7 % 10).min(chosen)).collect();
        }
    }
    profile
}

fn seeds(folder: &Path) -> Result<Vec<Parts>> {
    let plain = [
        golden("nemotron_h_moe-latent")?,
        golden("nemotron_h_moe-ollama")?,
        golden("nemotron_h-biases")?,
        models::experts(&models::kind(), true),
        mxfp4(),
    ];
    let mut all = Vec::new();
    for (i, file) in plain.iter().enumerate() {
        let model = Model::new(Gguf::open(&file.written(folder, &format!("plain-{i}.gguf")))?, None)?;
        let to = folder.join(format!("variant-{i}.gguf"));
        let draft = Draft::new(&model, &counted(&model), Options::default())?;
        write(&model, &draft, None, &to, &Silent)?;
        all.push(Parts::of(&model.gguf).without("tokenizer."));
        all.push(Parts::of(&Gguf::open(&to)?).without("tokenizer."));
    }
    Ok(all)
}

pub struct Mixtures(Vec<Parts>);

impl Mixtures {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self(seeds(folder.path()).expect("models"))
    }
}

impl Target for Mixtures {
    type Form = Parts;

    fn name(&self) -> &'static str {
        "mixtures"
    }

    fn seeds(&self) -> Vec<Parts> {
        self.0.clone()
    }

    fn words(&self) -> &[&str] {
        WORDS
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        variant::read(input)
    }
}
