//! Sizes of batches and the types of the cache, of commands that take one of each.

use super::cache::CacheArgs;
use clap::Args;

/// How much is computed at once, and how what is remembered is stored.
#[derive(Args)]
pub struct Batches {
    /// Tokens that prefill computes at once (-ub): larger batches are faster on long prompts, and for a 7B model take about
    /// 0.4 MB of memory per token
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub ubatch_size: usize,
    /// For compatibility with llama.cpp: an upper limit on -ub [default: -ub]
    #[arg(short, long, value_name = "N")]
    pub batch_size: Option<usize>,
    #[command(flatten)]
    pub cache: CacheArgs,
}

impl Batches {
    /// Tokens that prefill computes at once.
    pub fn n_ubatch(&self) -> usize {
        self.batch_size.map_or(self.ubatch_size, |n| n.min(self.ubatch_size))
    }
}
