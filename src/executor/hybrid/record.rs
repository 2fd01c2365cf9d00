//! A token on the card, or a few that are computed together, written down once: instructions become kernels in a stream, and what
//! the CPU has of them becomes requests in a list.

mod experts;
mod latent;
mod recurrent;
mod several;

use super::resident::{CardGroup, CardLayer, CardPredictor, CardScores, Resident};
use super::scratch::Scratch;
use crate::executor::cpu::{Found, Input, Request};
use crate::executor::program::{Added, Block, Instruction, NormOf};
use crate::gpu::mailbox::Addresses;
use crate::gpu::matrix::takes_floats;
use crate::gpu::ops::attention::{Attend, attention};
use crate::gpu::ops::down::{Factors, Together, down_of};
use crate::gpu::ops::ffn::{List, gate_up_of, up_of};
use crate::gpu::ops::matvec::{Rows, matvec, matvec_of};
use crate::gpu::ops::norm::{self, Acts, Merge, Norm, merge_norm};
use crate::gpu::ops::predict::{hidden, sign_scores};
use crate::gpu::ops::select::{HotAndCold, HotList, Posting, Scored, select_act_of, select_hot_of, select_score};
use crate::gpu::ops::token::{Answer, Copied, Job, begin_token, finish, post_x, take_reply};
use crate::gpu::{Kernels, Ptr, Stream};
use crate::model::{Activation, Mode, Model, Vector};
use crate::placement::budget::ScratchPart as S;
use anyhow::{Context, Result, bail, ensure};

/// How long the card waits for the CPU: longer than it takes to read many layers from a slow disk for the first time.
const ANSWER_LIMIT_MS: u32 = 600_000;

/// Bytes of a number on the card.
const FLOAT: u64 = 4;
/// Bytes of what a group's kernels count: hot neurons that fire, and those whose row of `up` is read where these are more.
const COUNTS_BYTES: u64 = 2 * FLOAT;

/// Queries, keys and values of some tokens, and where they belong.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub q: Ptr,
    pub k: Ptr,
    pub v: Ptr,
    pub n_tokens: usize,
    /// State of the tokens, or [`Ptr::NULL`].
    pub token: Ptr,
    /// Position of the first one, behind that of `token`.
    pub first: usize,
    /// Number of the sequence, behind that of `token`.
    pub sequence: usize,
}

/// What kernels are enqueued with.
#[derive(Clone, Copy)]
pub(super) struct Card<'a> {
    pub model: &'a Model,
    pub kernels: &'a Kernels,
    pub stream: &'a Stream,
    pub resident: &'a Resident,
    pub scratch: &'a Scratch,
    pub mailbox: Addresses,
    pub mode: Mode,
    /// Tokens of the largest batch.
    pub n_ubatch: usize,
}

/// Where a vector of each token is: the sum of what is there of it.
#[derive(Clone, Copy)]
struct Source {
    /// `[n_tokens][n_embd]` on the card, or [`Ptr::NULL`].
    ptr: Ptr,
    /// A bias, `[n_embd]` on the card, or [`Ptr::NULL`].
    shift: Ptr,
    /// What the CPU adds to it, which is still to come.
    answer: Option<Answer>,
}

impl Source {
    /// A vector on the card.
    fn there(ptr: Ptr) -> Self {
        Self { ptr, shift: Ptr::NULL, answer: None }
    }

    /// Whether nothing has to be added up.
    fn is_there(&self) -> bool {
        self.shift.is_null() && self.answer.is_none()
    }
}

/// Of biases by slot those from `slot` on.
pub(super) fn from_slot(bias: Ptr, slot: usize) -> Ptr {
    if bias.is_null() { bias } else { bias.offset(4 * slot as u64) }
}

/// Writes tokens down that are computed together.
pub(super) struct Recorder<'a> {
    card: Card<'a>,
    n_tokens: usize,
    program: &'a [Instruction],
    requests: Vec<Request>,
    /// What attention and the FFN gave, until it is added to the residual stream.
    mixed: Source,
    fed: Source,
    /// What groups of another width gave.
    narrow: Source,
}

