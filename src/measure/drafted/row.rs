//! What is measured of a source of drafts, as columns.

use crate::measure::table::{Column, Group, Tabled};
use serde_json::Value;

/// Widths of passes that tables show.
const SHOWN: [usize; 4] = [2, 4, 8, 16];

/// A measurement.
#[derive(Debug, Clone)]
pub struct DraftedRow {
    /// File, or the name of the embedded model.
    pub model: String,
    /// Who drafts.
    pub draft: String,
    /// Tokens decoded in a round.
    pub n_gen: usize,
    /// Rounds, of which each decoded them with drafts and without.
    pub n_rounds: usize,
    /// Tokens per second without drafts.
    pub plain_ts: f64,
    /// Of all rounds, the median of how many times as fast it is with them.
    pub gain: f64,
    /// Tokens that were drafted.
    pub n_drafted: usize,
    /// Those that stayed.
    pub n_taken: usize,
    /// Tokens per pass.
    pub tokens_per_pass: f64,
    /// How many times as long as one of a single token passes of 1, 2, ... tokens take.
    pub passes: Vec<f64>,
    /// What drafts of the best length gain, where it is known how often they are right.
    pub formula: Option<f64>,
}

impl DraftedRow {
    /// Tokens per second with drafts.
    pub fn drafted_ts(&self) -> f64 {
        self.plain_ts * self.gain
    }

    fn formula_ts(&self) -> Option<f64> {
        self.formula.map(|gain| self.plain_ts * gain)
    }

    /// How much faster than the formula says it is, as a share.
    fn deviation(&self) -> Option<f64> {
        self.formula.map(|gain| self.gain / gain - 1.0)
    }

    fn share(&self) -> Option<String> {
        (self.n_drafted > 0).then(|| format!("{:.1} %", 100.0 * self.n_taken as f64 / self.n_drafted as f64))
    }

    fn shown_passes(&self) -> Option<String> {
        let shown: Vec<String> = SHOWN.iter().filter_map(|n| Some(format!("{:.2}", self.passes.get(n - 1)?))).collect();
        (!shown.is_empty()).then(|| shown.join(" "))
    }
}

impl Tabled for DraftedRow {
    const TABLE: &'static str = "powerinfer_drafts";

    fn groups() -> &'static [Group<Self>] {
        &GROUPS
    }
}

const fn text(name: &'static str, value: fn(&DraftedRow) -> Value) -> Column<DraftedRow> {
    Column::text(name, value)
}

const fn count(name: &'static str, value: fn(&DraftedRow) -> Value) -> Column<DraftedRow> {
    Column::integer(name, value)
}

const fn number(name: &'static str, value: fn(&DraftedRow) -> Value) -> Column<DraftedRow> {
    Column::real(name, value)
}

/// All columns, in order.
static GROUPS: [Group<DraftedRow>; 1] = [Group {
    name: "drafts",
    needed: None,
    columns: &[
        text("model_filename", |row| Value::from(row.model.clone())).shown("model", |row| Some(row.model.clone())),
        text("draft", |row| Value::from(row.draft.clone())).shown("draft", |row| Some(row.draft.clone())),
        count("n_rounds", |row| Value::from(row.n_rounds)),
        count("n_gen", |row| Value::from(row.n_gen)).shown("tokens", |row| Some(row.n_gen.to_string())),
        number("plain_ts", |row| Value::from(row.plain_ts))
            .shown("t/s without", |row| Some(format!("{:.2}", row.plain_ts))),
        number("drafted_ts", |row| Value::from(row.drafted_ts()))
            .shown("t/s", |row| Some(format!("{:.2}", row.drafted_ts()))),
        number("gain", |row| Value::from(row.gain)).shown("gain", |row| Some(format!("{:.2}", row.gain))),
        count("n_drafted", |row| Value::from(row.n_drafted)).shown("drafted", |row| Some(row.n_drafted.to_string())),
        count("n_accepted", |row| Value::from(row.n_taken)).shown("accepted", |row| row.share()),
        number("tokens_per_pass", |row| Value::from(row.tokens_per_pass))
            .shown("tokens/pass", |row| Some(format!("{:.2}", row.tokens_per_pass))),
        number("formula_ts", |row| Value::from(row.formula_ts()))
            .shown("t/s by formula", |row| row.formula_ts().map(|ts| format!("{ts:.2}"))),
        number("deviation", |row| Value::from(row.deviation()))
            .shown("deviation", |row| row.deviation().map(|share| format!("{:+.1} %", 100.0 * share))),
        text("passes", |row| Value::from(row.passes.clone())).shown("2 4 8 16 at once", DraftedRow::shown_passes),
    ],
}];
