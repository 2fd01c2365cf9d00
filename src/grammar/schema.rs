//! JSON schemas: the rules of the JSON that one describes.
//!
//! Keys come in the order in which the schema names them. Where properties are named, others are allowed only if
//! `additionalProperties` says so, as in llama.cpp. What restricts a text and cannot be kept to is refused; what only says
//! something about it, such as `description`, is passed over.

mod array;
mod object;

use super::admits::admits;
use super::expr::{Expr, Rules};
use super::formats::format;
use super::json::Json;
use super::keywords::{check, count, is_known};
use super::merge::merged;
use super::multiples::multiples;
use super::numbers::{self, Bounds};
use super::{pattern, strings};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::{self, Display};

fn string(schema: &Json) -> Result<Expr> {
    let (least, most) = (count(schema, "minLength", "characters")?, count(schema, "maxLength", "characters")?);
    let pattern = match schema.get("pattern") {
        Some(pattern) => Some(pattern.text().context("pattern must be a string")?.to_owned()),
        None => schema.get("format").and_then(Json::text).and_then(format),
    };
    if let Some(not) = schema.get("not") {
        let texts = excluded(not)?;
        let alone = pattern.is_none() && least.is_none() && most.is_none();
        ensure!(
            alone,
            "not cannot be kept to together with a pattern, a format or a length; say what is allowed instead"
        );
        return Ok(strings::other_than(&texts));
    }
    let Some(pattern) = pattern else {
        ensure!(most.is_none_or(|most| most >= least.unwrap_or(0)), "maxLength is less than minLength");
        return Ok(strings::of_length(least.unwrap_or(0), most));
    };
    ensure!(least.is_none() && most.is_none(), "a length cannot be kept to together with a pattern or a format");
    Ok(strings::quoted(pattern::content(&pattern)?))
}

/// The strings that `not` excludes.
fn excluded(not: &Json) -> Result<Vec<&str>> {
    let texts: Vec<&str> = match (not.get("enum"), not.get("const")) {
        (Some(Json::Array(values)), None) if !values.is_empty() => values.iter().filter_map(Json::text).collect(),
        (None, Some(value)) => value.text().into_iter().collect(),
        _ => bail!("not is known of strings in an enum or a const; say what is allowed instead"),
    };
    let remarks = not.without("enum").without("const").without("type");
    ensure!(!remarks.restricts(), "not is known of strings in an enum or a const; say what is allowed instead");
    Ok(texts)
}

/// The values that `enum` and `const` leave, where there is one of them.
fn listed(schema: &Json) -> Result<Option<Vec<&Json>>> {
    let one = schema.get("const");
    let Some(values) = schema.get("enum") else { return Ok(one.map(|one| vec![one])) };
    let Json::Array(values) = values else { bail!("enum must be an array") };
    ensure!(!values.is_empty(), "enum is empty");
    Ok(Some(values.iter().filter(|value| one.is_none_or(|one| one.is_equal(value))).collect()))
}

/// Whether other schemas stand in this one: such a one is converted once, however often it comes.
fn is_nested(schema: &Json) -> bool {
    const KEYS: [&str; 14] = [
        "properties",
        "additionalProperties",
        "unevaluatedProperties",
        "patternProperties",
        "propertyNames",
        "items",
        "prefixItems",
        "additionalItems",
        "unevaluatedItems",
        "contains",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
    ];
    KEYS.iter().any(|key| schema.get(key).is_some())
}

/// Where a number may be, if anywhere in particular.
fn bounds(schema: &Json) -> Result<Option<Bounds>> {
    let of =
        |key: &str| schema.get(key).map(|n| n.number().with_context(|| format!("{key} must be a number"))).transpose();
    let all = [of("minimum")?, of("exclusiveMinimum")?, of("maximum")?, of("exclusiveMaximum")?];
    if all.iter().all(Option::is_none) {
        return Ok(None);
    }
    let [least, above, most, below] = all;
    // Of two bounds the narrower one counts, and at the same number the one that does not allow it.
    let least = match (least.unwrap_or(f64::NEG_INFINITY), above) {
        (least, Some(above)) if above >= least => (above, false),
        (least, _) => (least, true),
    };
    let most = match (most.unwrap_or(f64::INFINITY), below) {
        (most, Some(below)) if below <= most => (below, false),
        (most, _) => (most, true),
    };
    Ok(Some(Bounds { least, most }))
}

