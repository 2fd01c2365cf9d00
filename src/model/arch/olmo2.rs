//! OLMo 2, whose norms stand behind the blocks.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::spec::{GroupSpec, LayerSpec, PartSpec, attention, norm};
use crate::model::step::{Step, Vector};
use anyhow::Result;

/// As LLaMA, but for norms behind the blocks instead of in front of them, and norms of all queries and of all keys before
/// they are rotated, in halves.
pub struct Olmo2;

impl Architecture for Olmo2 {
    fn name(&self) -> &'static str {
        "olmo2"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        // However wide the window is, layers that have one are rotated in another way.
        keys.refuse(&["attention.sliding_window"], &[0.0], "layers with a window, as OLMo 3 has them, are")?;
        let (norm, rope) = (NormKind::Rms, RopeKind::Halves);
        keys.decoder(Defaults { norm, rope, activation: Activation::Silu, computed: &[] })
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        use Vector::{Fed, Mixed, Residual};
        let [q, k, v, output] = attention(config);
        let output = output.with_bias(Presence::Absent);
        let q_norm = PartSpec::vector(Role::AttnQNorm, config.n_q());
        let k_norm = PartSpec::vector(Role::AttnKNorm, config.n_kv());
        let behind = [Role::PostAttnNorm, Role::PostFfnNorm].map(|role| norm(config, role));
        let parts = vec![q, k, v, output, q_norm, k_norm, behind[0], behind[1]];
        let groups = vec![GroupSpec::dense(config.n_ff[layer], true)];
        let steps = vec![
            Step::Attention { from: Residual, to: Mixed },
            Step::Norm { of: Role::PostAttnNorm, from: Mixed, to: Mixed },
            Step::Add { from: Mixed, scale: 1.0 },
            Step::Ffn { from: Residual, to: Fed },
            Step::Norm { of: Role::PostFfnNorm, from: Fed, to: Fed },
            Step::Add { from: Fed, scale: 1.0 },
        ];
        LayerSpec { parts, groups, router: None, steps }
    }
}
