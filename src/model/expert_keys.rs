//! Experts as keys of a file describe them, and what they are made of.

use super::config::Config;
use super::decoder::HARMLESS;
use super::experts::Experts;
use super::keys::Keys;
use super::part::Role;
use super::refused;
use super::router::Gating;
use super::spec::{GroupSpec, PartSpec};
use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use std::sync::LazyLock;

/// Keys that [`Keys::experts`] computes, for [`Defaults::computed`](super::Defaults::computed).
pub const EXPERTS: &[&str] = &["expert_count", "expert_used_count", "expert_shared_count"];

/// Other keys that [`Keys::experts`] reads, which are harmless elsewhere.
const OF_EXPERTS: [&str; 8] = [
    "expert_feed_forward_length",
    "expert_gating_func",
    "expert_group_count",
    "expert_group_used_count",
    "expert_latent_length",
    "expert_shared_feed_forward_length",
    "expert_weights_norm",
    "expert_weights_scale",
];

static HARMLESS_BESIDE: LazyLock<Vec<&str>> =
    LazyLock::new(|| HARMLESS.iter().copied().filter(|key| !means_something(key)).collect());

/// Whether a key that is harmless elsewhere is read where there are experts.
fn means_something(key: &str) -> bool {
    OF_EXPERTS.contains(&key) || refused::is_checked_beside_experts(key)
}

/// [`HARMLESS`] without what is read where there are experts.
pub fn harmless_beside_experts() -> &'static [&'static str] {
    &HARMLESS_BESIDE
}

/// The most that a layer may have: no model has as many.
const MOST: usize = 1 << 14;

impl Experts {
    /// The matrix of that router.
    pub fn router_part(&self, config: &Config) -> PartSpec {
        PartSpec::matrix(Role::Router, self.n, config.n_embd)
    }

    /// The groups that it chooses among.
    pub fn groups(&self, layer: usize, gated: bool) -> Vec<GroupSpec> {
        GroupSpec::experts(self.n, self.n_ff[layer], gated)
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
        ensure!(!self.is_pwri(), "{count}: {n}: a mixture of experts in PowerInfer's own format is not supported yet");
        let n_used = self.per_layer("expert_used_count", n_layer)?;
        let used = self.name("expert_used_count");
        let n_used = n_used
            .with_context(|| format!("{count}: {n} experts, but {used}, which says how many are chosen, is missing"))?;
        let most = n_used.iter().copied().max().unwrap_or(0);
        ensure!(most >= 1, "{used}: 0 of {n} experts chosen; at least one must be");
        ensure!(most <= n, "{used}: {most} experts chosen, but {count} says that there are {n}");
        let own = self.per_layer("expert_feed_forward_length", n_layer)?.unwrap_or_else(|| vec![0; n_layer]);
        // 0 is as absent.
        let n_ff = own.into_iter().zip(n_ff).map(|(own, n)| if own == 0 { *n } else { own }).collect();
        let n_ff_shared = self.whole("expert_shared_feed_forward_length")?.unwrap_or(0);
        let gating = match self.whole("expert_gating_func")? {
            None | Some(0) => gating,
            Some(1) => Gating::Softmax,
            Some(2) => Gating::Sigmoid,
            Some(3) => Gating::SoftmaxOfChosen,
            Some(other) => bail!(
                "{}: {other} is not known; 1 (softmax), 2 (sigmoid) and 3 (softmax of the chosen ones) are",
                self.name("expert_gating_func")
            ),
        };
        let normalised = self.bool("expert_weights_norm")?.unwrap_or(normalised);
        let scale = self.f32("expert_weights_scale")?.filter(|scale| *scale != 0.0).unwrap_or(1.0);
        self.refuse(
            &["expert_group_count", "expert_group_used_count"],
            &[0.0, 1.0],
            "a choice of groups of experts is",
        )?;
        refused::check_beside_experts(self)?;
        // 0 is as absent.
        let latent = self.whole("moe_latent_size")?.filter(|n| *n != 0);
        let wide = latent.map_or(0.0, |n| n as f64);
        self.refuse(&["expert_latent_length"], &[0.0, wide], "experts of this kind are")?;
        Ok(Some(Experts { n, n_used, n_ff, n_ff_shared, gating, normalised, scale, latent }))
    }

    /// The experts of an architecture all of whose layers have some, whose weights always add up to 1, and which has no
    /// expert beside those that the router chooses.
    ///
    /// # Errors
    /// As [`Keys::experts`]; when a key asks for what the architecture has not.
    pub fn usual_experts(&self, config: &Config, gating: Gating) -> Result<Experts> {
        for key in ["expert_shared_feed_forward_length", "expert_shared_count", "moe_latent_size"] {
            self.refuse(&[key], &[0.0], "experts of this kind are, with this architecture,")?;
        }
        self.all_experts(config, gating)
    }

    fn all_experts(&self, config: &Config, gating: Gating) -> Result<Experts> {
        let (count, arch) = (self.name("expert_count"), self.arch);
        let experts = self.experts(&config.n_ff, gating, true)?;
        let missing = || format!("{count}: the key is missing, or 0; all layers of architecture {arch} have experts");
        let experts = experts.with_context(missing)?;
        if let Some(layer) = experts.n_used.iter().position(|n| *n == 0) {
            return Err(self.none_chosen(&experts, layer));
        }
        // What llama.cpp saves says no where it computes yes.
        Ok(Experts { normalised: true, ..experts })
    }

    /// The same of one whose router has this gating, and no other.
    ///
    /// # Errors
    /// As [`Keys::usual_experts`]; when a key names another gating.
    pub fn experts_chosen_by(&self, config: &Config, gating: Gating) -> Result<Experts> {
        let experts = self.usual_experts(config, gating)?;
        self.gating_must_be(gating, &experts)?;
        Ok(experts)
    }

    /// The same of one that may have an expert for all tokens beside those.
    ///
    /// # Errors
    /// As [`Keys::experts_chosen_by`].
    pub fn experts_beside_shared(&self, config: &Config, gating: Gating) -> Result<Experts> {
        self.refuse(&["moe_latent_size"], &[0.0], "experts of another width than the residual stream's are")?;
        let experts = self.all_experts(config, gating)?;
        self.gating_must_be(gating, &experts)?;
        let shared = self.whole("expert_shared_count")?.unwrap_or(0);
        let key = self.name("expert_shared_count");
        let fits = shared <= 1 && (shared == 0 || experts.n_ff_shared > 0);
        ensure!(
            fits,
            "{key}: {shared}, but {} says {}",
            self.name("expert_shared_feed_forward_length"),
            experts.n_ff_shared
        );
        Ok(experts)
    }

    /// The error where a layer with experts chooses none of them.
    pub fn none_chosen(&self, experts: &Experts, layer: usize) -> Error {
        let (used, n) = (self.name("expert_used_count"), experts.n);
        anyhow!("{used}: 0 of {n} experts chosen in layer {layer}; at least one must be")
    }

    fn gating_must_be(&self, gating: Gating, experts: &Experts) -> Result<()> {
        let (key, arch, found) = (self.name("expert_gating_func"), self.arch, experts.gating);
        ensure!(found == gating, "{key}: {found:?}, but architecture {arch} has {gating:?} only");
        Ok(())
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
        let values = self.of_layers(&name, values, n_layer)?;
        let whole = |n: i64| {
            let n = u32::try_from(n).with_context(|| format!("{name}: {n} is not a whole number of 32 bits"))?;
            Ok(n as usize)
        };
        Ok(Some(values.into_iter().map(whole).collect::<Result<_>>()?))
    }
}
