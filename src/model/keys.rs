//! Reading the keys of an architecture, and those that most architectures share.

use super::activation::{self, Activation};
use super::config::{Config, NormKind, Rope, RopeKind};
use crate::gguf::Metadata;
use crate::printable::printable;
use anyhow::{Context, Result, bail, ensure};

/// The metadata of a file, by keys that begin with the name of its architecture.
pub struct Keys<'a> {
    metadata: &'a Metadata,
    arch: &'a str,
    /// Rows of `token_embd`, which no key tells reliably.
    pub n_vocab: usize,
    /// The user's word on the activation.
    pub activation: Option<Activation>,
}

impl<'a> Keys<'a> {
    /// The keys that begin with `arch`.
    pub fn new(metadata: &'a Metadata, arch: &'a str, n_vocab: usize, activation: Option<Activation>) -> Self {
        Self { metadata, arch, n_vocab, activation }
    }

    /// The whole key.
    pub fn name(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.arch)
    }

    /// A number of things, which may be missing.
    ///
    /// # Errors
    /// When it is 0 or no number.
    pub fn optional(&self, suffix: &str) -> Result<Option<usize>> {
        let Some(n) = self.metadata.u32(&self.name(suffix))? else { return Ok(None) };
        ensure!(n > 0, "{}: must not be 0", self.name(suffix));
        Ok(Some(n as usize))
    }

    /// A number of things.
    ///
    /// # Errors
    /// When it is missing, 0 or no number.
    pub fn size(&self, suffix: &str) -> Result<usize> {
        self.optional(suffix)?.with_context(|| format!("{}: the key is missing", self.name(suffix)))
    }

    /// A float, which may be missing.
    ///
    /// # Errors
    /// When it is no number.
    pub fn f32(&self, suffix: &str) -> Result<Option<f32>> {
        self.metadata.f32(&self.name(suffix))
    }

    /// A text, which may be missing.
    ///
    /// # Errors
    /// When it is no text.
    pub fn str(&self, suffix: &str) -> Result<Option<&'a str>> {
        self.metadata.str(&self.name(suffix))
    }

    /// Refuses keys that would make another model of it and that nothing here computes.
    ///
    /// # Errors
    /// When one of them is there with another value than 0.
    pub fn refuse(&self, suffixes: &[&str], what: &str) -> Result<()> {
        for suffix in suffixes {
            let name = self.name(suffix);
            let value = match self.metadata.f32(&name) {
                Ok(value) => value,
                Err(why) => Some(self.metadata.u32(&name).ok().flatten().ok_or(why)? as f32),
            };
            if let Some(value) = value.filter(|v| *v != 0.0) {
                bail!("{name}: {value}: {what} not supported yet");
            }
        }
        Ok(())
    }
}

/// What an architecture's files do not say, for [`Keys::decoder`].
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// Kind of every normalisation.
    pub norm: NormKind,
    /// Pairing of the rotary embedding.
    pub rope: RopeKind,
    /// Activation where nothing else names one.
    pub activation: Activation,
}