impl<'a> Recorder<'a> {
    /// Begins `n_tokens` tokens: their residual streams come from the mailbox.
    pub fn begin(card: Card<'a>, program: &'a [Instruction], n_tokens: usize) -> Result<Self> {
        let (mail, n_embd) = (card.mailbox, card.model.config.n_embd);
        let (token, x) = (card.scratch.at(S::Token), card.scratch.at(S::X));
        begin_token(card.kernels, card.stream, mail.base, token, mail.in_x, x, n_tokens * n_embd)?;
        let nothing = Source::there(Ptr::NULL);
        Ok(Self { card, n_tokens, program, requests: Vec::new(), mixed: nothing, fed: nothing, narrow: nothing })
    }

    /// Writes the whole program down, and what ends a token. Whether the logits are the CPU's to compute is for `tail` to
    /// say.
    pub fn record(mut self, tail: bool) -> Result<Vec<Request>> {
        let program = self.program;
        for (i, instruction) in program.iter().enumerate() {
            match instruction {
                Instruction::Elsewhere(layers) => {
                    let request = Request::Layers(layers.clone());
                    self.hand_over(request, self.at(S::X), self.at(S::X))?;
                }
                Instruction::Merge { norm: Some(norm), .. } if norm.from != Vector::Residual => {
                    self.norm_behind(norm)?
                }
                Instruction::Merge { adds, norm } => {
                    let norm = norm.filter(|norm| self.is_read(i, norm)).and_then(|norm| self.norm(&norm));
                    self.merge(adds, norm)?;
                }
                Instruction::Attention(block) => self.attention(i, block)?,
                Instruction::Ffn(block) => self.ffn(i, block)?,
                Instruction::Router { layer, from } => self.router(*layer, *from)?,
                Instruction::Project { layer, of, from, to } => self.project(*layer, *of, *from, *to)?,
                Instruction::Recurrent(block) => self.recurrent(block)?,
            }
        }
        self.finish(tail)
    }

    /// Whether the card reads what the norm of instruction `i` gives.
    fn is_read(&self, i: usize, norm: &NormOf) -> bool {
        if norm.layer.is_none() {
            return self.card.resident.head.is_some();
        }
        for (j, later) in self.program.iter().enumerate().skip(i + 1) {
            let reads = match later {
                Instruction::Attention(block) if block.from == norm.to => {
                    self.layer(block.layer).attention.is_some() || self.input(j, block) == Input::Ready
                }
                Instruction::Ffn(block) if block.from == norm.to => {
                    let layer = self.layer(block.layer);
                    layer.has_ffn() || layer.routed.is_some() || self.input(j, block) == Input::Ready
                }
                Instruction::Router { from, .. }
                | Instruction::Project { from, .. }
                | Instruction::Recurrent(Block { from, .. })
                    if *from == norm.to =>
                {
                    true
                }
                Instruction::Elsewhere(_)
                | Instruction::Merge { .. }
                | Instruction::Attention(_)
                | Instruction::Router { .. }
                | Instruction::Recurrent(_)
                | Instruction::Project { .. }
                | Instruction::Ffn(_) => false,
            };
            if reads {
                return true;
            }
            if later.overwrites(norm.to) {
                return false;
            }
        }
        false
    }

