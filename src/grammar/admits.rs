//! Whether a schema allows a value: for lists of values beside which a schema says more.

use super::formats;
use super::json::Json;
use super::keywords::{check, count, entries, items_of, names, needs, others_of};
use super::multiples::is_multiple;
use super::pattern;
use anyhow::{Context, Result, bail, ensure};

/// Gives a schema with what it refers to.
type Resolve<'a> = &'a dyn Fn(&Json) -> Result<Json>;

/// Whether `schema` allows `value`.
///
/// # Errors
/// When the schema asks for something that cannot be told of, and when it is none.
pub fn admits(schema: &Json, value: &Json, resolve: Resolve) -> Result<bool> {
    if let Some(truth) = schema.truth() {
        return Ok(truth);
    }
    let schema = &resolve(schema)?;
    check(schema)?;
    for key in ["unevaluatedProperties", "unevaluatedItems"] {
        let elsewhere = ["allOf", "anyOf", "oneOf", "contains"].iter().find(|other| schema.get(other).is_some());
        if let (Some(_), Some(other)) = (schema.get(key), elsewhere) {
            bail!("{key} beside {other} cannot be kept to where values are listed; leave out those that it forbids");
        }
    }
    let is_one = |values: &Json| matches!(values, Json::Array(values) if values.iter().any(|one| one.is_equal(value)));
    if schema.get("const").is_some_and(|one| !one.is_equal(value)) || schema.get("enum").is_some_and(|all| !is_one(all))
    {
        return Ok(false);
    }
    if let Some(Json::Array(parts)) = schema.get("allOf") {
        for part in parts {
            if !admits(part, value, resolve)? {
                return Ok(false);
            }
        }
    }
    for key in ["anyOf", "oneOf"] {
        let Some(Json::Array(options)) = schema.get(key) else { continue };
        let mut n = 0;
        for option in options {
            n += usize::from(admits(option, value, resolve)?);
        }
        if n == 0 || key == "oneOf" && n > 1 {
            return Ok(false);
        }
    }
    if let Some(not) = schema.get("not")
        && admits(not, value, resolve)?
    {
        return Ok(false);
    }
    Ok(is_of_type(schema, value)
        && has_number(schema, value)?
        && has_text(schema, value)?
        && has_items(schema, value, resolve)?
        && has_properties(schema, value, resolve)?)
}

fn is_of_type(schema: &Json, value: &Json) -> bool {
    let is = |kind: &Json| match (kind.text().unwrap_or_default(), value) {
        ("object", Json::Object(_)) | ("array", Json::Array(_)) => true,
        ("string", value) => value.text().is_some(),
        ("boolean", value) => value.truth().is_some(),
        ("number", value) => value.number().is_some(),
        ("integer", value) => value.number().is_some_and(|n| n.fract() == 0.0),
        ("null", Json::Plain(value)) => value.is_null(),
        _ => false,
    };
    match schema.get("type") {
        None => true,
        Some(Json::Array(kinds)) => kinds.iter().any(is),
        Some(kind) => is(kind),
    }
}

fn has_number(schema: &Json, value: &Json) -> Result<bool> {
    let Some(n) = value.number() else { return Ok(true) };
    let bound = |key: &str, holds: fn(&f64, &f64) -> bool| -> Result<bool> {
        let Some(bound) = schema.get(key) else { return Ok(true) };
        Ok(holds(&n, &bound.number().with_context(|| format!("{key} must be a number"))?))
    };
    if let Some(of) = schema.get("multipleOf") {
        ensure!(of.number().context("multipleOf must be a number")? > 0.0, "multipleOf must be more than 0");
        if !is_multiple(value, of).context("multipleOf: a number with more digits than can be divided")? {
            return Ok(false);
        }
    }
    Ok(bound("minimum", f64::ge)?
        && bound("maximum", f64::le)?
        && bound("exclusiveMinimum", f64::gt)?
        && bound("exclusiveMaximum", f64::lt)?)
}

/// Whether a number of `things` is at least and at most what two keys say.
fn is_between(schema: &Json, n: usize, [least, most]: [&str; 2], things: &str) -> Result<bool> {
    let (least, most) = (count(schema, least, things)?, count(schema, most, things)?);
    Ok(least.is_none_or(|least| n >= least) && most.is_none_or(|most| n <= most))
}

fn has_text(schema: &Json, value: &Json) -> Result<bool> {
    let Some(text) = value.text() else { return Ok(true) };
    if let Some(pattern) = schema.get("pattern")
        && !pattern::fits(pattern.text().context("pattern must be a string")?, text)?
    {
        return Ok(false);
    }
    let format = schema.get("format").and_then(Json::text);
    let fits = format.map_or(Ok(true), |format| formats::fits(format, text))?;
    Ok(fits && is_between(schema, text.chars().count(), ["minLength", "maxLength"], "characters")?)
}

fn has_items(schema: &Json, value: &Json, resolve: Resolve) -> Result<bool> {
    let Json::Array(values) = value else { return Ok(true) };
    let (first, rest) = items_of(schema)?;
    for (number, value) in values.iter().enumerate() {
        if let Some(item) = first.get(number).or(rest)
            && !admits(item, value, resolve)?
        {
            return Ok(false);
        }
    }
    if let Some(wanted) = schema.get("contains") {
        let mut n = 0;
        for value in values {
            n += usize::from(admits(wanted, value, resolve)?);
        }
        let least = count(schema, "minContains", "items")?.unwrap_or(1);
        if n < least || count(schema, "maxContains", "items")?.is_some_and(|most| n > most) {
            return Ok(false);
        }
    }
    let alike = |at: usize, value: &Json| values.iter().take(at).any(|other| other.is_equal(value));
    let unique = schema.get("uniqueItems").is_some_and(|unique| unique.truth() != Some(false));
    if unique && values.iter().enumerate().any(|(at, value)| alike(at, value)) {
        return Ok(false);
    }
    is_between(schema, values.len(), ["minItems", "maxItems"], "items")
}

fn has_properties(schema: &Json, value: &Json, resolve: Resolve) -> Result<bool> {
    let Json::Object(held) = value else { return Ok(true) };
    let patterns = entries(schema, "patternProperties")?;
    for (name, value) in held {
        if let Some(of) = schema.get("propertyNames")
            && !admits(of, &Json::Plain(name.as_str().into()), resolve)?
        {
            return Ok(false);
        }
        let mut said: Vec<&Json> = entries(schema, "properties")?
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, property)| property)
            .collect();
        for (pattern, property) in patterns {
            said.extend(pattern::fits(pattern, name)?.then_some(property));
        }
        if said.is_empty() {
            said.extend(others_of(schema));
        }
        for property in said {
            if !admits(property, value, resolve)? {
                return Ok(false);
            }
        }
    }
    let is_there = |name: &String| value.get(name).is_some();
    Ok(names(schema.get("required"), "required")?.iter().all(is_there)
        && needs(schema)?.iter().all(|(of, needed)| !is_there(of) || needed.iter().all(is_there))
        && is_between(schema, held.len(), ["minProperties", "maxProperties"], "keys")?)
}
