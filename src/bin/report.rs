//! What `powerinfer-run` says of a generation besides its text.

use crate::common::terminal::{Bar, tell};
use powerinfer::executor::{Executor, Mode, Worker};
use powerinfer::generate::{Generated, Stop};
use powerinfer::measure::doubt;
use powerinfer::model::{Layer, Model};
use std::ops::Range;

/// Tokens per second; 0 where no time passed.
pub fn per_second(n: usize, seconds: f64) -> f64 {
    if n == 0 || seconds == 0.0 { 0.0 } else { n as f64 / seconds }
}

/// Times and sparsity of a generation, to stderr.
pub fn timings(executor: &Executor, result: &Generated, seed: u64) {
    let (prefill, decode) = (result.prefill.as_secs_f64(), result.decode.as_secs_f64());
    let (n, m) = (result.n_prompt, result.n_decoded);
    tell!("prefill {prefill:>8.3} s  {n:>5} tokens  {:>8.2} tokens/s", per_second(n, prefill));
    tell!("decode  {decode:>8.3} s  {m:>5} tokens  {:>8.2} tokens/s", per_second(m, decode));
    let stats = executor.stats();
    let gates = stats.opened().filter(|_| executor.model().has_two_masks());
    let gates = gates.map_or_else(String::new, |opened| format!(" (of the gates {:.2} %)", 100.0 * (1.0 - opened)));
    let sparsity =
        stats.density().map_or_else(String::new, |d| format!("FFN sparsity {:.2} %{gates}, ", 100.0 * (1.0 - d)));
    let chosen = density_in_experts(executor.model(), executor);
    let chosen = chosen.map_or_else(String::new, |d| format!("of chosen experts {:.2} %, ", 100.0 * (1.0 - d)));
    let mode = executor.params().mode.name();
    tell!(
        "{sparsity}{chosen}mode {mode}, {} threads, seed {seed}, stopped by {}",
        executor.params().n_threads,
        result.stop.name()
    );
}

/// Once enough gates were seen: whether the activation function seems to be another, to stderr. `tokens` are what the executor
/// was given from the beginning.
pub fn doubt(executor: &mut Executor, tokens: &[u32], worker: &Worker) {
    let Some(gates) = executor.take_gates() else { return };
    let model = executor.model();
    // What cannot be looked into is no reason to fail: the text is there.
    if let Ok(Some(doubt)) = doubt::of_gates(model, &gates, tokens, worker, &Bar::new()) {
        tell!("warning: {}: {doubt}", model.gguf.source().name());
    }
}

/// What fired in each layer, and what was read for it, to stderr.
pub fn layers(model: &Model, executor: &Executor) {
    let stats = executor.stats();
    for (number, (layer, group)) in model.weights.groups().enumerate() {
        if group.is_routed() {
            if number == model.weights.layers[layer].first_group {
                experts(model, executor, layer);
            }
            continue;
        }
        if let Some(density) = stats.group_density(number) {
            let found = stats.group_recall(number).map_or_else(String::new, |recall| {
                let named = 100.0 * stats.group_masked(number).unwrap_or(0.0);
                let (count, mass) = (100.0 * recall.by_count(), 100.0 * recall.by_mass());
                format!(", {named:.2} % named, found {count:.2} % of firings, {mass:.3} % of their mass")
            });
            let several = model.weights.layers[layer].groups.len() > 1;
            let of = if several {
                format!(" group {}", number - model.weights.layers[layer].first_group)
            } else {
                String::new()
            };
            let gates = stats.group_opened(number).filter(|_| model.has_two_masks());
            let gates = gates.map_or_else(String::new, |n| format!(", up was read of {:.2} %", 100.0 * n));
            tell!("layer {layer:>3}{of}: {:>6.2} % of {} neurons fired{gates}{found}", 100.0 * density, group.n_ff());
        }
    }
    choices(model, executor);
    if let Some(recall) = stats.recall() {
        let (count, mass) = (100.0 * recall.by_count(), 100.0 * recall.by_mass());
        let predictor = powerinfer::units::Bytes(stats.predictor_bytes_per_token() as u64);
        tell!(
            "predictors found {count:.2} % of firings, {mass:.3} % of their mass (sampled), and read {predictor} per token"
        );
    }
    if let Some(bytes) = stats.bytes_per_token(model).filter(|_| executor.params().mode != Mode::Dense) {
        let dense = powerinfer::executor::dense_bytes_per_token(model) as u64;
        let bytes = bytes as u64;
        let share = 100.0 * bytes as f64 / dense as f64;
        tell!(
            "weights read per token: {} of {} that dense mode reads ({share:.1} %)",
            powerinfer::units::Bytes(bytes),
            powerinfer::units::Bytes(dense)
        );
    }
}

