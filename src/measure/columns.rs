//! The columns of a table of measurements. A new one is a line here.

use super::divergence::Divergence;
use super::row::{Kl, OnCard, Parallel, Predicted, Row};
use super::table::{Column, Group, Tabled, fields, groups_of};
use crate::units::Bytes;
use serde_json::{Map, Value};
use std::slice;

/// Group of columns that rows with batches of another size than usual show.
pub const BATCH: &str = "n_batch";
/// The same for what is computed at once.
pub const UBATCH: &str = "n_ubatch";
/// Group of columns that rows with another KV cache than usual show.
pub const CACHE: &str = "cache";
/// Group of the columns of rows in mode `predicted`.
pub const PREDICTED: &str = "predicted";
/// Group of the columns of rows of several sequences.
pub const PARALLEL: &str = "parallel";
/// Group of the columns of `kl` rows.
pub const KL: &str = "kl";

/// llama-bench's default of `n_batch`.
pub const USUAL_BATCH: usize = 2048;
/// llama-bench's default of `n_ubatch`.
pub const USUAL_UBATCH: usize = 512;
/// llama-bench's default of `type_k` and `type_v`.
pub const USUAL_CACHE: &str = "f16";

const fn text(name: &'static str, value: fn(&Row) -> Value) -> Column<Row> {
    Column::text(name, value)
}

const fn count(name: &'static str, value: fn(&Row) -> Value) -> Column<Row> {
    Column::integer(name, value)
}

const fn number(name: &'static str, value: fn(&Row) -> Value) -> Column<Row> {
    Column::real(name, value)
}

const fn truth(name: &'static str, value: fn(&Row) -> Value) -> Column<Row> {
    Column::boolean(name, value)
}

const fn again(title: &'static str, cell: fn(&Row) -> Option<String>) -> Column<Row> {
    Column::again(title, cell)
}

impl Row {
    /// What data formats have of it, by name.
    pub fn fields(&self) -> Map<String, Value> {
        let fields = fields(groups_of(slice::from_ref(self)));
        fields.iter().map(|field| (field.name.to_owned(), (field.value)(self))).collect()
    }
}

impl Tabled for Row {
    const TABLE: &'static str = "llama_bench";
    // As llama-bench's table was called once, and ours.
    const VIEWS: &'static [&'static str] = &["test", "powerinfer_bench"];

    fn groups() -> &'static [Group<Self>] {
        &GROUPS
    }
}

