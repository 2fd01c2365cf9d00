//! JSON: a list of objects, or an object per line.

use crate::measure::columns::{fields, groups_of};
use crate::measure::row::Row;
use anyhow::Result;
use serde::{Serialize, Serializer};
use std::slice;

/// A row as an object. It has the fields that it needs, whatever the other rows have.
struct Object<'a>(&'a Row);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = fields(groups_of(slice::from_ref(self.0)));
        serializer.collect_map(fields.iter().map(|field| (field.name, (field.value)(self.0))))
    }
}

pub(super) fn list(rows: &[Row]) -> Result<String> {
    let objects: Vec<_> = rows.iter().map(Object).collect();
    Ok(serde_json::to_string_pretty(&objects)? + "\n")
}

pub(super) fn lines(rows: &[Row]) -> Result<String> {
    rows.iter().map(|row| Ok(serde_json::to_string(&Object(row))? + "\n")).collect()
}
