//! Two JSON schemas that hold at once, as one.

use super::json::Json;
use anyhow::{Result, bail, ensure};

/// Keywords that say something about a text and do not restrict it.
const REMARKS: [&str; 13] = [
    "title",
    "description",
    "default",
    "examples",
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$anchor",
];

impl Json {
    /// All but what stands under `key`.
    pub fn without(&self, key: &str) -> Self {
        let Self::Object(entries) = self else { return self.clone() };
        Self::Object(entries.iter().filter(|(name, _)| name != key).cloned().collect())
    }

    /// Whether a schema restricts a text in any way that is known.
    pub fn restricts(&self) -> bool {
        let Self::Object(entries) = self else { return self.truth() != Some(true) };
        entries.iter().any(|(name, _)| !REMARKS.contains(&name.as_str()))
    }
}

/// What both allow.
///
/// # Errors
/// When that cannot be said.
pub fn merged(a: &Json, b: &Json) -> Result<Json> {
    let (Json::Object(first), Json::Object(second)) = (a, b) else {
        return match (a.truth(), b.truth()) {
            (Some(true), _) => Ok(b.clone()),
            (_, Some(true)) => Ok(a.clone()),
            _ => bail!("parts of a schema must be objects"),
        };
    };
    let mut all = first.clone();
    for (key, value) in second {
        let Some((_, held)) = all.iter_mut().find(|(name, _)| name == key) else {
            all.push((key.clone(), value.clone()));
            continue;
        };
        *held = match (key.as_str(), &*held, value) {
            (_, held, value) if held == value => continue,
            ("properties", Json::Object(held), Json::Object(more)) => Json::Object(both(held, more)),
            ("patternProperties", Json::Object(held), Json::Object(more)) => Json::Object(both(held, more)),
            ("dependentRequired", Json::Object(held), Json::Object(more))
                if more.iter().all(|(name, _)| held.iter().all(|(known, _)| known != name)) =>
            {
                Json::Object(held.iter().chain(more).cloned().collect())
            }
            ("uniqueItems", held, value) => {
                if held.truth() == Some(true) {
                    continue;
                } else {
                    value.clone()
                }
            }
            ("required", Json::Array(held), Json::Array(more)) => {
                Json::Array(held.iter().chain(more.iter().filter(|name| !held.contains(name))).cloned().collect())
            }
            ("enum", Json::Array(held), Json::Array(more)) => {
                let both: Vec<Json> = held.iter().filter(|value| more.contains(value)).cloned().collect();
                ensure!(!both.is_empty(), "two enums that hold at once have nothing in common");
                Json::Array(both)
            }
            ("type", held, value) if held.text() == Some("number") && value.text() == Some("integer") => value.clone(),
            ("type", held, value) if held.text() == Some("integer") && value.text() == Some("number") => continue,
            ("minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties", held, value) => {
                if held.number() >= value.number() { continue } else { value.clone() }
            }
            ("maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties", held, value) => {
                if held.number() <= value.number() { continue } else { value.clone() }
            }
            (key, _, _) if REMARKS.contains(&key) => continue,
            (key, _, _) => bail!("{key} stands in two parts that hold at once, and they cannot be put together"),
        };
    }
    let all = Json::Object(all);
    if let (Some(value), Some(Json::Array(values))) = (all.get("const"), all.get("enum")) {
        ensure!(values.contains(value), "a const and an enum that hold at once have nothing in common");
    }
    Ok(all)
}

/// The properties of both; one that both have must be what both say.
fn both(a: &[(String, Json)], b: &[(String, Json)]) -> Vec<(String, Json)> {
    let mut all = a.to_vec();
    for (name, schema) in b {
        match all.iter_mut().find(|(known, _)| known == name) {
            Some((_, held)) if held == schema => {}
            Some((_, held)) => {
                let parts = Json::Array(vec![held.clone(), schema.clone()]);
                *held = Json::Object(vec![("allOf".to_owned(), parts)]);
            }
            None => all.push((name.clone(), schema.clone())),
        }
    }
    all
}
