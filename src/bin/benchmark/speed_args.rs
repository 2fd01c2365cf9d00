//! Which tests: lengths, settings, and how often.

use super::cache_types::CacheTypes;
use crate::common::{default_threads, warn_of_threads};
use anyhow::{Context, Result, ensure};
use powerinfer::executor::{KvType, Mode};
use powerinfer::measure::columns::{USUAL_BATCH, USUAL_UBATCH};
use powerinfer::measure::lists::{Numbers, Pair};
use powerinfer::measure::speed::Test;

/// What to measure. Lists of one flag are taken with those of all others.
#[derive(clap::Args)]
pub struct SpeedArgs {
    /// Prompt lengths of pp tests; 0 for none. Lists, here and below, are 128,512 or 1-4 or 512-2048+256 or 512-4096*2, and
    /// flags that are repeated [default: 512, or 0 with --perplexity or --kl]
    #[arg(short = 'p', long, value_name = "N,N")]
    pub n_prompt: Vec<Numbers>,
    /// Lengths of tg tests; 0 for none [default: 128, or 0 with --perplexity or --kl]
    #[arg(short = 'n', long, value_name = "N,N")]
    pub n_gen: Vec<Numbers>,
    /// A prompt and an answer in one test (-pg), as in -pg 512,128
    #[arg(long, value_name = "PROMPT,ANSWER")]
    pub pg: Vec<Pair>,
    /// Tokens that are in the context before the clock starts
    #[arg(short = 'd', long, value_name = "N,N")]
    pub n_depth: Vec<Numbers>,
    /// Sequences at once (-np): each test is of so many, with a text of its own for each; tokens and speeds are those of all
    /// of them together [default: 1]
    #[arg(long, value_name = "N,N")]
    pub parallel: Vec<Numbers>,
    /// Repetitions of each speed test [default: 5]
    #[arg(short, long, value_name = "N")]
    pub repetitions: Option<usize>,
    /// Measure the first run of each test, too; without a warm-up the density of prompts is not known
    #[arg(long)]
    pub no_warmup: bool,
    /// Seconds to wait before each test
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub delay: f64,
    /// Threads; -1 for all cores, of several kinds the fast ones [default: -1]
    #[arg(short, long, value_name = "N,N", allow_negative_numbers = true, value_parser = threads)]
    pub threads: Vec<Numbers>,
    /// Tokens that prefill computes at once (-ub): larger batches are faster on long prompts, and for a 7B model take about
    /// 0.4 MB of memory per token [default: 512]
    #[arg(long, value_name = "N,N")]
    pub ubatch_size: Vec<Numbers>,
    /// For compatibility with llama.cpp: an upper limit on -ub [default: 2048, or -ub where that is more]
    #[arg(short, long, value_name = "N,N")]
    pub batch_size: Vec<Numbers>,
    #[command(flatten)]
    pub cache: CacheTypes,
    /// Which neurons of the FFN to compute: dense, exact, predicted, thresholded [default: exact]
    #[arg(long, value_name = "MODE,MODE", value_delimiter = ',')]
    pub mode: Vec<Mode>,
}

/// How often a test is timed where nothing is said.
const REPETITIONS: usize = 5;
/// Most sequences at once.
pub const MOST_PARALLEL: usize = 1024;
/// Longest wait.
const LONGEST_DELAY: f64 = 86_400.0;

fn seconds(text: &str) -> Result<f64> {
    let seconds: f64 = text.parse().context("is no number of seconds")?;
    ensure!((0.0..=LONGEST_DELAY).contains(&seconds), "0 to {LONGEST_DELAY} seconds can be waited");
    Ok(seconds)
}

fn threads(text: &str) -> Result<Numbers> {
    if text == "-1" { Ok(Numbers(vec![default_threads()])) } else { text.parse() }
}

/// How a test is run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// Threads.
    pub n_threads: usize,
    /// Upper limit of `n_ubatch`.
    pub n_batch: usize,
    /// Tokens that prefill computes at once, as far as `n_batch` lets it.
    pub n_ubatch: usize,
    /// Types of the cache.
    pub kv_type: KvType,
    /// What is computed of the FFN.
    pub mode: Mode,
}

impl Setting {
    /// What is taken where nothing is said.
    pub fn usual(n_threads: usize) -> Self {
        let (n_batch, n_ubatch) = (USUAL_BATCH, USUAL_UBATCH);
        Self { n_threads, n_batch, n_ubatch, kv_type: KvType::F16, mode: Mode::Exact }
    }