/// All columns, in order: first those of llama-bench by its names and with its types, then those that it does not have. What
/// there is no choice of here has the value that llama-bench has by default.
static GROUPS: [Group<Row>; 11] = [
    Group {
        name: "llama-bench: build and model",
        needed: None,
        columns: &[
            text("build_commit", |r| r.build_commit.as_str().into()),
            count("build_number", |r| r.build_number.into()),
            text("cpu_info", |r| r.cpu_info.as_str().into()),
            text("gpu_info", |r| r.gpu_info.as_str().into()),
            text("backends", |r| r.backend.as_str().into()),
            text("model_filename", |r| r.model_filename.as_str().into()),
            text("model_type", |r| r.model_type.as_str().into()).shown("model", |r| Some(model(r))),
            count("model_size", |r| r.model_size.into()).shown("size", |r| Some(Bytes(r.model_size).to_string())),
            count("model_n_params", |r| r.model_n_params.into()).shown("params", |r| Some(params(r.model_n_params))),
            again("backend", |r| Some(r.backend.clone())),
            count("n_batch", |r| r.n_batch.into()),
            count("n_ubatch", |r| r.n_ubatch.into()),
            count("n_threads", |r| r.n_threads.into()).shown("threads", |r| Some(r.n_threads.to_string())),
        ],
    },
    Group {
        name: BATCH,
        needed: Some(|row| row.n_batch != USUAL_BATCH),
        columns: &[again("n_batch", |r| Some(r.n_batch.to_string()))],
    },
    Group {
        name: UBATCH,
        needed: Some(|row| row.n_ubatch != USUAL_UBATCH),
        columns: &[again("n_ubatch", |r| Some(r.n_ubatch.to_string()))],
    },
    Group {
        name: CACHE,
        needed: Some(|row| row.type_k != USUAL_CACHE || row.type_v != USUAL_CACHE),
        columns: &[again("type_k", |r| Some(r.type_k.clone())), again("type_v", |r| Some(r.type_v.clone()))],
    },
    Group {
        name: "llama-bench: run and result",
        needed: None,
        columns: &[
            text("cpu_mask", |_| "0x0".into()),
            truth("cpu_strict", |_| false.into()),
            count("poll", |_| 50.into()),
            text("type_k", |r| r.type_k.as_str().into()),
            text("type_v", |r| r.type_v.as_str().into()),
            count("n_gpu_layers", |r| r.n_gpu_layers.into()),
            count("n_cpu_moe", |_| 0.into()),
            text("split_mode", |_| "layer".into()),
            count("main_gpu", |_| 0.into()),
            truth("no_kv_offload", |_| false.into()),
            count("flash_attn", |_| (-1).into()),
            text("devices", |r| r.devices.as_str().into()),
            text("tensor_split", |_| "0.00".into()),
            text("tensor_buft_overrides", |_| "none".into()),
            truth("use_mmap", |r| r.use_mmap.into()),
            text("load_mode", |r| r.load_mode.as_str().into()),
            truth("embeddings", |_| false.into()),
            count("no_op_offload", |_| 0.into()),
            truth("no_host", |_| false.into()),
            count("fit_target", |_| 0.into()),
            count("fit_min_ctx", |_| 0.into()),
            Column::again_wide("mode", 9, |r| Some(r.mode.clone())),
            again("text", |r| Some(r.text.clone())),
            count("n_prompt", |r| r.n_prompt.into()),
            count("n_gen", |r| r.n_gen.into()),
            count("n_depth", |r| r.n_depth.into()),
            text("test_time", |r| r.test_time.as_str().into()),
            count("avg_ns", |r| r.timing.avg_ns.into()),
            count("stddev_ns", |r| r.timing.stddev_ns.into()),
            number("avg_ts", |r| r.timing.avg_ts.into()),
            number("stddev_ts", |r| r.timing.stddev_ts.into()),
            text("samples_ns", |r| r.timing.samples_ns.clone().into()),
            text("samples_ts", |r| r.timing.samples_ts.clone().into()),
        ],
    },
    Group {
        name: "ours",
        needed: None,
        columns: &[
            text("build", |r| r.build.as_str().into()),
            text("model_name", |r| r.model_name.as_str().into()),
            truth("synthetic", |r| r.synthetic.into()),
            text("backend", |r| r.backend.as_str().into()),
            text("mode", |r| r.mode.as_str().into()),
            text("hot", |r| r.hot.as_str().into()),
            text("text", |r| r.text.as_str().into()),
            text("test", |r| r.test.as_str().into()).shown_wide("test", 14, |r| Some(r.test.clone())),
            Column::again_wide("t/s", 18, |r| Some(result(r))),
            count("n_ctx", |r| r.n_ctx.into()),
            text("isa", |r| r.isa.as_str().into()),
            number("bytes_per_token", |r| r.bytes_per_token.into())
                .shown("MiB/token", |r| Some(format!("{:.2}", mib(r.bytes_per_token?)))),
            number("ffn_bytes_per_token", |r| r.ffn_bytes_per_token.into()),
            number("gb_per_s", |r| r.gb_per_s.into()).shown("GB/s", |r| Some(format!("{:.1}", r.gb_per_s?))),
            number("limit_gb_per_s", |r| r.limit_gb_per_s.into())
                .shown("of limit", |r| Some(share_of(r.gb_per_s?, r.limit_gb_per_s?))),
            number("ffn_density", |r| r.ffn_density.into()).shown("density", |r| Some(percent(r.ffn_density?, 2))),
            number("perplexity", |r| r.perplexity.into()),
            number("stderr", |r| r.stderr.into()),
        ],
    },
    Group {
        name: "up",
        needed: Some(|row| row.ffn_up_density.is_some()),
        columns: &[number("ffn_up_density", |r| r.ffn_up_density.into())
            .shown("density of up", |r| Some(percent(r.ffn_up_density?, 2)))],
    },
    Group {
        name: PREDICTED,
        needed: Some(|row| row.predicted.is_some()),
        columns: &[
            number("ffn_named", |r| predicted(r, |p| p.ffn_named))
                .shown("named", |r| Some(percent(r.predicted.as_ref()?.ffn_named, 2))),
            number("predictor_bytes_per_token", |r| predicted(r, |p| p.predictor_bytes_per_token))
                .shown("predictor", |r| {
                    Some(format!("{:.2} MiB", mib(r.predicted.as_ref()?.predictor_bytes_per_token)))
                }),
            number("predictor_time", |r| predicted(r, |p| p.predictor_time))
                .shown("its time", |r| Some(percent(r.predicted.as_ref()?.predictor_time, 1))),
            number("predictor_recall", |r| predicted(r, |p| p.predictor_recall))
                .shown("recall", |r| Some(percent(r.predicted.as_ref()?.predictor_recall?, 3))),
        ],
    },
    Group {
        name: "card",
        needed: Some(|row| row.card.is_some()),
        columns: &[
            text("device", |r| card(r, |c| c.device.clone()))
                .shown("device", |r| Some(r.card.as_ref()?.device.clone())),
            count("vram_budget", |r| card(r, |c| c.vram_budget)),
            count("vram_accounted", |r| card(r, |c| c.vram_accounted)),
            count("vram_allocated", |r| card(r, |c| c.vram_allocated))
                .shown("on the card", |r| Some(Bytes(r.card.as_ref()?.vram_allocated).to_string())),
            count("vram_used", |r| card(r, |c| c.vram_used)),
            number("hot_share", |r| card(r, |c| c.hot_share))
                .shown("hot", |r| Some(percent(r.card.as_ref()?.hot_share, 1))),
            number("cpu_busy", |r| card(r, |c| c.cpu_busy))
                .shown("CPU busy", |r| Some(percent(r.card.as_ref()?.cpu_busy, 0))),
            number("card_waits", |r| card(r, |c| c.card_waits))
                .shown("card waits", |r| Some(percent(r.card.as_ref()?.card_waits, 0))),
            number("tasks_per_token", |r| card(r, |c| c.tasks_per_token)),
            number("planned_ts", |r| card(r, |c| c.planned_ts))
                .shown("planned t/s", |r| Some(format!("{:.2}", r.card.as_ref()?.planned_ts))),
            number("limit_ts", |r| card(r, |c| c.limit_ts))
                .shown("of both limits", |r| Some(share_of(r.timing.avg_ts, r.card.as_ref()?.limit_ts))),
            number("sheet_ts", |r| card(r, |c| c.sheet_ts)).shown("of data sheet", |r| {
                let sheet = r.card.as_ref()?.sheet_ts;
                Some(sheet.map_or("unknown".to_owned(), |sheet| share_of(r.timing.avg_ts, sheet)))
            }),
        ],
    },
    Group {
        name: KL,
        needed: Some(|row| row.kl.is_some()),
        columns: &[
            text("kl_base", |r| r.kl.as_ref().map(|kl| kl.kl_base.as_str()).into())
                .shown("KL from dense of", |r| Some(r.kl.as_ref()?.kl_base.clone())),
            count("kl_tokens", |r| kl(r, |d| d.kl_tokens)),
            number("kl_mean", |r| kl(r, |d| d.kl_mean)).shown("mean KL", |r| {
                let d = &r.kl.as_ref()?.divergence;
                Some(format!("{} ± {}", nats(d.kl_mean), nats(d.kl_stderr)))
            }),
            number("kl_stderr", |r| kl(r, |d| d.kl_stderr)),
            number("kl_median", |r| kl(r, |d| d.kl_median)).shown("median", |r| nats_of(r, |d| d.kl_median)),
            number("kl_90", |r| kl(r, |d| d.kl_90)).shown("90 %", |r| nats_of(r, |d| d.kl_90)),
            number("kl_95", |r| kl(r, |d| d.kl_95)).shown("95 %", |r| nats_of(r, |d| d.kl_95)),
            number("kl_99", |r| kl(r, |d| d.kl_99)).shown("99 %", |r| nats_of(r, |d| d.kl_99)),
            number("kl_99_9", |r| kl(r, |d| d.kl_99_9)).shown("99.9 %", |r| nats_of(r, |d| d.kl_99_9)),
            number("kl_max", |r| kl(r, |d| d.kl_max)).shown("max", |r| nats_of(r, |d| d.kl_max)),
            number("same_top", |r| kl(r, |d| d.same_top))
                .shown("same top", |r| percent_of(r, |d| (d.same_top, d.same_top_stderr))),
            number("same_top_stderr", |r| kl(r, |d| d.same_top_stderr)),
            again("ppl", |r| r.kl.as_ref().map(|_| with(r.perplexity.unwrap_or(0.0), r.stderr.unwrap_or(0.0), 4))),
            number("base_perplexity", |r| kl(r, |d| d.base_perplexity))
                .shown("dense ppl", |r| with_of(r, 4, |d| (d.base_perplexity, d.base_stderr))),
            number("base_stderr", |r| kl(r, |d| d.base_stderr)),
            number("perplexity_ratio", |r| kl(r, |d| d.perplexity_ratio))
                .shown("ppl ratio", |r| with_of(r, 6, |d| (d.perplexity_ratio, d.perplexity_ratio_stderr))),
            number("perplexity_ratio_stderr", |r| kl(r, |d| d.perplexity_ratio_stderr)),
            number("dp_mean", |r| kl(r, |d| d.dp_mean))
                .shown("mean Δp", |r| percent_of(r, |d| (d.dp_mean, d.dp_mean_stderr))),
            number("dp_mean_stderr", |r| kl(r, |d| d.dp_mean_stderr)),
            number("dp_rms", |r| kl(r, |d| d.dp_rms))
                .shown("RMS Δp", |r| percent_of(r, |d| (d.dp_rms, d.dp_rms_stderr))),
            number("dp_rms_stderr", |r| kl(r, |d| d.dp_rms_stderr)),
        ],
    },
    Group {
        name: PARALLEL,
        needed: Some(|row| row.parallel.is_some()),
        columns: &[
            count("n_parallel", |r| r.parallel.as_ref().map(|p| p.n_parallel).into())
                .shown("sequences", |r| Some(r.parallel.as_ref().map_or(1, |p| p.n_parallel).to_string())),
            number("union_density", |r| r.parallel.as_ref().and_then(|p| p.union_density).into())
                .shown("density of union", |r| Some(percent(r.parallel.as_ref()?.union_density?, 2))),
            number("union_predicted", |r| r.parallel.as_ref().and_then(|p| p.union_predicted).into())
                .shown("predicted (off)", |r| predicted_union(r.parallel.as_ref()?)),
        ],
    },
];

