//! Groups of neurons that a router chooses, for many tokens: each meets the tokens that it was chosen for, on the card where
//! that is faster. The CPU says which tokens these are, so that of near equals the same are chosen as without a card.

use super::{Many, S, Vectors, kept, read, read_of};
use crate::executor::cpu::{Given, How, Input, Request};
use crate::executor::program::Block;
use crate::gpu::Ptr;
use crate::gpu::ops::gemm::Which;
use crate::gpu::ops::norm::{Acts, Merge, merge_norm};
use crate::model::{Down, Role, Vector};
use crate::placement::batch::InBatch;
use anyhow::{Result, ensure};

impl Many<'_, '_, '_> {
    /// Has the CPU choose groups for each token.
    pub(super) fn router(&mut self, layer: usize, from: Vector) -> Result<()> {
        let input = self.downloaded(read_of(from)?)?;
        let chosen = &mut self.chosen;
        self.cpu.ask(&Request::Router { layer }, Given::Nothing, How::Tiles, &input, self.tokens, |answer| {
            chosen.clear();
            chosen.extend_from_slice(answer);
            Ok(())
        })
    }

    /// The FFN of a layer with a router, whose groups can all be divided.
    pub(super) fn experts(&mut self, block: &Block) -> Result<()> {
        let on_cpu = self.choose(block)?;
        let is_left = self.choice.iter().any(|of| on_cpu[of.group]);
        // What goes in is what was normalised: with a parallel residual the stream has gone on since.
        let input = if is_left { self.downloaded(read(block)?)? } else { Vec::new() };
        if self.choice.iter().all(|of| on_cpu[of.group]) {
            let request = Request::Ffn { layer: block.layer, input: Input::Ready };
            return self.block_on_cpu(&request, block, Some(&input));
        }
        let to = self.written(block)?;
        let bytes = (size_of::<f32>() * self.n * self.n_embd()) as u64;
        let rest = Request::Named { layer: block.layer, groups: on_cpu.clone() };
        if block.joins.is_none() {
            match is_left {
                true => self.answered(&rest, &input, to.ptr)?,
                false => self.card.stream.fill(to.ptr, 0, bytes)?,
            }
            return self.groups(block, &on_cpu, to);
        }
        // The card works on its groups while the CPU has the others.
        self.groups(block, &on_cpu, to)?;
        if is_left {
            let y = self.at(kept(block.to)?);
            self.answered(&rest, &input, y)?;
            let merge = Merge { a: y, n_tokens: self.n, ..Merge::nothing(to.ptr, self.n_embd()) };
            merge_norm(self.card.kernels, self.card.stream, &merge, None, Acts::default())?;
        }
        Ok(())
    }

    /// Finds the tokens of each group, and by group whether it is the CPU's.
    fn choose(&mut self, block: &Block) -> Result<Vec<bool>> {
        let layer = &self.card.model.weights.layers[block.layer];
        let n_rows = layer.part(Role::Router).matrix().n_rows;
        ensure!(self.chosen.len() == self.n * n_rows, "a choice of {} for {} tokens", self.chosen.len(), self.n);
        let all = layer.groups.iter().map(|group| group.chosen).enumerate();
        self.choice.take(all, self.n, &self.chosen, n_rows);
        let (work, resident) = (&self.work.layers[block.layer], &self.card.resident.layers[block.layer]);
        let in_batch = self.choice.iter().map(|of| InBatch {
            group: &work.groups[of.group],
            n_hot: resident.groups[of.group].choice.n_hot,
            n_tokens: of.tokens.len(),
        });
        let in_batch: Vec<InBatch> = in_batch.collect();
        let bytes = (size_of::<f32>() * self.n * self.n_embd()) as u64;
        // What is added to the residual stream changes what later groups read, where they read that.
        let decided = self.costs.filter(|_| block.from != Vector::Residual);
        let decided = decided.map_or_else(|| vec![true; in_batch.len()], |costs| costs.on_cpu(&in_batch, bytes));
        let mut on_cpu = vec![false; layer.groups.len()];
        self.choice.iter().zip(decided).for_each(|(of, decided)| on_cpu[of.group] = decided);
        Ok(on_cpu)
    }

    /// Has the CPU answer `request` of `input`, and writes what it gives to `to`.
    fn answered(&mut self, request: &Request, input: &[f32], to: Ptr) -> Result<()> {
        let stream = self.card.stream;
        self.cpu.ask(request, Given::Nothing, How::Tiles, input, self.tokens, |answer| stream.write(to, answer))
    }

    /// Adds what those groups give that are not the CPU's to `to`.
    fn groups(&mut self, block: &Block, on_cpu: &[bool], to: Vectors) -> Result<()> {
        let card = self.card;
        let layer = &card.model.weights.layers[block.layer];
        let from = self.tokens(read(block)?, self.n_embd());
        // Numbers of tokens of one group behind the other, then what the groups count for them.
        let (mut tokens, mut weights, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for of in self.choice.iter().filter(|of| !on_cpu[of.group]) {
            starts.push((of.group, tokens.len(), of.tokens.len()));
            if let Some(counts) = of.weights {
                tokens.extend_from_slice(of.tokens);
                weights.extend(counts.iter().map(|weight| weight.to_bits()));
            }
        }
        let lists = self.at(S::Routes);
        let at = |i: usize| lists.offset((size_of::<u32>() * i) as u64);
        let n_listed = tokens.len();
        tokens.append(&mut weights);
        card.stream.write(lists, &tokens)?;
        for (group, start, n) in starts {
            let (weights, resident) = (&layer.groups[group], &card.resident.layers[block.layer].groups[group]);
            let which = match weights.is_routed() {
                true => Which { tokens: at(start), weights: at(n_listed + start), n },
                false => Which::first(n),
            };
            if let Down::Rows(down) = weights.ffn_down() {
                self.group_on_card((from, to), resident, weights, down, &which)?;
            }
        }
        Ok(())
    }
}
