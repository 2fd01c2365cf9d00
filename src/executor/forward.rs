//! The forward pass. Read this first: everything else in the executor serves it.

use super::attention::{Attention, AttentionBuffers, Rotation};
use super::audit::{Audit, AuditWork};
use super::ffn::{self, BatchBuffers, BatchWork, CpuShard, FfnShard, FfnWork, Fired, MaskSource, Mode, Slots};
use super::kv_cache::{KvCache, KvType};
use super::linear::{Prefill, Scratch, add_bias, linear, matmul};
use super::matvec::MatVec;
use super::norm::normalize;
use super::stats::FfnStats;
use crate::cpu::{Activations, Isa, Pool};
use crate::model::{Layer, Matrix, Model, Norm, Residual};
use crate::placement::Placement;
use crate::quant::convert;
use anyhow::{Result, ensure};

/// How a model is to be run.
#[derive(Debug, Clone)]
pub struct ExecutorParams {
    /// Threads for computing.
    pub n_threads: usize,
    /// Tokens that the KV cache holds.
    pub n_ctx: usize,
    /// Type of the KV cache.
    pub kv_type: KvType,
    /// What decode computes of the FFN.
    pub mode: Mode,
    /// Tokens that prefill computes at once.
    pub n_ubatch: usize,
    /// Instruction set of the kernels.
    pub isa: Isa,
}

/// Watches a prefill.
pub trait Observer {
    /// `[n_tokens][n_embd]` normalised inputs of a layer's FFN.
    fn ffn_input(&mut self, _layer: usize, _x: &[f32]) {}
    /// `[n_tokens][n_ff]` activations of a layer, and the values that `down` is multiplied with, both by slot.
    fn ffn(&mut self, _layer: usize, _act: &[f32], _h: &[f32]) {}
    /// Whether [`Observer::logits`] is to be called.
    fn wants_logits(&self) -> bool {
        false
    }
    /// The logits after the token at `position` (`[n_vocab]`).
    fn logits(&mut self, _position: usize, _logits: &[f32]) {}
}

struct Unobserved;

impl Observer for Unobserved {}

/// Runs one sequence of tokens through a model.
pub struct Executor<'m> {
    model: &'m Model,
    placement: Placement,
    params: ExecutorParams,
    pool: Pool,
    kv: KvCache,
    rotation: Rotation,
    mask: Box<dyn MaskSource>,
    /// Finds what predictors miss, for every so many tokens; 0 for none.
    audit: (Audit, u64),
    shards: [Box<dyn FfnShard>; 2],
    stats: FfnStats,
    state: State,
}

/// Buffers of the pass; `[n_tokens][...]` each.
#[derive(Default)]
struct State {
    x: Vec<f32>,
    normed: Vec<f32>,
    forms: Activations,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attention: AttentionBuffers,
    attn: Vec<f32>,
    attn_out: Vec<f32>,
    ffn_out: Vec<f32>,
    ffn: BatchBuffers,
    logits: Vec<f32>,
    scratch: Scratch,
    products: MatVec,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Prefill,
    Decode,
}

impl<'m> Executor<'m> {
    /// Sets up a run of `model` under `placement`.
    ///
    /// # Errors
    /// When threads or memory cannot be had, or the mode asks for a predictor and there is none.
    pub fn new(model: &'m Model, placement: Placement, params: ExecutorParams) -> Result<Self> {
        ensure!(params.n_ubatch > 0, "-ub 0: a batch needs at least one token");
        params.mode.check(model)?;
        let rotation = Rotation::new(&model.config.rope, model.weights.rope_freqs.as_deref());
        Ok(Self {
            pool: Pool::new(params.n_threads)?,
            kv: KvCache::new(&model.config, params.n_ctx, params.kv_type)?,
            rotation,
            mask: Box::new(Fired),
            audit: (Audit::default(), 0),
            shards: [Box::new(CpuShard::default()), Box::new(CpuShard::default())],
            stats: FfnStats::new(&model.config.n_ff),
            state: State::default(),
            model,
            placement,
            params,
        })
    }

    /// Replaces the source of masks in [`Mode::Exact`].
    pub fn set_mask(&mut self, mask: Box<dyn MaskSource>) {
        self.mask = mask;
    }

    /// In [`Mode::Predicted`], computes the full mask of one in `every` tokens beside what is asked for, to count what
    /// the predictors miss; 0 for never.
    pub fn set_audit(&mut self, every: u64) {
        self.audit.1 = every;
    }

    /// The KV cache.
    pub fn kv(&self) -> &KvCache {
        &self.kv
    }

    /// Forgets everything after the first `n_past` tokens.
    pub fn truncate(&mut self, n_past: usize) {
        self.kv.truncate(n_past);
    }

    /// How the run was set up.
    pub fn params(&self) -> &ExecutorParams {
        &self.params
    }

    /// What fired during decode so far.
    pub fn stats(&self) -> &FfnStats {
        &self.stats
    }

    /// Forgets what fired.
    pub fn reset_stats(&mut self) {
        self.stats = FfnStats::new(&self.model.config.n_ff);
    }

