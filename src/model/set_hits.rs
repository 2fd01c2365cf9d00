//! What sets of experts would hit, as a profile has counted it and a variant says it: for plans and people.

use crate::gguf::Gguf;
use anyhow::{Context, Result, ensure};

/// Keys of the arrays, each with a share for every set, without what they begin with.
const ARRAYS: [&str; 5] = ["sets", "fixed_hits", "held_out_hits", "cache_hits", "cache_hits_at_most"];

/// Shares of all choices that sets of one size hit, one set for each router.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SetHits {
    /// Its size as a share of all groups.
    pub share: f64,
    /// Where it is a fixed set: on text that it was not learned on, where that was counted.
    pub fixed: f64,
    /// Where it holds what was used last, at least and at most.
    pub cache: (f64, f64),
}

/// Those of the file; none where it does not say.
///
/// # Errors
/// When an array is missing beside others, is of another length, or has what is no share.
pub(super) fn read(gguf: &Gguf) -> Result<Vec<SetHits>> {
    let key = |name: &str| format!("powerinfer.experts.{name}");
    if !ARRAYS.iter().any(|name| gguf.metadata().has(&key(name))) {
        return Ok(Vec::new());
    }
    let mut n_sets = None;
    let mut array = |name: &str| {
        let key = key(name);
        let array = gguf.metadata().array(&key)?;
        let array = array.with_context(|| format!("{key}: the key is missing beside others of sets of experts"))?;
        let values = array.floats().with_context(|| key.clone())?;
        let wanted = *n_sets.get_or_insert(values.len());
        ensure!(values.len() == wanted, "{key}: {} values for {wanted} sets of experts", values.len());
        let wrong = values.iter().find(|share| !(0.0..=1.0).contains(*share));
        ensure!(wrong.is_none(), "{key}: {} is no share", wrong.unwrap_or(&0.0));
        Ok(values.into_iter().map(f64::from).collect::<Vec<_>>())
    };
    let [sets, _, held_out, cache, at_most] = ARRAYS.map(&mut array);
    let (sets, held_out, cache, at_most) = (sets?, held_out?, cache?, at_most?);
    let of = |i: usize| SetHits { share: sets[i], fixed: held_out[i], cache: (cache[i], at_most[i]) };
    Ok((0..sets.len()).map(of).collect())
}
