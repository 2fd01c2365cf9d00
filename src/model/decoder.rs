//! The keys that most architectures share, as a configuration.

use super::activation::Activation;
use super::config::{Caps, Config, Mixer, NormKind, Rope, RopeKind, Scales, Yarn};
use super::keys::Keys;
use super::{pwri, refused, resolved};
use crate::printable::printable;
use anyhow::{Context, Result, bail, ensure};

/// Keys that say nothing of what is computed, or nothing as long as keys that are refused are not there. llama.cpp writes
/// most of them into every file that it saves.
pub const HARMLESS: &[&str] = &[
    "activation.situ_beta",
    "activation.situ_linear_beta",
    "attention.group_norm_epsilon",
    "attention.group_norm_groups",
    "classifier.output_labels",
    "convnext.block_count",
    "convnext.embedding_length",
    "decoder_start_token_id",
    "deepstack_mapping",
    "dense_2_feat_in",
    "dense_2_feat_out",
    "dense_3_feat_in",
    "dense_3_feat_out",
    "expert_chunk_feed_forward_length",
    "expert_feed_forward_length",
    "expert_gating_func",
    "expert_group_count",
    "expert_group_scale",
    "expert_group_used_count",
    "expert_latent_length",
    "expert_shared_feed_forward_length",
    "expert_weights_norm",
    "expert_weights_scale",
    "experts_per_group",
    "interleave_moe_layer_step",
    "leading_dense_block_count",
    "moe_every_n_layers",
    "pooling_type",
    "posnet.block_count",
    "posnet.embedding_length",
    "router_logit_softcapping",
    "swiglu_clamp_exp",
    "swiglu_clamp_shexp",
    "time_decay_extra_dim",
    "time_mix_extra_dim",
];

/// The keys of [`Keys::scales`], for [`Defaults::computed`].
pub const SCALES: &[&str] = &["embedding_scale", "logit_scale", "residual_scale"];

/// For [`Defaults::computed`] of architectures whose layers are one mixer or one FFN each: where `feed_forward_length` and
/// the numbers of heads may be 0.
pub const ONE_MIXER: &str = "feed_forward_length";

/// What an architecture's files do not say, for [`Keys::decoder`].
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// Kind of every normalisation.
    pub norm: NormKind,
    /// Pairing of the rotary embedding.
    pub rope: RopeKind,
    /// Activation where nothing else names one.
    pub activation: Activation,
    /// Keys, without the name of the architecture, that it computes and that are refused elsewhere.
    pub computed: &'static [&'static str],
}