    /// Takes in `tokens` at once and returns the logits after the last one (`[n_vocab]`).
    ///
    /// # Errors
    /// When there are none, one is not in the vocabulary, or they do not fit in the context.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        self.prefill_observed(tokens, &mut Unobserved)
    }

    /// [`Executor::prefill`], watched.
    ///
    /// # Errors
    /// As [`Executor::prefill`].
    pub fn prefill_observed(&mut self, tokens: &[u32], observer: &mut dyn Observer) -> Result<&[f32]> {
        self.check(tokens)?;
        for chunk in tokens.chunks(self.params.n_ubatch) {
            self.forward(chunk, Phase::Prefill, observer);
        }
        Ok(&self.state.logits)
    }

    /// Takes in one token and returns the logits after it (`[n_vocab]`).
    ///
    /// # Errors
    /// When it is not in the vocabulary or the context is full.
    pub fn decode(&mut self, token: u32) -> Result<&[f32]> {
        self.check(&[token])?;
        self.forward(&[token], Phase::Decode, &mut Unobserved);
        Ok(&self.state.logits)
    }

    fn check(&self, tokens: &[u32]) -> Result<()> {
        ensure!(!tokens.is_empty(), "no tokens to compute");
        let n_vocab = self.model.config.n_vocab;
        if let Some(token) = tokens.iter().find(|t| **t as usize >= n_vocab) {
            anyhow::bail!("token {token} is not in the model's vocabulary of {n_vocab}");
        }
        let (n, n_ctx) = (self.kv.n_past() + tokens.len(), self.kv.n_ctx());
        ensure!(n <= n_ctx, "{n} tokens do not fit in a context of {n_ctx}; raise -c");
        Ok(())
    }

    fn forward(&mut self, tokens: &[u32], phase: Phase, observer: &mut dyn Observer) {
        let model = self.model;
        let weights = &model.weights;
        self.embed(&weights.token_embd, tokens);
        for (i, layer) in weights.layers.iter().enumerate() {
            self.normalize(&layer.attn_norm);
            self.attention(i, layer, phase);
            if let (Residual::Serial, Some(ffn_norm)) = (model.config.residual, &layer.ffn_norm) {
                add(&mut self.state.x, &self.state.attn_out);
                self.normalize(ffn_norm);
                self.ffn(i, layer, phase, observer);
                add(&mut self.state.x, &self.state.ffn_out);
            } else {
                self.ffn(i, layer, phase, observer);
                add(&mut self.state.x, &self.state.attn_out);
                add(&mut self.state.x, &self.state.ffn_out);
            }
        }
        self.normalize(&weights.output_norm);
        let first = self.kv.n_past();
        self.kv.advance(tokens.len());
        self.output(weights.head(), tokens.len(), first, phase, observer);
    }

    fn embed(&mut self, token_embd: &Matrix, tokens: &[u32]) {
        let n_embd = token_embd.n_cols;
        self.state.x.resize(tokens.len() * n_embd, 0.0);
        // A type without a reader is refused when the matrix is loaded.
        let Ok(convert) = convert::dequantizer(token_embd.dtype()) else { return };
        for (x, token) in self.state.x.chunks_exact_mut(n_embd).zip(tokens) {
            convert(token_embd.row(*token as usize), x);
        }
    }

    fn normalize(&mut self, norm: &Norm) {
        let config = &self.model.config;
        self.state.normed.resize(self.state.x.len(), 0.0);
        normalize(config.norm, config.norm_eps, norm, &self.state.x, &mut self.state.normed);
    }

    fn attention(&mut self, i: usize, layer: &Layer, phase: Phase) {
        let (config, s, pool, isa) = (&self.model.config, &mut self.state, &self.pool, self.params.isa);
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

    fn ffn(&mut self, i: usize, layer: &Layer, phase: Phase, observer: &mut dyn Observer) {
        let (config, s, isa) = (&self.model.config, &mut self.state, self.params.isa);
        s.ffn_out.clear();
        s.ffn_out.resize(s.x.len(), 0.0);
        for group in &layer.ffn {
            let predictor = group.predictor.as_ref().filter(|_| self.params.mode == Mode::Predicted);
            let matrices = [group.mask_matrix(), &group.ffn_up].into_iter().chain(predictor.and_then(|p| p.input()));
            s.forms.load(&s.normed, config.n_embd, matrices.map(|m| isa.kernels(m.dtype()).act));
            let activation = config.activation.activation;
            if phase == Phase::Prefill {
                let (cx, mode) = (Prefill { pool: &self.pool, isa }, self.params.mode);
                let work = BatchWork { group, x: &s.forms, activation, mode };
                observer.ffn_input(i, &s.normed);
                ffn::batch(&cx, &work, &mut s.ffn, &mut s.scratch, &mut s.ffn_out);
                observer.ffn(i, &s.ffn.act, &s.ffn.h);
                continue;
            }
            let (hot, cold) = match self.placement.scattered(i) {
                Some((hot, cold)) => (Slots::List(hot), Slots::List(cold)),
                None => {
                    let n_hot = self.placement.n_hot(i);
                    (Slots::Range(0..n_hot), Slots::Range(n_hot..group.n_ff()))
                }
            };
            // Hot neurons are computed by their true mask.
            let work = [(hot, None), (cold.clone(), predictor)].map(|(slots, predictor)| FfnWork {
                layer: i,
                group,
                x: &s.forms,
                activation,
                mode: self.params.mode,
                mask: &*self.mask,
                predictor,
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
            let (audit, every) = &mut self.audit;
            if let Some(predictor) = predictor.filter(|_| *every > 0 && self.stats.n_tokens().is_multiple_of(*every)) {
                let (x, pool, slots) = (&s.forms, &self.pool, cold);
                let recall = audit.recall(&AuditWork { group, predictor, slots, x, activation, pool, isa });
                self.stats.add_recall(i, recall);
            }
        }
        if phase == Phase::Decode && i + 1 == config.n_layer {
            self.stats.end_token();
        }
    }

    /// Logits of the last token, or of all that the observer wants.
    fn output(&mut self, head: &Matrix, n_tokens: usize, first: usize, phase: Phase, observer: &mut dyn Observer) {
        let (s, isa) = (&mut self.state, self.params.isa);
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

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
