//! SQL: one table, and a statement per row.

use super::plain;
use crate::measure::columns::{Field, GROUPS, SqlType, fields};
use crate::measure::row::Row;
use serde_json::Value;

/// Nothing where there are no rows. All columns are there, whatever the rows: rows of several runs go into one table.
pub(super) fn statements(rows: &[Row]) -> String {
    let fields = fields(&GROUPS);
    let names = fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ");
    let insert = |row: &Row| {
        let values: Vec<_> = fields.iter().map(|field| literal(&(field.value)(row))).collect();
        format!("INSERT INTO powerinfer_bench ({names}) VALUES ({});\n", values.join(", "))
    };
    rows.first().map(|_| create(&fields)).into_iter().chain(rows.iter().map(insert)).collect()
}

fn create(fields: &[&Field]) -> String {
    let columns = fields.iter().map(|field| match field.sql {
        SqlType::Text => format!("  {} TEXT", field.name),
        SqlType::Real => format!("  {} REAL", field.name),
    });
    format!("CREATE TABLE IF NOT EXISTS powerinfer_bench (\n{}\n);\n", columns.collect::<Vec<_>>().join(",\n"))
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Number(number) => number.to_string(),
        other => format!("'{}'", plain(other).replace('\'', "''")),
    }
}