/// With how far it is from what was measured.
fn predicted_union(of: &Parallel) -> Option<String> {
    let (predicted, measured) = (of.union_predicted?, of.union_density?);
    Some(format!("{} ({:+.1} %)", percent(predicted, 2), 100.0 * (predicted / measured - 1.0)))
}

fn predicted<T: Into<Value>>(row: &Row, of: fn(&Predicted) -> T) -> Value {
    row.predicted.as_ref().map(of).into()
}

fn card<T: Into<Value>>(row: &Row, of: fn(&OnCard) -> T) -> Value {
    row.card.as_ref().map(of).into()
}

fn divergence(row: &Row) -> Option<&Divergence> {
    row.kl.as_ref().map(|Kl { divergence, .. }| divergence)
}

fn kl<T: Into<Value>>(row: &Row, of: fn(&Divergence) -> T) -> Value {
    divergence(row).map(of).into()
}

/// The model's name, and that it is synthetic where its name does not say so.
fn model(row: &Row) -> String {
    let name = row.model_name.clone();
    if row.synthetic && !name.contains("synthetic") { format!("{name} (synthetic)") } else { name }
}

/// Weights in millions or billions, as llama-bench shows them.
fn params(n: u64) -> String {
    let n = n as f64;
    if n < 1e9 { format!("{:.2} M", n / 1e6) } else { format!("{:.2} B", n / 1e9) }
}

