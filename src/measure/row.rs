//! Rows of measurements, in the formats that llama-bench writes.

use super::divergence::Divergence;
use crate::executor::FfnStats;
use anyhow::{Result, bail};
use serde::Serialize;
use std::fmt::Write;
use std::str::FromStr;

/// One measurement. Absent values are null in JSON and empty elsewhere.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Version of this program.
    pub build: String,
    /// File, or the name of the embedded model.
    pub model_filename: String,
    /// `general.name`.
    pub model_type: String,
    /// Bytes of all tensors.
    pub model_size: u64,
    /// Whether the weights are random and fire as often as was asked for.
    pub synthetic: bool,
    /// Device that computed.
    pub backend: String,
    /// Threads.
    pub n_threads: usize,
    /// What was computed of the FFN: `dense`, `exact` or `predicted`.
    pub mode: String,
    /// Which neurons belong to the hot shard: `none`, `profile` (as planned) or `random` (as many).
    pub hot: String,
    /// What was fed: `real`, `random`, or a file.
    pub text: String,
    /// `pp512`, `tg128`, `ppl`, `kl`.
    pub test: String,
    /// Tokens prefilled.
    pub n_prompt: usize,
    /// Tokens decoded.
    pub n_gen: usize,
    /// Length of the windows of `ppl` and `kl`.
    pub n_ctx: Option<usize>,
    /// Mean tokens per second.
    pub avg_ts: f64,
    /// Standard deviation over the repetitions.
    pub stddev_ts: f64,
    /// Tokens per second of each repetition.
    pub samples_ts: Vec<f64>,
    /// Instruction set of the CPU kernels.
    pub isa: String,
    /// Mean bytes of weights touched per token.
    pub bytes_per_token: Option<f64>,
    /// The same for those of the FFN, predictors among them, in modes that skip some.
    pub ffn_bytes_per_token: Option<f64>,
    /// Weights read per second while decoding, in 10^9 bytes.
    pub gb_per_s: Option<f64>,
    /// What this machine reads at best, in the same unit: see [`mod@super::roofline`].
    pub limit_gb_per_s: Option<f64>,
    /// Share of neurons that fired.
    pub ffn_density: Option<f64>,
    /// Perplexity of the text.
    pub perplexity: Option<f64>,
    /// Standard error of the perplexity.
    pub stderr: Option<f64>,
    /// What the predictors did, in mode `predicted`; tables without such a row have no columns for it.
    #[serde(flatten)]
    pub predicted: Option<Predicted>,
    /// What the card did, where one computed; tables without such a row have no columns for it.
    #[serde(flatten)]
    pub card: Option<OnCard>,
    /// What a `kl` row says; tables without such a row have no columns for it.
    #[serde(flatten)]
    pub kl: Option<Kl>,
}

/// The columns of rows in mode `predicted`.
#[derive(Debug, Clone, Serialize)]
pub struct Predicted {
    /// Share of neurons that were named.
    pub ffn_named: f64,
    /// Mean bytes of predictors touched per token.
    pub predictor_bytes_per_token: f64,
    /// Share of the decoding time that they took.
    pub predictor_time: f64,
    /// Share of the activation mass that they found, in `kl` rows: finding it out takes time.
    pub predictor_recall: Option<f64>,
}

impl Predicted {
    /// What was counted while decoding so many tokens per second.
    pub fn of(stats: &FfnStats, tokens_per_second: f64) -> Self {
        Self {
            ffn_named: stats.masked().unwrap_or(0.0),
            predictor_bytes_per_token: stats.predictor_bytes_per_token(),
            predictor_time: stats.predictor_time_per_token().as_secs_f64() * tokens_per_second,
            predictor_recall: stats.recall().map(|recall| recall.by_mass()),
        }
    }
}

