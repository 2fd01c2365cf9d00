//! Programs: the steps of several layers as one list, in which neighbours may be fused. The only place that fuses.

use crate::model::{Layer, Role, Step, Vector};
use anyhow::{Context, Result, bail, ensure};
use std::ops::Range;

/// A norm of a layer, or the one before the head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct NormOf {
    /// `None` for the one before the head.
    pub layer: Option<usize>,
    pub of: Role,
    pub from: Vector,
    pub to: Vector,
}

/// What is added to the residual stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Added {
    pub from: Vector,
    pub scale: f32,
}

/// A block, and whether what it gives joins the residual stream at once instead of being kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Block {
    pub layer: usize,
    pub from: Vector,
    pub to: Vector,
    pub joins: Option<f32>,
}

/// One instruction of a program.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Instruction {
    /// Layers that another device computes as a whole.
    Elsewhere(Range<usize>),
    /// Adds to the residual stream one after the other; then the norm, where there is one.
    Merge {
        adds: Vec<Added>,
        norm: Option<NormOf>,
    },
    Attention(Block),
    Router {
        layer: usize,
        from: Vector,
    },
    Ffn(Block),
    Recurrent(Block),
    /// A matrix of a layer, between vectors.
    Project {
        layer: usize,
        of: Role,
        from: Vector,
        to: Vector,
    },
}

impl Instruction {
    /// Whether it reads this vector, beside the residual stream that it may add to.
    pub fn reads(&self, vector: Vector) -> bool {
        match self {
            Self::Elsewhere(_) => vector == Vector::Residual,
            Self::Merge { adds, norm } => {
                adds.iter().any(|add| add.from == vector) || norm.is_some_and(|norm| norm.from == vector)
            }
            Self::Attention(Block { from, .. })
            | Self::Recurrent(Block { from, .. })
            | Self::Router { from, .. }
            | Self::Project { from, .. }
            | Self::Ffn(Block { from, .. }) => *from == vector,
        }
    }

    /// Whether it changes the residual stream.
    pub fn changes_residual(&self) -> bool {
        match self {
            Self::Elsewhere(_) => true,
            Self::Merge { adds, .. } => !adds.is_empty(),
            Self::Attention(block) | Self::Recurrent(block) | Self::Ffn(block) => block.joins.is_some(),
            Self::Router { .. } | Self::Project { .. } => false,
        }
    }

    /// Whether it gives `vector`, which is not the residual one, another value.
    pub fn overwrites(&self, vector: Vector) -> bool {
        match self {
            Self::Merge { norm, .. } => norm.is_some_and(|norm| norm.to == vector),
            Self::Attention(block) | Self::Recurrent(block) | Self::Ffn(block) => block.to == vector,
            Self::Project { to, .. } => *to == vector,
            Self::Elsewhere(_) | Self::Router { .. } => false,
        }
    }
}

/// The steps of layer number `i`, one by one.
pub(super) fn of_layer(i: usize, layer: &Layer) -> impl Iterator<Item = Instruction> {
    layer.steps.iter().map(move |step| match *step {
        Step::Norm { of, from, to } => {
            Instruction::Merge { adds: Vec::new(), norm: Some(NormOf { layer: Some(i), of, from, to }) }
        }
        Step::Attention { from, to } => Instruction::Attention(Block { layer: i, from, to, joins: None }),
        Step::Router { from } => Instruction::Router { layer: i, from },
        Step::Recurrent { from, to } => Instruction::Recurrent(Block { layer: i, from, to, joins: None }),
        Step::Project { of, from, to } => Instruction::Project { layer: i, of, from, to },
        Step::Ffn { from, to, .. } => Instruction::Ffn(Block { layer: i, from, to, joins: None }),
        Step::Add { from, scale } => Instruction::Merge { adds: vec![Added { from, scale }], norm: None },
    })
}

/// The norm before the head.
pub(super) fn output_norm() -> Instruction {
    let norm = NormOf { layer: None, of: Role::OutputNorm, from: Vector::Residual, to: Vector::Normed };
    Instruction::Merge { adds: Vec::new(), norm: Some(norm) }
}

