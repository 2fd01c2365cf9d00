//! Groups of neurons that a router chooses, for many tokens: each meets the tokens that it was chosen for, on the card where
//! that is faster. The CPU says which tokens these are, so that of near equals the same are chosen as without a card.

use super::{Many, S, Vectors, divisible, kept, read_of};
use crate::executor::cpu::{Given, How, Input, Request};
use crate::executor::program::Block;
use crate::gpu::Ptr;
use crate::gpu::ops::gemm::{Product, Which};
use crate::gpu::ops::norm::{Acts, Merge, merge_norm};
use crate::model::{Down, Groups, Role, Vector};
use crate::placement::batch::InBatch;
use anyhow::{Context, Result, ensure};

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

    /// The product of vectors with the matrix before, or behind, groups of another width.
    pub(super) fn project(&mut self, layer: usize, from: Vector, to: Vector) -> Result<()> {
        let latent = self.card.resident.layers[layer].latent.context("a matrix to another width that is not there")?;
        let linear = if to == Vector::Latent { latent.down } else { latent.up };
        let x = self.pack(self.vectors(layer, from)?, linear.matrix.n_cols())?;
        let y = self.vectors(layer, to)?;
        self.gemm(&Product { bias: linear.bias, ..Product::all(&linear.matrix, y) }, &x)
    }

    /// Where vectors are.
    fn vectors(&self, layer: usize, vector: Vector) -> Result<Vectors> {
        if !vector.is_latent() {
            return Ok(self.tokens(read_of(vector).or_else(|_| kept(vector))?, self.n_embd()));
        }
        let width = self.width(layer, vector);
        let before = if vector == Vector::LatentFed { size_of::<f32>() * self.n * width } else { 0 };
        Ok(Vectors { ptr: self.at(S::Latent).offset(before as u64), stride: width })
    }

    /// How wide they are.
    fn width(&self, layer: usize, vector: Vector) -> usize {
        let latent = self.card.model.weights.layers[layer].find(Role::LatentDown).filter(|_| vector.is_latent());
        latent.map_or(self.n_embd(), |part| part.matrix().n_rows)
    }

    /// What a block of a layer with a router reads, in host memory.
    fn input(&self, block: &Block) -> Result<Vec<f32>> {
        let mut vectors = vec![0.0; self.n * self.width(block.layer, block.from)];
        self.card.stream.read(self.vectors(block.layer, block.from)?.ptr, &mut vectors)?;
        Ok(vectors)
    }

    /// Groups of a layer with a router: all, or where those that it chooses have a width of their own, these or the others.
    pub(super) fn experts(&mut self, block: &Block) -> Result<()> {
        let on_cpu = self.choose(block)?;
        let is_left = self.choice.iter().any(|of| on_cpu[of.group]);
        // What goes in is what was normalised: with a parallel residual the stream has gone on since.
        if self.choice.iter().all(|of| on_cpu[of.group]) && self.groups_of(block) == Groups::All {
            let (request, input) = (Request::Ffn { layer: block.layer, input: Input::Ready }, self.input(block)?);
            return self.block_on_cpu(&request, block, Some(&input));
        }
        let input = if is_left { self.input(block)? } else { Vec::new() };
        let rest = Request::Named { layer: block.layer, groups: on_cpu.clone() };
        if block.joins.is_none() {
            let to = self.vectors(block.layer, block.to)?;
            match is_left {
                true => self.answered(&rest, &input, to.ptr)?,
                false => self.card.stream.fill(to.ptr, 0, self.bytes(block))?,
            }
            return self.groups(block, &on_cpu, to);
        }
        // The card works on its groups while the CPU has the others.
        let to = self.written(block)?;
        self.groups(block, &on_cpu, to)?;
        if is_left {
            let y = self.at(kept(block.to)?);
            self.answered(&rest, &input, y)?;
            let merge = Merge { a: y, n_tokens: self.n, ..Merge::nothing(to.ptr, self.n_embd()) };
            merge_norm(self.card.kernels, self.card.stream, &merge, None, Acts::default())?;
        }
        Ok(())
    }

    /// Which groups of its layer a block computes.
    fn groups_of(&self, block: &Block) -> Groups {
        match self.card.model.weights.layers[block.layer].find(Role::LatentDown) {
            Some(_) if block.from.is_latent() => Groups::Routed,
            Some(_) => Groups::Always,
            None => Groups::All,
        }
    }

    /// Bytes of what a block gives.
    fn bytes(&self, block: &Block) -> u64 {
        (size_of::<f32>() * self.n * self.width(block.layer, block.to)) as u64
    }

    /// Finds the tokens of each group, and by group whether it is the CPU's.
    fn choose(&mut self, block: &Block) -> Result<Vec<bool>> {
        let layer = &self.card.model.weights.layers[block.layer];
        let n_rows = layer.part(Role::Router).matrix().n_rows;
        ensure!(self.chosen.len() == self.n * n_rows, "a choice of {} for {} tokens", self.chosen.len(), self.n);
        let (of, bytes) = (self.groups_of(block), self.bytes(block));
        let wanted = layer.groups.iter().enumerate().filter(|(_, group)| of.has(group.is_routed()));
        self.choice.take(wanted.map(|(i, group)| (i, group.chosen)), self.n, &self.chosen, n_rows);
        let (work, resident) = (&self.work.layers[block.layer], &self.card.resident.layers[block.layer]);
        let in_batch = self.choice.iter().map(|of| InBatch {
            group: &work.groups[of.group],
            n_hot: resident.groups[of.group].choice.n_hot,
            n_tokens: of.tokens.len(),
        });
        let in_batch: Vec<InBatch> = in_batch.collect();
        // What is added to the residual stream changes what later groups read, where they read that.
        let possible = block.from != Vector::Residual && layer.groups.iter().all(divisible);
        let decided = self.costs.filter(|_| possible);
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
        let from = self.vectors(block.layer, block.from)?;
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
