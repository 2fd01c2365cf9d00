//! Runs a model densely over calibration texts and counts what fires.

use super::file::{Profile, ProfiledText};
use super::fingerprint::Fingerprint;
use super::{LayerCounts, MASS_ONE};
use crate::cpu::Isa;
use crate::executor::{Executor, ExecutorParams, KvType, Mode, Observer};
use crate::model::{Activation, Model, NeuronId};
use crate::placement::Placement;
use crate::progress::{self, Progress};
use crate::tokenizer::{Special, Tokenizer};
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Tokens that prefill computes at once.
const N_UBATCH: usize = 64;
/// Texts are tokenized in pieces of about this many bytes, cut after a newline, to bound memory.
const PIECE_BYTES: usize = 1 << 20;
/// Mass of one neuron for one token is capped here, so that sums over any corpus fit in 64 bits.
const MAX_MASS: f64 = 1e6;

/// A calibration text with the name it is known by in messages.
pub struct Text {
    /// Path, for messages.
    pub name: String,
    /// Contents.
    pub text: String,
}

/// How to profile.
pub struct CollectParams {
    /// Length of the windows that texts are cut into, in tokens.
    pub n_ctx: usize,
    /// Tokens to use at most, shared evenly between the texts.
    pub max_tokens: Option<u64>,
    /// Windows computed at the same time.
    pub n_threads: usize,
    /// Whether special tokens written in the texts count as such.
    pub special: Special,
}

/// A profile, and what it says about the activation function.
pub struct Collected {
    /// The counts.
    pub profile: Profile,
    /// A doubt whether the model was run with the right activation function.
    pub warning: Option<String>,
}

struct Window {
    tokens: Vec<u32>,
    /// Leading tokens that are not counted: BOS.
    skipped: usize,
}

/// Counts firings over `texts`. The result depends on model and texts only, not on threads.
///
/// # Errors
/// When a text is empty, the model computes something that is no number, or the user stops it.
pub fn collect(
    model: &Model,
    tokenizer: &Tokenizer,
    texts: &[Text],
    params: &CollectParams,
    progress: &dyn Progress,
) -> Result<Collected> {
    ensure!(params.n_ctx >= 2, "-c {}: windows need at least 2 tokens", params.n_ctx);
    progress.begin("tokenizing", texts.iter().map(|t| t.text.len() as u64).sum());
    let mut left = params.max_tokens.unwrap_or(u64::MAX);
    let (mut windows, mut profiled) = (Vec::new(), Vec::new());
    for (i, text) in texts.iter().enumerate() {
        // What a short text leaves goes to those after it.
        let mut share = left.div_ceil((texts.len() - i) as u64);
        let n = cut(tokenizer, text, params, &mut share, &mut windows, progress).with_context(|| text.name.clone())?;
        left -= n;
        if n > 0 {
            let sha256 = Sha256::digest(&text.text).into();
            profiled.push(ProfiledText { sha256, n_tokens: n, n_ctx: params.n_ctx as u32 });
        }
    }
    ensure!(!windows.is_empty(), "no tokens to profile; --tokens must be at least 1");
    profiled.sort();

    progress.begin("profiling", windows.iter().map(|w| w.tokens.len() as u64).sum());
    let next = AtomicUsize::new(0);
    let workers = params.n_threads.clamp(1, windows.len());
    let counted: Vec<Result<Counter>> = std::thread::scope(|scope| {
        let spawn = |_| scope.spawn(|| count(model, &windows, &next, params, progress));
        let threads: Vec<_> = (0..workers).map(spawn).collect();
        let join = |t: std::thread::ScopedJoinHandle<_>| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
        threads.into_iter().map(join).collect()
    });
    let mut total = Counter::new(model);
    for counter in counted {
        total.add(&counter?);
    }
    let warning = total.doubt(model);
    let config = &model.config;
    let profile = Profile {
        fingerprint: Fingerprint::of(model)?,
        arch: config.arch.name.to_owned(),
        name: config.name.clone(),
        activation: config.activation.activation.to_string(),
        texts: profiled,
        layers: total.layers,
    };
    Ok(Collected { profile, warning })
}

/// Cuts a text into windows; returns the tokens that will be counted.
fn cut(
    tokenizer: &Tokenizer,
    text: &Text,
    params: &CollectParams,
    left: &mut u64,
    windows: &mut Vec<Window>,
    progress: &dyn Progress,
) -> Result<u64> {
    ensure!(!text.text.trim().is_empty(), "the text is empty");
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let skipped = usize::from(bos.is_some());
    let mut counted = 0;
    let mut rest = text.text.as_str();
    while !rest.is_empty() && *left > 0 {
        progress::check(progress)?;
        let (piece, tail) = rest.split_at(piece_len(rest));
        rest = tail;
        let ids = tokenizer.encode(piece, params.special)?;
        progress.advance(piece.len() as u64);
        for chunk in ids.chunks(params.n_ctx - skipped) {
            let n = chunk.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            if n == 0 {
                break;
            }
            let tokens: Vec<u32> = bos.into_iter().chain(chunk[..n].iter().copied()).collect();
            windows.push(Window { tokens, skipped });
            *left -= n as u64;
            counted += n as u64;
        }
    }
    Ok(counted)
}

