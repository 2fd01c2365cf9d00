//! Whether a card can compute a model at all.

use crate::executor::params::ExecutorParams;
use crate::gpu::Ptr;
use crate::gpu::matrix::DeviceMatrix;
use crate::gpu::ops::activation_code;
use crate::gpu::ops::norm::MAX_NORM;
use crate::gpu::ops::recurrent;
use crate::gpu::ops::rope::KvLayer;
use crate::gpu::ops::route::MAX_GROUPS;
use crate::model::{
    Config, Down, Groups, Layer, Matrix, Mode, Model, NeuronGroup, NormKind, Part, PredictorInput, Role, Scores, Step,
    Tensor, Vector,
};
use crate::quant::blocks::QK;
use anyhow::{Context, Result, bail, ensure};

/// Sums of parts of experts that there is room for, and columns of the longest tile of them.
const MOST_SUMS: usize = 384 * 256;
const LONGEST_TILE: usize = 256;
/// Values that a kernel loads at once.
const TOGETHER: usize = 4;

/// Whether kernels for the card exist for all that `model` is made of.
///
/// # Errors
/// Names the first thing that they do not exist for.
pub fn check_card(model: &Model, params: &ExecutorParams) -> Result<()> {
    let config = &model.config;
    ensure!(params.mode != Mode::Thresholded, "mode thresholded is computed on the CPU only");
    activation_code(Some(config.activation.activation))?;
    check_matrix(model.weights.head())?;
    ensure!(
        config.caps.scores.is_none(),
        "a soft cap of attention (attn_logit_softcapping) is not computed on a card yet"
    );
    ensure!(
        !config.own_head_norms,
        "norms of queries and keys with weights for each head are not computed on a card yet"
    );
    for (i, layer) in model.weights.layers.iter().enumerate() {
        check_layer(config, layer, params.mode).with_context(|| format!("layer {i}"))?;
    }
    ensure!(
        params.kv_type.is_one(),
        "keys and values of two types ({}) are not computed on a card yet",
        params.kv_type.to_string().to_lowercase()
    );
    let cache = KvLayer {
        ptr: Ptr::NULL,
        dtype: params.kv_type.k,
        n_ctx: params.n_ctx,
        n_head_kv: config.n_head_kv,
        head_dim: config.head_dim,
    };
    cache.n_bytes()?;
    ensure!(config.n_embd <= MAX_NORM, "rows of {} are too long for the card", config.n_embd);
    Ok(())
}

fn check_layer(config: &Config, layer: &Layer, mode: Mode) -> Result<()> {
    check_steps(layer)?;
    for part in layer.all_parts() {
        check_part(config, part)?;
    }
    check_experts(config, layer)?;
    check_recurrence(config, layer)?;
    // Elsewhere they are not asked.
    let predictors = layer.groups.iter().filter_map(|group| group.predictor.as_ref());
    for predictor in predictors.filter(|_| mode == Mode::Predicted) {
        ensure!(
            predictor.reads == PredictorInput::Normed,
            "predictors that look at the residual stream, as PowerInfer's do, are not computed on a card yet"
        );
        if let Scores::Factors { input, output, .. } = &predictor.scores {
            check_matrix(input)?;
            check_matrix(output)?;
        }
    }
    Ok(())
}

/// Whether there are kernels for a layer that recurs.
fn check_recurrence(config: &Config, layer: &Layer) -> Result<()> {
    let (Some(ssm), Some(norm)) = (&config.ssm, layer.find(Role::SsmNorm)) else { return Ok(()) };
    let usual = config.norm == NormKind::Rms && norm.bias.is_none();
    ensure!(usual, "{}: a norm of another kind is not computed on a card yet", norm.role.tensor());
    recurrent::check(ssm.sizes())
}

