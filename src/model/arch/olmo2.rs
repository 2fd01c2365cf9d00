//! OLMo 2 and 3, whose norms stand behind the blocks.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, NormKind, Rope, RopeKind};
use crate::model::decoder::Defaults;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::spec::{GroupSpec, LayerSpec, PartSpec, attention, norm};
use crate::model::step::{Groups, Step, Vector};
use anyhow::Result;

/// Of so many layers with a window, as OLMo 3 has them, the last has none.
const PERIOD: usize = 4;

/// As LLaMA, but for norms behind the blocks instead of in front of them, and norms of all queries and of all keys before
/// they are rotated, in halves. Layers with a window are rotated as if nothing were scaled.
pub struct Olmo2;

impl Architecture for Olmo2 {
    fn name(&self) -> &'static str {
        "olmo2"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        let (norm, rope) = (NormKind::Rms, RopeKind::Halves);
        let config = keys.decoder(Defaults { norm, rope, activation: Activation::Silu, computed: &[] })?;
        let windows = keys.windows(config.n_layer, None, PERIOD)?;
        let plain = Rope::plain(rope, config.rope.base, config.rope.n_dims);
        let window_rope = windows.iter().any(Option::is_some).then_some(plain);
        Ok(Config { windows, window_rope, ..config })
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
            Step::Ffn { from: Residual, to: Fed, groups: Groups::All },
            Step::Norm { of: Role::PostFfnNorm, from: Fed, to: Fed },
            Step::Add { from: Fed, scale: 1.0 },
        ];
        LayerSpec { parts, groups, router: None, steps }
    }
}
