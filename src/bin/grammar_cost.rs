//! `--grammar-cost`: what a grammar costs per token.

use crate::common::models;
use crate::common::sampling::Sampling;
use crate::common::terminal::{Bar, print};
use crate::common::which::Which;
use anyhow::{Context, Result};
use powerinfer::grammar::Grammar;
use std::time::{Duration, Instant};

/// Tokens that are measured.
const N: usize = 2000;

/// Follows the grammar with random tokens, from the beginning whenever it ends, and prints how long each took.
pub fn run(sampling: &Sampling, which: &Which) -> Result<()> {
    let rules = sampling.rules()?.context("--grammar-cost needs a grammar, or a schema")?;
    let path = which.path(&Bar::new())?;
    let tokenizer = models::tokenizer(&models::open_file(path.as_deref())?)?;
    let start = Instant::now();
    let mut grammar = Grammar::new(&rules, &tokenizer)?;
    let begun = start.elapsed();
    let mut times = Vec::new();
    let mut state = 1u64;
    let mut length = 0;
    for _ in 0..N {
        let allowed: Vec<u32> = (0..tokenizer.n_tokens() as u32).filter(|id| grammar.allows(*id)).collect();
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let token = allowed.get((state >> 33) as usize % allowed.len().max(1)).copied();
        let start = Instant::now();
        match token {
            Some(token) if !grammar.is_over() && length < 200 => {
                grammar.advance(token)?;
                length += 1;
            }
            _ => {
                grammar.restart()?;
                length = 0;
            }
        }
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let mean = times.iter().sum::<Duration>() / N as u32;
    let at = |share: usize| times[(N - 1) * share / 100];
    print(format!(
        "{} tokens in the vocabulary, the grammar made in {begun:.1?}\nper token: mean {mean:.1?}, median {:.1?}, 99 % below {:.1?}, at most {:.1?}\n",
        tokenizer.n_tokens(),
        at(50),
        at(99),
        at(100)
    ))
}
