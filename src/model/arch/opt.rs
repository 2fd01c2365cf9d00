//! OPT 125M to 66B, but for OPT-350M.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::positions::Positions;
use crate::model::presence::Presence;
use crate::model::spec::{GroupSpec, LayerSpec, PartSpec, around_biased_layers, attention, norm};
use crate::model::step::serial;
use anyhow::{Context, Result, ensure};

/// Serial blocks behind layer norms: no rotation but learned embeddings of positions, an FFN without a gate, and biases
/// everywhere.
pub struct Opt;

impl Architecture for Opt {
    fn name(&self) -> &'static str {
        "opt"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        refuse_other_forms(keys)?;
        let (norm, rope) = (NormKind::Layer, RopeKind::None);
        let config = keys.decoder(Defaults { norm, rope, activation: Activation::Relu, computed: &[] })?;
        let n_rows = n_rows(keys, "position_embd.weight").context("position_embd.weight: the tensor is missing")?;
        let positions = Positions::of_table(n_rows, config.n_ctx_train);
        let n_ctx_train = config.n_ctx_train.min(positions.n);
        Ok(Config { n_ctx_train, positions: Some(positions), ..config })
    }

    fn parts(&self, config: &Config) -> Vec<PartSpec> {
        let mut parts = around_biased_layers(config);
        let n_rows = config.positions.map_or(0, |positions| positions.n + positions.offset);
        parts.push(PartSpec::matrix(Role::PositionEmbd, n_rows, config.n_embd));
        parts
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let norm = |role| norm(config, role).with_bias(Presence::Required);
        let mut parts = vec![norm(Role::AttnNorm)];
        parts.extend(attention(config).map(|part| part.with_bias(Presence::Required)));
        parts.push(norm(Role::FfnNorm));
        let groups = vec![GroupSpec::dense(config.n_ff[layer], false).with_biases(Presence::Required)];
        LayerSpec { parts, groups, router: None, steps: serial() }
    }
}

fn n_rows(keys: &Keys, tensor: &str) -> Option<usize> {
    keys.tensor(tensor).map(|tensor| tensor.n_rows())
}

/// Refuses models that their makers count among these and that are others.
fn refuse_other_forms(keys: &Keys) -> Result<()> {
    const NARROW: &str = "is that of OPT-350M, whose embeddings are narrower than its layers: it is not supported yet";
    const BEHIND: &str = "as in OPT-350M, whose norms follow its blocks: it is not supported yet";
    const BARE: &str = "as in Galactica, which has no biases: it is not supported yet";
    let n_embd = keys.size("embedding_length")?;
    if let Some(tensor) = keys.tensor("token_embd.weight") {
        let shape = &tensor.dims;
        ensure!(tensor.n_cols() >= n_embd, "token_embd.weight: shape {shape:?} for layers of {n_embd} {NARROW}");
    }
    keys.refuse(&["word_embed_proj_dim"], &[n_embd as f64], "embeddings of another width (OPT-350M) are")?;
    keys.refuse(&["do_layer_norm_before"], &[1.0], "norms behind blocks (OPT-350M) are")?;
    ensure!(keys.has_tensor("output_norm.weight"), "output_norm.weight: the tensor is missing, {BEHIND}");
    for bias in ["attn_norm", "ffn_up"] {
        let name = format!("blk.0.{bias}.bias");
        ensure!(keys.has_tensor(&name), "{name}: the tensor is missing, {BARE}");
    }
    Ok(())
}
