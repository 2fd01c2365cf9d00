//! Runs a model densely over calibration texts and counts what fires.

use super::checkpoint::{self, Checkpoint};
use super::choice::{SampleChoice, marks};
use super::counter::{Counter, Gathered, Marks, has_routers, sizes_computed_always};
use super::file::Profile;
use super::fingerprint::{Fingerprint, hex};
use super::fired_sets::{self, FiredSets};
use super::samples::Samples;
use super::setup::{Setup, State};
use super::unions::{Counted, SIZES};
use super::windows::{self, Cut, Window};
use crate::cpu::Isa;
use crate::executor::{Executor, ExecutorParams, KvType, Mode};
use crate::model::Model;
use crate::placement::Placement;
use crate::progress::{self, Interrupted, Progress};
use crate::tokenizer::Tokenizer;
use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

pub use super::setup::CollectParams;
pub use super::windows::{CorpusPart, Text};

/// Tokens that prefill computes at once.
const N_UBATCH: usize = 64;
/// The same where routers choose: the more tokens there are, the more of them share what is read of a group.
const N_UBATCH_ROUTED: usize = 512;
// No block of consecutive tokens is divided between batches.
const _: () = assert!(N_UBATCH.is_multiple_of(SIZES[SIZES.len() - 1]) && N_UBATCH_ROUTED.is_multiple_of(N_UBATCH));

/// A profile over `texts`, without checkpoints.
///
/// # Errors
/// As [`Profiling::over_texts`] and [`Profiling::run`].
pub fn collect(
    model: &Model,
    tokenizer: &Tokenizer,
    texts: &[Text],
    params: &CollectParams,
    progress: &dyn Progress,
) -> Result<Collected> {
    Profiling::over_texts(model, tokenizer, texts, params.clone(), progress)?.run(None, progress)
}

/// A profile, and what else came of making it.
pub struct Collected {
    /// The counts.
    pub profile: Profile,
    /// FFN inputs, where they were asked for.
    pub samples: Option<Samples>,
}

/// A profile to be made.
pub struct Profiling<'m> {
    setup: Setup<'m>,
    state: State,
}

impl<'m> Profiling<'m> {
    /// A profile over `texts`.
    ///
    /// # Errors
    /// When a text is empty, the part has no window, or the user stops it.
    pub fn over_texts(
        model: &'m Model,
        tokenizer: &Tokenizer,
        texts: &[Text],
        params: CollectParams,
        progress: &dyn Progress,
    ) -> Result<Self> {
        Self::new(model, params, |cut, _| windows::of_texts(tokenizer, texts, cut, progress))
    }

    /// A profile over `n` random tokens, for a model that has no tokenizer.
    ///
    /// # Errors
    /// When the part has no window.
    pub fn over_random_tokens(model: &'m Model, n: u64, params: CollectParams) -> Result<Self> {
        let n_vocab = model.config.n_vocab;
        Self::new(model, params, |cut, seed| windows::of_random_tokens(n, n_vocab, seed, cut))
    }

    fn new(
        model: &'m Model,
        params: CollectParams,
        windows: impl FnOnce(&Cut, u64) -> Result<Vec<Window>>,
    ) -> Result<Self> {
        let CollectParams { n_ctx, max_tokens, special, part, seed, n_samples, .. } = params;
        ensure!(n_ctx >= 2, "-c {n_ctx}: windows need at least 2 tokens");
        let windows = windows(&Cut { n_ctx, max_tokens, special, part }, seed)?;
        let sampled = |capacity| {
            let mut choice = SampleChoice::new(seed, capacity);
            windows.iter().for_each(|w| choice.offer(w.text, w.positions()));
            choice.keys()
        };
        let capacity = fired_sets::capacity(&sizes_computed_always(model));
        let sets = FiredSets { seed, capacity, keys: sampled(capacity), bits: Vec::new() };
        let samples =
            (n_samples > 0).then(|| Samples { seed, capacity: n_samples, keys: sampled(n_samples), x: Vec::new() });
        let of_window = |w: &Window| {
            let find = |keys| marks(keys, seed, w.text, w.positions());
            Marks { fired_sets: find(&sets.keys), samples: samples.as_ref().map_or_else(Vec::new, |s| find(&s.keys)) }
        };
        let fingerprint = Fingerprint::of(model)?;
        let setup = Setup {
            marks: windows.iter().map(of_window).collect(),
            about: about(model, &fingerprint, &params, &windows),
            model,
            params,
            fingerprint,
            windows,
        };
        let done = vec![false; setup.windows.len()];
        Ok(Self { setup, state: State { gathered: Gathered::new(model, sets, samples), done } })
    }

