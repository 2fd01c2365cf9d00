//! Rows that are written as they come: what is there when the program ends, whatever ended it, can be read.

use super::markdown::Columns;
use super::{Format, csv, json, sql};
use crate::measure::table::{Group, Tabled};
use anyhow::Result;
use std::slice;

/// A table that grows, in one format.
pub struct Stream<R: 'static> {
    format: Format,
    /// Names of the groups of columns that later rows are known to need.
    expected: Vec<&'static str>,
    n_rows: usize,
    /// Of Markdown: the groups that the last head has, and their columns.
    shown: Option<(Vec<&'static Group<R>>, Columns<R>)>,
}

impl<R: Tabled> Stream<R> {
    /// An empty table. `expected` names groups of columns that rows after the first will need: a Markdown table has them from
    /// its head on, and begins anew at a row that needs others.
    pub fn new(format: Format, expected: Vec<&'static str>) -> Self {
        Self { format, expected, n_rows: 0, shown: None }
    }

    /// What is to be written for a further row, ending where a line ends, but for JSON's last one.
    ///
    /// # Errors
    /// When a value cannot be expressed in the format.
    pub fn row(&mut self, row: &R) -> Result<String> {
        let is_first = self.n_rows == 0;
        self.n_rows += 1;
        let head = |text: fn() -> String| if is_first { text() } else { String::new() };
        Ok(match self.format {
            Format::Md => self.line(row),
            Format::Csv => head(csv::head::<R>) + &csv::line(row),
            Format::Json => (if is_first { "[\n" } else { ",\n" }).to_owned() + &json::item(row)?,
            Format::Jsonl => json::lines(slice::from_ref(row))?,
            Format::Sql => head(sql::head::<R>) + &sql::insert(row),
        })
    }

    /// What is to be written behind the last row; nothing where there was none.
    pub fn end(&self) -> &'static str {
        if self.format == Format::Json && self.n_rows > 0 { "\n]\n" } else { "" }
    }

    fn line(&mut self, row: &R) -> String {
        let needs = |group: &Group<R>| group.needed.is_none_or(|needed| needed(row));
        if let Some((groups, columns)) = &self.shown {
            let has = |group: &Group<R>| groups.iter().any(|other| std::ptr::eq(*other, group));
            if R::groups().iter().filter(|group| needs(group)).all(has) {
                return columns.line(row);
            }
        }
        let shown = self.shown.take().map(|(groups, _)| groups);
        let had = |group: &Group<R>| shown.iter().flatten().any(|other| std::ptr::eq(*other, group));
        let wanted = |group: &&Group<R>| needs(group) || had(group) || self.expected.contains(&group.name);
        let groups: Vec<&Group<R>> = R::groups().iter().filter(wanted).collect();
        let columns = Columns::new(&groups, slice::from_ref(row)).with_room();
        let blank = if shown.is_some() { "\n" } else { "" };
        let text = blank.to_owned() + &columns.head() + &columns.line(row);
        self.shown = Some((groups, columns));
        text
    }
}
