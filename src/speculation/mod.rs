//! Speculation: guesses at the next tokens are computed at once with the last one, which costs less than one after the other.
//!
//! A guess stays where it is the token that the sampler draws; else it is taken back. The sampler sees the same logits, and draws
//! with the same random numbers, as without: so the text is the same, bit for bit, whatever is guessed, and however much.
//! docs/speculation.md says what it brings.

mod drafter;
mod economy;
mod lookup;
mod model;
mod pace;
mod plan;
mod scripted;
mod source;
mod target;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use drafter::{Drafter, Guess, N_CLASSES};
pub use lookup::Lookup;
pub use model::ModelDrafter;
pub use scripted::Scripted;
pub use source::Drafted;
pub use target::Target;
pub use vocabulary::check_vocabulary;

use anyhow::{Result, ensure};
use economy::Economy;
use source::Source;
use std::time::{Duration, Instant};

/// Tokens of a draft at the most, where nothing else is said.
pub const LONGEST_DRAFT: usize = 16;
/// Tokens of a draft at the most, whatever is said.
pub const MOST_DRAFT: usize = 64;

/// How long drafts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// Tokens at the most; 0 is not to speculate.
    pub most: usize,
    /// Tokens at the least, also where that does not pay; 0 leaves it to what is measured.
    pub least: usize,
}

impl Default for Lengths {
    fn default() -> Self {
        Self { most: LONGEST_DRAFT, least: 0 }
    }
}

impl Lengths {
    /// Finds out whether they make sense in a context of `n_ctx` tokens.
    ///
    /// # Errors
    /// When they are too long, or the least is more than the most.
    pub fn check(self, n_ctx: usize) -> Result<()> {
        let Self { most, least } = self;
        ensure!(least <= most, "--draft-min {least} is more than --draft-max {most}");
        ensure!(most <= MOST_DRAFT, "--draft-max {most}: a draft has at most {MOST_DRAFT} tokens");
        let fits = most < n_ctx || most <= LONGEST_DRAFT && least == 0;
        ensure!(
            fits,
            "--draft-max {most}: such a draft does not fit into the context of {n_ctx}; lower it or raise -c"
        );
        Ok(())
    }
}

/// What speculation has done.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// By source: its name, and what it has done.
    pub sources: Vec<(&'static str, Drafted)>,
    /// Passes, those of a single token among them.
    pub n_passes: usize,
    /// Tokens that were taken in by them and stayed.
    pub n_tokens: usize,
    /// Seconds that were saved, by what a single token takes; below 0 where they were lost.
    pub saved: f64,
}

impl Counts {
    /// Of all sources together.
    pub fn drafted(&self) -> Drafted {
        self.sources.iter().fold(Drafted::default(), |all, (_, one)| Drafted {
            n_drafted: all.n_drafted + one.n_drafted,
            n_taken: all.n_taken + one.n_taken,
        })
    }

    /// Tokens per pass; 1 before the first.
    pub fn tokens_per_pass(&self) -> f64 {
        if self.n_passes == 0 { 1.0 } else { self.n_tokens as f64 / self.n_passes as f64 }
    }
}

/// Guesses at what comes next, and decides how much of that is computed.
pub struct Speculation<'d> {
    sources: Vec<Source<'d>>,
    lengths: Lengths,
    /// What has been said, with tokens that are no longer in the context.
    text: Vec<u32>,
    economy: Economy,
    /// The draft of the pass, and whose it is.
    draft: Vec<Guess>,
    from: usize,
    /// Time that it took to make.
    drafting: Duration,
    /// What free sources would have guessed where they were not asked to.
    watched: Vec<(usize, Guess)>,
    n_passes: usize,
    n_tokens: usize,
}

impl<'d> Speculation<'d> {
    /// Speculation with drafts of these lengths by `drafters`, the cheapest first.
    pub fn new(lengths: Lengths, drafters: Vec<Box<dyn Drafter + 'd>>) -> Self {
        Self {
            sources: drafters.into_iter().map(Source::new).collect(),
            lengths,
            text: Vec::new(),
            economy: Economy::new(lengths.most),
            draft: Vec::new(),
            from: 0,
            drafting: Duration::ZERO,
            watched: Vec::new(),
            n_passes: 0,
            n_tokens: 0,
        }
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        Counts {
            sources: self.sources.iter().map(|source| (source.drafter.name(), source.drafted)).collect(),
            n_passes: self.n_passes,
            n_tokens: self.n_tokens,
            saved: self.economy.saved(),
        }
    }

    /// The text is this from now on.
    pub fn set_text(&mut self, text: &[u32]) {
        let same = self.text.iter().zip(text).take_while(|(a, b)| a == b).count();
        if same < self.text.len() {
            self.sources.iter_mut().for_each(|source| source.drafter.rewind(same));
        }
        self.text.truncate(same);
        self.text.extend_from_slice(&text[same..]);
        self.sources.iter_mut().for_each(|source| source.has_read = false);
        self.watched.clear();
    }

    /// The text goes on with a token. What would have been guessed shows how good guesses are.
    fn push(&mut self, token: u32) {
        for (source, guess) in self.watched.drain(..) {
            self.sources[source].learn(guess, guess.token == token);
        }
        self.text.push(token);
    }

    /// A pass of `1 + self.draft.len()` tokens has taken so long. `n_taken` tokens of the draft came true; whether the one behind
    /// them did is only known where `all_seen`.
    fn learn(&mut self, computing: Duration, n_taken: usize, all_seen: bool) {
        let n = self.draft.len();
        self.n_passes += 1;
        self.n_tokens += n_taken + 1;
        let drafting = std::mem::take(&mut self.drafting);
        // Where the text ended within a draft, the rest says nothing.
        if all_seen || n_taken == n {
            self.economy.record(n + 1, computing, drafting, n_taken + 1);
        }
        let Some(source) = self.sources.get_mut(self.from).filter(|_| n > 0) else { return };
        source.drafted.n_drafted += n;
        source.drafted.n_taken += n_taken;
        for (i, guess) in self.draft.iter().enumerate().take(n_taken + usize::from(all_seen)) {
            source.learn(*guess, i < n_taken);
        }
        self.draft.clear();
    }

    /// A guess of a source behind its own draft.
    fn guess(&mut self, source: usize, draft: &[u32]) -> Result<Option<Guess>> {
        let Source { drafter, .. } = &mut self.sources[source];
        let start = Instant::now();
        let guess = drafter.guess(&self.text, draft)?;
        let time = start.elapsed();
        let source = &mut self.sources[source];
        // The first one of a draft may have to catch up with a text.
        if !draft.is_empty() {
            source.took(time);
        }
        // To read a prompt is what any draft of such a source costs, whether it is right or not.
        if std::mem::replace(&mut source.has_read, true) {
            self.drafting += time;
        }
        Ok(guess)
    }
}
