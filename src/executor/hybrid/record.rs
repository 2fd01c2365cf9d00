//! A token on the card, written down once: the blocks of the pass become kernels in a stream, and what the CPU has of
//! them becomes tasks in a list.

use super::resident::{CardLayer, CardLinear, CardPredictor, CardScores, Resident};
use super::scratch::Scratch;
use super::tasks::{Found, Task};
use crate::executor::ffn::Mode;
use crate::executor::pass::{Blocks, NormOf, Part};
use crate::gpu::mailbox::Addresses;
use crate::gpu::matrix::takes_floats;
use crate::gpu::ops::attention::{Attend, attention};
use crate::gpu::ops::down::down;
use crate::gpu::ops::ffn::{List, gate_up, up};
use crate::gpu::ops::matvec::{Rows, matvec};
use crate::gpu::ops::norm::{self, Acts, Merge, Norm, merge_norm};
use crate::gpu::ops::predict::{hidden, sign_scores};
use crate::gpu::ops::rope::{Rope, RopeStore, rope_store};
use crate::gpu::ops::select::{HotList, Posting, Scored, Slots, select_act, select_score};
use crate::gpu::ops::token::{Answer, Copied, Job, begin_token, finish, post_x, take_reply};
use crate::gpu::{Kernels, Ptr, Stream};
use crate::model::{Model, Residual};
use crate::placement::budget::ScratchPart as S;
use anyhow::{Context, Result, ensure};
use std::ops::Range;

/// How long the card waits for the CPU: longer than it takes to read many layers from a slow disk for the first time.
const ANSWER_LIMIT_MS: u32 = 600_000;

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
}

impl Card<'_> {
    pub fn rope(&self) -> Rope {
        let rope = &self.model.config.rope;
        Rope { kind: rope.kind, n_dims: rope.n_dims, frequencies: self.scratch.at(S::Frequencies) }
    }
}

/// Writes a token down.
pub(super) struct Recorder<'a> {
    card: Card<'a>,
    tasks: Vec<Task>,
    /// What attention and the FFN gave, until it is added to the residual stream.
    attn_out: Ptr,
    ffn_out: (Ptr, Option<Answer>),
    pending: (Ptr, Ptr, Option<Answer>),
}

impl<'a> Recorder<'a> {
    /// Begins a token: the residual stream comes from the mailbox.
    pub fn begin(card: Card<'a>) -> Result<Self> {
        let (mail, n_embd) = (card.mailbox, card.model.config.n_embd);
        let (token, x) = (card.scratch.at(S::Token), card.scratch.at(S::X));
        begin_token(card.kernels, card.stream, mail.base, token, mail.in_x, x, n_embd)?;
        let nothing = (Ptr::NULL, Ptr::NULL, None);
        Ok(Self { card, tasks: Vec::new(), attn_out: Ptr::NULL, ffn_out: (Ptr::NULL, None), pending: nothing })
    }

    fn at(&self, part: S) -> Ptr {
        self.card.scratch.at(part)
    }

