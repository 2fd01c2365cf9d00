//! Rows of an earlier run, or of another program: hostile until checked.

use crate::executor::{KvType, Mode};
use crate::measure::row::Row;
use crate::measure::speed::Test;
use crate::printable::printable;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Rows that a file may have.
const MOST_ROWS: usize = 10_000;
/// Characters of a text that says what was measured.
const LONGEST: usize = 4096;
/// No machine has more.
const MOST_THREADS: u64 = 1 << 16;
/// Tokens of a test, and of a batch.
const MOST_TOKENS: u64 = 1 << 32;
/// Tokens per second that nothing reaches.
const FASTEST: f64 = 1e15;

/// Fields that say what was measured. The file's folder is not among them: it may lie elsewhere.
const SAME: [&str; 21] = [
    "model_size",
    "model_n_params",
    "backends",
    "gpu_info",
    "n_batch",
    "n_ubatch",
    "n_threads",
    "type_k",
    "type_v",
    "n_prompt",
    "n_gen",
    "n_depth",
    "n_parallel",
    "mode",
    "hot",
    "text",
    "test",
    "n_ctx",
    "isa",
    "cpu_mask",
    "split_mode",
];

/// What was measured: fields with their values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case(BTreeMap<&'static str, String>);

/// A row: what was measured, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// What was measured.
    pub case: Case,
    /// Tokens per second of each repetition; not empty, and all above 0.
    pub speeds: Vec<f64>,
    /// Commit that was measured; a word where it is not known.
    pub commit: String,
    /// The processor, where it is known.
    pub cpu: Option<String>,
}

/// How a test was run that is to be run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Same {
    /// The test.
    pub test: Test,
    /// Threads.
    pub n_threads: usize,
    /// `-b`, where the row says so.
    pub n_batch: Option<usize>,
    /// `-ub`, likewise.
    pub n_ubatch: Option<usize>,
    /// Types of the cache, likewise.
    pub kv_type: Option<KvType>,
    /// What was computed of the FFN, likewise.
    pub mode: Option<Mode>,
}

impl Case {
    /// Whether both may be the same: no field that both have differs.
    pub fn agrees(&self, other: &Self) -> bool {
        self.0.iter().all(|(name, value)| other.0.get(name).is_none_or(|of_other| of_other == value))
    }

    /// The value of a field, or a dash.
    pub fn field(&self, name: &str) -> &str {
        self.0.get(name).map_or("-", String::as_str)
    }

    /// In a few words.
    pub fn name(&self) -> String {
        let mode = self.0.get("mode").map_or(String::new(), |mode| format!(", {mode}"));
        let threads = self.0.get("n_threads").map_or(String::new(), |n| format!(", -t {n}"));
        format!("{} of {}{mode}{threads}", self.field("test"), self.field("model"))
    }

    /// The speed test that it is; `None` where it is none.
    ///
    /// # Errors
    /// When a type or a mode is not known here.
    pub fn test(&self) -> Result<Option<Same>> {
        let number = |name: &str| self.0.get(name).and_then(|text| text.parse::<usize>().ok());
        let (n_prompt, n_gen) = (number("n_prompt").unwrap_or(0), number("n_gen").unwrap_or(0));
        let (n_depth, n_parallel) = (number("n_depth").unwrap_or(0), number("n_parallel").unwrap_or(1).max(1));
        let test = Test { n_prompt, n_gen, n_depth, n_parallel };
        if self.0.contains_key("n_ctx") || n_prompt + n_gen == 0 {
            return Ok(None);
        }
        let kv_type = match [self.0.get("type_k"), self.0.get("type_v")] {
            [Some(k), Some(v)] => Some(KvType { k: KvType::one(k)?, v: KvType::one(v)? }),
            [Some(both), None] | [None, Some(both)] => Some(both.parse()?),
            [None, None] => None,
        };
        let mode = self.0.get("mode").map(|name| name.parse()).transpose()?;
        let n_threads = number("n_threads").context("n_threads is missing")?;
        let (n_batch, n_ubatch) = (number("n_batch"), number("n_ubatch"));
        Ok(Some(Same { test, n_threads, n_batch, n_ubatch, kv_type, mode }))
    }
}

impl Measured {
    /// A row that was measured just now.
    ///
    /// # Errors
    /// When a speed is no number above 0.
    pub fn of(row: &Row) -> Result<Self> {
        Self::read(&row.fields())
    }

