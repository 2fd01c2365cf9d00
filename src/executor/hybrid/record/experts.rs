//! Groups of neurons that a router chooses, in a token on the card: one list says which, so what is written down is the same
//! for every token, and the CPU gets all that is cold in one request.

use super::super::resident::{CardLayer, CardRouted};
use super::{COUNTS_BYTES, Card, Recorder, S, Source};
use crate::executor::cpu::Request;
use crate::executor::program::{Added, Block};
use crate::gpu::Ptr;
use crate::gpu::matrix::takes_floats;
use crate::gpu::ops::experts::{Activated, experts, experts_down};
use crate::gpu::ops::matvec::{Rows, matvec};
use crate::gpu::ops::route::{Counted, PostChosen, Routes, Scored, post_chosen, route};
use crate::model::{Groups, Mode, Vector};
use anyhow::{Context, Result, ensure};

impl Recorder<'_> {
    /// Where it is which groups of layer number `i` are chosen, behind the scores of all of them.
    fn routes(&self, i: usize, routed: &CardRouted) -> Result<Routes> {
        let router = self.card.model.weights.layers[i].router.context("a layer without a router")?;
        let chosen = self.at(S::Routes).offset((size_of::<f32>() * routed.router.matrix.n_stored()) as u64);
        let n_used = router.n_used;
        Ok(Routes { chosen, weights: chosen.offset((size_of::<u32>() * n_used) as u64), n_used })
    }

    /// Where a layer's groups are counted, from its first on.
    fn counts(&self, i: usize) -> Ptr {
        self.at(S::Counts).offset(COUNTS_BYTES * self.card.model.weights.layers[i].first_group as u64)
    }

    /// The scores of a layer's router, and what it chooses by them.
    pub(super) fn router(&mut self, i: usize, from: Vector) -> Result<()> {
        let Card { model, kernels, stream, .. } = self.card;
        ensure!(self.n_tokens == 1, "a router's choice for several tokens");
        let routed = self.layer(i).routed.as_ref().context("a router that is not on the card")?;
        let router = model.weights.layers[i].router.context("a layer without a router")?;
        let (matrix, scores) = (&routed.router.matrix, self.at(S::Routes));
        let x = self.acts(from, !takes_floats(matrix.dtype()))?;
        matvec(kernels, stream, &[Rows { bias: routed.router.bias, ..Rows::all(matrix, scores) }], x, None)?;
        let scored = Scored { scores, bias: routed.bias, n_groups: matrix.n_stored() };
        let counts = if routed.index.is_some() { self.counts(i) } else { Ptr::NULL };
        let counted = Counted { index: routed.entries, counts };
        route(kernels, stream, &router, &scored, &counted, &self.routes(i, routed)?)
    }

    /// All groups of a layer with a router: the chosen ones, and those that are computed for every token.
    pub(super) fn routed(&mut self, block: &Block, layer: &CardLayer, routed: &CardRouted) -> Result<()> {
        let Card { model, kernels, stream, mode, mailbox, .. } = self.card;
        let (i, weights) = (block.layer, &model.weights.layers[block.layer]);
        let n_hot: Vec<usize> = layer.groups.iter().map(|group| group.choice.n_hot).collect();
        let groups = if block.from.is_latent() { Groups::Routed } else { Groups::All };
        let here = || weights.groups.iter().zip(&layer.groups).filter(|(group, _)| groups.has(group.is_routed()));
        let is_cold = here().any(|(group, on_card)| on_card.choice.n_hot < group.n_ff());
        let routes = self.routes(i, routed)?;
        let quantized = here().any(|(_, on_card)| on_card.reads_quantized());
        let narrow = layer.latent.filter(|_| block.from.is_latent());
        let (x, n, y) = match &narrow {
            Some(latent) => (self.narrow_acts(latent, quantized)?, latent.width(), self.narrow_sum(latent)),
            None => (self.acts(block.from, quantized)?, model.config.n_embd, self.at(S::FfnOut)),
        };
        // The CPU first, so that it works while the card does.
        let mut answer = None;
        if is_cold {
            let job = self.job(Request::Routed { layer: i, groups, n_hot });
            let to = PostChosen {
                x: x.f32,
                n,
                post_x: mailbox.post_x,
                post_list: mailbox.post_list,
                post_weights: mailbox.post_act,
                job,
            };
            post_chosen(kernels, stream, &routes, &to)?;
            answer = Some(self.answer(job));
        }
        let always = |g: usize| groups.has(false) && !weights.groups[g].is_routed();
        for (g, group) in layer.groups.iter().enumerate().filter(|(g, _)| always(*g)) {
            let source = Source { ptr: self.hot_sum(i, g, group, x)?, shift: group.biases.down, answer: None };
            // What is there joins the residual stream before the next sum takes its place (`check_card` refuses what would
            // read the stream meanwhile).
            self.keep(block.to, source)?;
            self.merge(&[Added { from: block.to, scale: 1.0 }], None)?;
        }
        let mut sum = Source { answer, ..Source::there(Ptr::NULL) };
        if let Some(index) = &routed.index {
            let activation = model.config.activation.activation;
            let to = Activated { h: self.at(S::Act), stride: index.most_hot, counts: self.counts(i) };
            experts(kernels, stream, index, &routes, x, activation, &to)?;
            sum.ptr = y;
            let scratch = self.at(S::DownPartial);
            experts_down(kernels, stream, index, &routes, &to, mode == Mode::Dense, sum.ptr, scratch)?;
        }
        self.keep(block.to, sum)
    }
}