    /// Tokens that prefill computes at once.
    pub fn at_once(&self) -> usize {
        self.n_ubatch.min(self.n_batch)
    }
}

impl SpeedArgs {
    /// Whether it says which tests, or how to run them, and not only how often.
    pub fn names_tests(&self) -> bool {
        let lists = [
            &self.n_prompt,
            &self.n_gen,
            &self.n_depth,
            &self.threads,
            &self.ubatch_size,
            &self.batch_size,
            &self.parallel,
        ];
        let given = lists.iter().any(|list| !list.is_empty()) || !self.pg.is_empty();
        given || self.cache.is_given() || !self.mode.is_empty()
    }

    /// Whether several sequences at once are asked for.
    pub fn is_parallel(&self) -> bool {
        self.parallel.iter().any(|numbers| numbers.0.iter().any(|n| *n != 1))
    }

    /// How often each test is timed.
    pub fn repetitions(&self) -> usize {
        self.repetitions.unwrap_or(REPETITIONS)
    }

    /// The speed tests, in llama-bench's order; `usual` says whether those that are always made are among them.
    ///
    /// # Errors
    /// When a test has more tokens than can be counted.
    pub fn tests(&self, usual: bool) -> Result<Vec<Test>> {
        let default = |n: usize| if usual { vec![n] } else { Vec::new() };
        let (prompts, gens) = (list(&self.n_prompt, default(512)), list(&self.n_gen, default(128)));
        let prompts = prompts.iter().map(|n| (*n, 0));
        let gens = gens.iter().map(|n| (0, *n));
        let both = self.pg.iter().map(|pair| (pair.0, pair.1));
        let lengths: Vec<_> = prompts.chain(gens).chain(both).filter(|lengths| *lengths != (0, 0)).collect();
        let parallel = list(&self.parallel, vec![1]);
        let mut tests = Vec::new();
        for n_depth in list(&self.n_depth, vec![0]) {
            for (n_prompt, n_gen) in lengths.iter().copied() {
                tests.extend(parallel.iter().map(|n| Test { n_prompt, n_gen, n_depth, n_parallel: *n }));
            }
        }
        for Test { n_prompt, n_gen, n_depth, n_parallel } in &tests {
            ensure!(
                (1..=MOST_PARALLEL).contains(n_parallel),
                "-np {n_parallel}: 1 to {MOST_PARALLEL} sequences can be measured"
            );
            let sum = n_prompt.checked_add(*n_gen).and_then(|n| n.checked_add(*n_depth));
            let sum = sum.and_then(|n| n.checked_mul(*n_parallel));
            ensure!(sum.is_some(), "-p {n_prompt} -n {n_gen} -d {n_depth}: more tokens than any context has");
        }
        ensure!(self.repetitions() > 0, "-r 0: nothing to measure");
        Ok(tests)
    }

    /// How each of them is run; says so where there are more threads than cores.
    pub fn settings(&self) -> Vec<Setting> {
        let usual = Setting::usual(default_threads());
        let threads = list(&self.threads, vec![usual.n_threads]);
        threads.iter().for_each(|n| warn_of_threads(*n));
        let kv_types = self.cache.all(usual.kv_type);
        let modes = if self.mode.is_empty() { &[usual.mode] } else { self.mode.as_slice() };
        let ubatches = list(&self.ubatch_size, vec![usual.n_ubatch]);
        let mut settings = Vec::new();
        for &n_threads in &threads {
            for &n_ubatch in &ubatches {
                for n_batch in list(&self.batch_size, vec![usual.n_batch.max(n_ubatch)]) {
                    for &kv_type in &kv_types {
                        let setting = |mode: &Mode| Setting { n_threads, n_batch, n_ubatch, kv_type, mode: *mode };
                        settings.extend(modes.iter().map(setting));
                    }
                }
            }
        }
        settings
    }

    /// Threads and type of the cache of what is measured once.
    pub fn first(&self) -> (usize, KvType) {
        let usual = Setting::usual(default_threads());
        let threads = list(&self.threads, vec![usual.n_threads]);
        let kv_type = self.cache.all(usual.kv_type).first().copied().unwrap_or(usual.kv_type);
        (threads.first().copied().unwrap_or(usual.n_threads), kv_type)
    }
}

/// All numbers of a flag that may have been repeated.
fn list(given: &[Numbers], default: Vec<usize>) -> Vec<usize> {
    if given.is_empty() { default } else { given.iter().flat_map(|numbers| numbers.0.clone()).collect() }
}
