//! Comma-separated values, each in quotes, below a line of names.

use super::plain;
use crate::measure::table::{Tabled, fields};

/// Nothing where there are no rows.
pub(super) fn table<R: Tabled>(rows: &[R]) -> String {
    rows.first().map(|_| head::<R>()).into_iter().chain(rows.iter().map(line)).collect()
}

/// The names. All columns are there, whatever the rows: files of several runs can be put one behind the other.
pub(super) fn head<R: Tabled>() -> String {
    let names: Vec<_> = fields(R::groups()).iter().map(|field| field.name).collect();
    names.join(",") + "\n"
}

pub(super) fn line<R: Tabled>(row: &R) -> String {
    let fields = fields(R::groups());
    let quoted = fields.iter().map(|field| format!("\"{}\"", plain(field, row).replace('"', "\"\"")));
    quoted.collect::<Vec<_>>().join(",") + "\n"
}
