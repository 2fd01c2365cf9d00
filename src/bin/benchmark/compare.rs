//! `--compare` and what it has in common with `--against`: tables of two builds, and exit code 3 where one is slower.

use super::output::OutputArgs;
use super::speed_args::Setting;
use super::work::{Case, What};
use crate::common::models::read_text;
use crate::common::terminal::{print, tell};
use crate::common::{Regression, default_threads};
use anyhow::{Context, Result, ensure};
use powerinfer::measure::compare::{Compared, Limit, Measured, Paired, Same, earlier, pair};
use powerinfer::measure::export::render;
use powerinfer::measure::row::Row;
use powerinfer::progress::Progress;
use powerinfer::units::Bytes;
use std::path::{Path, PathBuf};

/// A file of rows may have so many bytes.
const MOST_BYTES: Bytes = Bytes(64 << 20);

/// How to compare two builds.
#[derive(clap::Args)]
#[command(next_help_heading = "Comparing builds (exit code 3: slower)")]
pub struct CompareArgs {
    /// Compare with the rows of an earlier run (-o json or jsonl): measures the same tests, or those that flags name; or
    /// compares the rows of a second file
    #[arg(long, value_names = ["OLD.json", "NEW.json"], num_args = 1..=2)]
    pub compare: Vec<PathBuf>,
    /// Compare with another build of powerinfer-bench: both measure the same tests in turns, so that nothing that slows
    /// down the machine slows down one of them
    #[arg(long, value_name = "BINARY", conflicts_with = "compare")]
    pub against: Option<PathBuf>,
    /// Turns of --against, at least 6; in each, both builds measure each test three times, or as often as -r says, and the
    /// fastest counts [default: 12, and more for up to five minutes while the intervals are wider than 1.25 % to each side]
    #[arg(long, value_name = "N", value_parser = turns)]
    pub turns: Option<usize>,
    /// Slower is whose interval of 95 % lies below this ratio of new to old [default: below 1, where the ratio is below 0.98]
    #[arg(long, value_name = "RATIO", value_parser = ratio)]
    pub fail_below: Option<f64>,
}

fn turns(text: &str) -> Result<usize> {
    let turns: usize = text.parse().context("is no number")?;
    ensure!((6..=10_000).contains(&turns), "6 to 10000 turns tell builds apart");
    Ok(turns)
}

fn ratio(text: &str) -> Result<f64> {
    let ratio: f64 = text.parse().context("is no number")?;
    ensure!(ratio > 0.0 && ratio <= 10.0, "a ratio of new to old is meant, such as 0.95");
    Ok(ratio)
}

/// The rows of two files, the second of which may be still to be measured.
type Files = (Vec<Measured>, Option<Vec<Measured>>);

impl CompareArgs {
    /// What is slower.
    pub fn limit(&self) -> Limit {
        self.fail_below.map_or(Limit::Usual, Limit::Below)
    }

    /// The rows of `--compare OLD`, and those of NEW where they are there already; `None` without `--compare`.
    ///
    /// # Errors
    /// When a file cannot be read, or its rows are none.
    pub fn files(&self, progress: &dyn Progress) -> Result<Option<Files>> {
        ensure!(self.compare.len() <= 2, "--compare: names {} files; two can be compared", self.compare.len());
        let compares = !self.compare.is_empty() || self.against.is_some();
        ensure!(
            self.fail_below.is_none() || compares,
            "--fail-below: give --compare OLD.json or --against BINARY, too"
        );
        let read = |path: &PathBuf| -> Result<Vec<Measured>> {
            earlier::read(&read_text(path, MOST_BYTES, progress)?).with_context(|| path.display().to_string())
        };
        let Some(old) = self.compare.first() else { return Ok(None) };
        Ok(Some((read(old)?, self.compare.get(1).map(read).transpose()?)))
    }

    /// The file of `--compare OLD` in messages.
    fn old_name(&self) -> String {
        self.compare.first().map_or("the other build".to_owned(), |path| name(path))
    }
}

/// The last part of a path.
fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// What `old` has measured, to be measured again.
///
/// # Errors
/// When it was measured in a way that is not known here, or is no speed.
pub fn same_tests(old: &[Measured]) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for row in old {
        let Some(same) = row.case.test().with_context(|| row.case.name())? else { continue };
        let Same { test, n_threads, n_batch, n_ubatch, kv_type, mode } = same;
        let usual = Setting::usual(default_threads());
        let setting = Setting {
            n_threads,
            n_batch: n_batch.unwrap_or(usual.n_batch),
            n_ubatch: n_ubatch.unwrap_or(usual.n_ubatch),
            kv_type: kv_type.unwrap_or(usual.kv_type),
            mode: mode.unwrap_or(usual.mode),
        };
        let case = (setting, What::Speed(test));
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    ensure!(!cases.is_empty(), "there is no speed test in it; flags such as -p and -n name tests");
    Ok(cases)
}

/// Rows that were measured just now.
///
/// # Errors
/// When one has no speed.
pub fn measured(rows: &[Row]) -> Result<Vec<Measured>> {
    rows.iter().map(Measured::of).collect()
}

/// Compares two lists of rows, and writes the table.
///
/// # Errors
/// [`Regression`] where the new side is slower; and when nothing can be compared.
pub fn compare(args: &CompareArgs, out: &OutputArgs, old: &[Measured], new: &[Measured]) -> Result<()> {
    let paired = pair(old, new);
    let compared = paired.pairs.iter().map(|(old, new)| Compared::apart(old, new, args.limit())).collect();
    tell_processors(old, new);
    tell_unpaired(&paired, &args.old_name());
    conclude(out, compared)
}

/// Says of what has no partner that it has none.
pub fn tell_unpaired(paired: &Paired, old: &str) {
    for row in &paired.only_old {
        tell!("note: {}: only {old} has it", row.case.name());
    }
    for row in &paired.only_new {
        tell!("note: {}: {old} does not have it", row.case.name());
    }
}

fn tell_processors(old: &[Measured], new: &[Measured]) {
    let of = |rows: &[Measured]| rows.iter().find_map(|row| row.cpu.clone());
    if let (Some(old), Some(new)) = (of(old), of(new))
        && old != new
    {
        tell!("warning: measured on {old}, and then on {new}: the ratios are of machines, not of builds");
    }
}

/// Writes the table, and says whether the new build is slower.
///
/// # Errors
/// As [`compare`].
pub fn conclude(out: &OutputArgs, compared: Vec<Compared>) -> Result<()> {
    ensure!(!compared.is_empty(), "there is nothing that both have measured");
    if let Some(format) = out.output.0 {
        print(render(&compared, format)?)?;
    }
    let unknown: Vec<_> = compared.iter().filter(|c| c.ratio.is_none()).map(|c| c.test.as_str()).collect();
    if !unknown.is_empty() {
        tell!(
            "note: {}: a single value of a build cannot be compared; -r 5 or several runs give more",
            unknown.join(", ")
        );
    }
    let slower: Vec<&Compared> = compared.iter().filter(|c| c.is_slower()).collect();
    let Some(worst) = slower.iter().min_by(|a, b| f64::total_cmp(&a.ratio.unwrap_or(1.0), &b.ratio.unwrap_or(1.0)))
    else {
        return Ok(());
    };
    let ratio = worst.interval().unwrap_or_default();
    let line =
        format!("slower: {} of {}, {} most: {ratio} of the speed before", slower.len(), compared.len(), worst.test);
    Err(Regression(line).into())
}