/// Tokens per second; where only a text was scored, its perplexity.
fn result(row: &Row) -> String {
    match row.perplexity {
        Some(perplexity) if row.kl.is_none() => {
            format!("ppl {}", with(perplexity, row.stderr.unwrap_or(0.0), 4))
        }
        _ => with(row.timing.avg_ts, row.timing.stddev_ts, 2),
    }
}

fn mib(bytes: f64) -> f64 {
    bytes / (1 << 20) as f64
}

fn percent(share: f64, digits: usize) -> String {
    format!("{:.digits$} %", 100.0 * share)
}

pub(super) fn share_of(part: f64, whole: f64) -> String {
    format!("{:.0} %", 100.0 * part / whole)
}

fn with(value: f64, error: f64, digits: usize) -> String {
    format!("{value:.digits$} ± {error:.digits$}")
}

/// What is exactly 0 is told from what rounds to it.
fn nats(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { format!("{value:.6}") }
}

fn nats_of(row: &Row, of: fn(&Divergence) -> f64) -> Option<String> {
    divergence(row).map(|d| nats(of(d)))
}

/// A value with its error.
fn with_of(row: &Row, digits: usize, of: fn(&Divergence) -> (f64, f64)) -> Option<String> {
    divergence(row).map(of).map(|(value, error)| with(value, error, digits))
}

/// A share with its error.
fn percent_of(row: &Row, of: fn(&Divergence) -> (f64, f64)) -> Option<String> {
    divergence(row).map(of).map(|(share, error)| format!("{} %", with(100.0 * share, 100.0 * error, 3)))
}
