//! What a plan makes of groups that routers choose, in words.

use crate::placement::choice::GroupChoice;
use crate::placement::plan::{Plan, Planner};
use crate::placement::workload::GroupWork;
use serde_json::{Value, json};

/// Layers whose cold experts are named in the table; JSON names all.
const LAYERS_NAMED: usize = 3;
/// Ranges of them that are named for each of these layers.
const RANGES_NAMED: usize = 6;

/// The experts of one layer.
struct OfLayer {
    layer: usize,
    n: usize,
    n_used: usize,
    /// How many are on the card as a whole.
    n_hot: usize,
    /// Of how many the card knows which neurons fire, though not all are hot.
    n_masked: usize,
    /// Of which the card has nothing, by their numbers in the layer.
    cold: Vec<usize>,
    /// Shares of choices that fall on those that are hot as a whole, on those that are cold as a whole.
    choices: (f64, f64),
}

impl OfLayer {
    fn new(layer: usize, n_used: usize, groups: &[GroupWork], choices: &[GroupChoice]) -> Self {
        let routed = || groups.iter().zip(choices).enumerate().filter(|(_, (group, _))| group.routed);
        let all: f64 = routed().map(|(_, (group, _))| group.chosen).sum();
        let share = |of: &dyn Fn(&GroupWork, &GroupChoice) -> bool| {
            let chosen = routed().filter(|(_, (group, choice))| of(group, choice)).map(|(_, (group, _))| group.chosen);
            // The sum of nothing is a negative zero, which would be shown.
            if all > 0.0 { chosen.fold(0.0, |sum, share| sum + share) / all } else { 0.0 }
        };
        let count = |of: &dyn Fn(&GroupWork, &GroupChoice) -> bool| routed().filter(|(_, (g, c))| of(g, c)).count();
        Self {
            layer,
            n: routed().count(),
            n_used,
            n_hot: count(&is_hot),
            n_masked: count(&|group, choice| choice.mask && !is_hot(group, choice)),
            cold: routed().filter(|(_, (_, choice))| !choice.is_any()).map(|(at, _)| at).collect(),
            choices: (share(&is_hot), share(&|_, choice| !choice.is_any())),
        }
    }

    fn json(&self) -> Value {
        json!({
            "n": self.n,
            "n_used": self.n_used,
            "wholly_hot": self.n_hot,
            "masks_on_gpu": self.n_masked,
            "wholly_cold": self.cold.len(),
            "cold": ranges(&self.cold, usize::MAX),
            "choices_on_hot": self.choices.0,
            "choices_on_cold": self.choices.1,
        })
    }
}

fn is_hot(group: &GroupWork, choice: &GroupChoice) -> bool {
    choice.n_hot == group.n_ff()
}

/// Rising numbers as ranges: `0-3, 7`, no more than `most` of them.
fn ranges(numbers: &[usize], most: usize) -> String {
    let runs: Vec<&[usize]> = numbers.chunk_by(|a, b| a + 1 == *b).collect();
    let named = |run: &&[usize]| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    };
    let mut out = runs.iter().take(most).map(named).collect::<Vec<_>>().join(", ");
    if runs.len() > most {
        out += &format!(" and {} more ranges", runs.len() - most);
    }
    out
}

/// The experts of a plan.
pub(super) struct Experts {
    layers: Vec<OfLayer>,
}

impl Experts {
    /// Those of all layers with a router.
    pub fn new(planner: &Planner, plan: &Plan) -> Self {
        let layers = planner.work.layers.iter().zip(&plan.layers).enumerate();
        let routed = layers.filter(|(_, (layer, _))| layer.is_routed());
        let of = routed.map(|(i, (layer, of))| OfLayer::new(i, layer.n_used, &layer.groups, &of.choice.groups));
        Self { layers: of.collect() }
    }

    /// Lines of the table; none without experts.
    pub fn lines(&self) -> Vec<String> {
        let Some(first) = self.layers.first() else { return Vec::new() };
        let sum = |of: fn(&OfLayer) -> usize| self.layers.iter().map(of).sum::<usize>();
        let (n, n_hot, n_cold, n_masked) = (sum(|l| l.n), sum(|l| l.n_hot), sum(|l| l.cold.len()), sum(|l| l.n_masked));
        let mean = |of: fn(&OfLayer) -> f64| 100.0 * self.layers.iter().map(of).sum::<f64>() / self.layers.len() as f64;
        let (hot, cold) = (mean(|l| l.choices.0), mean(|l| l.choices.1));
        let mut out = vec![
            format!(
                "experts   {n} in {} layers, {} of {} chosen: {n_hot} wholly hot, {} in part, {n_cold} wholly cold",
                self.layers.len(),
                first.n_used,
                first.n,
                n - n_hot - n_cold
            ),
            format!(
                "choices   {hot:.1} % fall on wholly hot experts, {cold:.1} % on wholly cold ones; for {n_masked} of the others the card \
                 names the neurons that fire"
            ),
        ];
        let with_cold: Vec<&OfLayer> = self.layers.iter().filter(|l| !l.cold.is_empty()).collect();
        let named = with_cold.iter().take(LAYERS_NAMED);
        let named = named.map(|l| format!("layer {}: {} ({})", l.layer, ranges(&l.cold, RANGES_NAMED), l.cold.len()));
        let named = named.collect::<Vec<_>>().join("; ");
        let beyond = with_cold.len().saturating_sub(LAYERS_NAMED);
        if !named.is_empty() {
            let beyond = if beyond > 0 { format!("; and in {beyond} layers more") } else { String::new() };
            out.push(format!("cold      {named}{beyond}"));
        }
        out
    }

    /// What JSON has of layer number `layer`; null without a router.
    pub fn json(&self, layer: usize) -> Value {
        self.layers.iter().find(|of| of.layer == layer).map_or(Value::Null, OfLayer::json)
    }
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn numbers_that_follow_each_other_are_a_range() {
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 9, 10], 9), "0-3, 7, 9-10");
        assert_eq!(ranges(&[1, 3, 5], 2), "1, 3 and 1 more ranges");
        assert_eq!(ranges(&[], 2), "");
    }
}