/// Keywords of objects alone.
const OF_OBJECTS: [&str; 10] = [
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "dependencies",
    "unevaluatedProperties",
];
/// Keywords of arrays alone.
const OF_ARRAYS: [&str; 7] =
    ["items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains", "unevaluatedItems"];
/// References to references at most.
const MOST_REFERENCES: usize = 32;
/// Schemas within schemas at most, once references and parts are put together.
const DEEPEST: usize = 200;

/// An error that says where in the schema it is.
#[derive(Debug)]
struct Placed(String);

impl Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Placed {}

/// Reads a schema.
///
/// # Errors
/// In one line that names the place in the schema.
pub fn read(text: &str, source: &str) -> Result<Rules> {
    let root: Json = serde_json::from_str(text)?;
    let rules = Rules {
        list: vec![("root".to_owned(), Expr::Sequence(vec![]))],
        source: source.to_owned(),
        unknown: BTreeSet::new(),
    };
    let mut converter =
        Converter { rules, root: &root, references: HashMap::new(), converted: HashMap::new(), any: None, depth: 0 };
    // An empty schema stands for any object, as in llama.cpp.
    let expr = match &root {
        Json::Object(entries) if entries.is_empty() => converter.any_object(),
        root => converter.value(root, "")?,
    };
    converter.rules.list[0].1 = expr;
    Ok(converter.rules)
}

struct Converter<'a> {
    rules: Rules,
    root: &'a Json,
    /// The rule of each place that was referred to.
    references: HashMap<String, usize>,
    /// The rule of each schema in which others stand, by what is written there.
    converted: HashMap<String, usize>,
    any: Option<Expr>,
    depth: usize,
}

/// White space between values, but not without end.
fn space() -> Expr {
    let indent =
        Expr::Sequence(vec![Expr::text("\n").times(1, 2), Expr::chars(&[(' ', ' '), ('\t', '\t')]).times(0, 20)]);
    Expr::Choice(vec![Expr::Sequence(vec![]), Expr::text(" "), indent])
}

fn comma() -> Expr {
    Expr::Sequence(vec![Expr::text(","), space()])
}

/// `items`, each of which has the white space behind it, in brackets.
fn in_brackets(open: &str, items: Expr, close: &str) -> Expr {
    Expr::Sequence(vec![Expr::text(open), space(), items, Expr::text(close)])
}

/// At least and at most so many items with commas between them.
fn list(item: &Expr, least: usize, most: Option<usize>) -> Expr {
    if most == Some(0) {
        return Expr::Sequence(vec![]);
    }
    let more = Expr::Sequence(vec![comma(), item.clone()]).times(least.saturating_sub(1), most.map(|most| most - 1));
    let some = Expr::Sequence(vec![item.clone(), more]);
    if least == 0 { some.optional() } else { some }
}

fn entry(key: Expr, value: Expr) -> Expr {
    Expr::Sequence(vec![key, space(), Expr::text(":"), space(), value, space()])
}

impl<'a> Converter<'a> {
    fn value(&mut self, schema: &Json, path: &str) -> Result<Expr> {
        let at = || if path.is_empty() { "the schema".to_owned() } else { path.to_owned() };
        match schema {
            Json::Object(_) => {
                self.depth += 1;
                let expr = if self.depth > DEEPEST {
                    Err(anyhow!("more than {DEEPEST} schemas within each other"))
                } else if is_nested(schema) {
                    self.once(schema, path)
                } else {
                    self.object_schema(schema, path)
                };
                self.depth -= 1;
                expr.map_err(|error| match error.is::<Placed>() {
                    true => error,
                    false => anyhow!(Placed(format!("{}: {error:#}", at()))),
                })
            }
            _ => match schema.truth() {
                Some(true) => Ok(self.any_value()),
                Some(false) => bail!(Placed(format!("{}: false allows nothing", at()))),
                None => bail!(Placed(format!("{}: a schema is an object, or true", at()))),
            },
        }
    }

