//! Experts: groups of neurons that a router chooses among, as keys of a file describe them.

use super::keys::Keys;
use super::router::{Gating, Router};
use anyhow::{Context, Result, bail, ensure};

/// Keys that [`Keys::experts`] computes, for [`Defaults::computed`](super::Defaults::computed).
pub const EXPERTS: &[&str] = &["expert_count", "expert_used_count", "expert_shared_count"];

/// The most that a layer may have: no model has as many.
const MOST: usize = 1 << 14;

/// Experts of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// Number of experts in each layer that has some.
    pub n: usize,
    /// How many are chosen for a token, by layer.
    pub n_used: Vec<usize>,
    /// Neurons of an expert, by layer.
    pub n_ff: Vec<usize>,
    /// Neurons of the expert that is computed for every token; 0 where there is none.
    pub n_ff_shared: usize,
    /// How scores become weights.
    pub gating: Gating,
    /// Whether the weights of chosen experts are divided by their sum.
    pub normalised: bool,
    /// What weights are multiplied with.
    pub scale: f32,
    /// Elements of what experts read and give, where these are others than the residual stream's.
    pub latent: Option<usize>,
}

impl Experts {
    /// The router of layer number `layer`.
    pub fn router(&self, layer: usize) -> Router {
        let Self { gating, normalised, scale, .. } = *self;
        Router { gating, n_used: self.n_used[layer], normalised, scale }
    }
}

impl Keys<'_> {
    /// The experts of a model of `n_layer` layers; `None` where no key says that there are any. `gating` and `normalised`
    /// are those of its architecture where no key says otherwise, `n_ff` what its `feed_forward_length` says.
    ///
    /// # Errors
    /// Names the key that is missing, makes no sense, or asks for what is not computed.
    pub fn experts(&self, n_ff: &[usize], gating: Gating, normalised: bool) -> Result<Option<Experts>> {
        let n_layer = n_ff.len();
        let n = self.whole("expert_count")?.unwrap_or(0);
        let count = self.name("expert_count");
        if n == 0 {
            return Ok(None);
        }
        ensure!(n <= MOST, "{count}: {n} experts; at most {MOST} are accepted");
        let n_used = self.per_layer("expert_used_count", n_layer)?;
        let used = self.name("expert_used_count");
        let n_used = n_used.with_context(|| format!("{used}: the key is missing, and there are {n} experts"))?;
        let most = n_used.iter().copied().max().unwrap_or(0);
        ensure!(most >= 1, "{used}: 0 of {n} experts chosen; at least one must be");
        ensure!(most <= n, "{used}: {most} experts chosen, but {count} says that there are {n}");
        let n_ff = self.per_layer("expert_feed_forward_length", n_layer)?.unwrap_or_else(|| n_ff.to_vec());
        let n_ff_shared = self.whole("expert_shared_feed_forward_length")?.unwrap_or(0);
        let gating = match self.whole("expert_gating_func")? {
            None | Some(0) => gating,
            Some(1) => Gating::Softmax,
            Some(2) => Gating::Sigmoid,
            Some(3) => Gating::SoftmaxOfChosen,
            Some(other) => {
                bail!("{}: {other} is not known; 1 (softmax), 2 (sigmoid), 3 are", self.name("expert_gating_func"))
            }
        };
        let normalised = self.bool("expert_weights_norm")?.unwrap_or(normalised);
        let scale = self.f32("expert_weights_scale")?.filter(|scale| *scale != 0.0).unwrap_or(1.0);
        self.refuse(
            &["expert_group_count", "expert_group_used_count"],
            &[0.0, 1.0],
            "a choice of groups of experts is",
        )?;
        let latent = self.optional("moe_latent_size")?;
        Ok(Some(Experts { n, n_used, n_ff, n_ff_shared, gating, normalised, scale, latent }))
    }

    /// A whole number of each of `n_layer` layers, which may be 0: one for all of them, or an array.
    ///
    /// # Errors
    /// When it is no such number, or the array is of another length.
    pub fn per_layer(&self, suffix: &str, n_layer: usize) -> Result<Option<Vec<usize>>> {
        let name = self.read(suffix);
        if !self.metadata.is_array(&name) {
            return Ok(self.metadata.u32(&name)?.map(|n| vec![n as usize; n_layer]));
        }
        let Some(array) = self.metadata.array(&name)? else { return Ok(None) };
        let values = array.integers().with_context(|| name.clone())?;
        ensure!(values.len() == n_layer, "{name}: {} values for {n_layer} layers", values.len());
        let whole = |n: i64| {
            let n = u32::try_from(n).with_context(|| format!("{name}: {n} is not a whole number of 32 bits"))?;
            Ok(n as usize)
        };
        Ok(Some(values.into_iter().map(whole).collect::<Result<_>>()?))
    }
}
