//! JSON: a list of objects, or an object per line.

use crate::measure::table::{Tabled, fields, groups_of};
use anyhow::Result;
use serde::{Serialize, Serializer};
use std::slice;

/// A row as an object. It has the fields that it needs, whatever the other rows have.
struct Object<'a, R>(&'a R);

impl<R: Tabled> Serialize for Object<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = fields(groups_of(slice::from_ref(self.0)));
        serializer.collect_map(fields.iter().map(|field| (field.name, (field.value)(self.0))))
    }
}

pub(super) fn list<R: Tabled>(rows: &[R]) -> Result<String> {
    let objects: Vec<_> = rows.iter().map(Object).collect();
    Ok(serde_json::to_string_pretty(&objects)? + "\n")
}

/// A row as it stands in a list, without the end of its last line.
pub(super) fn item<R: Tabled>(row: &R) -> Result<String> {
    Ok(format!("  {}", serde_json::to_string_pretty(&Object(row))?.replace('\n', "\n  ")))
}

pub(super) fn lines<R: Tabled>(rows: &[R]) -> Result<String> {
    rows.iter().map(|row| Ok(serde_json::to_string(&Object(row))? + "\n")).collect()
}
