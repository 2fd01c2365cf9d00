//! Nemotron-H, Nemotron Nano 2 and Nemotron 3 Nano 4B.

use super::Architecture;
use crate::model::activation::Activation;
use crate::model::config::{Config, Mixer, NormKind, RopeKind, Ssm};
use crate::model::decoder::{Defaults, ONE_MIXER};
use crate::model::expert_keys::EXPERTS;
use crate::model::keys::Keys;
use crate::model::part::Role;
use crate::model::presence::Presence;
use crate::model::router::Gating;
use crate::model::spec::{Dims, GroupSpec, LayerSpec, PartSpec, around_layers, attention, norm};
use crate::model::step::{Groups, Step, Vector};
use anyhow::{Context, Result, bail, ensure};

/// Which layers recur: what other keys say as well.
const RECURRENT: &str = "attention.recurrent_layers";
/// Keys that are computed here and refused elsewhere.
const COMPUTED: &[&str] = &[
    ONE_MIXER,
    EXPERTS[0],
    EXPERTS[1],
    EXPERTS[2],
    "attention.layer_norm_epsilon",
    RECURRENT,
    "nextn_predict_layers",
    "ssm.conv_kernel",
    "ssm.inner_size",
    "ssm.state_size",
    "ssm.time_step_rank",
    "ssm.group_count",
];

/// Layers that are one mixer or one FFN each: a state space model (Mamba-2, arXiv 2405.21060), attention without rotation, or
/// neurons without a gate that square what fires.
pub struct NemotronH;

impl Architecture for NemotronH {
    fn name(&self) -> &'static str {
        "nemotron_h"
    }

    fn config(&self, keys: &Keys) -> Result<Config> {
        config(keys)
    }

    fn parts(&self, config: &Config) -> Vec<PartSpec> {
        around_still_layers(config)
    }

    fn skips(&self, keys: &Keys, config: &Config, tensor: &str) -> bool {
        looks_ahead(keys, config, tensor)
    }

    fn layer(&self, config: &Config, layer: usize) -> LayerSpec {
        one_of_three(config, layer)
    }
}

/// Nothing rotates, whatever keys of the rotation say.
pub(super) fn config(keys: &Keys) -> Result<Config> {
    let (norm, rope) = (NormKind::Rms, RopeKind::None);
    let mut config = keys.decoder(Defaults { norm, rope, activation: Activation::Relu2, computed: COMPUTED })?;
    config.rotated = vec![false; config.n_layer];
    check_recurrent_layers(keys, &config)?;
    if config.mixers.contains(&Mixer::Recurrent) {
        config.ssm = Some(state_space(keys)?);
    }
    config.experts = keys.experts(&config.n_ff, Gating::Sigmoid, false)?;
    let Some(experts) = &mut config.experts else {
        keys.refuse(&EXPERTS[1..], &[0.0], "experts without a number of them are")?;
        return Ok(config);
    };
    let shared = keys.whole("expert_shared_count")?;
    ensure!(
        shared.is_none_or(|n| n == 0 || experts.n_ff_shared > 0),
        "{}: {}, but {} says 0",
        keys.name("expert_shared_count"),
        shared.unwrap_or(0),
        keys.name("expert_shared_feed_forward_length")
    );
    if shared == Some(0) {
        experts.n_ff_shared = 0;
    }
    let stated = "expert_feed_forward_length";
    let own = keys.per_layer(stated, config.n_layer)?.unwrap_or_else(|| vec![0; config.n_layer]);
    for (layer, _) in config.mixers.iter().enumerate().filter(|(_, mixer)| **mixer == Mixer::None) {
        let n_used = experts.n_used[layer];
        if n_used == 0 {
            return Err(keys.none_chosen(experts, layer));
        }
        // Files from before the key say how many neurons are computed.
        experts.n_ff[layer] = if own[layer] == 0 { config.n_ff[layer] / n_used } else { own[layer] };
        ensure!(experts.n_ff[layer] >= 1, "{}: 0 neurons in layer {layer}", keys.name(stated));
        // Ollama's files have no key for the width.
        let narrow = [Role::LatentDown.tensor(), Role::LatentDown.alias().unwrap_or_default()];
        let mut narrow = narrow.iter().filter_map(|name| keys.tensor(&format!("blk.{layer}.{name}.weight")));
        experts.latent = experts.latent.or_else(|| narrow.next().map(|tensor| tensor.n_rows()));
    }
    Ok(config)
}

