//! A Markdown table with aligned columns.

use crate::measure::table::{Group, Shown, Tabled, groups_of};

/// Titles alone where there are no rows.
pub(super) fn table<R: Tabled>(rows: &[R]) -> String {
    let columns = Columns::new(&groups_of(rows), rows);
    let head = columns.head();
    rows.iter().fold(head, |out, row| out + &columns.line(row))
}

/// The columns of a table.
pub(super) struct Columns<R: 'static> {
    shown: Vec<&'static Shown<R>>,
    /// Characters of each, without the spaces at its borders.
    widths: Vec<usize>,
}

impl<R: Tabled> Columns<R> {
    /// The columns of `groups`, each as wide as it must be for `rows`, as far as they are known.
    pub(super) fn new(groups: &[&'static Group<R>], rows: &[R]) -> Self {
        let columns = groups.iter().flat_map(|group| group.columns);
        let shown: Vec<&Shown<R>> = columns.filter_map(|column| column.shown.as_ref()).collect();
        let wide = |text: &str| text.chars().count();
        let width = |column: &&Shown<R>| {
            let cells = rows.iter().map(|row| wide(&cell(column, row)));
            cells.chain([wide(column.title)]).max().unwrap_or(0)
        };
        let widths = shown.iter().map(width).collect();
        Self { shown, widths }
    }

    /// The same with room for further rows.
    pub(super) fn with_room(mut self) -> Self {
        for (width, column) in self.widths.iter_mut().zip(&self.shown) {
            *width = (*width).max(column.least);
        }
        self
    }

    /// Titles, and the rule below them.
    pub(super) fn head(&self) -> String {
        let titles = self.shown.iter().map(|column| column.title.to_owned());
        let rule = self.widths.iter().enumerate().map(|(column, width)| match column {
            0 => "-".repeat(width + 2),
            _ => "-".repeat(width + 1) + ":",
        });
        self.padded(titles) + &joined(rule)
    }

    pub(super) fn line(&self, row: &R) -> String {
        self.padded(self.shown.iter().map(|column| cell(column, row)))
    }

    /// The first column is the model's name; what is compared stands to the right.
    fn padded(&self, cells: impl Iterator<Item = String>) -> String {
        joined(cells.zip(&self.widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!(" {cell:<width$} "),
            _ => format!(" {cell:>width$} "),
        }))
    }
}

fn cell<R>(column: &Shown<R>, row: &R) -> String {
    (column.cell)(row).map_or("-".to_owned(), |cell| cell.replace('|', "/"))
}

fn joined(cells: impl Iterator<Item = String>) -> String {
    format!("|{}|\n", cells.collect::<Vec<_>>().join("|"))
}
