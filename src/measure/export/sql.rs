//! SQL: one table, and a statement per row.

use super::plain;
use crate::measure::table::{Field, SqlType, Tabled, fields};
use serde_json::Value;

/// Nothing where there are no rows. All columns are there, whatever the rows: rows of several runs go into one table.
pub(super) fn statements<R: Tabled>(rows: &[R]) -> String {
    let fields = fields(R::groups());
    let names = fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ");
    let insert = |row: &R| {
        let values: Vec<_> = fields.iter().map(|field| literal(&(field.value)(row))).collect();
        format!("INSERT INTO {} ({names}) VALUES ({});\n", R::TABLE, values.join(", "))
    };
    rows.first().map(|_| create(&fields)).into_iter().chain(rows.iter().map(insert)).collect()
}

fn create<R: Tabled>(fields: &[&Field<R>]) -> String {
    let columns = fields.iter().map(|field| match field.sql {
        SqlType::Text => format!("  {} TEXT", field.name),
        SqlType::Real => format!("  {} REAL", field.name),
    });
    format!("CREATE TABLE IF NOT EXISTS {} (\n{}\n);\n", R::TABLE, columns.collect::<Vec<_>>().join(",\n"))
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Number(number) => number.to_string(),
        other => format!("'{}'", plain(other).replace('\'', "''")),
    }
}