/// The columns of rows that a card had a part in.
#[derive(Debug, Clone, Serialize)]
pub struct OnCard {
    /// The card.
    pub device: String,
    /// Bytes that it might take.
    pub vram_budget: u64,
    /// Bytes that the plan accounts.
    pub vram_accounted: u64,
    /// Bytes that were allocated.
    pub vram_allocated: u64,
    /// Bytes of the card that are gone since it was opened, by its own count; includes modules and the context's growth.
    pub vram_used: u64,
    /// Share of neurons that are hot.
    pub hot_share: f64,
    /// Share of the time in which the CPU computed.
    pub cpu_busy: f64,
    /// Share of the time in which the card waited for the CPU.
    pub card_waits: f64,
    /// Pieces that the card handed to the CPU, per token.
    pub tasks_per_token: f64,
    /// Tokens per second that the plan expects.
    pub planned_ts: f64,
    /// Tokens per second if both memories were read at their full speed all the time.
    pub limit_ts: f64,
}

/// The columns of `kl` rows.
#[derive(Debug, Clone, Serialize)]
pub struct Kl {
    /// File whose dense predictions are the reference.
    pub kl_base: String,
    /// The model's predictions against those.
    #[serde(flatten)]
    pub divergence: Divergence,
}

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Format {
    Md,
    Csv,
    Json,
    Jsonl,
    Sql,
}

impl FromStr for Format {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "md" => Self::Md,
            "csv" => Self::Csv,
            "json" => Self::Json,
            "jsonl" => Self::Jsonl,
            "sql" => Self::Sql,
            _ => bail!("output format \"{name}\" is not known; md, csv, json, jsonl and sql are"),
        })
    }
}

/// All rows in one format, ending in a newline.
///
/// # Errors
/// When a value cannot be expressed in it.
pub fn render(rows: &[Row], format: Format) -> Result<String> {
    Ok(match format {
        Format::Md => markdown(rows),
        Format::Json => serde_json::to_string_pretty(rows)? + "\n",
        Format::Jsonl => {
            let lines = rows.iter().map(|r| Ok(serde_json::to_string(r)? + "\n"));
            lines.collect::<Result<String>>()?
        }
        Format::Csv => csv(rows)?,
        Format::Sql => sql(rows)?,
    })
}

fn markdown(rows: &[Row]) -> String {
    let mut titles =
        ["model", "size", "threads", "mode", "text", "test", "t/s", "MiB/token", "GB/s", "of limit", "density"]
            .map(str::to_owned)
            .to_vec();
    let has = Groups::of(rows);
    if has.predicted {
        titles.extend(PREDICTED_TITLES.map(str::to_owned));
    }
    if has.card {
        titles.extend(CARD_TITLES.map(str::to_owned));
    }
    if has.kl {
        titles.extend(KL_TITLES.map(str::to_owned));
    }
    let mut lines = vec![titles];
    for row in rows {
        let result = match row.perplexity {
            Some(ppl) if row.kl.is_none() => format!("ppl {ppl:.4} ± {:.4}", row.stderr.unwrap_or(0.0)),
            _ => format!("{:.2} ± {:.2}", row.avg_ts, row.stddev_ts),
        };
        let dash = || "-".to_owned();
        lines.push(vec![
            model_cell(row),
            crate::units::Bytes(row.model_size).to_string(),
            row.n_threads.to_string(),
            row.mode.clone(),
            row.text.replace('|', "/"),
            row.test.clone(),
            result,
            row.bytes_per_token.map_or_else(dash, |b| format!("{:.2}", b / (1 << 20) as f64)),
            row.gb_per_s.map_or_else(dash, |g| format!("{g:.1}")),
            row.gb_per_s.zip(row.limit_gb_per_s).map_or_else(dash, |(g, limit)| format!("{:.0} %", 100.0 * g / limit)),
            row.ffn_density.map_or_else(dash, |d| format!("{:.2} %", 100.0 * d)),
        ]);
        let line = lines.last_mut().into_iter();
        let mut more = Vec::new();
        if has.predicted {
            more.extend(
                row.predicted.as_ref().map_or_else(|| [(); PREDICTED_TITLES.len()].map(|()| dash()), predicted_cells),
            );
        }
        if has.card {
            more.extend(
                row.card.as_ref().map_or_else(|| [(); CARD_TITLES.len()].map(|()| dash()), |c| card_cells(c, row)),
            );
        }
        if has.kl {
            more.extend(row.kl.as_ref().map_or_else(|| [(); KL_TITLES.len()].map(|()| dash()), |kl| kl_cells(kl, row)));
        }
        line.for_each(|line| line.append(&mut more));
    }
    let width = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!(" {cell:<width$} ") } else { format!(" {cell:>width$} ") }
        });
        out += &format!("|{}|\n", cells.collect::<Vec<_>>().join("|"));
        if i == 0 {
            let rule = widths
                .iter()
                .enumerate()
                .map(|(column, width)| if column == 0 { "-".repeat(width + 2) } else { "-".repeat(width + 1) + ":" });
            out += &format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
        }
    }
    out
}