/// Files that llama.cpp has saved list the layers that recur.
fn check_recurrent_layers(keys: &Keys, config: &Config) -> Result<()> {
    let Some(stated) = keys.numbers(RECURRENT)? else { return Ok(()) };
    let name = keys.name(RECURRENT);
    // One number is for all layers.
    let stated = if stated.len() == 1 {
        vec![stated[0]; config.n_layer]
    } else {
        keys.of_layers(&name, stated, config.n_layer)?
    };
    let differs = |(stated, mixer): (&f64, &Mixer)| (*stated != 0.0) != (*mixer == Mixer::Recurrent);
    if let Some(layer) = stated.iter().zip(&config.mixers).position(differs) {
        let is = if stated[layer] == 0.0 { "does not recur" } else { "recurs" };
        bail!("{name}: says that layer {layer} {is}, which numbers of heads and neurons contradict");
    }
    Ok(())
}

/// The sizes of recurrent layers.
fn state_space(keys: &Keys) -> Result<Ssm> {
    const MOST: usize = 1 << 20;
    let size = |suffix: &str, most: usize| {
        let n = keys.size(suffix).context("a layer has neither heads of keys nor neurons, so that it recurs")?;
        ensure!(n <= most, "{}: {n}; at most {most} are accepted", keys.name(suffix));
        Ok(n)
    };
    let ssm = Ssm {
        n_conv: size("ssm.conv_kernel", 16)?,
        n_inner: size("ssm.inner_size", MOST)?,
        n_state: size("ssm.state_size", 4096)?,
        n_heads: size("ssm.time_step_rank", MOST)?,
        n_groups: size("ssm.group_count", MOST)?,
    };
    let Ssm { n_inner, n_heads, n_groups, .. } = ssm;
    let name = |suffix: &str| keys.name(suffix);
    let (inner, heads, groups) = ("ssm.inner_size", "ssm.time_step_rank", "ssm.group_count");
    ensure!(
        n_inner.is_multiple_of(n_heads),
        "{}: {n_inner} is not a multiple of {n_heads} heads ({})",
        name(inner),
        name(heads)
    );
    ensure!(
        n_heads.is_multiple_of(n_groups),
        "{}: {n_heads} heads are not a multiple of {n_groups} groups ({})",
        name(heads),
        name(groups)
    );
    ensure!(
        n_groups * ssm.n_state <= MOST,
        "{}: {n_groups} groups of {} are more than {MOST}",
        name(groups),
        ssm.n_state
    );
    Ok(ssm)
}

pub(super) fn around_still_layers(config: &Config) -> Vec<PartSpec> {
    let mut parts = around_layers(config);
    parts.retain(|part| part.role != Role::RopeFreqs);
    parts
}

/// Whether a tensor is of what predicts further tokens, which nothing else needs.
pub(super) fn looks_ahead(keys: &Keys, config: &Config, tensor: &str) -> bool {
    let block = tensor.strip_prefix("blk.").and_then(|rest| rest.split_once('.')?.0.parse::<usize>().ok());
    let n_blocks = config.n_layer + keys.n_ahead();
    // Ollama's name.
    tensor.starts_with("mtp.") || block.is_some_and(|block| (config.n_layer..n_blocks).contains(&block))
}