/// Whether the kernels can compute all groups together among which the layer's router chooses.
fn check_experts(config: &Config, layer: &Layer) -> Result<()> {
    let Some(router) = layer.router else { return Ok(()) };
    let routed = || layer.groups.iter().filter(|group| group.is_routed());
    let width = routed().next().map_or(config.n_embd, NeuronGroup::width);
    let most = MOST_SUMS / width.next_multiple_of(LONGEST_TILE).max(1);
    ensure!(
        router.n_used <= most,
        "{} experts at once; up to {most} of this width are possible on a card",
        router.n_used
    );
    let n_routed = routed().count();
    let Some(first) = routed().next() else { return Ok(()) };
    ensure!(
        n_routed == layer.part(Role::Router).matrix().n_rows,
        "a router of {} rows for {n_routed} experts is not computed on a card yet",
        layer.part(Role::Router).matrix().n_rows
    );
    let form = |group: &NeuronGroup| {
        let down = match group.ffn_down() {
            Down::Rows(down) => Some(down.dtype()),
            Down::Columns(_) | Down::Lossless(_) => None,
        };
        (group.mask_matrix().dtype(), down)
    };
    for group in routed() {
        ensure!(form(group) == form(first), "experts of several types are not computed on a card yet");
        let one = group.ffn_up().dtype() == group.mask_matrix().dtype();
        ensure!(one, "experts whose gate and up are of two types are not computed on a card yet");
        let biased = group.parts().any(|part| part.bias.is_some());
        ensure!(!biased, "experts with biases are not computed on a card yet");
        ensure!(group.predictor.is_none(), "predictors of experts are not computed on a card yet");
    }
    Ok(())
}

fn check_matrix(m: &Matrix) -> Result<()> {
    let there = DeviceMatrix::at(Ptr::NULL, m.dtype(), m.n_rows, m.n_cols);
    there.map(drop).with_context(|| m.name().to_owned())
}

fn check_part(config: &Config, part: &Part) -> Result<()> {
    match part.role {
        Role::TokenEmbd
        | Role::OutputNorm
        | Role::PositionEmbd
        | Role::Output
        | Role::RopeFreqs
        | Role::RopeFactorsLong
        | Role::RopeFactorsShort
        | Role::AttnNorm
        | Role::AttnNorm2
        | Role::PostAttnNorm
        | Role::FfnNorm
        | Role::PostFfnNorm => Ok(()),
        Role::AttnQ | Role::AttnK | Role::AttnV | Role::AttnOutput => check_matrix(part.matrix()),
        Role::AttnKvA | Role::AttnKvANorm | Role::AttnKvB => {
            bail!("{}: keys and values from a narrow vector are not computed on a card yet", part.role.tensor())
        }
        Role::AttnQNorm => check_head_norm(config, part, config.n_q()),
        Role::AttnKNorm => check_head_norm(config, part, config.n_kv()),
        Role::AttnSinks => bail!("sums of attention that something joins are not computed on a card yet"),
        Role::SsmIn | Role::SsmOut => check_matrix(part.matrix()),
        Role::SsmConv | Role::SsmDt | Role::SsmA | Role::SsmD | Role::SsmNorm => Ok(()),
        Role::LatentDown | Role::LatentUp => {
            let (name, matrix) = (part.role.tensor(), part.matrix());
            let bias = part.bias.as_ref().map_or(0, |bias| bias.len());
            ensure!(
                bias.is_multiple_of(TOGETHER),
                "{name}: {bias} biases; multiples of {TOGETHER} are possible on a card"
            );
            // The mailbox has room for as many.
            let narrow = matrix.n_rows.min(matrix.n_cols) <= config.n_embd;
            ensure!(narrow, "{name}: neurons wider than the residual stream are not computed on a card yet");
            check_matrix(matrix)
        }
        Role::Router => {
            check_matrix(part.matrix())?;
            let n = part.matrix().n_rows;
            ensure!(n <= MAX_GROUPS, "a router of {n} groups; up to {MAX_GROUPS} are possible on a card");
            Ok(())
        }
        Role::RouterBias => Ok(()),
        Role::FfnGate | Role::FfnUp | Role::FfnDown => {
            let (name, n) = (part.role.tensor(), part.bias.as_ref().map_or(0, |bias| bias.len()));
            ensure!(n.is_multiple_of(TOGETHER), "{name}: {n} biases; multiples of {TOGETHER} are possible on a card");
            match &part.tensor {
                Tensor::Matrix(matrix) | Tensor::Down(Down::Rows(matrix)) => check_matrix(matrix),
                // These stay on the CPU.
                Tensor::Down(Down::Columns(_) | Down::Lossless(_)) | Tensor::Vector(_) => Ok(()),
            }
        }
    }
}

/// Whether queries, or keys, that have `n` values can be normalised so.
fn check_head_norm(config: &Config, norm: &Part, n: usize) -> Result<()> {
    let (name, len) = (norm.role.tensor(), norm.vector().len());
    ensure!(norm.bias.is_none(), "{name}: a bias of it is not computed on a card yet");
    let of_all = len == n && n <= MAX_NORM && n.is_multiple_of(QK);
    ensure!(len == config.head_dim || of_all, "{name}: a norm of {len} of {n} values is not computed on a card yet");
    Ok(())
}

