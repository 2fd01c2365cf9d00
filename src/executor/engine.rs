//! The blocks of the forward pass on the CPU.

use super::attention::{Attention, AttentionBuffers, Rotation};
use super::audit::{Audit, AuditWork};
use super::ffn::{self, BatchBuffers, BatchWork, CpuShard, FfnShard, FfnWork, Fired, Given, MaskSource, Mode, Slots};
use super::forward::{ExecutorParams, Observer};
use super::kv_cache::KvCache;
use super::linear::{Prefill, Scratch, add_bias, linear, matmul};
use super::matvec::MatVec;
use super::norm::normalize;
use super::pass::{self, Blocks, NormOf, Part};
use super::stats::FfnStats;
use crate::cpu::{Activations, Pool};
use crate::model::{Matrix, Model};
use crate::placement::Placement;
use crate::quant::convert;
use anyhow::Result;
use std::ops::Range;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Prefill,
    Decode,
}

/// A model on the CPU: threads, KV cache and buffers.
pub(super) struct Engine<'m> {
    pub model: &'m Model,
    pub params: ExecutorParams,
    pub kv: KvCache,
    pub mask: Box<dyn MaskSource>,
    /// One in so many tokens is looked at for what predictors miss; 0 for none.
    pub audit_every: u64,
    pub stats: FfnStats,
    pub state: State,
    pool: Pool,
    placement: Placement,
    rotation: Rotation,
    audit: Audit,
    shards: [Box<dyn FfnShard>; 2],
}

/// Buffers of the pass; `[n_tokens][...]` each.
#[derive(Default)]
pub(super) struct State {
    /// The residual stream.
    pub x: Vec<f32>,
    /// The same, normalised.
    pub normed: Vec<f32>,
    /// What attention adds.
    pub attn_out: Vec<f32>,
    /// What the FFN adds.
    pub ffn_out: Vec<f32>,
    pub logits: Vec<f32>,
    forms: Activations,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attention: AttentionBuffers,
    attn: Vec<f32>,
    ffn: BatchBuffers,
    scratch: Scratch,
    products: MatVec,
}

/// A pass on the CPU, done at once.
pub(super) struct Immediate<'a, 'm> {
    pub engine: &'a mut Engine<'m>,
    pub phase: Phase,
    pub observer: &'a mut dyn Observer,
}

impl Blocks for Immediate<'_, '_> {
    fn normalize(&mut self, of: NormOf) -> Result<()> {
        self.engine.normalize(of);
        Ok(())
    }

    fn attention(&mut self, layer: usize) -> Result<()> {
        self.engine.attention(layer, self.phase);
        Ok(())
    }

    fn ffn(&mut self, layer: usize) -> Result<()> {
        self.engine.ffn(layer, self.phase, self.observer);
        Ok(())
    }

    fn add(&mut self, part: Part) -> Result<()> {
        self.engine.add(part);
        Ok(())
    }
}

impl<'m> Engine<'m> {
    pub fn new(model: &'m Model, placement: Placement, params: ExecutorParams) -> Result<Self> {
        Ok(Self {
            pool: Pool::new(params.n_threads)?,
            kv: KvCache::new(&model.config, params.n_ctx, params.kv_type)?,
            rotation: Rotation::new(&model.config.rope, model.weights.rope_freqs.as_deref()),
            mask: Box::new(Fired),
            audit: Audit::default(),
            audit_every: 0,
            shards: [Box::new(CpuShard::default()), Box::new(CpuShard::default())],
            stats: FfnStats::new(&model.config.n_ff),
            state: State::default(),
            model,
            placement,
            params,
        })
    }

    /// Sets how long threads keep awake without work.
    pub fn set_patience(&self, patience: Duration) {
        self.pool.set_patience(patience);
    }

    /// Takes the residual stream through `layers`.
    pub fn layers(&mut self, layers: Range<usize>, phase: Phase, observer: &mut dyn Observer) -> Result<()> {
        let model = self.model;
        pass::layers(model, layers, &mut Immediate { engine: self, phase, observer })
    }

    /// Adds a part to the residual stream.
    pub fn add(&mut self, part: Part) {
        let State { x, attn_out, ffn_out, .. } = &mut self.state;
        let y = match part {
            Part::Attention => attn_out,
            Part::Ffn => ffn_out,
        };
        x.iter_mut().zip(&*y).for_each(|(x, y)| *x += y);
    }

