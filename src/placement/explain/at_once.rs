//! What several tokens at once have in common, and where arithmetic takes over from memory.

use super::Planner;
use crate::placement::budget::tokens_per_pass;
use crate::placement::workload::GroupWork;
use crate::quant::GgmlType;
use serde_json::{Value, json};

/// Of a plan for several sequences.
pub(super) struct AtOnce {
    n: usize,
    /// Share of all neurons that fire for any of the tokens, and for one.
    fired: (f64, f64),
    /// The type of the masks, what the processor's memory gives of it and what its arithmetic, as [`Bandwidth`]s have it.
    ///
    /// [`Bandwidth`]: crate::placement::hardware::Bandwidth
    masks: Option<(GgmlType, f64, f64)>,
}

impl AtOnce {
    /// `None` where there is one sequence.
    pub(super) fn of(planner: &Planner) -> Option<Self> {
        let n = tokens_per_pass(planner.hardware.device.is_some(), planner.work, planner.run);
        let (mut any, mut each, mut all) = (0.0, 0.0, 0.0);
        let sum = |values: &[f32]| values.iter().map(|value| f64::from(*value)).sum::<f64>();
        for group in planner.work.groups() {
            any += group.chosen * sum(&group.stats.rates);
            each += group.chosen * group.stats.wanted.as_deref().map_or(0.0, sum);
            all += group.n_ff() as f64;
        }
        let speeds = |group: &GroupWork| {
            let of = planner.hardware.cpu.bandwidth.of(group.mask.dtype);
            (group.mask.dtype, of.stream, of.several)
        };
        let masks = planner.work.groups().next().map(speeds);
        (n > 1 && all > 0.0).then(|| Self { n, fired: (any / all, each / all / n as f64), masks })
    }

    /// From how many tokens on the processor's arithmetic takes longer than reading what they multiply; `None` where it is not
    /// known how fast that is.
    fn crossover(&self) -> Option<f64> {
        self.masks.map(|(_, stream, several)| several / stream).filter(|n| n.is_finite())
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let (any, one) = self.fired;
        let (n, any, one) = (self.n, 100.0 * any, 100.0 * one);
        let mut lines = vec![format!(
            "at once   {n} sequences; {any:.1} % of the neurons fire for any of their tokens, {one:.1} % for one"
        )];
        if let (Some(tokens), Some((dtype, stream, several))) = (self.crossover(), self.masks) {
            let (stream, several) = (stream / 1e9, several / 1e9);
            let limit = if (n as f64) < tokens { "memory" } else { "arithmetic" };
            lines.push(format!(
                "limit     of the processor is {limit}: reading takes longer up to {tokens:.1} tokens at once, arithmetic from there on \
                 ({dtype}: {stream:.1} GB/s read, {several:.1} GB/s times tokens multiplied)"
            ));
        }
        lines
    }

    pub(super) fn json(&self) -> Value {
        let (any, one) = self.fired;
        json!({ "union": any, "density": one, "arithmetic_limits_from": self.crossover() })
    }
}
