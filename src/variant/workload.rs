//! What a variant will need of a machine, before `split` writes it.

use super::draft::{DownLayout, Draft};
use crate::model::{Model, SetHits};
use crate::placement::workload::{NeuronRows, NeuronStats, Workload};
use crate::predictor::Predictors;
use crate::quant::GgmlType;
use std::sync::Arc;

/// What a token will need of `draft`'s variant of `model`, with `predictors` packed in.
pub fn workload(model: &Model, draft: &Draft, predictors: Option<&Predictors>) -> Workload {
    let mut work = Workload::with_types(model, &|name, source, n_cols| draft.matrix_type(name, source, n_cols));
    let groups = work.layers.iter_mut().flat_map(|layer| &mut layer.groups);
    let widths = model.weights.groups().map(|(_, group)| group.width());
    for ((group, width), (planned, down)) in groups.zip(widths).zip(draft.groups.iter().zip(&draft.down)) {
        debug_assert_eq!(planned.order.len(), group.n_ff());
        let stats = NeuronStats {
            rates: planned.rates.clone(),
            mass: planned.mass.clone(),
            open_rates: planned.open_rates.clone(),
            wanted: None,
            cold: planned.cold.clone(),
        };
        group.chosen = planned.chosen.map_or(group.chosen, f64::from);
        group.stats = Arc::new(stats.of_chosen(group.chosen));
        let rows = |dtype: GgmlType| {
            let row_bytes = dtype.row_bytes(width).map_or(group.down.row_bytes, |n| n as u64);
            NeuronRows { row_bytes, dtype }
        };
        group.down = match down {
            DownLayout::Rows(dtype) => rows(*dtype),
            // Quants of a row, and 16-bit scales of its elements for 32 neurons together.
            DownLayout::Lossless(dtype) => {
                let quants = if *dtype == GgmlType::Q4_0 { width / 2 } else { width };
                NeuronRows { row_bytes: (quants + width / 16) as u64, dtype: *dtype }
            }
        };
        group.down_by_columns = false;
        group.divisible = matches!(down, DownLayout::Rows(_));
    }
    let hits = draft.hits.iter().map(|(one_in, hits)| SetHits {
        share: 1.0 / *one_in as f64,
        fixed: hits.held_out.unwrap_or(hits.fixed),
        cache: (hits.cache, hits.cache_at_most),
    });
    work.hits = hits.collect();
    // Predictors are for layers with one group of neurons.
    let fitted = predictors.map_or(&[][..], |p| &p.layers);
    for ((layer, weights), fitted) in work.layers.iter_mut().zip(&model.weights.layers).zip(fitted) {
        if let [group] = &mut layer.groups[..] {
            group.predictor = fitted.work(&draft.groups[weights.first_group].order);
        }
    }
    work
}
