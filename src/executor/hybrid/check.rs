//! Whether a card can compute a model at all.

use crate::executor::params::ExecutorParams;
use crate::executor::program::{fuse_adds, of_layer};
use crate::gpu::Ptr;
use crate::gpu::matrix::DeviceMatrix;
use crate::gpu::ops::activation_code;
use crate::gpu::ops::norm::MAX_NORM;
use crate::gpu::ops::rope::KvLayer;
use crate::model::{Config, Down, Layer, Matrix, Model, Part, Role, Scores, Step, Tensor, Vector};
use anyhow::{Context, Result, bail, ensure};

/// Whether kernels for the card exist for all that `model` is made of.
///
/// # Errors
/// Names the first thing that they do not exist for.
pub fn check_card(model: &Model, params: &ExecutorParams) -> Result<()> {
    let config = &model.config;
    ensure!(model.weights.head_part().bias.is_none(), "output.bias: a bias of the head is not computed on a card yet");
    activation_code(Some(config.activation.activation))?;
    check_matrix(model.weights.head())?;
    ensure!(
        config.rope.magnitude == 1.0,
        "a rotary embedding that scales by {} (YaRN, rope.scaling.attn_factor) is not computed on a card yet",
        config.rope.magnitude
    );
    ensure!(
        config.attention_scale == Config::usual_attention_scale(config.head_dim),
        "another scale of attention (attention.scale) is not computed on a card yet"
    );
    if let Some(temperature) = config.temperature {
        let n_ctx = temperature.n_ctx;
        ensure!(
            params.n_ctx <= n_ctx,
            "a temperature that depends on the position (attention.temperature_scale) is not computed on a card yet, \
             only contexts of up to {n_ctx} tokens (-c)"
        );
    }
    let narrow = config.windows.iter().flatten().any(|window| *window < params.n_ctx);
    ensure!(
        !narrow,
        "layers with a window (attention.sliding_window) that is shorter than the context of {} tokens (-c) are not \
         computed on a card yet",
        params.n_ctx
    );
    ensure!(
        config.window_rope.is_none(),
        "layers with a window that have a rotary embedding of their own are not computed on a card yet"
    );
    ensure!(config.rotated.iter().all(|rotated| *rotated), "layers without rotation are not computed on a card yet");
    for (i, layer) in model.weights.layers.iter().enumerate() {
        check_steps(i, layer).with_context(|| format!("layer {i}"))?;
        for part in layer.all_parts() {
            check_part(part)?;
        }
        let predictors = layer.groups.iter().filter_map(|group| group.predictor.as_ref());
        for scores in predictors.map(|p| &p.scores) {
            if let Scores::Factors { input, output, .. } = scores {
                check_matrix(input)?;
                check_matrix(output)?;
            }
        }
    }
    let cache = KvLayer {
        ptr: Ptr::NULL,
        dtype: params.kv_type.dtype(),
        n_ctx: params.n_ctx,
        n_head_kv: config.n_head_kv,
        head_dim: config.head_dim,
    };
    cache.n_bytes()?;
    ensure!(config.n_embd <= MAX_NORM, "rows of {} are too long for the card", config.n_embd);
    Ok(())
}

fn check_matrix(m: &Matrix) -> Result<()> {
    let there = DeviceMatrix::at(Ptr::NULL, m.dtype(), m.n_rows, m.n_cols);
    there.map(drop).with_context(|| m.name().to_owned())
}

fn check_part(part: &Part) -> Result<()> {
    match part.role {
        Role::TokenEmbd
        | Role::OutputNorm
        | Role::PositionEmbd
        | Role::Output
        | Role::RopeFreqs
        | Role::AttnNorm
        | Role::AttnNorm2
        | Role::PostAttnNorm
        | Role::FfnNorm
        | Role::PostFfnNorm => Ok(()),
        Role::AttnQ | Role::AttnK | Role::AttnV | Role::AttnOutput => check_matrix(part.matrix()),
        Role::AttnQNorm | Role::AttnKNorm => {
            bail!("{}: norms of queries and keys are not computed on a card yet", part.role.tensor())
        }
        Role::Router => bail!("groups of neurons that a router chooses are not computed on a card yet"),
        Role::FfnGate | Role::FfnUp | Role::FfnDown => {
            ensure!(part.bias.is_none(), "{}: biases of neurons are not computed on a card yet", part.role.tensor());
            match &part.tensor {
                Tensor::Matrix(matrix) | Tensor::Down(Down::Rows(matrix)) => check_matrix(matrix),
                // These stay on the CPU.
                Tensor::Down(Down::Columns(_) | Down::Lossless(_)) | Tensor::Vector(_) => Ok(()),
            }
        }
    }
}

/// Whether the order of steps is one that the kernels can follow.
fn check_steps(i: usize, layer: &Layer) -> Result<()> {
    let block = |from: Vector, to: Vector| {
        let usual = from == Vector::Normed && matches!(to, Vector::Mixed | Vector::Fed);
        ensure!(usual, "blocks that read anything but the last norm are not computed on a card yet");
        Ok(())
    };
    // Several groups join the residual stream one after the other, and answers come in the order of requests: so nothing
    // but additions may follow an FFN before it is added.
    let mut waiting = None;
    for step in &layer.steps {
        match *step {
            Step::Norm { from, to, .. } => {
                let usual = from == Vector::Residual && to == Vector::Normed;
                ensure!(usual, "norms behind a block are not computed on a card yet");
                ensure!(waiting.is_none(), "a norm between an FFN and its addition is not computed on a card yet");
            }
            Step::Add { from, scale } => {
                ensure!(scale == 1.0, "scaled additions are not computed on a card yet");
                waiting = waiting.filter(|fed| *fed != from);
            }
            Step::Attention { from, to } => {
                block(from, to)?;
                ensure!(
                    waiting.is_none(),
                    "attention behind an FFN that it does not read is not computed on a card yet"
                );
            }
            Step::Router { .. } => {}
            Step::Ffn { from, to } => {
                block(from, to)?;
                waiting = Some(to);
            }
        }
    }
    fuse_adds(of_layer(i, layer).collect()).map(drop).context("a prompt cannot be computed on a card yet")
}
