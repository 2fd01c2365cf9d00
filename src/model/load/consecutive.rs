//! How many neurons fire for any of a few consecutive tokens, as a variant says.

use crate::gguf::Gguf;
use crate::model::neurons::{CONSECUTIVE_KEY, CONSECUTIVE_SIZES};
use anyhow::{Context, Result, ensure};

/// Shares of each group's neurons, by number of the group; `None` where the file does not say.
///
/// # Errors
/// When they are not one share for every group and number of tokens, or fall where there are more tokens.
pub(super) fn shares(gguf: &Gguf, n_groups: usize) -> Result<Option<Vec<[f32; CONSECUTIVE_SIZES.len()]>>> {
    let Some(array) = gguf.metadata().array(CONSECUTIVE_KEY)? else { return Ok(None) };
    let values = array.floats().context(CONSECUTIVE_KEY)?;
    let (shares, rest) = values.as_chunks();
    ensure!(
        rest.is_empty() && shares.len() == n_groups,
        "{CONSECUTIVE_KEY}: {} values for {} of {n_groups} groups of neurons",
        values.len(),
        CONSECUTIVE_SIZES.len()
    );
    let possible = |of: &[f32]| of.iter().all(|share| (0.0..=1.0).contains(share)) && of.is_sorted();
    let wrong = shares.iter().find(|of| !possible(&of[..]));
    ensure!(wrong.is_none(), "{CONSECUTIVE_KEY}: {:?} are no rising shares of neurons", wrong.unwrap_or(&[0.0; 4]));
    Ok(Some(shares.to_vec()))
}
