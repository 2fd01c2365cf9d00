//! PowerInfer's own files: models, and lists of neurons for a card.

use super::models;
use super::parts::Parts;
use super::target::Target;
use crate::support::kind::Kind;
use crate::support::pwri::noise;
use crate::support::{ModelFile, Tensor, Value};
use anyhow::Result;
use powerinfer::model::Model;
use powerinfer::quant::GgmlType;
use powerinfer::variant::{Draft, GpuIndex, Options, Order};

const WORDS: &[&str] = &[
    "general.architecture",
    "generic.gpu_index",
    "generic.gpu_index.block_count",
    "llama",
    "llama.block_count",
    "llama.feed_forward_length",
    "powerinfer.sparse_threshold",
    "powerinfer.predictor.kinds",
    "powerinfer.n_hot",
    "blk.0.fc1.weight",
    "blk.1.fc2.weight",
    "blk.0.ffn_down_t.weight",
    "blk.1.ffn_down_t.bias",
    "blk.0.ffn_down.weight",
    "blk.0.gpu_idx",
    "blk.1.gpu_bucket",
];

pub struct PwriFiles {
    /// What lists are for.
    model: Model,
    seeds: Vec<Parts>,
}

/// A list of some neurons of each layer.
fn list(kind: &Kind) -> ModelFile {
    let mut file = ModelFile::default();
    file.set("general.architecture", Value::Str("generic.gpu_index".to_owned()));
    file.set("generic.gpu_index.block_count", Value::U32(kind.n_ff.len() as u32));
    file.set("split.vram_capacity", Value::U64(1 << 20));
    for (layer, n_ff) in kind.n_ff.iter().enumerate() {
        let chosen: Vec<i32> = (layer as i32..3).collect();
        let flags: Vec<i32> = (0..*n_ff as i32).map(|id| i32::from(chosen.contains(&id))).collect();
        for (name, values) in [("gpu_idx", flags), ("gpu_bucket", chosen)] {
            let (name, dtype) = (format!("blk.{layer}.{name}"), GgmlType::from_name("I32").expect("a type"));
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            file.push(Tensor { name, dtype, dims: vec![values.len()], bytes });
        }
    }
    file
}

impl PwriFiles {
    pub fn new() -> Self {
        let kind = models::kind();
        let plain = || models::file(&kind).by_neurons();
        let biased = models::file(&Kind { ffn_biases: true, ..kind.clone() }).by_neurons();
        let scored = |file: ModelFile| file.with_scores(kind.n_ff.len(), |i| noise(kind.n_embd, 3, kind.n_ff[i]));
        let files = [scored(plain()), scored(biased).threshold(0.5), plain(), list(&kind)];
        let open = |file: &ModelFile| models::open(&file.bytes_as_pwri()).expect("a file");
        let seeds = files.iter().map(|file| Parts::of(&open(file)).without("tokenizer.")).collect();
        Self { model: Model::new(open(&plain()), None).expect("a model"), seeds }
    }
}

impl Target for PwriFiles {
    type Form = Parts;

    fn name(&self) -> &'static str {
        "pwri"
    }

    fn seeds(&self) -> Vec<Parts> {
        self.seeds.clone()
    }

    fn words(&self) -> &[&str] {
        WORDS
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        let gguf = models::open(input)?;
        if let Ok(index) = GpuIndex::read(&gguf, &self.model) {
            let draft = Draft::ordered(&self.model, &Order::Listed(index), Options::default())?;
            for (group, n_ff) in draft.groups.iter().zip(self.model.weights.group_sizes()) {
                let mut ids: Vec<usize> = group.order.iter().map(|id| id.0 as usize).collect();
                ids.sort_unstable();
                assert!(ids.into_iter().eq(0..n_ff) && group.n_hot <= n_ff, "no order of neurons");
            }
            return Ok(());
        }
        let model = Model::new(gguf, None)?;
        if !model.is_variant() {
            Draft::ordered(&model, &Order::AsStored, Options::default())?;
        }
        models::try_out(&model)
    }
}
