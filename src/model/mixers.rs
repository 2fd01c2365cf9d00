//! Which layers attend, which recur, and which are an FFN alone, by the numbers of heads and neurons of each.

use super::config::Mixer;
use super::keys::Keys;
use anyhow::{Context, Result, bail, ensure};

impl Keys<'_> {
    /// Heads of queries and of keys and values, and the mixer of each layer, where layers are one of the three: with
    /// neurons (`n_ff`, by layer) it is an FFN, with heads of keys it attends, with neither it recurs.
    ///
    /// # Errors
    /// When a layer would be two of them, or heads differ from layer to layer.
    pub(super) fn mixers(&self, n_ff: &[usize]) -> Result<(usize, usize, Vec<Mixer>)> {
        let of = |suffix: &str| self.per_layer(suffix, n_ff.len());
        let (q, kv) = ("attention.head_count", "attention.head_count_kv");
        let heads = of(q)?.with_context(|| format!("{}: the key is missing", self.name(q)))?;
        let heads_kv = of(kv)?.with_context(|| format!("{}: the key is missing", self.name(kv)))?;
        let is_array = self.metadata.is_array(&self.name(kv));
        let mixer = |layer: usize| match (n_ff[layer], heads_kv[layer]) {
            (0, 0) => Ok(Mixer::Recurrent),
            (0, _) => Ok(Mixer::Attention),
            (_, 0) => Ok(Mixer::None),
            _ => bail!(
                "{}: {} heads in layer {layer}, but {} gives it {} neurons: a layer has one or the other{}",
                self.name(kv),
                heads_kv[layer],
                self.name("feed_forward_length"),
                n_ff[layer],
                if is_array { "" } else { "; an array says which" }
            ),
        };
        let mixers: Vec<Mixer> = (0..n_ff.len()).map(mixer).collect::<Result<_>>()?;
        let attending = || mixers.iter().enumerate().filter(|(_, mixer)| **mixer == Mixer::Attention).map(|(i, _)| i);
        let alike = |values: &[usize], suffix: &str| {
            let mut own = attending().map(|layer| (layer, values[layer]));
            let first = own.next().map_or(1, |(_, n)| n);
            if let Some((layer, n)) = own.find(|(_, n)| *n != first) {
                let name = self.name(suffix);
                bail!("{name}: {n} in layer {layer}, {first} before: heads that differ are not supported yet");
            }
            ensure!(first > 0, "{}: must not be 0 where a layer attends", self.name(suffix));
            Ok(first)
        };
        Ok((alike(&heads, q)?, alike(&heads_kv, kv)?, mixers))
    }
}
