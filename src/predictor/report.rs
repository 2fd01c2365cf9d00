//! What predictors do, as a human-readable table.

use super::Predictors;
use super::auto::NeuronBytes;
use super::data;
use crate::model::{Model, NeuronIndex};
use crate::units::Bytes;
use anyhow::Result;
use std::fmt::Write;

/// A table with one line per layer and one for the model: what a token reads compared with exact mode, and how well
/// neurons that fire were found.
///
/// # Errors
/// When the model has different layers.
pub fn table(model: &Model, predictors: &Predictors) -> Result<String> {
    let mut out = String::from(
        "layer  kind     size       bytes   target   recall  by count  precision   active    fired  fetched/fired  missed mass  bytes saved\n",
    );
    let (mut bytes, mut saved, mut exact, mut lost, mut mass) = (0, 0.0, 0.0, 0.0, 0.0);
    for (i, layer) in predictors.layers.iter().enumerate() {
        let m = &layer.measured;
        let Some(group) = data::group(model, i) else { continue };
        let opened_per_fired = group.index.as_ref().map_or(1.0, NeuronIndex::opened_per_fired);
        let b = NeuronBytes::new(group, opened_per_fired);
        let others = f64::from(m.fired) * b.n_ff * b.other_rows;
        let whole = b.n_ff * b.mask_row;
        let read = if layer.bias.is_empty() {
            whole + others
        } else {
            layer.bytes_read() as f64 + f64::from(m.active) * whole + f64::from(m.recall_count) * others
        };
        let missed = 1.0 - f64::from(m.recall);
        let percent = |v: f32| format!("{:.2} %", 100.0 * v);
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{i:>5}  {:<7}{:>6}  {:>10} {:>8} {:>8} {:>9} {:>10} {:>8} {:>8} {:>14.2} {:>10.3} % {:>10.1} %",
            layer.weights.kind(),
            layer.weights.n_hidden(),
            Bytes(layer.n_bytes() as u64).to_string(),
            percent(m.target),
            percent(m.recall),
            percent(m.recall_count),
            percent(m.precision),
            percent(m.active),
            percent(m.fired),
            f64::from(m.active) / f64::from(m.fired).max(f64::MIN_POSITIVE),
            100.0 * missed,
            100.0 * (1.0 - read / (whole + others)),
        );
        bytes += layer.n_bytes();
        saved += whole + others - read;
        exact += whole + others;
        lost += missed;
        mass += 1.0;
    }
    let _ = writeln!(
        out,
        "  all                {:>10}; mean missed mass {:.3} %; of the bytes that exact reads of the FFN {:.1} % are saved",
        Bytes(bytes as u64).to_string(),
        100.0 * lost / f64::max(mass, 1.0),
        100.0 * saved / f64::max(exact, 1.0)
    );
    Ok(out)
}