fn piece_len(text: &str) -> usize {
    if text.len() <= PIECE_BYTES {
        return text.len();
    }
    let end = text.floor_char_boundary(PIECE_BYTES);
    text[..end].rfind('\n').map_or(end, |at| at + 1)
}

fn count(
    model: &Model,
    windows: &[Window],
    next: &AtomicUsize,
    params: &CollectParams,
    progress: &dyn Progress,
) -> Result<Counter> {
    let mut counter = Counter::new(model);
    let setup = ExecutorParams {
        n_threads: 1,
        n_ctx: params.n_ctx,
        kv_type: KvType::F32,
        mode: Mode::Dense,
        n_ubatch: N_UBATCH,
        isa: Isa::detect(),
    };
    let mut executor = Executor::new(model, Placement::all_cold(model), setup)?;
    while let Some(window) = windows.get(next.fetch_add(1, Ordering::Relaxed)) {
        executor.truncate(0);
        counter.skip = window.skipped;
        for chunk in window.tokens.chunks(N_UBATCH) {
            progress::check(progress)?;
            executor.prefill_observed(chunk, &mut counter)?;
            ensure!(
                !counter.not_finite,
                "the model computes values that are not finite numbers; are its weights whole?"
            );
            counter.skip = 0;
            progress.advance(chunk.len() as u64);
        }
    }
    Ok(counter)
}

struct Counter {
    /// By layer; within a layer by neuron.
    layers: Vec<LayerCounts>,
    /// By layer, then slot: which neuron it is.
    ids: Vec<Vec<NeuronId>>,
    skip: usize,
    not_finite: bool,
    n_values: u64,
    n_negative: u64,
}

impl Counter {
    fn new(model: &Model) -> Self {
        let ids = model.weights.layers.iter().map(|layer| {
            let group = &layer.ffn[0];
            match &group.index {
                Some(index) => index.ids().to_vec(),
                None => (0..group.n_ff() as u32).map(NeuronId).collect(),
            }
        });
        Self {
            layers: model.config.n_ff.iter().map(|n| LayerCounts::new(*n)).collect(),
            ids: ids.collect(),
            skip: 0,
            not_finite: false,
            n_values: 0,
            n_negative: 0,
        }
    }

    fn add(&mut self, other: &Self) {
        for (a, b) in self.layers.iter_mut().zip(&other.layers) {
            a.fired.iter_mut().zip(&b.fired).for_each(|(a, b)| *a += b);
            a.mass.iter_mut().zip(&b.mass).for_each(|(a, b)| *a += b);
        }
        self.n_values += other.n_values;
        self.n_negative += other.n_negative;
    }

    fn doubt(&self, model: &Model) -> Option<String> {
        let activation = model.config.activation.activation;
        let fired: u64 = self.layers.iter().flat_map(|l| &l.fired).sum();
        let zeros = 1.0 - fired as f64 / self.n_values as f64;
        let negative = self.n_negative as f64 / self.n_values as f64;
        if activation.is_sparse() && zeros < 0.05 {
            return Some(format!(
                "activation {activation} gave zero for only {:.1} % of neurons: is this a {activation} model?",
                100.0 * zeros
            ));
        }
        if activation == Activation::Silu && negative > 0.8 {
            return Some(format!(
                "{:.0} % of the gates are negative, as in a model trained with ReLU; if it is one, give --activation relu",
                100.0 * negative
            ));
        }
        None
    }
}

impl Observer for Counter {
    fn ffn(&mut self, layer: usize, act: &[f32], h: &[f32]) {
        let (counts, ids) = (&mut self.layers[layer], &self.ids[layer]);
        let n_ff = ids.len();
        for (act, h) in act.chunks_exact(n_ff).zip(h.chunks_exact(n_ff)).skip(self.skip) {
            self.n_values += n_ff as u64;
            for ((a, h), id) in act.iter().zip(h).zip(ids) {
                self.not_finite |= !(a.is_finite() && h.is_finite());
                if *a != 0.0 {
                    let id = id.0 as usize;
                    counts.fired[id] += 1;
                    counts.mass[id] += (f64::from(h.abs()).min(MAX_MASS) * MASS_ONE).round() as u64;
                    self.n_negative += u64::from(*a < 0.0);
                }
            }
        }
    }
}
