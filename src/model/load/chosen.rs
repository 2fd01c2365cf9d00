//! How often groups of neurons are computed, as a variant says.

use crate::gguf::Gguf;
use crate::model::group::{CHOSEN_KEY, Chosen};
use crate::model::neurons::NeuronIndex;
use anyhow::{Context, Result, ensure};

/// Shares of tokens, by number of the group; `None` where the file does not say.
///
/// # Errors
/// When they are not one share for every group.
pub(super) fn shares(gguf: &Gguf, n_groups: usize) -> Result<Option<Vec<f32>>> {
    let Some(array) = gguf.metadata().array(CHOSEN_KEY)? else { return Ok(None) };
    let values = array.floats().context(CHOSEN_KEY)?;
    ensure!(values.len() == n_groups, "{CHOSEN_KEY}: {} values for {n_groups} groups of neurons", values.len());
    let wrong = values.iter().find(|share| !(0.0..=1.0).contains(*share));
    ensure!(wrong.is_none(), "{CHOSEN_KEY}: {} is no share of tokens", wrong.unwrap_or(&0.0));
    Ok(Some(values))
}

/// Notes in `index` that its group, number `number`, is computed for the share `share` of tokens.
///
/// # Errors
/// When that contradicts its rates, or it is computed for all tokens anyway.
pub(super) fn note(index: &mut NeuronIndex, chosen: Chosen, share: f32, number: usize) -> Result<()> {
    if chosen == Chosen::Always {
        ensure!(share == 1.0, "{CHOSEN_KEY}: a share of {share} for group {number}, which every token needs");
        return Ok(());
    }
    let hottest = index.open_rates.iter().flatten().chain(&index.rates).fold(0.0, |most: f32, rate| most.max(*rate));
    ensure!(
        hottest <= share,
        "{CHOSEN_KEY}: group {number} is computed for a share of {share} of the tokens, but a neuron of it fires for {hottest}"
    );
    index.chosen = Some(share);
    Ok(())
}
