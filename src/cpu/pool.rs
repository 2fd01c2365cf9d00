//! Threads for the inside of a token.

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

/// A fixed set of threads over which outputs are divided. Every element of an output is written by exactly one
/// call, so results do not depend on the number of threads.
pub struct Pool {
    n_threads: usize,
    threads: Option<rayon::ThreadPool>,
}

impl Pool {
    /// A pool of `n_threads`; one thread means the caller's own.
    ///
    /// # Errors
    /// When `n_threads` is 0 or the system refuses to start threads.
    pub fn new(n_threads: usize) -> Result<Self> {
        ensure!((1..=1024).contains(&n_threads), "-t {n_threads}: 1 to 1024 threads are possible");
        let start = || rayon::ThreadPoolBuilder::new().num_threads(n_threads).build();
        let threads = (n_threads > 1).then(start).transpose().context("threads cannot be started")?;
        Ok(Self { n_threads, threads })
    }

    /// Number of threads.
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// Calls `write(start, piece)` for consecutive pieces of `out`, whose lengths are multiples of `grain` except
    /// for the last one.
    pub fn fill<T: Send>(&self, out: &mut [T], grain: usize, write: impl Fn(usize, &mut [T]) + Sync) {
        let piece = out.len().div_ceil(self.n_threads * 2).next_multiple_of(grain.max(1)).max(1);
        match &self.threads {
            Some(threads) if piece < out.len() => threads.install(|| {
                out.par_chunks_mut(piece).enumerate().for_each(|(i, out)| write(i * piece, out));
            }),
            _ => write(0, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_written_once_whatever_the_threads() {
        for n_threads in [1, 2, 3, 8] {
            let pool = Pool::new(n_threads).unwrap();
            for len in [0, 1, 7, 64, 1000] {
                let mut out = vec![0usize; len];
                pool.fill(&mut out, 16, |start, piece| {
                    assert!(start.is_multiple_of(16));
                    piece.iter_mut().enumerate().for_each(|(i, o)| *o += start + i + 1);
                });
                assert!(out.iter().enumerate().all(|(i, o)| *o == i + 1), "{n_threads} threads, {len} elements");
            }
        }
    }
}
