//! Whether a model is served better by a fixed set of experts on the card, as a plan has it, or by those that were used last.

use crate::model::SetHits;
use crate::placement::choice::GroupChoice;
use crate::placement::cost::{Cost, Routed};
use crate::placement::plan::Planner;

/// Seconds that the experts of a token take, where a set of them is on the card.
struct Times {
    fixed: f64,
    /// Where experts that are new in the text are missed, and where they are hit.
    cache: (f64, f64),
}

impl Times {
    /// Experts that are hit are the card's. Those that a fixed set misses are the CPU's; a cache brings them over the bus.
    fn new(planner: &Planner, hits: &SetHits) -> Option<Self> {
        let device = planner.hardware.device.as_ref()?;
        let cost = Cost::new(planner.hardware, planner.work, planner.run);
        let (mut on_gpu, mut on_cpu, mut bytes) = (0.0, 0.0, 0.0);
        for (i, layer) in planner.work.layers.iter().enumerate().filter(|(_, layer)| layer.is_routed()) {
            let routed = Routed::new(&cost, i);
            for (at, group) in layer.groups.iter().enumerate().filter(|(_, group)| group.routed) {
                let of = |n_hot: usize| {
                    routed.part(at, GroupChoice { n_hot, ..GroupChoice::default() }, &cost.sums(group, n_hot))
                };
                on_gpu += group.chosen * of(group.n_ff()).gpu;
                on_cpu += group.chosen * of(0).cpu;
                bytes += group.chosen * (group.neuron_bytes() * group.n_ff() as u64) as f64;
            }
        }
        let over_bus = bytes / device.bus.bandwidth;
        let cache = |hit: f64| on_gpu + (1.0 - hit) * over_bus;
        Some(Self {
            fixed: hits.fixed * on_gpu + (1.0 - hits.fixed) * on_cpu,
            cache: (cache(hits.cache.0), cache(hits.cache.1)),
        })
    }

    fn favoured(&self) -> &'static str {
        match () {
            () if self.fixed < self.cache.1 => "a fixed set of experts",
            () if self.fixed > self.cache.0 => "a cache of the experts used last",
            () => "neither a fixed set of experts nor a cache",
        }
    }
}

/// A line that says so, by the set whose size is closest to a share `on_card` of all experts; `None` where nobody has counted
/// what sets hit.
pub(super) fn line(planner: &Planner, on_card: f64) -> Option<String> {
    let distance = |hits: &&SetHits| (hits.share - on_card).abs();
    let hits = planner.work.hits.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
    let times = Times::new(planner, hits)?;
    let (low, high) = hits.cache;
    Some(format!(
        "favours   {}: with {:.0} % of the experts on the card, a fixed set hits {:.1} % of choices and experts take {:.3} ms; a cache \
         hits {:.1} to {:.1} % and takes {:.3} to {:.3} ms, as what it misses comes over the bus",
        times.favoured(),
        100.0 * hits.share,
        100.0 * hits.fixed,
        1e3 * times.fixed,
        100.0 * low,
        100.0 * high,
        1e3 * times.cache.0,
        1e3 * times.cache.1
    ))
}

#[cfg(test)]
mod tests {
    use super::Times;

    #[test]
    fn what_takes_less_time_is_favoured() {
        let favoured = |fixed: f64| Times { fixed, cache: (3e-3, 2e-3) }.favoured();
        assert_eq!(favoured(1e-3), "a fixed set of experts");
        assert_eq!(favoured(2.5e-3), "neither a fixed set of experts nor a cache");
        assert_eq!(favoured(4e-3), "a cache of the experts used last");
    }
}
