//! SQL: one table, and a statement per row.

use super::plain;
use crate::measure::table::{Field, SqlType, Tabled, fields};
use serde_json::Value;

/// Nothing where there are no rows.
pub(super) fn statements<R: Tabled>(rows: &[R]) -> String {
    rows.first().map(|_| head::<R>()).into_iter().chain(rows.iter().map(insert)).collect()
}

/// What makes the table where it is not there. All columns are there, whatever the rows: rows of several runs go into one
/// table.
pub(super) fn head<R: Tabled>() -> String {
    let columns = fields(R::groups()).into_iter().map(|field| format!("  {} {}", field.name, name(field.sql)));
    let columns = columns.collect::<Vec<_>>().join(",\n");
    let views =
        R::VIEWS.iter().map(|view| format!("CREATE VIEW IF NOT EXISTS {view} AS SELECT * FROM {};\n", R::TABLE));
    format!("CREATE TABLE IF NOT EXISTS {} (\n{columns}\n);\n{}", R::TABLE, views.collect::<String>())
}

pub(super) fn insert<R: Tabled>(row: &R) -> String {
    let fields = fields(R::groups());
    let names: Vec<_> = fields.iter().map(|field| field.name).collect();
    let values: Vec<_> = fields.iter().map(|field| literal(field, row)).collect();
    format!("INSERT INTO {} ({}) VALUES ({});\n", R::TABLE, names.join(", "), values.join(", "))
}

fn name(sql: SqlType) -> &'static str {
    match sql {
        SqlType::Text => "TEXT",
        SqlType::Integer | SqlType::Boolean => "INTEGER",
        SqlType::Real => "REAL",
    }
}

fn literal<R>(field: &Field<R>, row: &R) -> String {
    match ((field.value)(row), field.sql) {
        (Value::Null, _) => "NULL".to_owned(),
        (Value::Number(_), _) | (_, SqlType::Boolean) => plain(field, row),
        _ => format!("'{}'", plain(field, row).replace('\'', "''")),
    }
}