impl Keys<'_> {
    /// The configuration that most decoders have the keys of. What would make another model is refused.
    ///
    /// # Errors
    /// Names the key that is missing, makes no sense, or asks for what is not computed.
    pub fn decoder(&self, defaults: Defaults) -> Result<Config> {
        let key = |suffix: &str| self.name(suffix);
        let n_embd = self.size("embedding_length")?;
        let n_layer = self.n_layer(defaults.computed)?;
        ensure!(n_layer <= 1024, "{}: {n_layer} layers; at most 1024 are accepted", key("block_count"));
        let one_mixer = defaults.computed.contains(&ONE_MIXER);
        let n_ff = self.n_ff(n_layer, one_mixer)?;
        let (n_head, n_head_kv, mixers) = if one_mixer {
            self.mixers(&n_ff)?
        } else {
            let n_head = self.size("attention.head_count")?;
            let n_head_kv = self.optional("attention.head_count_kv")?.unwrap_or(n_head);
            (n_head, n_head_kv, vec![Mixer::Attention; n_layer])
        };
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
            value_length == head_dim || defaults.computed.contains(&"attention.value_length"),
            "{}: {value_length} differs from keys' {head_dim}",
            key("attention.value_length")
        );
        let limit = 1 << 20;
        ensure!(n_head * head_dim <= limit && n_embd <= limit, "{}: sizes beyond {limit}", key("embedding_length"));
        let (eps_key, other_eps) = match defaults.norm {
            NormKind::Rms => ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"),
            NormKind::Layer => ("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon"),
        };
        let other = defaults.computed.contains(&other_eps).then(|| self.f32(other_eps)).transpose()?.flatten();
        let stated_eps = self.f32(eps_key)?.or(other);
        // PowerInfer's files of models with such norms lack the key, and it computes with 0 then.
        let unstated = (self.is_pwri() && defaults.norm == NormKind::Layer).then_some(0.0);
        let norm_eps = stated_eps.or(unstated).with_context(|| format!("{}: the key is missing", key(eps_key)))?;
        ensure!(norm_eps >= 0.0, "{}: {norm_eps} is negative", key(eps_key));
        if !defaults.computed.contains(&other_eps) {
            refused::other_eps(self, other_eps, norm_eps)?;
        }
        let n_ctx_train = self.size("context_length")?;
        self.read("hidden_activation");
        self.read("activation_threshold");
        let default = pwri::default_activation(self.is_pwri(), self.arch, defaults.activation);
        self.read("rope.scaling.finetuned");
        let config = Config {
            arch: self.arch.to_owned(),
            name: printable(self.metadata.str("general.name")?.unwrap_or(self.arch)).into_owned(),
            n_vocab: self.n_vocab,
            n_tokens: self.n_tokens()?,
            n_ctx_train,
            n_embd,
            n_layer,
            n_ff,
            n_head,
            n_head_kv,
            head_dim,
            value_dim: head_dim,
            n_latent: None,
            attention_scale: self.attention_scale(head_dim)?,
            temperature: None,
            scales: Scales::NONE,
            caps: Caps::NONE,
            norm: defaults.norm,
            own_head_norms: false,
            norm_eps,
            rope: self.rope(defaults.rope, head_dim, n_ctx_train)?,
            rotated: vec![true; n_layer],
            windows: self.windows(n_layer, None, 0)?,
            window_rope: None,
            parallel: false,
            activation: resolved::resolve(self.activation, self.metadata, self.arch, default)?,
            two_norms: false,
            positions: None,
            experts: None,
            mixers,
            ssm: None,
        };
        refused::check(self, &config, defaults.computed)?;
        Ok(config)
    }

    /// Blocks, without those that predict further tokens where an architecture has such.
    fn n_layer(&self, computed: &[&str]) -> Result<usize> {
        let n_blocks = self.size("block_count")?;
        if !computed.contains(&"nextn_predict_layers") {
            return Ok(n_blocks);
        }
        let n_ahead = self.whole("nextn_predict_layers")?.unwrap_or(0);
        let key = self.name("nextn_predict_layers");
        ensure!(
            n_ahead < n_blocks,
            "{key}: {n_ahead} of {n_blocks} layers predict further tokens; which predict the next?"
        );
        Ok(n_blocks - n_ahead)
    }

    /// Tokens of the vocabulary, which must have rows in the embedding. A file without a tokenizer has one for each row.
    fn n_tokens(&self) -> Result<usize> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        let rows = self.n_vocab;
        let n = self.metadata.array(TOKENS)?.map(|tokens| tokens.len).filter(|n| *n > 0);
        let n_tokens = n.unwrap_or(rows);
        ensure!(n_tokens <= rows, "{TOKENS}: {n_tokens} tokens, but token_embd.weight has {rows} rows");
        if let Some(stated) = self.whole("vocab_size")? {
            let key = self.name("vocab_size");
            let fits = stated == rows || stated == n_tokens;
            ensure!(fits, "{key}: {stated}, but token_embd.weight has {rows} rows and the tokenizer {n_tokens} tokens");
        }
        Ok(n_tokens)
    }

    /// Neurons of each layer: one number for all layers, or an array with one per layer.
    /// With `some_without`, 0 is a layer without an FFN.
    fn n_ff(&self, n_layer: usize, some_without: bool) -> Result<Vec<usize>> {
        let key = &*self.read("feed_forward_length");
        let per_layer = match self.metadata.u32(key) {
            Ok(Some(n)) => vec![i64::from(n); n_layer],
            Ok(None) => bail!("{key}: the key is missing"),
            Err(error) => match self.metadata.array(key) {
                Ok(Some(array)) => array.integers().with_context(|| key.to_owned())?,
                _ => return Err(error),
            },
        };
        let per_layer = if self.metadata.is_array(key) { self.of_layers(key, per_layer, n_layer)? } else { per_layer };
        let sane = |n: &i64| (1..=1 << 24).contains(n) || some_without && *n == 0;
        ensure!(per_layer.iter().all(sane), "{key}: a layer needs 1 to {} neurons", 1 << 24);
        Ok(per_layer.into_iter().map(|n| n as usize).collect())
    }

    /// What scores are multiplied with; 0 is as absent.
    fn attention_scale(&self, head_dim: usize) -> Result<f32> {
        let scale = self.f32("attention.scale")?.filter(|scale| *scale != 0.0);
        let scale = scale.unwrap_or(Config::usual_attention_scale(head_dim));
        ensure!(scale > 0.0, "{}: {scale} is not positive", self.name("attention.scale"));
        Ok(scale)
    }

    /// The scales of an architecture that has the keys for them, with those of `defaults` where they are absent or 0.
    ///
    /// # Errors
    /// When one is no finite number, or would scale by none.
    pub fn scales(&self, defaults: Scales) -> Result<Scales> {
        let scale = |suffix: &str, default: f32, of: fn(f32) -> f32| -> Result<f32> {
            let Some(value) = self.f32(suffix)?.filter(|value| *value != 0.0) else { return Ok(default) };
            let scale = of(value);
            ensure!(scale.is_finite(), "{}: {value} scales by {scale}", self.name(suffix));
            Ok(scale)
        };
        Ok(Scales {
            embedding: scale("embedding_scale", defaults.embedding, |scale| scale)?,
            residual: scale("residual_scale", defaults.residual, |scale| scale)?,
            logits: scale("logit_scale", defaults.logits, |divisor| 1.0 / divisor)?,
        })
    }

    /// A rotary base, which is `usual` where no key says otherwise.
    ///
    /// # Errors
    /// When it is not positive.
    pub fn base(&self, suffix: &str, usual: f32) -> Result<f32> {
        // 0 is as absent.
        let base = self.f32(suffix)?.filter(|base| *base != 0.0).unwrap_or(usual);
        ensure!(base > 0.0, "{}: {base} is not positive", self.name(suffix));
        Ok(base)
    }

    fn rope(&self, kind: RopeKind, head_dim: usize, n_ctx_train: usize) -> Result<Rope> {
        let positive = |suffix: &str, default: f32| -> Result<f32> {
            let value = self.f32(suffix)?.unwrap_or(default);
            ensure!(value > 0.0, "{}: {value} is not positive", self.name(suffix));
            Ok(value)
        };
        let n_dims = self.whole("rope.dimension_count")?.unwrap_or(head_dim);
        let fits = n_dims <= head_dim && n_dims.is_multiple_of(2);
        ensure!(fits, "{}: {n_dims} of {head_dim} elements cannot be rotated", self.name("rope.dimension_count"));
        let base = positive("rope.freq_base", 10_000.0)?;
        let (factor, old) = (self.f32("rope.scaling.factor")?, self.f32("rope.scale_linear")?);
        let factor = factor.or(old).filter(|factor| *factor != 0.0).unwrap_or(1.0);
        ensure!(factor > 0.0, "{}: {factor} is not positive", self.name("rope.scaling.factor"));
        let mut long_from = None;
        let (factor, share) = match self.str("rope.scaling.type")? {
            None | Some("linear") => (factor, 0.0),
            Some("none") => (1.0, 0.0),
            Some("yarn") => (factor, 1.0),
            Some("longrope") => {
                long_from = self.long_from(n_ctx_train)?;
                let key = self.name("rope.scaling.type");
                ensure!(long_from.is_some(), "{key}: \"longrope\", but rope_factors_long.weight is missing");
                (factor, 0.0)
            }
            Some(other) => bail!(
                "{}: \"{}\" is not supported yet; none, linear, yarn and longrope are",
                self.name("rope.scaling.type"),
                other.chars().take(60).collect::<String>().escape_debug()
            ),
        };
        // Below 0 is as absent.
        let share = self.f32("rope.scaling.yarn_ext_factor")?.filter(|share| *share >= 0.0).unwrap_or(share);
        let n_ctx = self.whole("rope.scaling.original_context_length")?.filter(|n| *n != 0).unwrap_or(n_ctx_train);
        let attn_factor = positive("rope.scaling.attn_factor", 1.0)?;
        let beta_fast = positive("rope.scaling.yarn_beta_fast", 32.0)?;
        let beta_slow = positive("rope.scaling.yarn_beta_slow", 1.0)?;
        let log_multiplier = self.f32("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0);
        let yarn = (share != 0.0).then_some(Yarn { share, n_ctx, beta_fast, beta_slow });
        let magnitude = if yarn.is_some() { Yarn::magnitude(factor, log_multiplier) } else { 1.0 } * attn_factor;
        ensure!(
            magnitude.is_finite() && magnitude > 0.0,
            "{}: {log_multiplier} scales attention by {magnitude}",
            self.name("rope.scaling.yarn_log_multiplier")
        );
        Ok(Rope { kind, base, n_dims, first: 0, scale: 1.0 / factor, magnitude, yarn, long_from })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures by the formulas of the paper, worked out by hand.
    #[test]
    fn yarn_keeps_what_turns_often_and_scales_what_does_not() {
        // c(32) = 128 ln(4096 / (64 pi)) / (2 ln 10000) = 20.94, c(1) = 45.03.
        let yarn = Yarn { share: 1.0, n_ctx: 4096, beta_fast: 32.0, beta_slow: 1.0 };
        let plain = Rope::plain(RopeKind::Halves, 10_000.0, 128);
        let scaled = Rope { scale: 0.25, yarn: Some(yarn), ..plain.clone() };
        let ratio: Vec<f32> = plain
            .frequencies(None)
            .iter()
            .zip(scaled.frequencies(None))
            .map(|(plain, scaled)| scaled / plain)
            .collect();
        assert!((ratio[20] - 1.0).abs() < 1e-6 && ratio[21] < 0.98, "{:?}", &ratio[20..22]);
        assert!((ratio[33] - (1.0 - 0.75 * 13.0 / 26.0)).abs() < 1e-6, "{}", ratio[33]);
        assert!(ratio[45] > 0.26 && (ratio[46] - 0.25).abs() < 1e-6, "{:?}", &ratio[45..47]);
        assert!((Yarn::magnitude(4.0, 0.0) - 1.138_629_4).abs() < 1e-6);
        assert_eq!([Yarn::magnitude(4.0, 1.0), Yarn::magnitude(0.5, 0.0), Yarn::magnitude(1.0, 0.7)], [1.0; 3]);
    }
}