pub(super) fn one_of_three(config: &Config, layer: usize) -> LayerSpec {
    use Vector::{Fed, Mixed, Normed, Residual};
    let mut parts = vec![norm(config, Role::AttnNorm)];
    let (mut groups, mut router) = (Vec::new(), None);
    let norm = Step::Norm { of: Role::AttnNorm, from: Residual, to: Normed };
    let add = |from| Step::Add { from, scale: 1.0 };
    let steps = match (config.mixers[layer], &config.ssm, &config.experts) {
        (Mixer::Recurrent, Some(ssm), _) => {
            parts.extend(recurrent(config, ssm));
            vec![norm, Step::Recurrent { from: Normed, to: Mixed }, add(Mixed)]
        }
        (Mixer::Recurrent | Mixer::Attention, ..) => {
            parts.extend(attention(config));
            vec![norm, Step::Attention { from: Normed, to: Mixed }, add(Mixed)]
        }
        (Mixer::None, _, None) => {
            groups.push(GroupSpec::dense(config.n_ff[layer], false).with_biases(Presence::Optional));
            vec![norm, Step::Ffn { from: Normed, to: Fed, groups: Groups::All }, add(Fed)]
        }
        (Mixer::None, _, Some(experts)) => {
            let latent = experts.latent;
            parts.push(PartSpec::matrix(Role::Router, experts.n, config.n_embd));
            parts.push(PartSpec::vector(Role::RouterBias, experts.n));
            router = Some(experts.router(layer));
            let of_width = |group: GroupSpec| group.of_width(latent);
            groups.extend(GroupSpec::experts(experts.n, experts.n_ff[layer], false).into_iter().map(of_width));
            let shared = (experts.n_ff_shared > 0).then(|| GroupSpec::shared_expert(experts.n_ff_shared, false));
            let beside = shared.is_some();
            groups.extend(shared);
            let mut steps = vec![norm, Step::Router { from: Normed }];
            match latent {
                None => steps.extend([Step::Ffn { from: Normed, to: Fed, groups: Groups::All }, add(Fed)]),
                Some(n) => {
                    parts.push(PartSpec::matrix(Role::LatentDown, n, config.n_embd));
                    parts.push(PartSpec::matrix(Role::LatentUp, config.n_embd, n));
                    steps.extend(narrow(beside));
                }
            }
            steps
        }
    };
    LayerSpec { parts, groups, router, steps }
}

/// Chosen experts in a narrow vector, and where it is there the one `beside` them, which has the whole.
fn narrow(beside: bool) -> Vec<Step> {
    use Vector::{Fed, Latent, LatentFed, Mixed, Normed};
    let mut steps = vec![
        Step::Project { of: Role::LatentDown, from: Normed, to: Latent },
        Step::Ffn { from: Latent, to: LatentFed, groups: Groups::Routed },
        Step::Project { of: Role::LatentUp, from: LatentFed, to: Mixed },
        Step::Add { from: Mixed, scale: 1.0 },
    ];
    if beside {
        steps.push(Step::Ffn { from: Normed, to: Fed, groups: Groups::Always });
        steps.push(Step::Add { from: Fed, scale: 1.0 });
    }
    steps
}

fn recurrent(config: &Config, ssm: &Ssm) -> [PartSpec; 7] {
    let rows = |role, n_rows, n_cols| PartSpec { dims: Dims::Vectors { n_rows, n_cols }, ..PartSpec::vector(role, 0) };
    [
        PartSpec::matrix(Role::SsmIn, ssm.n_in(), config.n_embd),
        rows(Role::SsmConv, ssm.n_channels(), ssm.n_conv).with_bias(Presence::Required),
        PartSpec::vector(Role::SsmDt, ssm.n_heads),
        rows(Role::SsmA, ssm.n_heads, 1),
        rows(Role::SsmD, ssm.n_heads, 1),
        rows(Role::SsmNorm, ssm.n_groups, ssm.n_inner / ssm.n_groups),
        PartSpec::matrix(Role::SsmOut, config.n_embd, ssm.n_inner),
    ]
}
