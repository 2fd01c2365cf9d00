//! Steps: what happens to the residual stream in a layer, in order. Devices interpret the same list.

use super::part::Role;
use anyhow::{Result, ensure};

/// A vector that a token has while it is in a layer: as wide as the residual stream (`[n_embd]`), but for
/// [`Vector::Latent`] and [`Vector::LatentFed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vector {
    /// The residual stream itself, `x`: all that goes from layer to layer.
    Residual,
    /// What a norm gave.
    Normed,
    /// What the mixer gave: attention.
    Mixed,
    /// What the FFN gave.
    Fed,
    /// What groups of neurons of another width read.
    Latent,
    /// What they gave, in that width.
    LatentFed,
}

impl Vector {
    /// How many there are.
    pub const N: usize = 6;

    /// Its number; that of the residual stream is 0.
    pub fn index(self) -> usize {
        match self {
            Self::Residual => 0,
            Self::Normed => 1,
            Self::Mixed => 2,
            Self::Fed => 3,
            Self::Latent => 4,
            Self::LatentFed => 5,
        }
    }
}

impl Vector {
    /// Whether it is as wide as groups of neurons that have a width of their own.
    pub fn is_latent(self) -> bool {
        matches!(self, Self::Latent | Self::LatentFed)
    }
}

/// Which of a layer's groups of neurons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    /// All of them.
    All,
    /// Those that a router chooses.
    Routed,
    /// Those that are computed for every token, where others are chosen.
    Always,
}

impl Groups {
    /// Whether groups that are chosen by a router, or not, are among them.
    pub fn has(self, routed: bool) -> bool {
        match self {
            Self::All => true,
            Self::Routed => routed,
            Self::Always => !routed,
        }
    }
}

/// One step of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// `to = norm(from)`, with the weights of that role. Both may be the same.
    Norm {
        /// Which norm.
        of: Role,
        /// What is normalised.
        from: Vector,
        /// What it becomes.
        to: Vector,
    },
    /// `to = attention(from)`: keys and values of the token join the sequence's memory.
    Attention {
        /// Its input.
        from: Vector,
        /// Its output.
        to: Vector,
    },
    /// Chooses the groups of neurons of the layer's FFN, and what each counts.
    Router {
        /// What it looks at.
        from: Vector,
    },
    /// `to = recurrent(from)`: a state space model (Mamba-2), whose state in the sequence's memory takes the token up.
    Recurrent {
        /// Its input.
        from: Vector,
        /// Its output.
        to: Vector,
    },
    /// `to = matrix . from`.
    Project {
        /// Which matrix.
        of: Role,
        /// Its input.
        from: Vector,
        /// Its output.
        to: Vector,
    },
    /// `to = sum over these groups of neurons of ffn(from)`.
    Ffn {
        /// Its input.
        from: Vector,
        /// Its output.
        to: Vector,
        /// Which groups.
        groups: Groups,
    },
    /// `x += scale * from`.
    Add {
        /// What is added.
        from: Vector,
        /// Times this.
        scale: f32,
    },
}

impl Step {
    /// What it reads beside the residual stream that it may add to.
    pub fn reads(self) -> Vector {
        match self {
            Self::Norm { from, .. }
            | Self::Attention { from, .. }
            | Self::Router { from }
            | Self::Ffn { from, .. }
            | Self::Recurrent { from, .. }
            | Self::Project { from, .. }
            | Self::Add { from, .. } => from,
        }
    }

    /// What it writes; `None` for a router, whose choice is no vector.
    pub fn writes(self) -> Option<Vector> {
        match self {
            Self::Norm { to, .. }
            | Self::Attention { to, .. }
            | Self::Recurrent { to, .. }
            | Self::Project { to, .. }
            | Self::Ffn { to, .. } => Some(to),
            Self::Add { .. } => Some(Vector::Residual),
            Self::Router { .. } => None,
        }
    }

    /// The norm that it applies.
    pub fn norm(self) -> Option<Role> {
        match self {
            Self::Norm { of, .. } => Some(of),
            Self::Attention { .. }
            | Self::Recurrent { .. }
            | Self::Project { .. }
            | Self::Router { .. }
            | Self::Ffn { .. }
            | Self::Add { .. } => None,
        }
    }
}