    /// The residual stream becomes the embeddings of `tokens`.
    pub fn embed(&mut self, tokens: &[u32]) {
        let token_embd = &self.model.weights.token_embd;
        let n_embd = token_embd.n_cols;
        self.state.x.resize(tokens.len() * n_embd, 0.0);
        // A type without a reader is refused when the matrix is loaded.
        let Ok(convert) = convert::dequantizer(token_embd.dtype()) else { return };
        for (x, token) in self.state.x.chunks_exact_mut(n_embd).zip(tokens) {
            convert(token_embd.row(*token as usize), x);
        }
    }

    pub fn normalize(&mut self, of: NormOf) {
        let (config, weights) = (&self.model.config, &self.model.weights);
        let norm = match of {
            NormOf::Attention(i) => &weights.layers[i].attn_norm,
            NormOf::Ffn(i) => weights.layers[i].ffn_norm.as_ref().unwrap_or(&weights.layers[i].attn_norm),
            NormOf::Output => &weights.output_norm,
        };
        self.state.normed.resize(self.state.x.len(), 0.0);
        normalize(config.norm, config.norm_eps, norm, &self.state.x, &mut self.state.normed);
    }

    pub fn attention(&mut self, i: usize, phase: Phase) {
        let (config, layer) = (&self.model.config, &self.model.weights.layers[i]);
        let (s, pool, isa) = (&mut self.state, &self.pool, self.params.isa);
        let (q, k, v) = (&layer.attn_q, &layer.attn_k, &layer.attn_v);
        let (n_q, n_kv) = (config.n_head * config.head_dim, config.n_head_kv * config.head_dim);
        let kinds = [q, k, v].map(|l| isa.kernels(l.weight.dtype()).act);
        let kind_out = isa.kernels(layer.attn_output.weight.dtype()).act;
        s.forms.load(&s.normed, config.n_embd, kinds);
        match phase {
            Phase::Prefill => {
                let cx = Prefill { pool, isa };
                linear(&cx, q, &s.forms, &mut s.scratch, &mut s.q);
                linear(&cx, k, &s.forms, &mut s.scratch, &mut s.k);
                linear(&cx, v, &s.forms, &mut s.scratch, &mut s.v);
            }
            Phase::Decode => {
                let qkv = s.products.all(pool, isa, &s.forms, &[&q.weight, &k.weight, &v.weight]);
                let (qs, kv) = qkv.split_at(n_q);
                let (ks, vs) = kv.split_at(n_kv);
                for (linear, out, from) in [(q, &mut s.q, qs), (k, &mut s.k, ks), (v, &mut s.v, vs)] {
                    replace(out, from);
                    add_bias(linear, out);
                }
            }
        }
        let first = self.kv.n_past();
        let tokens = s.q.chunks_exact_mut(n_q).zip(s.k.chunks_exact_mut(n_kv)).zip(s.v.chunks_exact(n_kv));
        for (t, ((q, k), v)) in tokens.enumerate() {
            self.rotation.apply(q, config.head_dim, first + t);
            self.rotation.apply(k, config.head_dim, first + t);
            self.kv.store(i, first + t, k, v);
        }
        let buffers = &mut s.attention;
        let attention = Attention { config, isa, pool, kv: &self.kv, layer: i, first, buffers };
        attention.of(&s.q, &mut s.attn);
        s.forms.load(&s.attn, n_q, [kind_out]);
        match phase {
            Phase::Prefill => {
                linear(&Prefill { pool, isa }, &layer.attn_output, &s.forms, &mut s.scratch, &mut s.attn_out);
            }
            Phase::Decode => {
                replace(&mut s.attn_out, s.products.all(pool, isa, &s.forms, &[&layer.attn_output.weight]));
                add_bias(&layer.attn_output, &mut s.attn_out);
            }
        }
    }

    pub fn ffn(&mut self, i: usize, phase: Phase, observer: &mut dyn Observer) {
        match phase {
            Phase::Prefill => self.ffn_of_batch(i, observer),
            Phase::Decode => self.ffn_of_token(i, None, Given::Nothing),
        }
    }

