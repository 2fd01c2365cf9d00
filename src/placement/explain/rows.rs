//! The table of layers: a line for each, and one for neighbours whose figures are all the same.

use crate::placement::plan::PlannedLayer;
use crate::units::Bytes;

/// Title and rows. A row of several layers names the first and the last of them.
pub(super) fn lines(layers: &[PlannedLayer]) -> Vec<String> {
    let rows = folded(layers.iter().map(figures));
    let width = rows.iter().map(|(name, _)| name.len()).chain([5]).max().unwrap_or(5);
    let title = "attn  mask     hot  hot %  firings %  mass %   gpu ms   cpu ms  total ms  on the card";
    let title = ("layer".to_owned(), title.to_owned());
    [title].into_iter().chain(rows).map(|(name, figures)| format!("{name:>width$}  {figures}")).collect()
}

/// What rows of layers are called, and the rows: of equal neighbours one.
fn folded(rows: impl Iterator<Item = String>) -> Vec<(String, String)> {
    let mut runs: Vec<(usize, usize, String)> = Vec::new();
    for (layer, row) in rows.enumerate() {
        match runs.last_mut() {
            Some((_, last, before)) if *before == row => *last = layer,
            _ => runs.push((layer, layer, row)),
        }
    }
    let name = |first: usize, last: usize| if first == last { first.to_string() } else { format!("{first}-{last}") };
    runs.into_iter().map(|(first, last, row)| (name(first, last), row)).collect()
}

fn figures(layer: &PlannedLayer) -> String {
    let choice = &layer.choice;
    let on = |gpu: bool| if gpu { "gpu" } else { "cpu" };
    let mask = match () {
        () if layer.n_ff == 0 => "-",
        () if choice.masks_all(layer.n_ff) => "gpu",
        () if choice.groups.iter().any(|g| g.predictor) => "pred",
        () if choice.n_hot() > 0 => "both",
        () => "cpu",
    };
    let t = &layer.time;
    format!(
        "{:>4}  {mask:>4}  {:>6}  {:>5.1}  {:>9.1}  {:>6.1}  {:>7.3}  {:>7.3}  {:>8.3}  {:>11}",
        on(choice.attention),
        choice.n_hot(),
        100.0 * choice.n_hot() as f64 / layer.n_ff.max(1) as f64,
        100.0 * layer.firings_covered,
        100.0 * layer.mass_covered,
        1e3 * (t.before + t.gpu),
        1e3 * t.cpu,
        1e3 * t.total(),
        Bytes(layer.account.sum()).to_string()
    )
}

#[cfg(test)]
mod tests {
    use super::folded;

    #[test]
    fn only_neighbours_that_are_alike_share_a_row() {
        let rows = folded(["a", "b", "b", "b", "a", "a", "c"].map(str::to_owned).into_iter());
        let rows: Vec<(&str, &str)> = rows.iter().map(|(name, row)| (name.as_str(), row.as_str())).collect();
        assert_eq!(rows, [("0", "a"), ("1-3", "b"), ("4-5", "a"), ("6", "c")]);
        assert_eq!(folded(std::iter::empty()), []);
    }
}