/// `x += attn(norm(x)); x += ffn(norm(x))`.
pub fn serial() -> Vec<Step> {
    use Vector::{Fed, Mixed, Normed, Residual};
    vec![
        Step::Norm { of: Role::AttnNorm, from: Residual, to: Normed },
        Step::Attention { from: Normed, to: Mixed },
        Step::Add { from: Mixed, scale: 1.0 },
        Step::Norm { of: Role::FfnNorm, from: Residual, to: Normed },
        Step::Ffn { from: Normed, to: Fed, groups: Groups::All },
        Step::Add { from: Fed, scale: 1.0 },
    ]
}

/// `x += norm(attn(norm(x))); x += norm(ffn(norm(x)))`.
pub fn serial_with_norms_behind() -> Vec<Step> {
    let behind = |step| match step {
        Step::Attention { to, .. } => Some(Step::Norm { of: Role::PostAttnNorm, from: to, to }),
        Step::Ffn { to, .. } => Some(Step::Norm { of: Role::PostFfnNorm, from: to, to }),
        Step::Norm { .. } | Step::Recurrent { .. } | Step::Project { .. } | Step::Router { .. } | Step::Add { .. } => {
            None
        }
    };
    serial().into_iter().flat_map(|step| [Some(step), behind(step)]).flatten().collect()
}

/// `x += scale * attn(norm(x)); x += scale * ffn(norm(x))`.
pub fn serial_scaled(scale: f32) -> Vec<Step> {
    let scaled = |step| if let Step::Add { from, .. } = step { Step::Add { from, scale } } else { step };
    serial().into_iter().map(scaled).collect()
}

/// `h = norm(x); x += attn(h) + ffn(h)`.
pub fn parallel() -> Vec<Step> {
    use Vector::{Fed, Mixed, Normed, Residual};
    vec![
        Step::Norm { of: Role::AttnNorm, from: Residual, to: Normed },
        Step::Attention { from: Normed, to: Mixed },
        Step::Ffn { from: Normed, to: Fed, groups: Groups::All },
        Step::Add { from: Mixed, scale: 1.0 },
        Step::Add { from: Fed, scale: 1.0 },
    ]
}

/// The same with a router that chooses the groups by what the FFN reads.
pub fn with_router(mut steps: Vec<Step>) -> Vec<Step> {
    let ffn = steps.iter().position(|step| matches!(step, Step::Ffn { .. }));
    if let Some(at) = ffn {
        steps.insert(at, Step::Router { from: steps[at].reads() });
    }
    steps
}

/// The same with a router that chooses the groups before anything else, by the layer's input as it is.
pub fn with_early_router(mut steps: Vec<Step>) -> Vec<Step> {
    steps.insert(0, Step::Router { from: Vector::Residual });
    steps
}