    /// The FFN of `normed`, many tokens.
    fn ffn_of_batch(&mut self, i: usize, observer: &mut dyn Observer) {
        let (config, s, isa) = (&self.model.config, &mut self.state, self.params.isa);
        s.ffn_out.clear();
        s.ffn_out.resize(s.normed.len(), 0.0);
        for group in &self.model.weights.layers[i].ffn {
            let kinds = [group.mask_matrix(), &group.ffn_up].map(|m| isa.kernels(m.dtype()).act);
            s.forms.load(&s.normed, config.n_embd, kinds);
            let (cx, mode) = (Prefill { pool: &self.pool, isa }, self.params.mode);
            let work = BatchWork { group, x: &s.forms, activation: config.activation.activation, mode };
            observer.ffn_input(i, &s.normed);
            ffn::batch(&cx, &work, &mut s.ffn, &mut s.scratch, &mut s.ffn_out);
            observer.ffn(i, &s.ffn.act, &s.ffn.h);
        }
    }

    /// The FFN of `normed`, one token: both shards, or where `cold_from` says so just the neurons from there on, since
    /// those before are computed elsewhere. `given` is what is known of the cold ones.
    pub fn ffn_of_token(&mut self, i: usize, cold_from: Option<usize>, given: Given) {
        let (config, s, isa) = (&self.model.config, &mut self.state, self.params.isa);
        s.ffn_out.clear();
        s.ffn_out.resize(s.normed.len(), 0.0);
        for group in &self.model.weights.layers[i].ffn {
            let predictor = group.predictor.as_ref().filter(|_| self.params.mode == Mode::Predicted);
            let matrices = [group.mask_matrix(), &group.ffn_up].into_iter().chain(predictor.and_then(|p| p.input()));
            s.forms.load(&s.normed, config.n_embd, matrices.map(|m| isa.kernels(m.dtype()).act));
            let activation = config.activation.activation;
            let (hot, cold) = match (cold_from, self.placement.scattered(i)) {
                (Some(n_hot), _) => (Slots::Range(0..0), Slots::Range(n_hot..group.n_ff())),
                (None, Some((hot, cold))) => (Slots::List(hot), Slots::List(cold)),
                (None, None) => {
                    let n_hot = self.placement.n_hot(i);
                    (Slots::Range(0..n_hot), Slots::Range(n_hot..group.n_ff()))
                }
            };
            // Hot neurons are computed by their true mask.
            let parts = [(hot, None, Given::Nothing), (cold.clone(), predictor, given)];
            let work = parts.map(|(slots, predictor, given)| FfnWork {
                layer: i,
                group,
                x: &s.forms,
                activation,
                mode: self.params.mode,
                mask: &*self.mask,
                predictor,
                given,
                slots,
                pool: &self.pool,
                isa,
            });
            for (shard, work) in self.shards.iter_mut().zip(&work) {
                shard.begin(work);
            }
            for (shard, work) in self.shards.iter_mut().zip(&work) {
                let computed = shard.add_into(work, &mut s.ffn_out);
                self.stats.add(i, computed);
            }
            let every = self.audit_every;
            // Where somebody else knows who fires, nobody is missed.
            let asked = predictor.filter(|_| !matches!(given, Given::Fired(..)));
            if let Some(predictor) = asked.filter(|_| every > 0 && self.stats.n_tokens().is_multiple_of(every)) {
                let (x, pool, slots) = (&s.forms, &self.pool, cold);
                let recall = self.audit.recall(&AuditWork { group, predictor, slots, x, activation, pool, isa });
                self.stats.add_recall(i, recall);
            }
        }
    }

    /// Logits of the last token, or of all that the observer wants; `first` is the position of the first one.
    pub fn output(&mut self, n_tokens: usize, first: usize, phase: Phase, observer: &mut dyn Observer) {
        let (s, isa) = (&mut self.state, self.params.isa);
        let head: &Matrix = self.model.weights.head();
        let n_embd = head.n_cols;
        let skipped = if observer.wants_logits() { 0 } else { n_tokens - 1 };
        s.forms.load(&s.normed[skipped * n_embd..], n_embd, [isa.kernels(head.dtype()).act]);
        match phase {
            Phase::Prefill => {
                matmul(&Prefill { pool: &self.pool, isa }, head, &s.forms, &mut s.scratch, &mut s.logits);
            }
            Phase::Decode => replace(&mut s.logits, s.products.all(&self.pool, isa, &s.forms, &[head])),
        }
        if observer.wants_logits() {
            for (t, logits) in s.logits.chunks_exact(head.n_rows).enumerate() {
                observer.logits(first + t, logits);
            }
            s.logits.drain(..(n_tokens - 1) * head.n_rows);
        }
    }
}

fn replace(to: &mut Vec<f32>, from: &[f32]) {
    to.clear();
    to.extend_from_slice(from);
}