/// Fuses additions with those behind them, at most two, and with a norm of the residual stream behind these.
pub(super) fn fuse_merges(program: Vec<Instruction>) -> Vec<Instruction> {
    const MOST: usize = 2;
    let mut out: Vec<Instruction> = Vec::with_capacity(program.len());
    for next in program {
        if let (Some(Instruction::Merge { adds, norm: norm @ None }), Instruction::Merge { adds: more, norm: then }) =
            (out.last_mut(), &next)
            && adds.len() + more.len() <= MOST
            && then.is_none_or(|then| then.from == Vector::Residual)
        {
            adds.extend(more);
            *norm = *then;
            continue;
        }
        out.push(next);
    }
    out
}

/// What many tokens go through: blocks whose results join the residual stream at once where that is possible, which takes
/// the fewest passes over it; else the steps one by one, as far as they can be fused.
pub(super) fn for_many(program: Vec<Instruction>) -> Vec<Instruction> {
    let joins = |i: &Instruction| match i {
        Instruction::Attention(block) | Instruction::Recurrent(block) | Instruction::Ffn(block) => {
            block.joins == Some(1.0)
        }
        Instruction::Elsewhere(_)
        | Instruction::Merge { .. }
        | Instruction::Router { .. }
        | Instruction::Project { .. } => true,
    };
    match fuse_adds(program.clone()) {
        Ok(fused) if fused.iter().all(joins) => fused,
        _ => fuse_merges(program),
    }
}