/// Whether the order of steps is one that the kernels can follow.
fn check_steps(layer: &Layer) -> Result<()> {
    let block = |from: Vector, to: Vector| {
        let usual = matches!(from, Vector::Normed | Vector::Residual) && matches!(to, Vector::Mixed | Vector::Fed);
        ensure!(usual, "blocks that read what another block gave are not computed on a card yet");
        Ok(())
    };
    // Answers come in the order of requests: so nothing but a norm of what an FFN gave, and additions, may follow it before it
    // is added.
    let mut waiting = None;
    // Where the residual stream is read as it is, its quantized form takes the place of that of what was normalised.
    let mut normed = false;
    // The groups that a router chooses are one sum, which is apart where they have a width of their own.
    let n_always = layer.groups.iter().filter(|group| !group.is_routed()).count();
    let latent = layer.find(Role::LatentDown).is_some();
    let several = n_always + usize::from(layer.router.is_some() && !latent) > 1;
    for step in &layer.steps {
        match *step {
            Step::Norm { from: Vector::Residual, to: Vector::Normed, .. } => {
                ensure!(waiting.is_none(), "a norm between an FFN and its addition is not computed on a card yet");
                normed = true;
            }
            Step::Norm { from, to, .. } => {
                let behind = from == to && matches!(from, Vector::Mixed | Vector::Fed);
                ensure!(
                    behind,
                    "norms of anything but the residual stream or what a block gave are not computed on a card yet"
                );
                ensure!(
                    !(several && waiting == Some(from)),
                    "a norm of the sum of several groups of neurons is not computed on a card yet"
                );
                waiting = waiting.filter(|fed| *fed != from);
            }
            Step::Add { from, scale } => {
                ensure!(
                    !(several && waiting == Some(from)) || scale == 1.0,
                    "a scaled sum of several groups of neurons is not computed on a card yet"
                );
                waiting = waiting.filter(|fed| *fed != from);
            }
            Step::Attention { from, to } => {
                block(from, to)?;
                ensure!(
                    waiting.is_none(),
                    "attention behind an FFN that it does not read is not computed on a card yet"
                );
                ensure!(from == Vector::Residual || normed, "a block reads a norm that another one took the place of");
                normed &= from == Vector::Normed;
            }
            Step::Router { from } => {
                let usual = matches!(from, Vector::Normed | Vector::Residual);
                ensure!(usual, "a router that reads what another block gave is not computed on a card yet");
                ensure!(from == Vector::Residual || normed, "a router reads a norm that another one took the place of");
                normed &= from == Vector::Normed;
            }
            Step::Recurrent { from, to } => {
                block(from, to)?;
                ensure!(layer.groups.is_empty(), "a layer that recurs and has neurons is not computed on a card yet");
                ensure!(from == Vector::Residual || normed, "a block reads a norm that another one took the place of");
                normed &= from == Vector::Normed;
            }
            Step::Project { from: Vector::LatentFed, to: Vector::Mixed | Vector::Fed, .. } => {
                ensure!(
                    waiting == Some(Vector::LatentFed),
                    "what groups of another width gave is not read behind them"
                );
                waiting = None;
            }
            Step::Project { from, to: Vector::Latent, .. } if matches!(from, Vector::Normed | Vector::Residual) => {
                ensure!(from == Vector::Residual || normed, "a matrix reads a norm that another one took the place of");
                normed &= from == Vector::Normed;
            }
            Step::Project { from, to, .. } => {
                bail!("a matrix from {from:?} to {to:?} is not computed on a card yet")
            }
            Step::Ffn { from: Vector::Latent, to: Vector::LatentFed, groups } => {
                let alike = latent && groups == Groups::Routed && waiting.is_none();
                ensure!(alike, "groups of another width apart from a router are not computed on a card yet");
                waiting = Some(Vector::LatentFed);
            }
            Step::Ffn { from, to, groups } => {
                let together = groups == if latent { Groups::Always } else { Groups::All };
                ensure!(together, "groups of neurons apart from others are not computed on a card yet");
                ensure!(waiting.is_none(), "an FFN behind one that it does not read is not computed on a card yet");
                block(from, to)?;
                ensure!(
                    !several || from == Vector::Normed,
                    "several groups of neurons that read the residual stream are not computed on a card yet"
                );
                ensure!(from == Vector::Residual || normed, "a block reads a norm that another one took the place of");
                normed &= from == Vector::Normed;
                waiting = Some(to);
            }
        }
    }
    Ok(())
}