/// Which groups of columns a table has.
#[derive(Clone, Copy)]
struct Groups {
    predicted: bool,
    card: bool,
    kl: bool,
}

impl Groups {
    /// Those that a row needs.
    fn of(rows: &[Row]) -> Self {
        Self {
            predicted: rows.iter().any(|row| row.predicted.is_some()),
            card: rows.iter().any(|row| row.card.is_some()),
            kl: rows.iter().any(|row| row.kl.is_some()),
        }
    }
}

const PREDICTED_TITLES: [&str; 4] = ["named", "predictor", "its time", "recall"];

fn predicted_cells(p: &Predicted) -> [String; PREDICTED_TITLES.len()] {
    [
        format!("{:.2} %", 100.0 * p.ffn_named),
        format!("{:.2} MiB", p.predictor_bytes_per_token / (1 << 20) as f64),
        format!("{:.1} %", 100.0 * p.predictor_time),
        p.predictor_recall.map_or_else(|| "-".to_owned(), |recall| format!("{:.3} %", 100.0 * recall)),
    ]
}

const CARD_TITLES: [&str; 7] =
    ["device", "on the card", "hot", "CPU busy", "card waits", "planned t/s", "of both limits"];

fn card_cells(c: &OnCard, row: &Row) -> [String; CARD_TITLES.len()] {
    [
        c.device.replace('|', "/"),
        crate::units::Bytes(c.vram_allocated).to_string(),
        format!("{:.1} %", 100.0 * c.hot_share),
        format!("{:.0} %", 100.0 * c.cpu_busy),
        format!("{:.0} %", 100.0 * c.card_waits),
        format!("{:.2}", c.planned_ts),
        format!("{:.0} %", 100.0 * row.avg_ts / c.limit_ts),
    ]
}

const KL_TITLES: [&str; 14] = [
    "KL from dense of",
    "mean KL",
    "median",
    "90 %",
    "95 %",
    "99 %",
    "99.9 %",
    "max",
    "same top",
    "ppl",
    "dense ppl",
    "ppl ratio",
    "mean Δp",
    "RMS Δp",
];

fn kl_cells(kl: &Kl, row: &Row) -> [String; KL_TITLES.len()] {
    let d = &kl.divergence;
    // What is exactly 0 is told from what rounds to it.
    let nats = |x: f64| if x == 0.0 { "0".to_owned() } else { format!("{x:.6}") };
    let with = |x: f64, error: f64, digits: usize| format!("{x:.digits$} ± {error:.digits$}");
    let percent = |x: f64, error: f64| format!("{} %", with(100.0 * x, 100.0 * error, 3));
    [
        kl.kl_base.replace('|', "/"),
        format!("{} ± {}", nats(d.kl_mean), nats(d.kl_stderr)),
        nats(d.kl_median),
        nats(d.kl_90),
        nats(d.kl_95),
        nats(d.kl_99),
        nats(d.kl_99_9),
        nats(d.kl_max),
        percent(d.same_top, d.same_top_stderr),
        with(row.perplexity.unwrap_or(0.0), row.stderr.unwrap_or(0.0), 4),
        with(d.base_perplexity, d.base_stderr, 4),
        with(d.perplexity_ratio, d.perplexity_ratio_stderr, 6),
        percent(d.dp_mean, d.dp_mean_stderr),
        percent(d.dp_rms, d.dp_rms_stderr),
    ]
}

/// The model's name, and that it is synthetic where its name does not say so.
fn model_cell(row: &Row) -> String {
    let name = row.model_type.replace('|', "/");
    if row.synthetic && !name.contains("synthetic") { format!("{name} (synthetic)") } else { name }
}

