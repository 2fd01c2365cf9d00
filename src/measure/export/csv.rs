//! Comma-separated values, each in quotes, below a line of names.

use super::plain;
use crate::measure::table::{Tabled, fields, groups_of};

/// Nothing where there are no rows.
pub(super) fn table<R: Tabled>(rows: &[R]) -> String {
    let fields = fields(groups_of(rows));
    let names = fields.iter().map(|field| field.name.to_owned()).collect::<Vec<_>>();
    let lines = rows.iter().map(|row| {
        let quoted = fields.iter().map(|field| format!("\"{}\"", plain(&(field.value)(row)).replace('"', "\"\"")));
        quoted.collect::<Vec<_>>()
    });
    let names = rows.first().map(|_| names);
    names.into_iter().chain(lines).map(|line| line.join(",") + "\n").collect()
}