    fn layer(&self, i: usize) -> &'a CardLayer {
        &self.card.resident.layers[i]
    }

    /// A further task of the CPU.
    fn job(&mut self, task: Task) -> Job {
        self.tasks.push(task);
        let number = self.tasks.len() as u32 - 1;
        Job { mailbox: self.card.mailbox.base, token: self.at(S::Token), number }
    }

    fn answer(&self, job: Job) -> Answer {
        Answer { reply: self.card.mailbox.reply, job, limit_ms: ANSWER_LIMIT_MS }
    }

    /// Adds to the residual stream what is to be added; then normalises it, if wanted.
    fn merge(&mut self, norm: Option<&Norm>) -> Result<()> {
        let Card { kernels, stream, model, .. } = self.card;
        let n = model.config.n_embd;
        let x = self.at(S::X);
        let out = match norm {
            Some(_) => Acts { f32: self.at(S::Normed), x8: self.at(S::Normed8) },
            None => Acts::default(),
        };
        let (a, b, answer) = std::mem::replace(&mut self.pending, (Ptr::NULL, Ptr::NULL, None));
        let nothing = a.is_null() && b.is_null() && answer.is_none();
        match norm {
            Some(norm) if nothing => norm::norm(kernels, stream, x, n, 1, norm, out),
            None if nothing => Ok(()),
            _ => merge_norm(kernels, stream, &Merge { x, n, a, b, answer }, norm, out),
        }
    }

    /// Has the CPU compute `task` from the residual stream, whose answer becomes `to`.
    fn hand_over(&mut self, task: Task, to: Ptr) -> Result<()> {
        self.merge(None)?;
        let Card { kernels, stream, model, mailbox, .. } = self.card;
        let n = model.config.n_embd;
        let job = self.job(task);
        post_x(kernels, stream, self.at(S::X), mailbox.post_x, n, &job)?;
        take_reply(kernels, stream, to, n, &self.answer(job))
    }

    /// Layers that are wholly on the CPU.
    pub fn on_cpu(&mut self, layers: Range<usize>) -> Result<()> {
        self.hand_over(Task::Layers(layers), self.at(S::X))
    }

    /// Ends the token; what is behind the last layer that the card has a part of is on the CPU, if `tail` has it.
    pub fn finish(mut self, tail: bool) -> Result<Vec<Task>> {
        let Card { kernels, stream, model, mailbox, resident, .. } = self.card;
        let n_vocab = model.config.n_vocab;
        let mut logits = Copied { from: Ptr::NULL, to: mailbox.logits, n: 0 };
        match &resident.head {
            Some(head) if !tail => {
                self.merge(Some(&head.norm))?;
                matvec(kernels, stream, &[Rows::all(&head.matrix, self.at(S::Logits))], self.normed(), None)?;
                logits = Copied { from: self.at(S::Logits), n: n_vocab, ..logits };
            }
            _ => self.hand_over(Task::Tail, self.at(S::AttnOut))?,
        }
        let counts = Copied { from: self.at(S::Counts), to: mailbox.counts, n: 2 * model.config.n_layer };
        let job = Job { mailbox: mailbox.base, token: self.at(S::Token), number: self.tasks.len() as u32 };
        finish(kernels, stream, &logits, &counts, &job)?;
        Ok(self.tasks)
    }

    fn normed(&self) -> Acts {
        Acts { f32: self.at(S::Normed), x8: self.at(S::Normed8) }
    }

    /// Products of `parts`, in as few launches as their types allow.
    fn products(&self, parts: &[Rows], x: Acts) -> Result<()> {
        let mut left = parts;
        while let Some(first) = left.first() {
            let alike = left.iter().take_while(|p| p.matrix.dtype() == first.matrix.dtype()).count();
            matvec(self.card.kernels, self.card.stream, &left[..alike], x, None)?;
            left = &left[alike..];
        }
        Ok(())
    }

    /// What the card sends along for task `task`.
    fn posting(&mut self, task: Task) -> Posting {
        let mail = self.card.mailbox;
        Posting {
            x: self.at(S::Normed),
            n_embd: self.card.model.config.n_embd,
            post_x: mail.post_x,
            post_list: mail.post_list,
            post_act: mail.post_act,
            job: self.job(task),
        }
    }

    /// An FFN of which the card has a part.
    fn divided(&mut self, i: usize, layer: &CardLayer) -> Result<()> {
        let Card { model, kernels, stream, mode, mailbox, .. } = self.card;
        let group = &model.weights.layers[i].ffn[0];
        let (n_ff, n_hot, choice) = (group.n_ff(), layer.choice.n_hot, layer.choice);
        let (dense, gated) = (mode == Mode::Dense, group.ffn_gate.is_some());
        let activation = model.config.activation.activation;
        let x = self.normed();
        let slots = Slots { n_hot, n_ff, counts: self.at(S::Counts).offset(8 * i as u64) };
        let list = HotList { list: self.at(S::List), act: self.at(S::ListAct), n: self.at(S::ListLen) };
        let mask = |m: &Option<_>| m.context("the mask matrix is not on the card");
        let cold = |found| Task::Cold { layer: i, n_hot, found };
        let mut job = None;
        // What the hot neurons' vectors are multiplied with, by place in the list.
        let h = self.at(S::H);
        let mut factors = list.act;
        if choice.mask {
            let act = self.at(S::Act);
            matvec(kernels, stream, &[Rows::all(&mask(&layer.mask)?, act)], x, Some(activation))?;
            let posting = (n_hot < n_ff).then(|| self.posting(cold(Found::Fired)));
            select_act(kernels, stream, act, dense, slots, &list, posting.as_ref())?;
            job = posting.map(|p| p.job);
            if let Some(matrix) = &layer.up {
                let hot = List { slots: list.list, count: list.n, n: n_hot };
                up(kernels, stream, matrix, &hot, list.act, x, h)?;
                factors = h;
            }
        } else {
            if n_hot < n_ff {
                let posting = if let Some(predictor) = &layer.predictor {
                    let posting = self.posting(cold(Found::Named));
                    self.scores(predictor, slots, x, &posting)?;
                    posting
                } else {
                    let posting = self.posting(cold(Found::Nothing));
                    post_x(kernels, stream, posting.x, mailbox.post_x, posting.n_embd, &posting.job)?;
                    posting
                };
                job = Some(posting.job);
            }
            if n_hot > 0 {
                let rows = mask(&layer.mask)?;
                match &layer.up {
                    Some(up) if up.dtype() == rows.dtype() => {
                        gate_up(kernels, stream, &rows, up, n_hot, x, activation, h)?;
                    }
                    _ => matvec(kernels, stream, &[Rows::all(&rows, h)], x, Some(activation))?,
                }
                let hot = Slots { n_ff: n_hot, ..slots };
                select_act(kernels, stream, h, dense, hot, &list, None)?;
                if let Some(matrix) = layer.up.as_ref().filter(|up| up.dtype() != rows.dtype()) {
                    let hot = List { slots: list.list, count: list.n, n: n_hot };
                    up(kernels, stream, matrix, &hot, list.act, x, h)?;
                    factors = h;
                }
            }
        }
        ensure!(gated == layer.up.is_some() || n_hot == 0, "up is not on the card");
        let mut y = Ptr::NULL;
        if let Some(matrix) = &layer.down {
            y = self.at(S::FfnOut);
            let hot = List { slots: list.list, count: list.n, n: n_hot };
            down(kernels, stream, matrix, &hot, factors, y, self.at(S::DownPartial))?;
        }
        self.ffn_out = (y, job.map(|job| self.answer(job)));
        Ok(())
    }

    /// Has the predictor name cold neurons, and posts them.
    fn scores(&self, p: &CardPredictor, slots: Slots, x: Acts, posting: &Posting) -> Result<()> {
        let Card { kernels, stream, .. } = self.card;
        let Slots { n_hot, n_ff, .. } = slots;
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
                let rows = Rows { matrix: output, first, n_rows, bias: Ptr::NULL, y };
                matvec(kernels, stream, &[rows], Acts { f32: h, x8 }, None)?;
            }
        }
        let bias = Ptr(p.bias.0 - 4 * n_hot as u64);
        select_score(kernels, stream, &Scored { scores, bias, n_always: p.n_always }, slots, posting)
    }
}

