//! The table of a comparison.

use super::earlier::Measured;
use super::statistics::{Limit, Ratio, Runs, apart, fastest, median as middle, paired};
use crate::measure::table::{Column, Group, Tabled};
use serde_json::Value;

/// Something that two builds have measured.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Compared {
    /// The file, without its folder.
    pub model: String,
    /// `pp512`, `tg128`...
    pub test: String,
    /// What was computed of the FFN.
    pub mode: String,
    /// Threads.
    pub n_threads: String,
    /// What was measured first.
    pub old_commit: String,
    /// What it is compared with.
    pub new_commit: String,
    /// Median tokens per second.
    pub old_ts: f64,
    /// The same of the new build.
    pub new_ts: f64,
    /// Runs, or turns.
    pub old_runs: usize,
    /// The same of the new build.
    pub new_runs: usize,
    /// New over old; absent where nothing tells how sure it is.
    pub ratio: Option<f64>,
    /// Lower end of the interval of 95 %.
    pub ratio_low: Option<f64>,
    /// Its upper end.
    pub ratio_high: Option<f64>,
    /// `slower`, `faster`, `same`, or `unknown` of a single value.
    pub verdict: String,
}

impl Compared {
    /// Of runs that were made one after the other.
    pub fn apart(old: &[&Measured], new: &[&Measured], limit: Limit) -> Self {
        let runs = |rows: &[&Measured]| -> Runs { rows.iter().map(|row| row.speeds.clone()).collect() };
        let (of_old, of_new) = (runs(old), runs(new));
        Self::new([old, new], [&of_old, &of_new], apart(&of_old, &of_new), limit)
    }

    /// Of turns, each of which has both sides.
    pub fn in_turns(turns: &[(&Measured, &Measured)], limit: Limit) -> Self {
        let (old, new): (Vec<_>, Vec<_>) = turns.iter().copied().unzip();
        let runs = |rows: &[&Measured]| -> Runs { rows.iter().map(|row| row.speeds.clone()).collect() };
        let (of_old, of_new) = (runs(&old), runs(&new));
        let ratios: Vec<f64> = of_old.iter().zip(&of_new).map(|(old, new)| fastest(new) / fastest(old)).collect();
        Self::new([&old, &new], [&of_old, &of_new], paired(&ratios), limit)
    }

    fn new(rows: [&[&Measured]; 2], runs: [&Runs; 2], ratio: Option<Ratio>, limit: Limit) -> Self {
        let [old, new] = rows;
        let case = &old[0].case;
        let ts = |runs: &Runs| middle(&runs.iter().map(|run| middle(run)).collect::<Vec<_>>());
        let verdict = match ratio {
            None => "unknown",
            Some(ratio) if ratio.is_slower(limit) => "slower",
            Some(ratio) if ratio.is_faster() => "faster",
            Some(_) => "same",
        };
        Self {
            model: case.field("model").to_owned(),
            test: case.field("test").to_owned(),
            mode: case.field("mode").to_owned(),
            n_threads: case.field("n_threads").to_owned(),
            old_commit: old[0].commit.clone(),
            new_commit: new[0].commit.clone(),
            old_ts: ts(runs[0]),
            new_ts: ts(runs[1]),
            old_runs: old.len(),
            new_runs: new.len(),
            ratio: ratio.map(|r| r.ratio),
            ratio_low: ratio.map(|r| r.low),
            ratio_high: ratio.map(|r| r.high),
            verdict: verdict.to_owned(),
        }
    }

    /// Whether more turns would tell nothing new.
    pub fn is_close(&self) -> bool {
        self.ratio_low.zip(self.ratio_high).is_some_and(|(low, high)| Ratio { ratio: 1.0, low, high }.is_close())
    }

    /// Whether the new build is slower.
    pub fn is_slower(&self) -> bool {
        self.verdict == "slower"
    }

    /// The ratio with its interval.
    pub fn interval(&self) -> Option<String> {
        Some(format!("{:.3} ({:.3} to {:.3})", self.ratio?, self.ratio_low?, self.ratio_high?))
    }
}

impl Tabled for Compared {
    const TABLE: &'static str = "powerinfer_compared";

    fn groups() -> &'static [Group<Self>] {
        &GROUPS
    }
}

const fn text(name: &'static str, value: fn(&Compared) -> Value) -> Column<Compared> {
    Column::text(name, value)
}

const fn number(name: &'static str, value: fn(&Compared) -> Value) -> Column<Compared> {
    Column::real(name, value)
}

const fn count(name: &'static str, value: fn(&Compared) -> Value) -> Column<Compared> {
    Column::integer(name, value)
}

/// All columns, in order.
static GROUPS: [Group<Compared>; 1] = [Group {
    name: "all",
    needed: None,
    columns: &[
        text("model", |r| r.model.as_str().into()).shown("model", |r| Some(r.model.clone())),
        text("test", |r| r.test.as_str().into()).shown("test", |r| Some(r.test.clone())),
        text("mode", |r| r.mode.as_str().into()).shown("mode", |r| Some(r.mode.clone())),
        text("n_threads", |r| r.n_threads.as_str().into()).shown("threads", |r| Some(r.n_threads.clone())),
        text("old_commit", |r| r.old_commit.as_str().into()),
        text("new_commit", |r| r.new_commit.as_str().into()),
        number("old_ts", |r| r.old_ts.into()).shown("old t/s", |r| Some(format!("{:.2}", r.old_ts))),
        number("new_ts", |r| r.new_ts.into()).shown("new t/s", |r| Some(format!("{:.2}", r.new_ts))),
        count("old_runs", |r| r.old_runs.into()),
        count("new_runs", |r| r.new_runs.into()),
        number("ratio", |r| r.ratio.into()).shown("new / old (95 %)", Compared::interval),
        number("ratio_low", |r| r.ratio_low.into()),
        number("ratio_high", |r| r.ratio_high.into()),
        text("verdict", |r| r.verdict.as_str().into()).shown("verdict", |r| Some(r.verdict.clone())),
    ],
}];