impl Keys<'_> {
    /// The configuration that most decoders have the keys of.
    ///
    /// # Errors
    /// Names the key that is missing or makes no sense.
    pub fn decoder(&self, defaults: Defaults) -> Result<Config> {
        let key = |suffix: &str| self.name(suffix);
        let n_embd = self.size("embedding_length")?;
        let n_layer = self.size("block_count")?;
        ensure!(n_layer <= 1024, "{}: {n_layer} layers; at most 1024 are accepted", key("block_count"));
        let n_head = self.size("attention.head_count")?;
        let n_head_kv = self.optional("attention.head_count_kv")?.unwrap_or(n_head);
        ensure!(
            n_head.is_multiple_of(n_head_kv),
            "{}: {n_head} heads are not a multiple of {n_head_kv} key/value heads",
            key("attention.head_count_kv")
        );
        let head_dim = match self.optional("attention.key_length")? {
            Some(n) => n,
            None => {
                ensure!(
                    n_embd.is_multiple_of(n_head),
                    "{}: {n_embd} is not a multiple of {n_head} heads",
                    key("embedding_length")
                );
                n_embd / n_head
            }
        };
        let value_length = self.optional("attention.value_length")?.unwrap_or(head_dim);
        ensure!(
            value_length == head_dim,
            "{}: {value_length} differs from keys' {head_dim}",
            key("attention.value_length")
        );
        let limit = 1 << 20;
        ensure!(n_head * head_dim <= limit && n_embd <= limit, "{}: sizes beyond {limit}", key("embedding_length"));
        if self.metadata.u32(&key("expert_count"))?.unwrap_or(0) > 0 {
            bail!("{}: mixture-of-experts models are not supported yet", key("expert_count"));
        }
        let eps_key = match defaults.norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        let norm_eps = self.f32(eps_key)?.with_context(|| format!("{}: the key is missing", key(eps_key)))?;
        ensure!(norm_eps >= 0.0, "{}: {norm_eps} is negative", key(eps_key));
        Ok(Config {
            arch: self.arch.to_owned(),
            name: printable(self.metadata.str("general.name")?.unwrap_or(self.arch)).into_owned(),
            n_vocab: self.n_vocab,
            n_ctx_train: self.size("context_length")?,
            n_embd,
            n_layer,
            n_ff: self.n_ff(n_layer)?,
            n_head,
            n_head_kv,
            head_dim,
            norm: defaults.norm,
            norm_eps,
            rope: self.rope(defaults.rope, head_dim)?,
            activation: activation::resolve(self.activation, self.metadata, self.arch, defaults.activation)?,
        })
    }

    /// Neurons of each layer: one number for all layers, or an array with one per layer.
    fn n_ff(&self, n_layer: usize) -> Result<Vec<usize>> {
        let key = &*self.name("feed_forward_length");
        let per_layer = match self.metadata.u32(key) {
            Ok(Some(n)) => vec![i64::from(n); n_layer],
            Ok(None) => bail!("{key}: the key is missing"),
            Err(error) => match self.metadata.array(key) {
                Ok(Some(array)) => array.integers().with_context(|| key.to_owned())?,
                _ => return Err(error),
            },
        };
        ensure!(per_layer.len() == n_layer, "{key}: {} values for {n_layer} layers", per_layer.len());
        let sane = |n: &i64| (1..=1 << 24).contains(n);
        ensure!(per_layer.iter().all(sane), "{key}: a layer needs 1 to {} neurons", 1 << 24);
        Ok(per_layer.into_iter().map(|n| n as usize).collect())
    }

    fn rope(&self, kind: RopeKind, head_dim: usize) -> Result<Rope> {
        let key = |suffix: &str| self.name(&format!("rope.{suffix}"));
        let n_dims = self.metadata.u32(&key("dimension_count"))?.map_or(head_dim, |n| n as usize);
        let fits = n_dims <= head_dim && n_dims.is_multiple_of(2);
        ensure!(fits, "{}: {n_dims} of {head_dim} elements cannot be rotated", key("dimension_count"));
        let base = self.metadata.f32(&key("freq_base"))?.unwrap_or(10_000.0);
        ensure!(base > 0.0, "{}: {base} is not positive", key("freq_base"));
        let attn_factor = self.metadata.f32(&key("scaling.attn_factor"))?.unwrap_or(1.0);
        ensure!(attn_factor == 1.0, "{}: {attn_factor} is not supported yet; 1 is", key("scaling.attn_factor"));
        let factor = match self.metadata.str(&key("scaling.type"))? {
            None | Some("linear") => {
                let factor = self.metadata.f32(&key("scaling.factor"))?;
                let factor = if factor.is_some() { factor } else { self.metadata.f32(&key("scale_linear"))? };
                factor.filter(|f| *f != 0.0).unwrap_or(1.0)
            }
            Some("none") => 1.0,
            Some(other) => bail!("{}: \"{other}\" is not supported yet; none and linear are", key("scaling.type")),
        };
        ensure!(factor > 0.0, "{}: {factor} is not positive", key("scaling.factor"));
        Ok(Rope { kind, base, n_dims, scale: 1.0 / factor })
    }
}