    fn norm(&self, norm: &NormOf) -> Option<&'a Norm> {
        match norm.layer {
            Some(layer) => self.layer(layer).norm(norm.of),
            None => self.card.resident.head.as_ref().map(|head| &head.norm),
        }
    }

    /// What a block that the CPU computes as a whole gets: the residual stream with the norm that makes its input of it,
    /// where it has not changed since; else the input itself.
    fn input(&self, i: usize, block: &Block) -> Input {
        for before in self.program[..i].iter().rev() {
            if let Instruction::Merge { norm: Some(norm), .. } = before
                && norm.to == block.from
            {
                let here = norm.layer == Some(block.layer) && norm.from == Vector::Residual;
                return if here { Input::Residual(norm.of) } else { Input::Ready };
            }
            if before.changes_residual() || before.overwrites(block.from) {
                break;
            }
        }
        Input::Ready
    }

    fn source(&self, vector: Vector) -> Result<Source> {
        match vector {
            Vector::Mixed => Ok(self.mixed),
            Vector::Fed => Ok(self.fed),
            Vector::Residual | Vector::Normed | Vector::Latent | Vector::LatentFed => {
                bail!("{vector:?} cannot be added on the card")
            }
        }
    }

    fn keep(&mut self, vector: Vector, source: Source) -> Result<()> {
        match vector {
            Vector::Mixed => self.mixed = source,
            Vector::Fed => self.fed = source,
            Vector::LatentFed => self.narrow = source,
            Vector::Residual | Vector::Normed | Vector::Latent => bail!("{vector:?} is no block's on the card"),
        }
        Ok(())
    }

    fn at(&self, part: S) -> Ptr {
        self.card.scratch.at(part)
    }

    fn layer(&self, i: usize) -> &'a CardLayer {
        &self.card.resident.layers[i]
    }

    /// A further request to the CPU.
    fn job(&mut self, request: Request) -> Job {
        self.requests.push(request);
        let number = self.requests.len() as u32 - 1;
        Job { mailbox: self.card.mailbox.base, token: self.at(S::Token), number }
    }

    fn answer(&self, job: Job) -> Answer {
        Answer { reply: self.card.mailbox.reply, job, limit_ms: ANSWER_LIMIT_MS }
    }

    /// Adds to the residual stream; then normalises it, if wanted.
    fn merge(&mut self, adds: &[Added], norm: Option<&Norm>) -> Result<()> {
        let Card { kernels, stream, model, .. } = self.card;
        let n = model.config.n_embd;
        let x = self.at(S::X);
        let out = match norm {
            Some(_) => self.normed(),
            None => Acts::default(),
        };
        let source = |add: &Added| Ok((self.source(add.from)?, add.scale));
        let sources = adds.iter().map(source).collect::<Result<Vec<_>>>()?;
        let nothing = Merge { n_tokens: self.n_tokens, ..Merge::nothing(x, n) };
        // The kernel takes one vector alone, then one with what belongs to it.
        let alone = |(source, a_scale): (Source, f32), rest: Merge| Merge { a: source.ptr, a_scale, ..rest };
        let with_rest = |(source, b_scale): (Source, f32)| {
            let Source { ptr: b, shift, answer } = source;
            Merge { b, shift, answer, b_scale, ..nothing }
        };
        let merge = match sources[..] {
            [] => nothing,
            [a] if a.0.is_there() => alone(a, nothing),
            [b] => with_rest(b),
            [a, b] if a.0.is_there() => alone(a, with_rest(b)),
            _ => {
                self.merge(&adds[..1], None)?;
                return self.merge(&adds[1..], norm);
            }
        };
        let adds_nothing = sources.iter().all(|(source, _)| source.ptr.is_null() && source.is_there());
        match norm {
            Some(norm) if adds_nothing => norm::norm(kernels, stream, x, n, self.n_tokens, norm, out),
            None if adds_nothing => Ok(()),
            _ => merge_norm(kernels, stream, &merge, norm, out),
        }
    }

    /// Normalises what a block gave, in its place.
    fn norm_behind(&mut self, of: &NormOf) -> Result<()> {
        let Card { kernels, stream, model, .. } = self.card;
        let (n, source) = (model.config.n_embd, self.source(of.from)?);
        let weights = self.norm(of).context("a norm that is not on the card")?;
        let to = match of.to {
            Vector::Mixed => self.at(S::AttnOut),
            Vector::Fed => self.at(S::FfnOut),
            Vector::Residual | Vector::Normed | Vector::Latent | Vector::LatentFed => {
                bail!("{:?} is no block's on the card", of.to)
            }
        };
        let out = Acts { f32: to, x8: Ptr::NULL };
        if source.is_there() {
            norm::norm(kernels, stream, source.ptr, n, self.n_tokens, weights, out)?;
        } else {
            let Source { ptr: b, shift, answer } = source;
            let sum = Merge { n_tokens: self.n_tokens, b, shift, answer, ..Merge::nothing(Ptr::NULL, n) };
            merge_norm(kernels, stream, &sum, Some(weights), out)?;
        }
        self.keep(of.to, Source::there(to))
    }

    /// What a block reads. The residual stream has not been quantized by a norm: that is done here, where `quantized` says that
    /// a matrix wants it so.
    fn acts(&self, from: Vector, quantized: bool) -> Result<Acts> {
        match from {
            Vector::Normed => Ok(self.normed()),
            Vector::Residual => {
                let Card { kernels, stream, model, .. } = self.card;
                let acts = Acts { f32: self.at(S::X), x8: self.at(S::Normed8) };
                if quantized {
                    norm::quantize(kernels, stream, acts.f32, model.config.n_embd, self.n_tokens, acts.x8)?;
                }
                Ok(acts)
            }
            Vector::Mixed | Vector::Fed | Vector::Latent | Vector::LatentFed => {
                bail!("{from:?} is read by no block on the card")
            }
        }
    }

    /// Has the CPU answer `request`, for which the vector at `from` comes along; the answer becomes `to`.
    fn hand_over(&mut self, request: Request, from: Ptr, to: Ptr) -> Result<()> {
        let n = self.n_tokens * self.card.model.config.n_embd;
        let job = self.post(request, from)?;
        take_reply(self.card.kernels, self.card.stream, to, n, &self.answer(job))
    }

    /// Where the input of a block is that the CPU computes as a whole.
    fn posted(&self, from: Vector, input: Input) -> Ptr {
        let normed = from == Vector::Normed && input == Input::Ready;
        self.at(if normed { S::Normed } else { S::X })
    }

    /// Posts `request` with its input.
    fn post(&mut self, request: Request, from: Ptr) -> Result<Job> {
        let Card { kernels, stream, model, mailbox, .. } = self.card;
        let job = self.job(request);
        post_x(kernels, stream, from, mailbox.post_x, self.n_tokens * model.config.n_embd, &job)?;
        Ok(job)
    }

    /// Ends the token; what is behind the last layer that the card has a part of is on the CPU, if `tail` has it.
    fn finish(mut self, tail: bool) -> Result<Vec<Request>> {
        let Card { kernels, stream, model, mailbox, resident, .. } = self.card;
        let n_vocab = model.config.n_vocab;
        let mut logits = Copied { from: Ptr::NULL, to: mailbox.logits, n: 0 };
        match &resident.head {
            Some(head) if !tail => {
                let rows = Rows { bias: head.bias, ..Rows::all(&head.matrix, self.at(S::Logits)) };
                matvec_of(kernels, stream, &[rows], self.normed(), self.n_tokens, None)?;
                logits = Copied { from: self.at(S::Logits), n: self.n_tokens * n_vocab, ..logits };
            }
            _ => self.hand_over(Request::Tail, self.at(S::X), self.at(S::AttnOut))?,
        }
        let n_counts = self.n_tokens * self.n_counts();
        let counts = Copied { from: self.at(S::Counts), to: mailbox.counts, n: n_counts };
        let job = Job { mailbox: mailbox.base, token: self.at(S::Token), number: self.requests.len() as u32 };
        finish(kernels, stream, &logits, &counts, &job)?;
        Ok(self.requests)
    }

    fn normed(&self) -> Acts {
        Acts { f32: self.at(S::Normed), x8: self.at(S::Normed8) }
    }

    /// Products of `parts`, in as few launches as their types allow.
    fn products(&self, parts: &[Rows], x: Acts) -> Result<()> {
        let mut left = parts;
        while let Some(first) = left.first() {
            let alike = left.iter().take_while(|p| p.matrix.dtype() == first.matrix.dtype()).count();
            matvec_of(self.card.kernels, self.card.stream, &left[..alike], x, self.n_tokens, None)?;
            left = &left[alike..];
        }
        Ok(())
    }

    /// What the card sends along for `request`, which reads `x`.
    fn posting(&mut self, request: Request, x: Ptr) -> Posting {
        let mail = self.card.mailbox;
        Posting {
            x,
            n_embd: self.card.model.config.n_embd,
            post_x: mail.post_x,
            post_list: mail.post_list,
            post_act: mail.post_act,
            job: self.job(request),
        }
    }

    /// A group of which the card may have a part, and which reads `x`: where its sum will be.
    fn group(&mut self, i: usize, g: usize, group: &CardGroup, x: Acts) -> Result<Source> {
        let Card { model, kernels, stream, mode, mailbox, .. } = self.card;
        let layer = &model.weights.layers[i];
        let weights = &layer.groups[g];
        let (n_ff, n_hot, choice) = (weights.n_ff(), group.choice.n_hot, group.choice);
        let dense = mode == Mode::Dense;
        let activation = model.config.activation.activation;
        // The CPU counts the cold ones that fire.
        let slots = HotAndCold { n_hot, n_ff, counts: Ptr::NULL };
        let mask = |m: &Option<_>| m.context("the mask matrix is not on the card");
        let cold = |found| Request::Cold { layer: i, group: g, n_hot, found };
        // By slot, token by token: activations, then what the neurons' vectors are multiplied with.
        let (act, several) = (self.at(S::Act), self.several(n_ff));
        // The cold neurons come first, so that the CPU works on them while the card does the hot ones.
        let mut job = None;
        if n_hot < n_ff {
            let posting = if choice.mask {
                let rows = mask(&group.mask)?;
                let y = act.offset(4 * n_hot as u64);
                let (n_rows, bias) = (n_ff - n_hot, from_slot(group.biases.mask, n_hot));
                let cold_rows = Rows { first: n_hot, n_rows, bias, stride: n_ff, ..Rows::all(&rows, y) };
                matvec_of(kernels, stream, &[cold_rows], x, self.n_tokens, Some(activation))?;
                let posting = self.posting(cold(Found::Fired), x.f32);
                select_act_of(kernels, stream, act, dense, slots, &posting, several)?;
                posting
            } else if let Some(predictor) = &group.predictor {
                ensure!(self.n_tokens == 1, "predictors of several tokens");
                let posting = self.posting(cold(Found::Named), x.f32);
                self.scores(predictor, slots, x, &posting)?;
                posting
            } else {
                let posting = self.posting(cold(Found::Nothing), x.f32);
                let n = self.n_tokens * posting.n_embd;
                post_x(kernels, stream, posting.x, mailbox.post_x, n, &posting.job)?;
                posting
            };
            job = Some(posting.job);
        }
        let ptr = self.hot_sum(i, g, group, x)?;
        Ok(Source { ptr, shift: group.biases.down, answer: job.map(|job| self.answer(job)) })
    }

    /// The sum of the hot neurons of group number `g` of layer number `i`, or [`Ptr::NULL`] where there are none.
    fn hot_sum(&self, i: usize, g: usize, group: &CardGroup, x: Acts) -> Result<Ptr> {
        let Card { model, kernels, stream, mode, .. } = self.card;
        let (layer, n_hot) = (&model.weights.layers[i], group.choice.n_hot);
        let (weights, number) = (&layer.groups[g], layer.first_group + g);
        ensure!(weights.gate.is_some() == group.up.is_some() || n_hot == 0, "up is not on the card");
        if n_hot > 0 {
            let counts = self.at(S::Counts).offset(COUNTS_BYTES * number as u64);
            let slots = HotAndCold { n_hot, n_ff: weights.n_ff(), counts };
            self.hot(group, slots, model.config.activation.activation, x)?;
        }
        let Some(matrix) = &group.down else { return Ok(Ptr::NULL) };
        let (factors, y) = (Factors { h: self.at(S::Act), n: n_hot, all: mode == Mode::Dense }, self.at(S::FfnOut));
        let scratch_bytes = self.card.scratch.down_bytes();
        let of = Together { n_tokens: self.n_tokens, factors: weights.n_ff(), scratch_bytes };
        down_of(kernels, stream, matrix, &factors, y, self.at(S::DownPartial), of)?;
        Ok(y)
    }

    /// What the output vectors of a group's hot neurons are multiplied with, of which there are some. Counts how many fire,
    /// and, where `up` has a mask of its own, behind that for how many it is read.
    fn hot(&self, group: &CardGroup, slots: HotAndCold, activation: Activation, x: Acts) -> Result<()> {
        let Card { kernels, stream, mode, .. } = self.card;
        let (act, n_hot, dense) = (self.at(S::Act), slots.n_hot, mode == Mode::Dense);
        let (two_masks, n_ff) = (activation.has_two_masks(), slots.n_ff);
        let several = self.several(n_ff);
        let rows = group.mask.as_ref().context("the mask matrix is not on the card")?;
        let list = HotList { list: self.at(S::List), n: self.at(S::ListLen) };
        match &group.up {
            // Without a list: `up` is read where the gate fires.
            Some(up)
                if !group.choice.mask && up.dtype() == rows.dtype() && group.biases.none_of_rows() && !two_masks =>
            {
                gate_up_of(kernels, stream, rows, up, n_hot, x, activation, act, several)?;
                select_hot_of(kernels, stream, act, dense, slots, &list, several)
            }
            matrix => {
                let bias = group.biases.mask;
                let hot_rows = Rows { n_rows: n_hot, bias, stride: n_ff, ..Rows::all(rows, act) };
                matvec_of(kernels, stream, &[hot_rows], x, self.n_tokens, Some(activation))?;
                let opened = HotAndCold { counts: slots.counts.offset(if two_masks { FLOAT } else { 0 }), ..slots };
                select_hot_of(kernels, stream, act, dense, opened, &list, several)?;
                let Some(matrix) = matrix else { return Ok(()) };
                let hot = List { slots: list.list, count: list.n, n: n_hot };
                up_of(kernels, stream, matrix, group.biases.up, &hot, act, x, activation, act, several)?;
                if two_masks { select_hot_of(kernels, stream, act, dense, slots, &list, several) } else { Ok(()) }
            }
        }
    }

    /// Has the predictor name cold neurons, and posts them.
    fn scores(&self, p: &CardPredictor, slots: HotAndCold, x: Acts, posting: &Posting) -> Result<()> {
        let Card { kernels, stream, .. } = self.card;
        let HotAndCold { n_hot, n_ff, .. } = slots;
        let first = p.n_always.clamp(n_hot, n_ff) - n_hot;
        let n_rows = n_ff - n_hot - first;
        // By slot, as if the hot ones were there, too.
        let scores = self.at(S::Scores);
        let y = scores.offset(4 * (n_hot + first) as u64);
        match &p.scores {
            CardScores::Signs(rows) => {
                let n_embd = self.card.model.config.n_embd;
                let at = rows.offset((first * n_embd / 8) as u64);
                sign_scores(kernels, stream, at, x.f32, n_embd, n_rows, y)?;
            }
            CardScores::Factors { input, hidden_bias, output } => {
                let (n, h) = (input.n_stored(), self.at(S::Hidden));
                matvec(kernels, stream, &[Rows::all(input, h)], x, None)?;
                let x8 = if takes_floats(output.dtype()) { Ptr::NULL } else { self.at(S::Hidden8) };
                if !hidden_bias.is_null() {
                    hidden(kernels, stream, h, *hidden_bias, n, x8)?;
                } else if !x8.is_null() {
                    norm::quantize(kernels, stream, h, n, 1, x8)?;
                }
                let rows = Rows { first, n_rows, ..Rows::all(output, y) };
                matvec(kernels, stream, &[rows], Acts { f32: h, x8 }, None)?;
            }
        }
        let bias = Ptr(p.bias.0 - 4 * n_hot as u64);
        select_score(kernels, stream, &Scored { scores, bias, n_always: p.n_always }, slots, posting)
    }

    fn attention(&mut self, i: usize, block: &Block) -> Result<()> {
        let out = self.at(S::AttnOut);
        self.keep(block.to, Source::there(out))?;
        let Some(layer) = &self.layer(block.layer).attention else {
            let input = self.input(i, block);
            return self.hand_over(
                Request::Attention { layer: block.layer, input },
                self.posted(block.from, input),
                out,
            );
        };
        let Card { kernels, stream, model, .. } = self.card;
        let config = &model.config;
        let (q, k, v) = (self.at(S::Q), self.at(S::K), self.at(S::V));
        let linears = [(&layer.q, q), (&layer.k, k), (&layer.v, v)];
        let parts = linears.map(|(l, y)| Rows { bias: l.bias, ..Rows::all(&l.matrix, y) });
        let quantized = linears.iter().any(|(l, _)| !takes_floats(l.matrix.dtype()));
        self.products(&parts, self.acts(block.from, quantized)?)?;
        let (token, n_tokens) = (self.at(S::Token), self.n_tokens);
        self.card.store(block.layer, layer, Heads { q, k, v, n_tokens, token, first: 0, sequence: 0 })?;
        let (n_q, attn) = (config.n_q(), self.at(S::Attn));
        let x8 = if takes_floats(layer.output.matrix.dtype()) { Ptr::NULL } else { self.at(S::Attn8) };
        let at_once = config.head_dim.is_multiple_of(32);
        let acts = Acts { f32: attn, x8: if at_once { x8 } else { Ptr::NULL } };
        let scratch = self.at(S::AttnPartial);
        attention(
            kernels,
            stream,
            &Attend {
                q,
                n_head: config.n_head,
                n_tokens,
                token,
                window: config.windows[block.layer],
                scratch,
                out: acts,
            },
            &layer.cache,
        )?;
        if !at_once && !x8.is_null() {
            norm::quantize(kernels, stream, attn, n_q, n_tokens, x8)?;
        }
        let output = Rows { bias: layer.output.bias, ..Rows::all(&layer.output.matrix, out) };
        self.products(&[output], Acts { f32: attn, x8 })
    }

    fn ffn(&mut self, i: usize, block: &Block) -> Result<()> {
        let layer = self.layer(block.layer);
        if let Some(routed) = &layer.routed {
            return match layer.latent.filter(|_| !block.from.is_latent()) {
                Some(_) => self.beside(block, layer),
                None => self.routed(block, layer, routed),
            };
        }
        if !layer.has_ffn() {
            // All of it is on the CPU, which normalises what it gets.
            let input = self.input(i, block);
            let job = self.post(Request::Ffn { layer: block.layer, input }, self.posted(block.from, input))?;
            let answer = Some(self.answer(job));
            return self.keep(block.to, Source { answer, ..Source::there(Ptr::NULL) });
        }
        let x = self.acts(block.from, layer.groups.iter().any(CardGroup::reads_quantized))?;
        for (g, group) in layer.groups.iter().enumerate() {
            let source = self.group(block.layer, g, group, x)?;
            if g + 1 == layer.groups.len() {
                return self.keep(block.to, source);
            }
            // One answer at a time is under way, so what is there joins the residual stream before the next group begins:
            // nothing reads that before the whole sum is added (`check_card` refuses such steps).
            self.keep(block.to, source)?;
            self.merge(&[Added { from: block.to, scale: 1.0 }], None)?;
        }
        Ok(())
    }
}