    /// The rule of a schema, which is converted where none like it has been. Without this what refers to a schema twice, and that
    /// to another twice, would be converted 2, 4, 8, ... times.
    fn once(&mut self, schema: &Json, path: &str) -> Result<Expr> {
        let written = schema.written();
        if let Some(number) = self.converted.get(&written) {
            return Ok(Expr::Rule(*number));
        }
        let number = self.rules.list.len();
        self.rules.add(path, Expr::Sequence(vec![]));
        self.converted.insert(written, number);
        let expr = self.object_schema(schema, path)?;
        self.rules.list[number].1 = expr;
        Ok(Expr::Rule(number))
    }

    /// Remembers the keys of a schema that are not known.
    fn note_unknown(&mut self, schema: &Json) {
        let Json::Object(entries) = schema else { return };
        let names = entries.iter().map(|(name, _)| name.as_str());
        self.rules.unknown.extend(names.filter(|name| !is_known(name)).map(str::to_owned));
    }

    /// The values that a schema lists, as far as the rest of it allows them; `None` where it lists none.
    fn values(&self, schema: &Json) -> Result<Option<Vec<Json>>> {
        let Some(values) = listed(schema)? else { return Ok(None) };
        let rest = schema.without("enum").without("const");
        let mut allowed = Vec::new();
        for value in values {
            if admits(&rest, value, &|schema| self.resolved(schema))? {
                allowed.push(value.clone());
            }
        }
        ensure!(!allowed.is_empty(), "no value of enum or const is what the rest of the schema allows");
        Ok(Some(allowed))
    }

