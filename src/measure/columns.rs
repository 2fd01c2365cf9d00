//! The columns of a table of measurements. A new one is a line here.

use super::divergence::Divergence;
use super::row::{Kl, OnCard, Predicted, Row};
use super::table::{Column, Group, Tabled};
use crate::units::Bytes;
use serde_json::Value;

const fn text(name: &'static str, value: fn(&Row) -> Value) -> Column<Row> {
    Column::text(name, value)
}

const fn number(name: &'static str, value: fn(&Row) -> Value) -> Column<Row> {
    Column::number(name, value)
}

const fn again(title: &'static str, cell: fn(&Row) -> Option<String>) -> Column<Row> {
    Column::again(title, cell)
}

impl Tabled for Row {
    const TABLE: &'static str = "powerinfer_bench";

    fn groups() -> &'static [Group<Self>] {
        &GROUPS
    }
}

/// All columns, in order.
static GROUPS: [Group<Row>; 5] = [
    Group {
        needed: None,
        columns: &[
            text("build", |r| r.build.as_str().into()),
            text("model_filename", |r| r.model_filename.as_str().into()),
            text("model_type", |r| r.model_type.as_str().into()).shown("model", |r| Some(model(r))),
            number("model_size", |r| r.model_size.into()).shown("size", |r| Some(Bytes(r.model_size).to_string())),
            text("synthetic", |r| r.synthetic.into()),
            text("backend", |r| r.backend.as_str().into()),
            number("n_threads", |r| r.n_threads.into()).shown("threads", |r| Some(r.n_threads.to_string())),
            text("mode", |r| r.mode.as_str().into()).shown("mode", |r| Some(r.mode.clone())),
            text("hot", |r| r.hot.as_str().into()),
            text("text", |r| r.text.as_str().into()).shown("text", |r| Some(r.text.clone())),
            text("test", |r| r.test.as_str().into()).shown("test", |r| Some(r.test.clone())),
            number("n_prompt", |r| r.n_prompt.into()),
            number("n_gen", |r| r.n_gen.into()),
            number("n_ctx", |r| r.n_ctx.into()),
            number("avg_ts", |r| r.avg_ts.into()).shown("t/s", |r| Some(result(r))),
            number("stddev_ts", |r| r.stddev_ts.into()),
            text("samples_ts", |r| r.samples_ts.clone().into()),
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
        needed: Some(|row| row.ffn_up_density.is_some()),
        columns: &[number("ffn_up_density", |r| r.ffn_up_density.into())
            .shown("density of up", |r| Some(percent(r.ffn_up_density?, 2)))],
    },
    Group {
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
        needed: Some(|row| row.card.is_some()),
        columns: &[
            text("device", |r| card(r, |c| c.device.clone()))
                .shown("device", |r| Some(r.card.as_ref()?.device.clone())),
            number("vram_budget", |r| card(r, |c| c.vram_budget)),
            number("vram_accounted", |r| card(r, |c| c.vram_accounted)),
            number("vram_allocated", |r| card(r, |c| c.vram_allocated))
                .shown("on the card", |r| Some(Bytes(r.card.as_ref()?.vram_allocated).to_string())),
            number("vram_used", |r| card(r, |c| c.vram_used)),
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
                .shown("of both limits", |r| Some(share_of(r.avg_ts, r.card.as_ref()?.limit_ts))),
            number("sheet_ts", |r| card(r, |c| c.sheet_ts)).shown("of data sheet", |r| {
                let sheet = r.card.as_ref()?.sheet_ts;
                Some(sheet.map_or("unknown".to_owned(), |sheet| share_of(r.avg_ts, sheet)))
            }),
        ],
    },
    Group {
        needed: Some(|row| row.kl.is_some()),
        columns: &[
            text("kl_base", |r| r.kl.as_ref().map(|kl| kl.kl_base.as_str()).into())
                .shown("KL from dense of", |r| Some(r.kl.as_ref()?.kl_base.clone())),
            number("kl_tokens", |r| kl(r, |d| d.kl_tokens)),
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
];

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
    let name = row.model_type.clone();
    if row.synthetic && !name.contains("synthetic") { format!("{name} (synthetic)") } else { name }
}

/// Tokens per second; where only a text was scored, its perplexity.
fn result(row: &Row) -> String {
    match row.perplexity {
        Some(perplexity) if row.kl.is_none() => {
            format!("ppl {}", with(perplexity, row.stderr.unwrap_or(0.0), 4))
        }
        _ => with(row.avg_ts, row.stddev_ts, 2),
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
