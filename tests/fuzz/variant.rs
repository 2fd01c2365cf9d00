//! Variants: their index, their layouts of `ffn_down`, and the predictor packed into them.

use super::models;
use super::parts::Parts;
use super::predictor;
use super::profile;
use super::target::Target;
use crate::support::convert;
use crate::support::kind::Kind;
use anyhow::Result;
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::profile::Profile;
use powerinfer::progress::Silent;
use powerinfer::quant::GgmlType;
use powerinfer::variant::{self, DownType, Draft, Options};
use std::path::Path;

const WORDS: &[&str] = &[
    "powerinfer.version",
    "powerinfer.n_hot",
    "powerinfer.activation",
    "powerinfer.predictor.kinds",
    "powerinfer.predictor.active",
    "powerinfer.predictor.fired",
    "llama.feed_forward_length",
    "llama.block_count",
    "blk.0.ffn_neuron_id",
    "blk.0.ffn_neuron_rate",
    "blk.0.ffn_neuron_mass",
    "blk.0.ffn_cold_fired",
    "blk.0.ffn_down_t.weight",
    "blk.0.ffn_down_t_q",
    "blk.0.ffn_down_scale",
    "blk.0.ffn_down.weight",
    "blk.0.ffn_pred_sign",
    "blk.0.ffn_pred_bias",
    "blk.0.ffn_pred_in.weight",
    "blk.0.ffn_pred_in.bias",
    "blk.0.ffn_pred_out.weight",
    "sign",
    "mlp",
    "relu",
];

/// The smallest of each layout.
fn variants(folder: &Path) -> Result<Vec<Parts>> {
    let at = |name: &str| folder.join(name);
    let written = |kind: &Kind, name: &str| kind.load(&models::file(kind).written(folder, name));
    let split = |model: &Model, profile: &Profile, options: Options, name: &str| -> Result<Gguf> {
        let draft = Draft::new(model, profile, options)?;
        variant::write(model, &draft, None, &at(name), &Silent)?;
        Gguf::open(&at(name))
    };
    let mut all = Vec::new();
    let (small, wide) = (written(&models::kind(), "small.gguf")?, written(&models::wide(), "wide.gguf")?);
    all.push(split(&small, &profile::counts(&small), Options::default(), "rows.gguf")?);
    all.push(split(&small, &profile::whole(&small), Options::default(), "cold.gguf")?);
    let blocks = convert::plain(&wide, GgmlType::Q8_0, &at("blocks.gguf"))?;
    for (down, name) in [(DownType::Lossless, "lossless.gguf"), (DownType::Q8_0, "q8_0.gguf")] {
        let options = Options { down: Some(down), ..Options::default() };
        all.push(split(&blocks, &profile::counts(&blocks), options, name)?);
    }
    for (i, weights) in predictor::weights(&small).into_iter().enumerate() {
        let (name, packed) = (at(&format!("predictor-{i}")), at(&format!("packed-{i}.gguf")));
        predictor::of(&small, weights)?.write(&name, &powerinfer::progress::Silent)?;
        let rows = Model::new(Gguf::open(&at("rows.gguf"))?, None)?;
        variant::pack(&rows, &Gguf::open(&name)?, &packed, &Silent)?;
        all.push(Gguf::open(&packed)?);
    }
    Ok(all.iter().map(|gguf| Parts::of(gguf).without("tokenizer.")).collect())
}

pub struct Variants(Vec<Parts>);

impl Variants {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self(variants(folder.path()).expect("variants"))
    }
}

impl Target for Variants {
    type Form = Parts;

    fn name(&self) -> &'static str {
        "variant"
    }

    fn seeds(&self) -> Vec<Parts> {
        self.0.clone()
    }

    fn words(&self) -> &[&str] {
        WORDS
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        read(input)
    }
}

/// Reads a variant or a plain file, looks at its index, and computes a few tokens.
///
/// # Errors
/// When it is refused.
pub fn read(input: &[u8]) -> Result<()> {
    let model = Model::new(models::open(input)?, None)?;
    for (_, group) in model.weights.groups() {
        let Some(index) = &group.index else { continue };
        let mut ids: Vec<usize> = index.ids().iter().map(|id| id.0 as usize).collect();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..group.n_ff()), "ids are no permutation");
        assert!(index.n_hot <= group.n_ff(), "more neurons are hot than there are");
    }
    if model.is_variant() {
        Placement::random(&model, 1)?;
    }
    models::try_out(&model)
}