/// Whether steps make sense, given whether the layer has a router: nothing is read before it is written, the residual
/// stream is only added to, the FFN follows its router, no group is computed twice, and there is at most one mixer of each
/// kind.
///
/// # Errors
/// Says what is wrong with which step.
pub fn check(steps: &[Step], routed: bool) -> Result<()> {
    let mut written = vec![Vector::Residual];
    let mut chosen = !routed;
    let (mut n_adds, mut attends, mut recurs) = (0, false, false);
    let mut fed: Vec<Groups> = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        ensure!(written.contains(&step.reads()), "step {i}, {step:?}: nothing has written what it reads");
        match *step {
            Step::Add { from, .. } => {
                ensure!(from != Vector::Residual, "step {i}, {step:?}: adds the residual stream to itself");
                n_adds += 1;
            }
            Step::Router { .. } => {
                ensure!(routed && !chosen, "step {i}, {step:?}: the layer has no groups to choose, or chose before");
                chosen = true;
            }
            Step::Ffn { from, to, groups } => {
                let again = |before: &Groups| [true, false].iter().any(|r| before.has(*r) && groups.has(*r));
                ensure!(!fed.iter().any(again), "step {i}, {step:?}: an FFN before it had some of its groups");
                ensure!(from != to, "step {i}, {step:?}: overwrites what it reads");
                ensure!(from.is_latent() == to.is_latent(), "step {i}, {step:?}: gives another width than it reads");
                fed.push(groups);
                ensure!(chosen || !groups.has(true), "step {i}, {step:?}: no router has chosen its groups");
                ensure!(to != Vector::Residual, "step {i}, {step:?}: overwrites the residual stream");
                written.push(to);
                continue;
            }
            Step::Project { from, to, .. } => {
                ensure!(from != to, "step {i}, {step:?}: overwrites what it reads");
                ensure!(to != Vector::Residual, "step {i}, {step:?}: overwrites the residual stream");
                written.push(to);
                continue;
            }
            Step::Recurrent { to, .. } => {
                ensure!(!recurs, "step {i}, {step:?}: a layer keeps the state of one recurrence");
                ensure!(to != Vector::Residual, "step {i}, {step:?}: overwrites the residual stream");
                recurs = true;
                written.push(to);
            }
            Step::Attention { to, .. } => {
                ensure!(!attends, "step {i}, {step:?}: a layer keeps the keys and values of one attention");
                ensure!(to != Vector::Residual, "step {i}, {step:?}: overwrites the residual stream");
                attends = true;
                written.push(to);
            }
            Step::Norm { to, .. } => {
                ensure!(to != Vector::Residual, "step {i}, {step:?}: overwrites the residual stream");
                written.push(to);
            }
        }
        let latent = step.reads().is_latent() || step.writes().is_some_and(Vector::is_latent);
        ensure!(!latent, "step {i}, {step:?}: is as wide as the residual stream");
    }
    ensure!(n_adds > 0, "nothing is added to the residual stream");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_cannot_be_meant_are_refused() {
        use Vector::{Fed, Mixed, Normed, Residual};
        assert!(check(&serial(), false).is_ok() && check(&parallel(), false).is_ok());
        assert!(check(&serial(), true).is_err(), "nothing chooses the groups");
        assert!(check(&[], false).is_err());
        let ffn = Step::Ffn { from: Residual, to: Fed, groups: Groups::All };
        let add = Step::Add { from: Fed, scale: 1.0 };
        assert!(check(&[ffn, add], false).is_ok());
        assert!(check(&[Step::Router { from: Residual }, ffn, add], true).is_ok());
        assert!(check(&[ffn, Step::Router { from: Residual }, add], true).is_err());
        assert!(check(&[add, ffn], false).is_err(), "added before it is there");
        assert!(check(&[Step::Attention { from: Normed, to: Mixed }, add], false).is_err());
        assert!(check(&[Step::Add { from: Residual, scale: 1.0 }], false).is_err());
        assert!(check(&[Step::Norm { of: Role::AttnNorm, from: Residual, to: Residual }, ffn, add], false).is_err());
        let attention = Step::Attention { from: Residual, to: Mixed };
        assert!(check(&[attention, ffn, add], false).is_ok());
        assert!(check(&[attention, attention, ffn, add], false).is_err(), "keys and values of two");
        assert!(check(&[ffn, ffn, add], false).is_err(), "two of them");
        let of = |groups| Step::Ffn { from: Residual, to: Fed, groups };
        let router = Step::Router { from: Residual };
        assert!(check(&[router, of(Groups::Routed), add, of(Groups::Always), add], true).is_ok());
        assert!(check(&[of(Groups::Always), add, router, of(Groups::Routed), add], true).is_ok());
        assert!(check(&[of(Groups::Always), of(Groups::Routed), add, router], true).is_err(), "not chosen yet");
        assert!(check(&[router, of(Groups::All), of(Groups::Always), add], true).is_err(), "some of them twice");
        let wider = Step::Ffn { from: Residual, to: Vector::LatentFed, groups: Groups::All };
        let into = Step::Project { of: Role::LatentDown, from: Residual, to: Vector::Latent };
        let narrow = Step::Ffn { from: Vector::Latent, to: Vector::LatentFed, groups: Groups::All };
        let back = Step::Project { of: Role::LatentUp, from: Vector::LatentFed, to: Fed };
        assert!(check(&[into, narrow, back, add], false).is_ok());
        assert!(check(&[wider, back, add], false).is_err(), "another width");
        assert!(check(&[into, Step::Add { from: Vector::Latent, scale: 1.0 }], false).is_err(), "another width");
        let norm = Step::Norm { of: Role::FfnNorm, from: Residual, to: Normed };
        assert!(
            check(&[norm, Step::Ffn { from: Normed, to: Normed, groups: Groups::All }], false).is_err(),
            "its own input"
        );
    }
}
