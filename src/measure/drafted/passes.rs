//! What passes of several tokens take, next to single ones.

use crate::executor::Executor;
use crate::measure::compare::statistics::median;
use crate::speculation::LONGEST_DRAFT;
use anyhow::Result;
use std::time::Instant;

/// Times of passes by their width, as multiples of single tokens'.
pub struct Passes {
    /// By width less one.
    measured: Vec<Vec<f64>>,
    /// How often they are still to be measured, and how often at once.
    n_left: usize,
    n_at_once: usize,
}

impl Passes {
    /// Nothing measured yet, to be measured `n` times, `n_at_once` of them in one go.
    pub fn new(n: usize, n_at_once: usize) -> Self {
        Self { measured: Vec::new(), n_left: n, n_at_once }
    }

    /// As long as they are to be measured, measures passes of the tokens of `text` behind the end of what `executor` holds, which
    /// is the beginning of it: each between two single ones, as the machine is then. The sequence stays as it is.
    ///
    /// # Errors
    /// When they do not fit in the context.
    pub fn measure(&mut self, executor: &mut Executor, text: &[u32]) -> Result<()> {
        let times = self.n_at_once.min(self.n_left);
        if times == 0 {
            return Ok(());
        }
        self.n_left -= times;
        let params = executor.params();
        let rest = &text[executor.n_past()..];
        let room = params.n_ctx - executor.n_past();
        let most = (LONGEST_DRAFT + 1).min(params.n_ubatch).min(room).min(rest.len());
        if most == 0 {
            return Ok(());
        }
        let mut seconds = |n: usize| -> Result<f64> {
            let start = Instant::now();
            executor.decode_tentatively(&rest[..n])?;
            let seconds = start.elapsed().as_secs_f64();
            executor.settle(0)?;
            Ok(seconds)
        };
        if self.measured.is_empty() {
            // The first ones take memory.
            seconds(most)?;
            seconds(1)?;
        }
        self.measured.resize_with(most, Vec::new);
        let mut before = seconds(1)?;
        for n in (0..times).flat_map(|_| 2..=most) {
            let several = seconds(n)?;
            let after = seconds(1)?;
            self.measured[n - 1].push(2.0 * several / (before + after));
            before = after;
        }
        Ok(())
    }

    /// By width less one: how many times as long as a single token a pass takes.
    pub fn multiples(&self) -> Vec<f64> {
        let several = self.measured.iter().skip(1).map(|measured| median(measured));
        std::iter::once(1.0).chain(several).collect()
    }
}