impl Blocks for Recorder<'_> {
    fn normalize(&mut self, of: NormOf) -> Result<()> {
        let norm = match of {
            NormOf::Attention(i) => {
                let layer = self.layer(i);
                let serves_ffn = self.card.model.config.residual == Residual::Parallel && layer.choice.has_ffn();
                layer.attn_norm.as_ref().filter(|_| layer.choice.attention || serves_ffn)
            }
            NormOf::Ffn(i) => self.layer(i).ffn_norm.as_ref().filter(|_| self.layer(i).choice.has_ffn()),
            NormOf::Output => self.card.resident.head.as_ref().map(|h| &h.norm),
        };
        self.merge(norm)
    }

    fn attention(&mut self, i: usize) -> Result<()> {
        self.attn_out = self.at(S::AttnOut);
        let Some(layer) = &self.layer(i).attention else {
            return self.hand_over(Task::Attention(i), self.attn_out);
        };
        let Card { kernels, stream, model, .. } = self.card;
        let config = &model.config;
        let rows = |l: &'_ CardLinear, y: Ptr| -> (CardLinear, Ptr) { (*l, y) };
        let (q, k, v) = (self.at(S::Q), self.at(S::K), self.at(S::V));
        let linears = [rows(&layer.q, q), rows(&layer.k, k), rows(&layer.v, v)];
        let parts = linears.each_ref().map(|(l, y)| Rows { bias: l.bias, ..Rows::all(&l.matrix, *y) });
        self.products(&parts, self.normed())?;
        let token = self.at(S::Token);
        let stored = RopeStore { q, k, v, n_head: config.n_head, n_tokens: 1, token, first: 0 };
        rope_store(kernels, stream, &stored, &self.card.rope(), &layer.cache)?;
        let (n_q, attn) = (config.n_head * config.head_dim, self.at(S::Attn));
        let x8 = if takes_floats(layer.output.matrix.dtype()) { Ptr::NULL } else { self.at(S::Attn8) };
        let at_once = config.head_dim.is_multiple_of(32);
        let out = Acts { f32: attn, x8: if at_once { x8 } else { Ptr::NULL } };
        let scratch = self.at(S::AttnPartial);
        attention(kernels, stream, &Attend { q, n_head: config.n_head, token, scratch, out }, &layer.cache)?;
        if !at_once && !x8.is_null() {
            norm::quantize(kernels, stream, attn, n_q, 1, x8)?;
        }
        let output = Rows { bias: layer.output.bias, ..Rows::all(&layer.output.matrix, self.attn_out) };
        self.products(&[output], Acts { f32: attn, x8 })
    }

    fn ffn(&mut self, i: usize) -> Result<()> {
        let layer = self.layer(i);
        if layer.choice.has_ffn() {
            return self.divided(i, layer);
        }
        // All of it is on the CPU, which normalises what it gets.
        let Card { kernels, stream, model, mailbox, .. } = self.card;
        let job = self.job(Task::Ffn(i));
        post_x(kernels, stream, self.at(S::X), mailbox.post_x, model.config.n_embd, &job)?;
        self.ffn_out = (Ptr::NULL, Some(self.answer(job)));
        Ok(())
    }

    fn add(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Attention => self.pending.0 = self.attn_out,
            Part::Ffn => (self.pending.1, self.pending.2) = self.ffn_out,
        }
        Ok(())
    }
}