/// The groups of a layer that its router chooses among.
fn routed(layer: &Layer) -> Range<usize> {
    let n = layer.groups.iter().filter(|group| group.is_routed()).count();
    layer.first_group..layer.first_group + n
}

/// In one line for all experts of a layer: how many a token had, and what fired in them.
fn experts(model: &Model, executor: &Executor, layer: usize) {
    let (stats, groups) = (executor.stats(), routed(&model.weights.layers[layer]));
    let shares: Vec<f64> = groups.clone().filter_map(|group| stats.share_computed(group)).collect();
    let Some(density) = stats.density_where_computed(groups) else { return };
    let unused = shares.iter().filter(|share| **share == 0.0).count();
    let unused = if unused > 0 { format!(", {unused} never chosen") } else { String::new() };
    tell!(
        "layer {layer:>3}: {:>6.2} % of the neurons of {:.0} experts of {} fired{unused}",
        100.0 * density,
        shares.iter().sum::<f64>(),
        shares.len()
    );
}

/// How much of what routers chose was hot: on the card, or where the file has its hot neurons. Nothing without experts, or
/// without either.
fn choices(model: &Model, executor: &Executor) {
    let (stats, card) = (executor.stats(), executor.card());
    let on_card = card.map(|card| card.plan.n_hot());
    let in_file = || model.weights.groups().map(|(_, group)| group.index.as_ref().map(|index| index.n_hot)).collect();
    let Some(n_hot): Option<Vec<usize>> = on_card.or_else(in_file) else { return };
    let (mut hot, mut part, mut cold) = (0.0, 0.0, 0.0);
    for (number, (_, group)) in model.weights.groups().enumerate().filter(|(_, (_, group))| group.is_routed()) {
        let share = stats.share_computed(number).unwrap_or(0.0);
        match n_hot[number] {
            0 => cold += share,
            n if n == group.n_ff() => hot += share,
            _ => part += share,
        }
    }
    let all = hot + part + cold;
    if all > 0.0 {
        let place = if card.is_some() { "on the card" } else { "in the file" };
        tell!(
            "choices: {:.1} % fell on experts that are wholly hot {place}, {:.1} % on those that are in part, {:.1} % on wholly cold \
             ones",
            100.0 * hot / all,
            100.0 * part / all,
            100.0 * cold / all
        );
    }
}

/// Share of the neurons of chosen experts that fired, in all layers; `None` where the model has none.
fn density_in_experts(model: &Model, executor: &Executor) -> Option<f64> {
    let stats = executor.stats();
    let of_layer = |layer: &Layer| {
        let groups = routed(layer);
        let computed: f64 = groups.clone().filter_map(|group| stats.share_computed(group)).sum();
        stats.density_where_computed(groups).map(|density| (density * computed, computed))
    };
    let layers = model.weights.layers.iter().filter_map(of_layer);
    let (fired, computed) = layers.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    (computed > 0.0).then_some(fired / computed)
}

/// Everything about a generation as one JSON object. `texts` are the prompt and what was shown of the answer, `stop_strings`
/// those that the text might have stopped before.
pub fn json(
    model: &Model,
    executor: &Executor,
    texts: (&str, &str),
    result: &Generated,
    stop_strings: &[String],
    seed: u64,
) -> serde_json::Value {
    let (prefill, decode) = (result.prefill.as_secs_f64(), result.decode.as_secs_f64());
    let stop_string = match result.stop {
        Stop::StopString(i) => stop_strings.get(i),
        _ => None,
    };
    serde_json::json!({
        "model": model.gguf.source().name(),
        "prompt": texts.0,
        "text": texts.1,
        "tokens": result.tokens,
        "n_prompt": result.n_prompt,
        "n_gen": result.tokens.len(),
        "prefill_s": prefill,
        "decode_s": decode,
        "prefill_ts": per_second(result.n_prompt, prefill),
        "decode_ts": per_second(result.n_decoded, decode),
        "ffn_density": executor.stats().density(),
        "expert_density": density_in_experts(model, executor),
        "ffn_up_density": executor.stats().opened().filter(|_| model.has_two_masks()),
        "mode": executor.params().mode.name(),
        "predictor_recall": executor.stats().recall().map(|r| r.by_mass()),
        "n_threads": executor.params().n_threads,
        "seed": seed,
        "stop": result.stop.name(),
        "stop_string": stop_string,
    })
}