    /// The tokens of the windows.
    pub fn windows(&self) -> impl Iterator<Item = &[u32]> {
        self.setup.windows.iter().map(|window| &*window.tokens)
    }

    /// Tokens of windows that are not done, those that are not counted among them.
    pub fn n_left(&self) -> u64 {
        let left = self.setup.windows.iter().zip(&self.state.done).filter(|(_, done)| !**done);
        left.map(|(window, _)| window.tokens.len() as u64).sum()
    }

    /// Goes on from the checkpoint at `path`, where there is one: the windows that are done, and of how many.
    ///
    /// # Errors
    /// When the checkpoint is damaged or of another job.
    pub fn resume(&mut self, path: &Path) -> Result<Option<(usize, usize)>> {
        let Some(done) = checkpoint::read(path, &self.setup, &mut self.state.gathered)? else { return Ok(None) };
        self.state.done = done;
        Ok(Some((self.state.done.iter().filter(|d| **d).count(), self.state.done.len())))
    }

    /// Runs the model. The result depends on model and texts only, not on threads, nor on having been
    /// resumed.
    ///
    /// # Errors
    /// When the model computes something that is no number, a checkpoint cannot be written, or the user stops it; what
    /// is done is then in the checkpoint.
    pub fn run(self, checkpoint: Option<Checkpoint>, progress: &dyn Progress) -> Result<Collected> {
        let Self { setup, state } = self;
        let shared = Mutex::new(Shared { state, checkpoint });
        let result = setup.count_all(&shared, progress);
        let mut shared = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = result {
            // Counts that have a part of a window in them are of no use.
            let whole = !shared.state.gathered.taken;
            if let (true, true, Some(checkpoint)) = (whole, error.is::<Interrupted>(), &mut shared.checkpoint) {
                checkpoint.write(&setup, &shared.state)?;
            }
            return Err(error);
        }
        let Gathered { counts, fired_sets, samples, .. } = shared.state.gathered;
        let config = &setup.model.config;
        let profile = Profile {
            fingerprint: setup.fingerprint,
            arch: config.arch.clone(),
            name: config.name.clone(),
            activation: config.activation.activation.to_string(),
            texts: windows::profiled(&setup.windows, setup.params.n_ctx),
            groups: counts.groups,
            layer_of: setup.model.weights.groups().map(|(layer, _)| layer as u32).collect(),
            reuse: Some(counts.reuse),
            routers: counts.routers,
            fired_sets: Some(fired_sets),
            unions: Some(counts.unions),
            thresholds: None,
        };
        Ok(Collected { profile, samples })
    }
}

