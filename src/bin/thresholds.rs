//! `powerinfer-profile --threshold-search`: what could be skipped of a model that never rests.

use anyhow::{Result, ensure};
use clap::Args;
use powerinfer::executor::Worker;
use powerinfer::measure::threshold_search::{Found, search};
use powerinfer::model::Model;
use powerinfer::progress::Progress;
use powerinfer::units::Bytes;
use std::fmt::Write;

/// Windows of text at most: one half to search with, one to measure with.
pub const MOST_WINDOWS: usize = 8;

/// Whether to search, and how much may be lost.
#[derive(Args)]
pub struct ThresholdArgs {
    /// Also find the gate threshold of each layer below which neurons can be skipped for a KL budget, and keep them in the
    /// profile; powerinfer-split puts them into the variant, and --mode thresholded uses them
    #[arg(long, conflicts_with = "random_tokens")]
    pub threshold_search: bool,
    /// With --threshold-search: KL divergence from dense that the thresholds may cause, in nats per token
    #[arg(long, value_name = "NATS", default_value_t = 0.02, requires = "threshold_search")]
    kl_budget: f64,
}

impl ThresholdArgs {
    /// Whether the budget is one.
    ///
    /// # Errors
    /// When nothing could be within it.
    pub fn check(&self) -> Result<()> {
        let budget = self.kl_budget;
        ensure!(budget.is_finite() && budget > 0.0, "--kl-budget {budget}: a number above 0 is wanted");
        Ok(())
    }

    /// Whether there is enough text, before anything is computed.
    ///
    /// # Errors
    /// When a half of it would be missing.
    pub fn check_windows(&self, n: usize) -> Result<()> {
        ensure!(
            !self.threshold_search || n >= 2,
            "--threshold-search: the text is one window; it needs two, one to search with and one to measure with: give more text \
             or a smaller -c"
        );
        Ok(())
    }

    /// Searches, and says what was found.
    pub fn search(
        &self,
        model: &Model,
        windows: &[Vec<u32>],
        worker: &Worker,
        progress: &dyn Progress,
    ) -> Result<(Found, String)> {
        let windows: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
        let found = search(model, &windows, self.kl_budget, worker, progress)?;
        let report = report(&found);
        Ok((found, report))
    }
}

fn report(found: &Found) -> String {
    let Found { rule, budget, kl, held_out, bytes, .. } = found;
    let active = &held_out.active;
    let mean = 100.0 * active.iter().sum::<f64>() / active.len().max(1) as f64;
    let extreme = |pick: fn(f64, f64) -> f64| 100.0 * active.iter().copied().reduce(pick).unwrap_or_default();
    let [exact, less] = bytes.map(|bytes| Bytes(bytes as u64));
    let [before, after] = held_out.perplexity;
    let mut out = format!(
        "thresholds by {rule}: {mean:.1} % of neurons stay active ({:.1} to {:.1} % by layer); KL {kl:.4} of {budget} nats \
         allowed, {:.4} on {} other tokens, where perplexity goes from {before:.3} to {after:.3}\n\
         --mode thresholded of a variant reads {less} of weights for a token, exact mode {exact}: {:.1} % less\n",
        extreme(f64::min),
        extreme(f64::max),
        held_out.kl,
        held_out.n_tokens,
        100.0 * found.saved()
    );
    if !found.pays() {
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "it does not pay: so little is saved that exact is as fast; raise --kl-budget or stay with exact"
        );
    }
    out
}
