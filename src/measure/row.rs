//! Rows of measurements, in the formats that llama-bench writes.

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
    /// What was computed of the FFN: `dense` or `exact`.
    pub mode: String,
    /// What was fed: `real`, `random`, or a file.
    pub text: String,
    /// `pp512`, `tg128`, `ppl`.
    pub test: String,
    /// Tokens prefilled.
    pub n_prompt: usize,
    /// Tokens decoded.
    pub n_gen: usize,
    /// Length of perplexity's windows.
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
    let mut lines = vec![
        ["model", "size", "threads", "mode", "text", "test", "t/s", "MiB/token", "GB/s", "of limit", "density"]
            .map(str::to_owned),
    ];
    for row in rows {
        let result = match row.perplexity {
            Some(ppl) => format!("ppl {ppl:.4} ± {:.4}", row.stderr.unwrap_or(0.0)),
            None => format!("{:.2} ± {:.2}", row.avg_ts, row.stddev_ts),
        };
        let dash = || "-".to_owned();
        lines.push([
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

/// The model's name, and that it is synthetic where its name does not say so.
fn model_cell(row: &Row) -> String {
    let name = row.model_type.replace('|', "/");
    if row.synthetic && !name.contains("synthetic") { format!("{name} (synthetic)") } else { name }
}

/// Names and values of a row, in order.
fn fields(row: &Row) -> Result<Vec<(String, serde_json::Value)>> {
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
        "gb_per_s",
        "limit_gb_per_s",
        "ffn_density",
        "perplexity",
        "stderr",
    ];
    let value = |name: &&str| ((*name).to_owned(), map.get(*name).cloned().unwrap_or_default());
    Ok(order.iter().map(value).collect())
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
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        let fields = fields(row)?;
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
        let fields = fields(row)?;
        let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
        if i == 0 {
            let text = [
                "build",
                "model_filename",
                "model_type",
                "synthetic",
                "backend",
                "mode",
                "text",
                "test",
                "samples_ts",
                "isa",
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
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            build: "0.1.0".to_owned(),
            model_filename: "it's \"a\" file.gguf".to_owned(),
            model_type: "tiny".to_owned(),
            model_size: 1024,
            synthetic: false,
            backend: "CPU".to_owned(),
            n_threads: 2,
            mode: "exact".to_owned(),
            text: "real".to_owned(),
            test: "tg128".to_owned(),
            n_prompt: 0,
            n_gen: 128,
            n_ctx: None,
            avg_ts: 10.5,
            stddev_ts: 0.25,
            samples_ts: vec![10.25, 10.75],
            isa: "plain".to_owned(),
            bytes_per_token: Some(1048576.0),
            gb_per_s: Some(12.0),
            limit_gb_per_s: Some(16.0),
            ffn_density: Some(0.125),
            perplexity: None,
            stderr: None,
        }
    }

    #[test]
    fn json_is_a_list_with_the_names_that_scripts_rely_on() {
        let json: serde_json::Value = serde_json::from_str(&render(&[row()], Format::Json).unwrap()).unwrap();
        let first = &json[0];
        for name in ["test", "n_prompt", "n_gen", "mode", "n_threads", "avg_ts", "stddev_ts", "bytes_per_token"] {
            assert!(!first[name].is_null(), "{name}");
        }
        assert_eq!(first["ffn_density"].as_f64(), Some(0.125));
        assert!(first["perplexity"].is_null());
    }

    #[test]
    fn every_field_of_a_row_has_its_column() {
        let object = serde_json::to_value(row()).unwrap();
        let mut names: Vec<_> = object.as_object().unwrap().keys().cloned().collect();
        let mut columns: Vec<_> = fields(&row()).unwrap().into_iter().map(|(name, _)| name).collect();
        names.sort();
        columns.sort();
        assert_eq!(names, columns);
    }

    #[test]
    fn quotes_are_doubled_in_csv_and_sql() {
        let csv = render(&[row()], Format::Csv).unwrap();
        assert!(csv.contains("\"it's \"\"a\"\" file.gguf\""), "{csv}");
        let sql = render(&[row()], Format::Sql).unwrap();
        assert!(sql.contains("'it''s \"a\" file.gguf'") && sql.contains("NULL"), "{sql}");
    }

    #[test]
    fn a_markdown_table_has_a_line_per_row() {
        let md = render(&[row(), row()], Format::Md).unwrap();
        assert_eq!(md.lines().count(), 4);
        assert!(!md.contains("synthetic"), "{md}");
        let synthetic = render(&[Row { synthetic: true, ..row() }], Format::Md).unwrap();
        assert!(synthetic.contains("| tiny (synthetic) |"), "{synthetic}");
        for cell in ["12.50 %", "75 %", "10.50 ± 0.25", "1.00"] {
            assert!(md.contains(cell), "{cell}: {md}");
        }
    }
}