impl Setup<'_> {
    /// Windows that are computed at the same time, and threads for each. A batch in which a router chooses reads almost all
    /// of the weights, so one window at a time gets all threads: each thread with a window of its own would have its own
    /// pace through a file that may not fit in memory.
    fn division(&self) -> (usize, usize) {
        if has_routers(self.model) { (1, self.params.n_threads) } else { (self.params.n_threads, 1) }
    }

    /// Tokens that are computed at once. No bit depends on it.
    fn n_ubatch(&self) -> usize {
        if has_routers(self.model) { N_UBATCH_ROUTED } else { N_UBATCH }
    }

    fn count_all(&self, shared: &Mutex<Shared>, progress: &dyn Progress) -> Result<()> {
        let todo: Vec<usize> = {
            let done = &shared.lock().unwrap_or_else(PoisonError::into_inner).state.done;
            (0..done.len()).filter(|i| !done[*i]).collect()
        };
        progress.begin("profiling", todo.iter().map(|i| self.windows[*i].tokens.len() as u64).sum());
        let crew = Crew { todo, next: AtomicUsize::new(0), failed: AtomicBool::new(false) };
        let workers = self.division().0.clamp(1, crew.todo.len().max(1));
        std::thread::scope(|scope| {
            let work = |_| scope.spawn(|| self.count(&crew, shared, progress));
            let threads: Vec<_> = (0..workers).map(work).collect();
            let join = |t: std::thread::ScopedJoinHandle<_>| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
            // All are waited for, whatever the first says.
            let results: Vec<Result<()>> = threads.into_iter().map(join).collect();
            results.into_iter().collect()
        })
    }

    /// Counts windows until there are no more.
    fn count(&self, crew: &Crew, shared: &Mutex<Shared>, progress: &dyn Progress) -> Result<()> {
        let result = self.count_windows(crew, shared, progress);
        if result.is_err() {
            crew.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    fn count_windows(&self, crew: &Crew, shared: &Mutex<Shared>, progress: &dyn Progress) -> Result<()> {
        let nothing = Marks::default();
        let n_ubatch = self.n_ubatch();
        let mut counter = Counter::new(self.model, &nothing);
        let setup = ExecutorParams {
            n_threads: self.division().1,
            n_ctx: self.params.n_ctx,
            kv_type: KvType::F32,
            mode: Mode::Dense,
            n_ubatch,
            isa: Isa::detect(),
        };
        let mut executor = Executor::new(self.model, Placement::all_cold(self.model), setup)?;
        while let Some(i) = crew.todo.get(crew.next.fetch_add(1, Ordering::Relaxed)) {
            let window = &self.windows[*i];
            progress::check(progress)?;
            executor.clear();
            let counted = Counted { first: window.skipped, end: window.tokens.len() };
            counter.begin(counted, window.second_half, &self.marks[*i]);
            counter.go_on_from(&mut shared.lock().unwrap_or_else(PoisonError::into_inner).state.gathered);
            for chunk in window.tokens.chunks(n_ubatch) {
                progress::check(progress)?;
                if crew.failed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                executor.prefill_observed(chunk, &mut counter)?;
                ensure!(
                    !counter.not_finite,
                    "the model computes values that are not finite numbers; are its weights whole?"
                );
                ensure!(!counter.overflow, "the model has more activity than can be counted");
                counter.advance(chunk.len());
                progress.advance(chunk.len() as u64);
            }
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.finish(self, *i, &mut counter)?;
        }
        Ok(())
    }
}

/// Which thread does which window.
struct Crew {
    todo: Vec<usize>,
    next: AtomicUsize,
    /// One has failed: the others need not go on.
    failed: AtomicBool,
}

/// What the threads add to.
struct Shared {
    state: State,
    checkpoint: Option<Checkpoint>,
}

impl Shared {
    fn finish(&mut self, setup: &Setup, window: usize, counter: &mut Counter) -> Result<()> {
        let Self { state, checkpoint } = self;
        state.gathered.add(counter)?;
        state.done[window] = true;
        checkpoint.as_mut().map_or(Ok(()), |c| c.finished(setup, state))
    }
}

/// What tells this job from others, flags by their names.
fn about(
    model: &Model,
    fingerprint: &Fingerprint,
    params: &CollectParams,
    windows: &[Window],
) -> Vec<(String, String)> {
    let CollectParams { n_ctx, max_tokens, part, seed, n_samples, .. } = params;
    let mut tokens = Sha256::new();
    for window in windows {
        tokens.update(window.text);
        [window.first, window.skipped as u64, window.tokens.len() as u64]
            .iter()
            .for_each(|n| tokens.update(n.to_le_bytes()));
        window.tokens.iter().for_each(|t| tokens.update(t.to_le_bytes()));
    }
    let list = [
        ("model", fingerprint.hex()),
        ("activation", model.config.activation.activation.to_string()),
        ("-c", n_ctx.to_string()),
        ("--tokens", max_tokens.map_or_else(|| "not given".to_owned(), |n| n.to_string())),
        ("--shard", part.to_string()),
        ("--seed", seed.to_string()),
        ("--samples", n_samples.to_string()),
        ("text", hex(&tokens.finalize())),
        // Another rounding is another profile, if only by a neuron here and there.
        ("instruction set", Isa::detect().to_string()),
        ("program's version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    list.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
