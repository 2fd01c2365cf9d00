//! Two JSON schemas that hold at once, as one.

use super::json::Json;
use super::keywords::{REMARKS, entries};
use super::pattern;
use anyhow::{Result, bail, ensure};

impl Json {
    /// All but what stands under `key`.
    pub fn without(&self, key: &str) -> Self {
        let Self::Object(entries) = self else { return self.clone() };
        Self::Object(entries.iter().filter(|(name, _)| name != key).cloned().collect())
    }

    /// With `value` under `key`, behind all else.
    pub fn with(&self, key: &str, value: Json) -> Self {
        let mut all = entries_of(&self.without(key)).to_vec();
        all.push((key.to_owned(), value));
        Self::Object(all)
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
    let (Json::Object(first), Json::Object(_)) = (a, b) else {
        return match (a.truth(), b.truth()) {
            (Some(true), _) => Ok(b.clone()),
            (_, Some(true)) => Ok(a.clone()),
            _ => bail!("parts of a schema must be objects"),
        };
    };
    let is_tuple =
        |schema: &Json| schema.get("prefixItems").is_some() || matches!(schema.get("items"), Some(Json::Array(_)));
    let has_items = |schema: &Json| schema.get("items").is_some() || schema.get("prefixItems").is_some();
    if (is_tuple(a) && has_items(b) || is_tuple(b) && has_items(a)) && a != b {
        bail!(
            "prefixItems stands in one of two parts that hold at once, and items in the other: they cannot be put together"
        );
    }
    // What one names is an additional property of the other.
    let b = &closed(b);
    let (first, second) = (&limited(first, b)?, &limited(entries_of(b), a)?);
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
            ("required", Json::Array(held), Json::Array(more)) => {
                Json::Array(held.iter().chain(more.iter().filter(|name| !held.contains(name))).cloned().collect())
            }
            ("enum", Json::Array(held), Json::Array(more)) => {
                let both: Vec<Json> =
                    held.iter().filter(|value| more.iter().any(|other| other.is_equal(value))).cloned().collect();
                ensure!(!both.is_empty(), "two enums that hold at once have nothing in common");
                Json::Array(both)
            }
            ("const", held, value) if held.is_equal(value) => continue,
            ("type", held, value) => common_types(held, value)?,
            ("additionalProperties", held, value) => match (held.truth(), value.truth()) {
                (Some(false), _) | (_, Some(true)) => continue,
                (_, Some(false)) | (Some(true), _) => value.clone(),
                _ => both_hold(held, value),
            },
            ("minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties", held, value) => {
                if held.number() >= value.number() { continue } else { value.clone() }
            }
            ("maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties", held, value) => {
                if held.number() <= value.number() { continue } else { value.clone() }
            }
            ("uniqueItems", held, value) => {
                Json::Plain((held.truth() != Some(false) || value.truth() != Some(false)).into())
            }
            (key, _, _) if REMARKS.contains(&key) => continue,
            (key, _, _) => bail!("{key} stands in two parts that hold at once, and they cannot be put together"),
        };
    }
    let all = Json::Object(all);
    if let (Some(value), Some(Json::Array(values))) = (all.get("const"), all.get("enum")) {
        ensure!(
            values.iter().any(|one| one.is_equal(value)),
            "a const and an enum that hold at once have nothing in common"
        );
    }
    Ok(all)
}

/// The schema of what two schemas allow.
fn both_hold(a: &Json, b: &Json) -> Json {
    match (a.truth(), b.truth()) {
        (Some(true), _) | (_, Some(false)) => b.clone(),
        (_, Some(true)) | (Some(false), _) => a.clone(),
        _ => Json::Object(vec![("allOf".to_owned(), Json::Array(vec![a.clone(), b.clone()]))]),
    }
}

fn entries_of(schema: &Json) -> &[(String, Json)] {
    let Json::Object(entries) = schema else { return &[] };
    entries
}

/// A part of a schema, in which nothing is evaluated but what stands there: so that what its `unevaluatedProperties` allow is the same
/// once other parts stand beside it.
fn closed(part: &Json) -> Json {
    let looks_elsewhere =
        ["additionalProperties", "allOf", "anyOf", "oneOf", "$ref"].iter().any(|key| part.get(key).is_some());
    match part.get("unevaluatedProperties") {
        Some(others) if !looks_elsewhere => {
            part.without("unevaluatedProperties").with("additionalProperties", others.clone())
        }
        _ => part.clone(),
    }
}

/// The entries of a schema, whose properties are also what `other` says of those that it does not name.
fn limited(schema: &[(String, Json)], other: &Json) -> Result<Vec<(String, Json)>> {
    let mut all = schema.to_vec();
    let Some(additional) = other.get("additionalProperties").filter(|others| others.truth() != Some(true)) else {
        return Ok(all);
    };
    let (names, patterns) = (entries(other, "properties")?, entries(other, "patternProperties")?);
    for (key, value) in &mut all {
        match (key.as_str(), value) {
            ("properties", Json::Object(properties)) => {
                for (name, schema) in properties {
                    let mut is_named = names.iter().any(|(known, _)| known == name);
                    for (pattern, _) in patterns {
                        is_named |= pattern::fits(pattern, name)?;
                    }
                    if !is_named {
                        *schema = both_hold(schema, additional);
                    }
                }
            }
            ("patternProperties", Json::Object(own)) => {
                let are_there = own.iter().all(|(own, _)| patterns.iter().any(|(pattern, _)| own == pattern));
                ensure!(
                    are_there,
                    "patternProperties stands in one of two parts that hold at once, and additionalProperties in the other: \
                     they cannot be put together"
                );
            }
            _ => {}
        }
    }
    Ok(all)
}

/// The types that are in both.
fn common_types(a: &Json, b: &Json) -> Result<Json> {
    let list = |types: &Json| match types {
        Json::Array(list) => list.clone(),
        one => vec![one.clone()],
    };
    let within = |kind: &Json, types: &[Json]| {
        types.contains(kind)
            || kind.text() == Some("integer") && types.iter().any(|other| other.text() == Some("number"))
    };
    let (a, b) = (list(a), list(b));
    let of_a = a.iter().filter(|kind| within(kind, &b));
    let of_b = b.iter().filter(|kind| within(kind, &a) && !a.contains(kind));
    let both: Vec<Json> = of_a.chain(of_b).cloned().collect();
    match &both[..] {
        [] => bail!("type stands in two parts that hold at once, and nothing is of both types"),
        [one] => Ok(one.clone()),
        _ => Ok(Json::Array(both)),
    }
}

/// The properties of both; one that both have must be what both say.
fn both(a: &[(String, Json)], b: &[(String, Json)]) -> Vec<(String, Json)> {
    let mut all = a.to_vec();
    for (name, schema) in b {
        match all.iter_mut().find(|(known, _)| known == name) {
            Some((_, held)) if held == schema => {}
            Some((_, held)) => {
                *held = both_hold(held, schema);
            }
            None => all.push((name.clone(), schema.clone())),
        }
    }
    all
}
