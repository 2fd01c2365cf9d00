//! Steps: what happens to the residual stream in a layer, in order. Devices interpret the same list.

use super::part::Role;
use anyhow::{Result, ensure};

/// A vector as wide as the residual stream (`[n_embd]`) that a token has while it is in a layer.
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
}

impl Vector {
    /// How many there are.
    pub const N: usize = 4;

    /// Its number; that of the residual stream is 0.
    pub fn index(self) -> usize {
        match self {
            Self::Residual => 0,
            Self::Normed => 1,
            Self::Mixed => 2,
            Self::Fed => 3,
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
    /// `to = sum over the groups of neurons of ffn(from)`.
    Ffn {
        /// Its input.
        from: Vector,
        /// Its output.
        to: Vector,
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
            | Self::Add { from, .. } => from,
        }
    }

    /// What it writes; `None` for a router, whose choice is no vector.
    pub fn writes(self) -> Option<Vector> {
        match self {
            Self::Norm { to, .. } | Self::Attention { to, .. } | Self::Ffn { to, .. } => Some(to),
            Self::Add { .. } => Some(Vector::Residual),
            Self::Router { .. } => None,
        }
    }

    /// The norm that it applies.
    pub fn norm(self) -> Option<Role> {
        match self {
            Self::Norm { of, .. } => Some(of),
            Self::Attention { .. } | Self::Router { .. } | Self::Ffn { .. } | Self::Add { .. } => None,
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
        Step::Ffn { from: Normed, to: Fed },
        Step::Add { from: Fed, scale: 1.0 },
    ]
}

/// `x += norm(attn(norm(x))); x += norm(ffn(norm(x)))`.
pub fn serial_with_norms_behind() -> Vec<Step> {
    let behind = |step| match step {
        Step::Attention { to, .. } => Some(Step::Norm { of: Role::PostAttnNorm, from: to, to }),
        Step::Ffn { to, .. } => Some(Step::Norm { of: Role::PostFfnNorm, from: to, to }),
        Step::Norm { .. } | Step::Router { .. } | Step::Add { .. } => None,
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
        Step::Ffn { from: Normed, to: Fed },
        Step::Add { from: Mixed, scale: 1.0 },
        Step::Add { from: Fed, scale: 1.0 },
    ]
}

/// Whether steps make sense, given whether the layer has a router: nothing is read before it is written, the residual
/// stream is only added to, the FFN follows its router, and there is at most one attention and one FFN.
///
/// # Errors
/// Says what is wrong with which step.
pub fn check(steps: &[Step], routed: bool) -> Result<()> {
    let mut written = vec![Vector::Residual];
    let mut chosen = !routed;
    let (mut n_adds, mut attends, mut fed) = (0, false, false);
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
            Step::Ffn { from, to } => {
                ensure!(!fed, "step {i}, {step:?}: a layer has one FFN, of as many groups as it likes");
                ensure!(from != to, "step {i}, {step:?}: overwrites what it reads");
                fed = true;
                ensure!(chosen, "step {i}, {step:?}: no router has chosen its groups");
                ensure!(to != Vector::Residual, "step {i}, {step:?}: overwrites the residual stream");
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
        let ffn = Step::Ffn { from: Residual, to: Fed };
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
        let norm = Step::Norm { of: Role::FfnNorm, from: Residual, to: Normed };
        assert!(check(&[norm, Step::Ffn { from: Normed, to: Normed }], false).is_err(), "its own input");
    }
}
