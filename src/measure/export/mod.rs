//! Tables of measurements in the formats that llama-bench writes.

mod csv;
mod json;
mod markdown;
mod sql;
mod stream;

pub use stream::Stream;

use super::table::{Field, SqlType, Tabled};
use anyhow::{Result, bail};
use serde_json::Value;
use std::str::FromStr;

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

/// All rows in one format, ending in a newline. Absent values are null in JSON and SQL, a dash in Markdown, and empty in
/// CSV.
///
/// # Errors
/// When a value cannot be expressed in it.
pub fn render<R: Tabled>(rows: &[R], format: Format) -> Result<String> {
    match format {
        Format::Md => Ok(markdown::table(rows)),
        Format::Csv => Ok(csv::table(rows)),
        Format::Json => json::list(rows),
        Format::Jsonl => json::lines(rows),
        Format::Sql => Ok(sql::statements(rows)),
    }
}

/// The value of a row's field as a text without quotes.
fn plain<R>(field: &Field<R>, row: &R) -> String {
    match ((field.value)(row), field.sql) {
        (Value::Bool(truth), SqlType::Boolean) => u8::from(truth).to_string(),
        (value, _) => words(&value),
    }
}

/// A value as a text without quotes.
fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
