//! What a variant will need of a machine, before `split` writes it.

use powerinfer::model::{Model, NeuronId};
use powerinfer::placement::workload::{NeuronRows, NeuronStats, Workload};
use powerinfer::predictor::Predictors;
use powerinfer::quant::GgmlType;
use powerinfer::variant::{DownPlan, Plan};

/// What `split` would make of `model`: types and order of `plan`, with `predictors` packed in.
pub fn workload_of_split(model: &Model, plan: &Plan, predictors: Option<&Predictors>) -> Workload {
    let mut work = Workload::with_types(model, &|name, source, n_cols| plan.matrix_type(name, source, n_cols));
    let n_embd = model.config.n_embd;
    for (layer, (planned, down)) in work.layers.iter_mut().zip(plan.layers.iter().zip(&plan.down)) {
        let order: &[NeuronId] = &planned.order;
        debug_assert_eq!(order.len(), layer.n_ff());
        layer.stats =
            NeuronStats { rates: planned.rates.clone(), mass: planned.mass.clone(), cold: planned.cold.clone() };
        let rows = |dtype: GgmlType| {
            let row_bytes = dtype.row_bytes(n_embd).map_or(layer.down.row_bytes, |n| n as u64);
            NeuronRows { row_bytes, dtype }
        };
        layer.down = match down {
            DownPlan::Rows(dtype) => rows(*dtype),
            // Quants of a row, and 16-bit scales of its elements for 32 neurons together.
            DownPlan::Lossless(dtype) => {
                let quants = if *dtype == GgmlType::Q4_0 { n_embd / 2 } else { n_embd };
                NeuronRows { row_bytes: (quants + n_embd / 16) as u64, dtype: *dtype }
            }
        };
        layer.down_by_columns = false;
        layer.divisible = matches!(down, DownPlan::Rows(_));
    }
    for (layer, (planned, fitted)) in
        work.layers.iter_mut().zip(plan.layers.iter().zip(predictors.map_or(&[][..], |p| &p.layers)))
    {
        layer.predictor = fitted.work(&planned.order);
    }
    work
}
