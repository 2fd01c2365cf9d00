//! What a model is, as data: the forward pass reads this and knows no architecture by name.

use super::activation::{self, Activation, ResolvedActivation};
use super::arch::{self, Arch};
use crate::gguf::Metadata;
use anyhow::{Context, Result, bail, ensure};

/// Kind of normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square, no mean, no bias.
    Rms,
    /// Mean and variance, with a bias.
    Layer,
}

/// How rotary embedding pairs the elements of a head (RoFormer, arXiv 2104.09864).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeKind {
    /// Element `2i` with `2i + 1`.
    Interleaved,
    /// Element `i` with `i + n/2`.
    Halves,
    /// No rotary embedding.
    None,
}

/// How attention and FFN join the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// `x += attn(norm(x)); x += ffn(norm(x))`.
    Serial,
    /// `x += attn(norm(x)) + ffn(norm(x))`.
    Parallel,
}

/// Rotary embedding of one model.
#[derive(Debug, Clone)]
pub struct Rope {
    /// Pairing of elements.
    pub kind: RopeKind,
    /// Base of the frequencies.
    pub base: f32,
    /// Elements of a head that are rotated.
    pub n_dims: usize,
    /// Positions are multiplied by this (linear scaling: 1 / factor).
    pub scale: f32,
}

/// Sizes and kinds of a model.
#[derive(Debug, Clone)]
pub struct Config {
    /// Value of `general.architecture`.
    pub arch: &'static Arch,
    /// Value of `general.name`, or the architecture where there is none.
    pub name: String,
    /// Entries of the vocabulary: rows of `token_embd`.
    pub n_vocab: usize,
    /// Context the model was trained for, in tokens.
    pub n_ctx_train: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Number of layers.
    pub n_layer: usize,
    /// FFN neurons of each layer.
    pub n_ff: Vec<usize>,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads (grouped-query attention where fewer than `n_head`).
    pub n_head_kv: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Kind of every normalisation.
    pub norm: NormKind,
    /// Epsilon of every normalisation.
    pub norm_eps: f32,
    /// Rotary embedding.
    pub rope: Rope,
    /// Serial or parallel residual.
    pub residual: Residual,
    /// Whether the FFN has a gate.
    pub gated: bool,
    /// Activation of the FFN, and why this one.
    pub activation: ResolvedActivation,
}

impl Config {
    /// Reads the configuration of a file. `n_vocab` comes from the embedding's shape and is checked there.
    ///
    /// # Errors
    /// Names the key that is missing or makes no sense.
    pub fn read(metadata: &Metadata, n_vocab: usize, forced: Option<Activation>) -> Result<Self> {
        let arch_name = metadata.str("general.architecture")?;
        let arch_name = arch_name.context("general.architecture: the key is missing")?;
        let arch = arch::find(arch_name)?;
        let key = |suffix: &str| format!("{arch_name}.{suffix}");
        let optional = |suffix: &str| -> Result<Option<usize>> {
            let Some(n) = metadata.u32(&key(suffix))? else { return Ok(None) };
            ensure!(n > 0, "{}: must not be 0", key(suffix));
            Ok(Some(n as usize))
        };
        let size = |suffix: &str| optional(suffix)?.with_context(|| format!("{}: the key is missing", key(suffix)));

        let n_embd = size("embedding_length")?;
        let n_layer = size("block_count")?;
        ensure!(n_layer <= 1024, "{}: {n_layer} layers; at most 1024 are accepted", key("block_count"));
        let n_head = size("attention.head_count")?;
        let n_head_kv = optional("attention.head_count_kv")?.unwrap_or(n_head);
        ensure!(
            n_head.is_multiple_of(n_head_kv),
            "{}: {n_head} heads are not a multiple of {n_head_kv} key/value heads",
            key("attention.head_count_kv")
        );
        let head_dim = match optional("attention.key_length")? {
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
        let value_length = optional("attention.value_length")?.unwrap_or(head_dim);
        ensure!(
            value_length == head_dim,
            "{}: {value_length} differs from keys' {head_dim}",
            key("attention.value_length")
        );
        let limit = 1 << 20;
        ensure!(n_head * head_dim <= limit && n_embd <= limit, "{}: sizes beyond {limit}", key("embedding_length"));
        if metadata.u32(&key("expert_count"))?.unwrap_or(0) > 0 {
            bail!("{}: mixture-of-experts models are not supported yet", key("expert_count"));
        }
        let eps_key = match arch.norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        let norm_eps = metadata.f32(&key(eps_key))?.with_context(|| format!("{}: the key is missing", key(eps_key)))?;
        ensure!(norm_eps >= 0.0, "{}: {norm_eps} is negative", key(eps_key));
        let name = metadata.str("general.name")?.unwrap_or(arch_name).to_owned();
        Ok(Self {
            arch,
            name,
            n_vocab,
            n_ctx_train: size("context_length")?,
            n_embd,
            n_layer,
            n_ff: read_n_ff(metadata, &key("feed_forward_length"), n_layer)?,
            n_head,
            n_head_kv,
            head_dim,
            norm: arch.norm,
            norm_eps,
            rope: read_rope(metadata, arch, head_dim)?,
            residual: arch.residual,
            gated: arch.gated,
            activation: activation::resolve(forced, metadata, arch_name, arch.activation)?,
        })
    }
}

/// One number for all layers, or an array with one per layer.
fn read_n_ff(metadata: &Metadata, key: &str, n_layer: usize) -> Result<Vec<usize>> {
    let per_layer = match metadata.u32(key) {
        Ok(Some(n)) => vec![i64::from(n); n_layer],
        Ok(None) => bail!("{key}: the key is missing"),
        Err(error) => match metadata.array(key) {
            Ok(Some(array)) => array.integers().with_context(|| key.to_owned())?,
            _ => return Err(error),
        },
    };
    ensure!(per_layer.len() == n_layer, "{key}: {} values for {n_layer} layers", per_layer.len());
    let sane = |n: &i64| (1..=1 << 24).contains(n);
    ensure!(per_layer.iter().all(sane), "{key}: a layer needs 1 to {} neurons", 1 << 24);
    Ok(per_layer.into_iter().map(|n| n as usize).collect())
}

fn read_rope(metadata: &Metadata, arch: &Arch, head_dim: usize) -> Result<Rope> {
    let key = |suffix: &str| format!("{}.rope.{suffix}", arch.name);
    let n_dims = metadata.u32(&key("dimension_count"))?.map_or(head_dim, |n| n as usize);
    let fits = n_dims <= head_dim && n_dims.is_multiple_of(2);
    ensure!(fits, "{}: {n_dims} of {head_dim} elements cannot be rotated", key("dimension_count"));
    let base = metadata.f32(&key("freq_base"))?.unwrap_or(10_000.0);
    ensure!(base > 0.0, "{}: {base} is not positive", key("freq_base"));
    let factor = match metadata.str(&key("scaling.type"))? {
        None | Some("linear") => {
            let factor = metadata.f32(&key("scaling.factor"))?;
            let factor = if factor.is_some() { factor } else { metadata.f32(&key("scale_linear"))? };
            factor.filter(|f| *f != 0.0).unwrap_or(1.0)
        }
        Some("none") => 1.0,
        Some(other) => bail!("{}: \"{other}\" is not supported yet; none and linear are", key("scaling.type")),
    };
    ensure!(factor > 0.0, "{}: {factor} is not positive", key("scaling.factor"));
    Ok(Rope { kind: arch.rope, base, n_dims, scale: 1.0 / factor })
}
