//! The keywords of JSON schemas, by what is done with them, and what those say that have no schemas in them.

use super::json::Json;
use anyhow::{Context, Result, bail, ensure};

/// Keywords that say something about a text and do not restrict it.
pub const REMARKS: [&str; 18] = [
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
    "$dynamicAnchor",
    "$vocabulary",
    "contentEncoding",
    "contentMediaType",
    "example",
];

/// What restricts a text, but not here, and what helps.
const REFUSED: [(&str, &str); 4] = [
    ("dependentSchemas", "write them as anyOf"),
    ("$dynamicRef", "give a $ref"),
    ("$recursiveRef", "give a $ref"),
    ("contentSchema", "describe the string by a pattern"),
];

/// What is kept to, beside what [`REMARKS`] only say.
const KEPT: [&str; 40] = [
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "anyOf",
    "oneOf",
    "allOf",
    "$ref",
    "not",
    "if",
    "then",
    "else",
    "multipleOf",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "unevaluatedItems",
    "additionalItems",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "dependencies",
    "unevaluatedProperties",
];

/// Whether a key is one of JSON Schema's, or of those that extend it, such as `x-order`.
pub fn is_known(key: &str) -> bool {
    key.starts_with("x-")
        || KEPT.iter().chain(&REMARKS).chain(REFUSED.iter().map(|(name, _)| name)).any(|known| *known == key)
}

/// Whether a schema asks for nothing that cannot be kept to wherever it stands.
///
/// # Errors
/// Which names the first such keyword, with what helps.
pub fn check(schema: &Json) -> Result<()> {
    for (key, help) in REFUSED {
        ensure!(schema.get(key).is_none(), "{key} cannot be kept to; {help}");
    }
    // Alone neither says anything.
    let cases = schema.get("if").is_some() && (schema.get("then").is_some() || schema.get("else").is_some());
    ensure!(!cases, "if cannot be kept to; write the cases as anyOf");
    for key in ["allOf", "anyOf", "oneOf"] {
        let is_list = schema.get(key).is_none_or(|parts| matches!(parts, Json::Array(_)));
        ensure!(is_list, "{key} must be an array of schemas");
    }
    Ok(())
}

/// A number of `things` under `key`.
///
/// # Errors
/// When something else stands there.
pub fn count(schema: &Json, key: &str, things: &str) -> Result<Option<usize>> {
    let Some(count) = schema.get(key) else { return Ok(None) };
    Ok(Some(count.count().with_context(|| format!("{key} must be a number of {things}"))?))
}

/// The entries of the object under `key`; none where there is no such key.
///
/// # Errors
/// When something else stands there.
pub fn entries<'a>(schema: &'a Json, key: &str) -> Result<&'a [(String, Json)]> {
    match schema.get(key) {
        Some(Json::Object(entries)) => Ok(entries),
        Some(_) => bail!("{key} must be an object"),
        None => Ok(&[]),
    }
}

/// The names in a list under `key`.
///
/// # Errors
/// When something else stands there.
pub fn names(list: Option<&Json>, key: &str) -> Result<Vec<String>> {
    match list {
        Some(Json::Array(names)) => {
            let names: Option<_> = names.iter().map(|name| name.text().map(str::to_owned)).collect();
            names.with_context(|| format!("{key} must be an array of names"))
        }
        Some(_) => bail!("{key} must be an array of names"),
        None => Ok(Vec::new()),
    }
}

/// What `dependentRequired` says, and `dependencies` where they name keys: which keys need which.
///
/// # Errors
/// When they are something else.
pub fn needs(schema: &Json) -> Result<Vec<(String, Vec<String>)>> {
    let mut all = Vec::new();
    for key in ["dependentRequired", "dependencies"] {
        for (name, needed) in entries(schema, key)? {
            let is_schema = key == "dependencies" && !matches!(needed, Json::Array(_));
            ensure!(!is_schema, "dependencies cannot be kept to where they are schemas; write them as anyOf");
            all.push((name.clone(), names(Some(needed), key)?));
        }
    }
    Ok(all)
}

/// The schemas of the first items of an array, and that of the further ones.
///
/// # Errors
/// When `prefixItems` is no array.
pub fn items_of(schema: &Json) -> Result<(&[Json], Option<&Json>)> {
    Ok(match (schema.get("prefixItems"), schema.get("items")) {
        (Some(Json::Array(first)), rest) => (&first[..], rest.or_else(|| schema.get("unevaluatedItems"))),
        // As drafts before 2020 have it.
        (None, Some(Json::Array(first))) => {
            (&first[..], schema.get("additionalItems").or_else(|| schema.get("unevaluatedItems")))
        }
        (None, rest) => (&[][..], rest.or_else(|| schema.get("unevaluatedItems"))),
        _ => bail!("prefixItems must be an array"),
    })
}

/// What further keys have. All that a schema says of an object stands side by side here, so that what is not evaluated is what is
/// not named.
pub fn others_of(schema: &Json) -> Option<&Json> {
    schema.get("additionalProperties").or_else(|| schema.get("unevaluatedProperties"))
}
