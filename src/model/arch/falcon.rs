//! Falcon 7B, 40B and 180B, Falcon 2, and ReluFalcon.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::spec::{GroupSpec, LayerSpec, PartSpec, around_biased_layers, attention, norm};
use crate::model::step::{Groups, Step, Vector, parallel};
use anyhow::{Result, ensure};

/// What saved files say whatever the model: blocks are always parallel.
const PARALLEL: &str = "use_parallel_residual";
/// How the rows of queries, keys and values lie: converters put them in order, and say so.
const LAYOUT: &str = "tensor_data_layout";
const IN_ORDER: &str = "jploski";

/// Parallel blocks behind one layer norm, or behind one each: rotation in halves, an FFN without a gate, and no biases but
/// those of norms.
pub struct Falcon;

impl Architecture for Falcon {
    fn name(&self) -> &'static str {
        "falcon"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Layer, RopeKind::Halves);
        let computed = &[PARALLEL, LAYOUT];
        let config = keys.decoder(Defaults { norm, rope, activation: Activation::Gelu, computed })?;
        keys.bool(PARALLEL)?;
        if let Some(layout) = keys.str(LAYOUT)? {
            let shown: String = layout.chars().take(60).collect();
            ensure!(
                layout == IN_ORDER,
                "{}: \"{}\": another layout of tensors than \"{IN_ORDER}\" is not supported yet",
                keys.name(LAYOUT),
                shown.escape_debug()
            );
        }
        let two_norms = keys.has_tensor("blk.0.attn_norm_2.weight");
        Ok(Config { two_norms, ..config })
    }

    fn parts(&self, config: &Config) -> Vec<PartSpec> {
        around_biased_layers(config)
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        let [q, k, v, output] = attention(config);
        let mut parts = vec![norm(config, Role::AttnNorm).with_bias(Presence::Required)];
        if config.two_norms {
            parts.push(norm(config, Role::AttnNorm2));
        }
        parts.extend([q, k, v, output.with_bias(Presence::Absent)]);
        let groups = vec![GroupSpec::dense(config.n_ff[layer], false)];
        let steps = if config.two_norms { behind_a_norm_each() } else { parallel() };
        LayerSpec { parts, groups, router: None, steps }
    }
}

/// `x += attn(norm_2(x)) + ffn(norm(x))`.
fn behind_a_norm_each() -> Vec<Step> {
    use Vector::{Fed, Mixed, Normed, Residual};
    vec![
        Step::Norm { of: Role::AttnNorm2, from: Residual, to: Normed },
        Step::Attention { from: Normed, to: Mixed },
        Step::Norm { of: Role::AttnNorm, from: Residual, to: Normed },
        Step::Ffn { from: Normed, to: Fed, groups: Groups::All },
        Step::Add { from: Mixed, scale: 1.0 },
        Step::Add { from: Fed, scale: 1.0 },
    ]
}
