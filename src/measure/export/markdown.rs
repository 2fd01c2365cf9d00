//! A Markdown table with aligned columns.

use crate::measure::table::{Shown, Tabled, groups_of};

/// Titles alone where there are no rows.
pub(super) fn table<R: Tabled>(rows: &[R]) -> String {
    let columns = groups_of(rows).into_iter().flat_map(|group| group.columns);
    let columns: Vec<&Shown<R>> = columns.filter_map(|column| column.shown.as_ref()).collect();
    let titles = columns.iter().map(|column| column.title.to_owned()).collect();
    let cell = |column: &&Shown<R>, row: &R| (column.cell)(row).map_or("-".to_owned(), |cell| cell.replace('|', "/"));
    let line = |row: &R| columns.iter().map(|column| cell(column, row)).collect();
    let mut lines: Vec<Vec<String>> = vec![titles];
    lines.extend(rows.iter().map(line));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();

    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        // The first column is the model's name; what is compared stands to the right.
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!(" {cell:<width$} "),
            _ => format!(" {cell:>width$} "),
        });
        out += &format!("|{}|\n", cells.collect::<Vec<_>>().join("|"));
        if i == 0 {
            let rule = widths.iter().enumerate().map(|(column, width)| match column {
                0 => "-".repeat(width + 2),
                _ => "-".repeat(width + 1) + ":",
            });
            out += &format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
        }
    }
    out
}
