//! What the CPU does while the card is in the middle of a token.

use crate::executor::engine::{Engine, Phase};
use crate::executor::ffn::Given;
use crate::executor::forward::Unobserved;
use crate::executor::pass::NormOf;
use crate::gpu::mailbox::Mailbox;
use anyhow::Result;
use std::ops::Range;

/// What the card has found out about cold neurons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing: the CPU looks for itself.
    Nothing,
    /// Those that fire, with their activations.
    Fired,
    /// Those that a predictor names.
    Named,
}

/// A piece of a token that the CPU computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// A layer's attention, from the residual stream.
    Attention(usize),
    /// A layer's FFN, from the residual stream.
    Ffn(usize),
    /// The cold neurons of a layer, from the normalised residual stream.
    Cold { layer: usize, n_hot: usize, found: Found },
    /// Whole layers: the answer is the new residual stream.
    Layers(Range<usize>),
    /// What comes behind the card's last part: nothing to wait for.
    Tail,
}

fn replace(to: &mut Vec<f32>, from: &[f32]) {
    to.clear();
    to.extend_from_slice(from);
}

/// Does the task that is posted as job `job`, and answers it.
pub(super) fn answer(engine: &mut Engine, mailbox: &mut Mailbox, job: u32, task: &Task) -> Result<()> {
    match task {
        Task::Attention(i) => {
            replace(&mut engine.state.x, mailbox.post_x());
            engine.normalize(NormOf::Attention(*i));
            engine.attention(*i, Phase::Decode);
            mailbox.reply(job, &engine.state.attn_out)
        }
        Task::Ffn(i) => {
            replace(&mut engine.state.x, mailbox.post_x());
            engine.normalize(NormOf::Ffn(*i));
            engine.ffn_of_token(*i, Some(0), Given::Nothing);
            mailbox.reply(job, &engine.state.ffn_out)
        }
        Task::Cold { layer, n_hot, found } => {
            replace(&mut engine.state.normed, mailbox.post_x());
            let given = match found {
                Found::Nothing => Given::Nothing,
                Found::Fired => Given::Fired(mailbox.post_list()?, mailbox.post_act()?),
                Found::Named => Given::Named(mailbox.post_list()?),
            };
            engine.ffn_of_token(*layer, Some(*n_hot), given);
            mailbox.reply(job, &engine.state.ffn_out)
        }
        Task::Layers(layers) => {
            replace(&mut engine.state.x, mailbox.post_x());
            engine.layers(layers.clone(), Phase::Decode, &mut Unobserved)?;
            mailbox.reply(job, &engine.state.x)
        }
        Task::Tail => {
            replace(&mut engine.state.x, mailbox.post_x());
            mailbox.reply(job, &engine.state.x)
        }
    }
}