/// Lets what blocks give join the residual stream at once, so that no addition is left.
///
/// # Errors
/// When something reads the residual stream between a block and its addition, or what is added came from no block.
pub(super) fn fuse_adds(program: Vec<Instruction>) -> Result<Vec<Instruction>> {
    let mut out: Vec<Instruction> = Vec::with_capacity(program.len());
    // What has joined, and is not kept for anybody else.
    let mut joined: Vec<Vector> = Vec::new();
    for next in program {
        ensure!(!joined.iter().any(|vector| next.reads(*vector)), "what is added is read again behind its addition");
        joined.retain(|vector| !next.overwrites(*vector));
        let Instruction::Merge { adds, norm: None } = &next else {
            out.push(next);
            continue;
        };
        for Added { from, scale } in adds {
            let at = out.iter().rposition(|before| before.overwrites(*from));
            let at = at.context("what is added came from no block")?;
            let read = out[at + 1..].iter().any(|i| i.reads(Vector::Residual) || i.reads(*from));
            ensure!(!read, "the residual stream is read between a block and its addition");
            match &mut out[at] {
                Instruction::Attention(block) | Instruction::Recurrent(block) | Instruction::Ffn(block)
                    if block.joins.is_none() =>
                {
                    block.joins = Some(*scale);
                    joined.push(*from);
                }
                Instruction::Elsewhere(_)
                | Instruction::Merge { .. }
                | Instruction::Attention(_)
                | Instruction::Router { .. }
                | Instruction::Recurrent(_)
                | Instruction::Project { .. }
                | Instruction::Ffn(_) => bail!("what is added is a norm, or is added twice"),
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Groups;
    use crate::model::step::serial;

    /// One number per stream instead of a vector.
    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Toy([f32; Vector::N]);

    impl Toy {
        fn get(&self, stream: Vector) -> f32 {
            self.0[stream.index()]
        }

        fn block(&mut self, block: &Block, f: impl Fn(f32) -> f32) {
            let y = f(self.get(block.from));
            match block.joins {
                Some(scale) => self.0[0] += scale * y,
                None => self.0[block.to.index()] = y,
            }
        }

        fn run(mut self, program: &[Instruction]) -> f32 {
            for instruction in program {
                match instruction {
                    Instruction::Elsewhere(layers) => self.0[0] += layers.len() as f32,
                    Instruction::Merge { adds, norm } => {
                        adds.iter().for_each(|add| self.0[0] += add.scale * self.get(add.from));
                        if let Some(norm) = norm {
                            let y = self.get(norm.from) * (1.5 + norm.of as usize as f32);
                            self.0[norm.to.index()] = y;
                        }
                    }
                    Instruction::Attention(block) | Instruction::Recurrent(block) => {
                        self.block(block, |x| 0.25 * x + 1.0)
                    }
                    Instruction::Router { .. } | Instruction::Project { .. } => {}
                    Instruction::Ffn(block) => self.block(block, |x| 0.125 * x - 2.0),
                }
            }
            self.get(Vector::Residual)
        }
    }

    fn program(layers: &[Vec<Step>]) -> Vec<Instruction> {
        let layers = layers.iter().enumerate().flat_map(|(i, steps)| {
            let layer = Layer { parts: vec![], groups: vec![], first_group: 0, router: None, steps: steps.clone() };
            of_layer(i, &layer).collect::<Vec<_>>()
        });
        layers.chain([output_norm()]).collect()
    }

    fn parallel() -> Vec<Step> {
        use Vector::{Fed, Mixed, Normed, Residual};
        vec![
            Step::Norm { of: Role::AttnNorm2, from: Residual, to: Normed },
            Step::Attention { from: Normed, to: Mixed },
            Step::Norm { of: Role::AttnNorm, from: Residual, to: Normed },
            Step::Ffn { from: Normed, to: Fed, groups: Groups::All },
            Step::Add { from: Mixed, scale: 0.5 },
            Step::Add { from: Fed, scale: 1.0 },
        ]
    }

    fn post_norms() -> Vec<Step> {
        use Vector::{Mixed, Normed, Residual};
        vec![
            Step::Norm { of: Role::AttnNorm, from: Residual, to: Normed },
            Step::Attention { from: Normed, to: Mixed },
            Step::Norm { of: Role::PostAttnNorm, from: Mixed, to: Mixed },
            Step::Add { from: Mixed, scale: 2.0 },
        ]
    }

    #[test]
    fn fused_programs_compute_what_the_steps_one_by_one_do() {
        let start = Toy([3.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        for layers in [vec![serial(), serial()], vec![parallel(), serial(), parallel()], vec![post_norms(), serial()]] {
            let plain = program(&layers);
            let merged = fuse_merges(plain.clone());
            assert!(merged.len() < plain.len());
            assert_eq!(start.run(&plain), start.run(&merged));
        }
        for layers in [vec![serial(), serial()], vec![serial(), serial(), serial()]] {
            let plain = program(&layers);
            let joined = fuse_adds(plain.clone()).unwrap();
            assert!(joined.iter().all(|i| !matches!(i, Instruction::Merge { norm: None, .. })));
            assert_eq!(start.run(&plain), start.run(&joined));
        }
    }

    #[test]
    fn a_serial_layer_has_its_additions_in_its_norms() {
        let merged = fuse_merges(program(&[serial(), serial()]));
        let shapes: Vec<(usize, bool)> = merged
            .iter()
            .filter_map(|i| match i {
                Instruction::Merge { adds, norm } => Some((adds.len(), norm.is_some())),
                _ => None,
            })
            .collect();
        assert_eq!(shapes, [(0, true), (1, true), (1, true), (1, true), (1, true)]);
    }

    #[test]
    fn what_many_tokens_go_through_computes_what_the_steps_one_by_one_do() {
        let start = Toy([3.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let joins = |i: &Instruction| matches!(i, Instruction::Ffn(block) if block.joins.is_some());
        for (layers, joined) in [
            (vec![serial(), serial()], true),
            (vec![crate::model::step::serial_scaled(0.5), serial()], false),
            (vec![parallel(), serial()], false),
            (vec![post_norms(), serial()], false),
        ] {
            let plain = program(&layers);
            let many = for_many(plain.clone());
            assert_eq!(start.run(&plain), start.run(&many));
            assert_eq!(many.iter().any(joins), joined);
        }
    }

    #[test]
    fn what_is_read_in_between_does_not_join() {
        assert!(fuse_adds(program(&[post_norms()])).is_err());
        // The second norm reads the residual stream before attention is added to it.
        assert!(fuse_adds(program(&[parallel()])).is_err());
    }
}