/// Names and values of a row, in order, with those of the given groups.
fn fields(row: &Row, has: Groups) -> Result<Vec<(String, serde_json::Value)>> {
    let serde_json::Value::Object(map) = serde_json::to_value(row)? else { bail!("a row is not an object") };
    let order = [
        "build",
        "model_filename",
        "model_type",
        "model_size",
        "synthetic",
        "backend",
        "n_threads",
        "mode",
        "hot",
        "text",
        "test",
        "n_prompt",
        "n_gen",
        "n_ctx",
        "avg_ts",
        "stddev_ts",
        "samples_ts",
        "isa",
        "bytes_per_token",
        "ffn_bytes_per_token",
        "gb_per_s",
        "limit_gb_per_s",
        "ffn_density",
        "perplexity",
        "stderr",
    ];
    let of_predicted = ["ffn_named", "predictor_bytes_per_token", "predictor_time", "predictor_recall"];
    let of_card = [
        "device",
        "vram_budget",
        "vram_accounted",
        "vram_allocated",
        "vram_used",
        "hot_share",
        "cpu_busy",
        "card_waits",
        "tasks_per_token",
        "planned_ts",
        "limit_ts",
    ];
    let of_kl = [
        "kl_base",
        "kl_tokens",
        "kl_mean",
        "kl_stderr",
        "kl_median",
        "kl_90",
        "kl_95",
        "kl_99",
        "kl_99_9",
        "kl_max",
        "same_top",
        "same_top_stderr",
        "base_perplexity",
        "base_stderr",
        "perplexity_ratio",
        "perplexity_ratio_stderr",
        "dp_mean",
        "dp_mean_stderr",
        "dp_rms",
        "dp_rms_stderr",
    ];
    let value = |name: &&str| ((*name).to_owned(), map.get(*name).cloned().unwrap_or_default());
    let of_predicted = of_predicted.iter().filter(|_| has.predicted);
    let of_card = of_card.iter().filter(|_| has.card);
    Ok(order.iter().chain(of_predicted).chain(of_card).chain(of_kl.iter().filter(|_| has.kl)).map(value).collect())
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(s) => s.clone(),
        serde_json::Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

fn csv(rows: &[Row]) -> Result<String> {
    let (mut out, has) = (String::new(), Groups::of(rows));
    for (i, row) in rows.iter().enumerate() {
        let fields = fields(row, has)?;
        if i == 0 {
            let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
            writeln!(out, "{}", names.join(","))?;
        }
        let quoted = |v: &serde_json::Value| format!("\"{}\"", plain(v).replace('"', "\"\""));
        let values: Vec<_> = fields.iter().map(|(_, value)| quoted(value)).collect();
        writeln!(out, "{}", values.join(","))?;
    }
    Ok(out)
}

fn sql(rows: &[Row]) -> Result<String> {
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        // All columns, whatever the rows: rows of several runs go into one table.
        let fields = fields(row, Groups { predicted: true, card: true, kl: true })?;
        let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
        if i == 0 {
            let text = [
                "build",
                "model_filename",
                "model_type",
                "synthetic",
                "backend",
                "mode",
                "hot",
                "text",
                "test",
                "samples_ts",
                "isa",
                "device",
                "kl_base",
            ];
            let kind = |name: &&str| if text.contains(name) { "TEXT" } else { "REAL" };
            let columns: Vec<_> = names.iter().map(|n| format!("  {n} {}", kind(n))).collect();
            writeln!(out, "CREATE TABLE IF NOT EXISTS powerinfer_bench (\n{}\n);", columns.join(",\n"))?;
        }
        let literal = |v: &serde_json::Value| match v {
            serde_json::Value::Null => "NULL".to_owned(),
            serde_json::Value::Number(n) => n.to_string(),
            other => format!("'{}'", plain(other).replace('\'', "''")),
        };
        let values: Vec<_> = fields.iter().map(|(_, value)| literal(value)).collect();
        writeln!(out, "INSERT INTO powerinfer_bench ({}) VALUES ({});", names.join(", "), values.join(", "))?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
