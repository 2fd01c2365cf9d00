//! Where rows go, and what is said meanwhile.

use crate::common::progress_lines;
use crate::common::terminal::{Bar, print, print_error, tell};
use anyhow::Result;
use powerinfer::executor::Mode;
use powerinfer::measure::export::{Format, Stream};
use powerinfer::measure::row::Row;
use powerinfer::progress::Progress;
use std::str::FromStr;
use std::sync::Mutex;

/// What is written.
#[derive(clap::Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Output format: md, csv, json, jsonl, sql, or none. Rows are written as they come
    #[arg(short, long, value_name = "FORMAT", default_value = "md")]
    pub output: Output,
    /// The same rows on standard error, in this format (-oe)
    #[arg(long, value_name = "FORMAT", default_value = "none")]
    pub output_err: Output,
    /// Say on standard error which test, run or window is next, a line for each
    #[arg(long)]
    pub progress: bool,
}

/// A format, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output(pub Option<Format>);

impl FromStr for Output {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        if name == "none" { Ok(Self(None)) } else { name.parse().map(|format| Self(Some(format))) }
    }
}

/// What was measured, written as it comes.
pub struct Rows {
    /// All of it.
    pub measured: Vec<Row>,
    out: Option<Stream<Row>>,
    error: Option<Stream<Row>>,
}

impl Rows {
    /// Rows that are to be written to standard output as `out`, and to standard error as the flags say. `expected` names
    /// columns that some will need.
    pub fn new(args: &OutputArgs, out: Output, expected: &[&'static str]) -> Self {
        let stream = |output: Output| output.0.map(|format| Stream::new(format, expected.to_vec()));
        Self { measured: Vec::new(), out: stream(out), error: stream(args.output_err) }
    }

    /// A further row.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, row: Row) -> Result<()> {
        if let Some(stream) = &mut self.out {
            print(stream.row(&row)?)?;
        }
        if let Some(stream) = &mut self.error {
            print_error(stream.row(&row)?)?;
        }
        self.measured.push(row);
        Ok(())
    }

    /// Writes what comes behind the last row.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(&self) -> Result<()> {
        if let Some(stream) = &self.out {
            print(stream.end())?;
        }
        if let Some(stream) = &self.error {
            print_error(stream.end())?;
        }
        Ok(())
    }

    /// Where skipping by thresholds was no faster than computing everything, and both were measured.
    pub fn what_does_not_pay(&self) -> Vec<String> {
        let speeds =
            |mode: Mode| self.measured.iter().filter(move |row| row.mode == mode.name() && row.perplexity.is_none());
        let lines = speeds(Mode::Thresholded).filter_map(|row| {
            let setting = |row: &Row| (row.model_filename.clone(), row.n_threads, row.n_batch, row.n_ubatch);
            let cache = |row: &Row| (row.test.clone(), row.type_k.clone());
            let same = |dense: &&Row| setting(dense) == setting(row) && cache(dense) == cache(row);
            let dense = speeds(Mode::Dense).find(same).filter(|dense| dense.timing.avg_ts >= row.timing.avg_ts)?;
            let (test, less, more) = (&row.test, row.timing.avg_ts, dense.timing.avg_ts);
            Some(format!("{test}: mode thresholded does not pay: {less:.2} tokens/s, dense {more:.2}"))
        });
        lines.collect()
    }
}

/// Progress on the bar, and with `--progress` also in lines.
pub struct Told<'a> {
    bar: &'a Bar,
    lines: bool,
    /// Which test it is.
    at: Mutex<String>,
}

impl<'a> Told<'a> {
    /// Nothing told yet.
    pub fn new(bar: &'a Bar, args: &OutputArgs) -> Self {
        Self { bar, lines: args.progress, at: Mutex::new(String::new()) }
    }

    /// Test number `n` of `of` begins, which is called `name`.
    pub fn test(&self, n: usize, of: usize, name: &str) {
        progress_lines::test(n, of);
        if let Ok(mut at) = self.at.lock() {
            *at = format!("test {n} of {of}, {name}");
        }
        self.line("begins");
    }

    fn line(&self, what: &str) {
        if let (true, Ok(at)) = (self.lines, self.at.lock()) {
            tell!("powerinfer-bench: {at}: {what}");
        }
    }
}

impl Progress for Told<'_> {
    fn begin(&self, what: &str, total: u64) {
        self.bar.begin(what, total);
    }

    fn tell(&self, what: &str) {
        self.bar.tell(what);
        self.line(what);
    }

    fn advance(&self, n: u64) {
        self.bar.advance(n);
    }

    fn end(&self) {
        self.bar.end();
    }

    fn cancelled(&self) -> bool {
        self.bar.cancelled()
    }
}