    fn object_schema(&mut self, schema: &Json, path: &str) -> Result<Expr> {
        self.note_unknown(schema);
        check(schema)?;
        if let Some(Json::Array(parts)) = schema.get("allOf") {
            let mut all = schema.without("allOf");
            for part in parts {
                all = merged(&all, &self.resolved(part)?)?;
            }
            return self.value(&all, path);
        }
        if let Some(reference) = schema.get("$ref") {
            let reference = reference.text().context("$ref must be a string")?;
            if schema.without("$ref").restricts() {
                return self.value(&self.resolved(schema)?, path);
            }
            return self.reference(reference);
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(Json::Array(options)) = schema.get(key) {
                ensure!(!options.is_empty(), "{key} is empty");
                let rest = schema.without(key);
                let mut exprs = Vec::new();
                for (number, option) in options.iter().enumerate() {
                    let path = format!("{path}/{key}/{number}");
                    exprs.push(if rest.restricts() {
                        self.value(&merged(&rest, &self.resolved(option)?)?, &path)?
                    } else {
                        self.value(option, &path)?
                    });
                }
                return Ok(Expr::Choice(exprs));
            }
        }
        if let Some(values) = self.values(schema)? {
            return Ok(Expr::Choice(values.iter().map(|value| Expr::text(&value.written())).collect()));
        }
        let is_string = schema.get("type").and_then(Json::text) == Some("string");
        ensure!(
            schema.get("not").is_none() || is_string,
            "not is known of strings in an enum or a const, beside \"type\": \"string\"; say what is allowed instead"
        );
        match schema.get("type") {
            Some(Json::Array(types)) => {
                let types: Option<Vec<&str>> = types.iter().map(Json::text).collect();
                let mut types = types.context("type must be a name, or an array of names")?;
                let mut seen = HashSet::new();
                types.retain(|kind| seen.insert(*kind));
                ensure!(!types.is_empty(), "type is empty");
                Ok(Expr::Choice(types.into_iter().map(|kind| self.of_type(kind, schema, path)).collect::<Result<_>>()?))
            }
            Some(kind) => self.of_type(kind.text().context("type must be a name, or an array of names")?, schema, path),
            None => {
                let has = |keys: &[&str]| keys.iter().any(|key| schema.get(key).is_some());
                let kind = if has(&OF_OBJECTS) {
                    "object"
                } else if has(&OF_ARRAYS) {
                    "array"
                } else if has(&["pattern", "minLength", "maxLength", "format"]) {
                    "string"
                } else if has(&["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]) {
                    "number"
                } else {
                    return Ok(self.any_value());
                };
                self.of_type(kind, schema, path)
            }
        }
    }

    fn of_type(&mut self, kind: &str, schema: &Json, path: &str) -> Result<Expr> {
        Ok(match kind {
            "null" => Expr::text("null"),
            "boolean" => Expr::Choice(vec![Expr::text("true"), Expr::text("false")]),
            "integer" | "number" => {
                let whole = kind == "integer";
                let step = schema.get("multipleOf").map(|of| of.number().context("multipleOf must be a number"));
                match (step.transpose()?, bounds(schema)?) {
                    (Some(step), bounds) => multiples(step, bounds, whole, &mut self.rules)?,
                    (None, Some(bounds)) if whole => bounds.integers()?,
                    (None, Some(bounds)) => bounds.numbers()?,
                    (None, None) if whole => numbers::integer(),
                    (None, None) => numbers::number(),
                }
            }
            "string" => string(schema)?,
            "array" => self.array(schema, path)?,
            "object" => self.object(schema, path)?,
            other => bail!("\"{}\" is no type", other.escape_debug()),
        })
    }

    /// A rule of its own, for what is used several times.
    fn named(&mut self, schema: &Json, path: &str) -> Result<Expr> {
        let expr = self.value(schema, path)?;
        Ok(self.rules.add(path, expr))
    }

    /// The rule of what `$ref` points to.
    fn reference(&mut self, reference: &str) -> Result<Expr> {
        if let Some(number) = self.references.get(reference) {
            return Ok(Expr::Rule(*number));
        }
        let schema = self.pointed(reference)?;
        let number = self.rules.list.len();
        self.rules.add(reference, Expr::Sequence(vec![]));
        self.references.insert(reference.to_owned(), number);
        let expr = self.value(schema, reference)?;
        self.rules.list[number].1 = expr;
        Ok(Expr::Rule(number))
    }

    /// What `#/...` points to.
    fn pointed(&self, reference: &str) -> Result<&'a Json> {
        let inside = reference.strip_prefix('#');
        let pointer = inside.with_context(|| format!("$ref {reference}: only places in the same schema are known"))?;
        let mut at = self.root;
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            let next = match at {
                Json::Array(list) => step.parse::<usize>().ok().and_then(|number| list.get(number)),
                at => at.get(&step),
            };
            at = next.with_context(|| format!("$ref {reference}: there is no such place"))?;
        }
        ensure!(pointer.is_empty() || pointer.starts_with('/'), "$ref {reference}: there is no such place");
        Ok(at)
    }

    /// The schema with what it refers to in it.
    fn resolved(&self, schema: &Json) -> Result<Json> {
        let mut all = schema.clone();
        for _ in 0..MOST_REFERENCES {
            let Some(reference) = all.get("$ref") else { return Ok(all) };
            let target = self.pointed(reference.text().context("$ref must be a string")?)?;
            let rest = all.without("$ref");
            all = if rest.restricts() { merged(&rest, target)? } else { target.clone() };
        }
        bail!("$ref leads from one to another without end")
    }

    fn any_value(&mut self) -> Expr {
        if let Some(any) = &self.any {
            return any.clone();
        }
        let any = self.rules.add("any value", Expr::Sequence(vec![]));
        self.any = Some(any.clone());
        let number = self.rules.list.len() - 1;
        let object = self.any_object();
        let array = in_brackets("[", list(&Expr::Sequence(vec![any.clone(), space()]), 0, None), "]");
        let words = ["true", "false", "null"].map(Expr::text);
        let options = [object, array, strings::of_length(0, None), numbers::number()].into_iter().chain(words);
        self.rules.list[number].1 = Expr::Choice(options.collect());
        any
    }

    fn any_object(&mut self) -> Expr {
        let any = self.any_value();
        in_brackets("{", list(&entry(strings::of_length(0, None), any), 0, None), "}")
    }
}