    /// What `row` says.
    ///
    /// # Errors
    /// When a field that is needed is missing, or one is not what it should be.
    fn read(row: &Map<String, Value>) -> Result<Self> {
        let text = |name: &str| -> Result<Option<String>> {
            let Some(value) = row.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
            let value = value.as_str().with_context(|| format!("{name} is no text"))?;
            ensure!(value.len() <= LONGEST, "{name} has more than {LONGEST} bytes");
            Ok(Some(printable(value).into_owned()))
        };
        let mut case = BTreeMap::new();
        for name in SAME {
            let value = match row.get(name) {
                None | Some(Value::Null) => continue,
                Some(Value::String(_)) => text(name)?.unwrap_or_default(),
                Some(Value::Number(number)) => {
                    let most = if name == "n_threads" { MOST_THREADS } else { MOST_TOKENS };
                    let number = number.as_u64().with_context(|| format!("{name} is no whole number of 0 or more"))?;
                    let counted = !name.starts_with("model_");
                    ensure!(!counted || number <= most, "{name} is {number}, more than {most}");
                    number.to_string()
                }
                Some(_) => bail!("{name} is neither a text nor a number"),
            };
            case.insert(name, value);
        }
        for name in ["n_prompt", "n_gen"] {
            ensure!(case.get(name).is_some_and(|n| n.parse::<u64>().is_ok()), "{name} is missing, or no number");
        }
        let file = text("model_filename")?.context("model_filename is missing")?;
        // Where it was measured folders may be written in another way.
        case.insert("model", file.rsplit(['/', '\\']).next().unwrap_or_default().to_owned());
        let depth = case.entry("n_depth").or_insert_with(|| "0".to_owned()).clone();
        case.entry("n_parallel").or_insert_with(|| "1".to_owned());
        if !case.contains_key("test") {
            let number = |name: &str| case.get(name).and_then(|n| n.parse().ok()).unwrap_or(0);
            let n_depth = depth.parse().unwrap_or(0);
            let (n_prompt, n_gen, n_parallel) = (number("n_prompt"), number("n_gen"), number("n_parallel").max(1));
            case.insert("test", Test { n_prompt, n_gen, n_depth, n_parallel }.name());
        }
        if let (Some(old), false) = (text("backend")?, case.contains_key("backends")) {
            case.insert("backends", old);
        }
        let commit = match text("build_commit")? {
            Some(commit) => commit,
            None => text("build")?.unwrap_or_else(|| "unknown".to_owned()),
        };
        Ok(Self { case: Case(case), speeds: speeds(row)?, commit, cpu: text("cpu_info")? })
    }
}

/// Tokens per second of each repetition, or of all together where there is no more.
fn speeds(row: &Map<String, Value>) -> Result<Vec<f64>> {
    let speed = |name: &str, value: &Value| {
        let speed = value.as_f64().filter(|speed| *speed > 0.0 && *speed < FASTEST);
        speed.with_context(|| format!("{name} is no speed above 0"))
    };
    match row.get("samples_ts") {
        None | Some(Value::Null) => {
            let value = row.get("avg_ts").context("samples_ts and avg_ts are missing")?;
            Ok(vec![speed("avg_ts", value)?])
        }
        Some(Value::Array(samples)) => {
            ensure!(!samples.is_empty(), "samples_ts is empty");
            samples.iter().map(|sample| speed("samples_ts", sample)).collect()
        }
        Some(_) => bail!("samples_ts is no list"),
    }
}

/// The rows of a file that `bench -o json` or `-o jsonl` wrote, or llama-bench.
///
/// # Errors
/// Which row is wrong, and what about it.
pub fn read(text: &str) -> Result<Vec<Measured>> {
    let values: Vec<Value> = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(text)
            .context("is no list of rows in JSON (of a run that was killed, -o jsonl is whole)")?,
        false => {
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            let value = |(n, line)| serde_json::from_str(line).with_context(|| format!("line {} is no JSON", n + 1));
            lines.take(MOST_ROWS + 1).map(value).collect::<Result<_>>()?
        }
    };
    ensure!(!values.is_empty(), "has no rows; bench -o json or -o jsonl writes some");
    ensure!(values.len() <= MOST_ROWS, "has more than {MOST_ROWS} rows");
    let rows = values.iter().enumerate().map(|(n, value)| {
        let row = value.as_object().with_context(|| format!("row {} is no object", n + 1))?;
        Measured::read(row).with_context(|| format!("row {}", n + 1))
    });
    rows.collect()
}
