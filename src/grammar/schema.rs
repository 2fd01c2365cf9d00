//! JSON schemas: the rules of the JSON that one describes.
//!
//! Keys come in the order in which the schema names them. Where properties are named, others are allowed only if
//! `additionalProperties` says so, as in llama.cpp. What restricts a text and cannot be kept to is refused; what only says
//! something about it, such as `description`, is passed over.

mod array;
mod object;

use super::expr::{Expr, Rules};
use super::json::Json;
use super::merge::merged;
use super::multiples::multiples;
use super::numbers::{self, Bounds};
use super::{pattern, strings};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::collections::HashMap;
use std::fmt::{self, Display};

/// What restricts a text, but not here, and what helps.
const REFUSED: [(&str, &str); 4] = [
    ("dependentSchemas", "write them as anyOf"),
    ("$dynamicRef", "give a $ref"),
    ("$recursiveRef", "give a $ref"),
    ("contentSchema", "describe the string by a pattern"),
];
const DATE: &str = "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])";
const TIME: &str = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{3})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";

const UUID: &str = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";

/// A number from 0 to 255.
const BYTE: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
/// A label of a host's name.
const LABEL: &str = "[a-zA-Z0-9]([-a-zA-Z0-9]{0,28}[a-zA-Z0-9])?";

/// What a format looks like, or a part of all that it allows; those that are not known say something about a text, and no more.
fn format(name: &str) -> Option<String> {
    let host = || format!("{LABEL}(\\.{LABEL}){{0,3}}");
    Some(match name {
        "date" => format!("^{DATE}$"),
        "time" => format!("^{TIME}$"),
        "date-time" => format!("^{DATE}T{TIME}$"),
        "uuid" => format!("^{UUID}$"),
        "uuid1" | "uuid2" | "uuid3" | "uuid4" | "uuid5" => {
            let version = &name[4..];
            format!("^[0-9a-fA-F]{{8}}-[0-9a-fA-F]{{4}}-{version}[0-9a-fA-F]{{3}}-[89abAB][0-9a-fA-F]{{3}}-[0-9a-fA-F]{{12}}$")
        }
        "duration" => "^P([0-9]{1,4}W|[0-9]{1,4}Y([0-9]{1,4}M([0-9]{1,4}D)?)?(T[0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?)?|\
             [0-9]{1,4}M([0-9]{1,4}D)?(T[0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?)?|[0-9]{1,4}D(T[0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?)?|\
             T([0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?|[0-9]{1,4}M([0-9]{1,4}S)?|[0-9]{1,4}S))$"
            .to_owned(),
        "ipv4" => format!("^{BYTE}(\\.{BYTE}){{3}}$"),
        "ipv6" => "^[0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4}){7}$".to_owned(),
        "hostname" => format!("^{}$", host()),
        "email" => format!("^[a-zA-Z0-9_+-]{{1,20}}(\\.[a-zA-Z0-9_+-]{{1,20}}){{0,2}}@{}$", host()),
        _ => return None,
    })
}

fn string(schema: &Json) -> Result<Expr> {
    let length =
        |key: &str| schema.get(key).map(|n| n.count().with_context(|| format!("{key} must be a number of characters")));
    let (least, most) = (length("minLength").transpose()?, length("maxLength").transpose()?);
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

/// Where a number may be, if anywhere in particular.
fn bounds(schema: &Json, whole: bool) -> Result<Option<Bounds>> {
    let of =
        |key: &str| schema.get(key).map(|n| n.number().with_context(|| format!("{key} must be a number"))).transpose();
    let (least, above) = (of("minimum")?, of("exclusiveMinimum")?);
    let (most, below) = (of("maximum")?, of("exclusiveMaximum")?);
    if [least, above, most, below].iter().all(Option::is_none) {
        return Ok(None);
    }
    // Of numbers with a fraction, the whole one beside the bound is far enough.
    let step = |bound: f64, way: f64| if bound.fract() == 0.0 || !whole { bound + way } else { bound };
    let least = least.into_iter().chain(above.map(|bound| step(bound, 1.0))).fold(f64::NEG_INFINITY, f64::max);
    let most = most.into_iter().chain(below.map(|bound| step(bound, -1.0))).fold(f64::INFINITY, f64::min);
    Ok(Some(Bounds { least, most }))
}

/// Keywords of objects alone.
const OF_OBJECTS: [&str; 9] = [
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "dependencies",
];
/// Keywords of arrays alone.
const OF_ARRAYS: [&str; 6] = ["items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"];
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
    let rules = Rules { list: vec![("root".to_owned(), Expr::Sequence(vec![]))], source: source.to_owned() };
    let mut converter = Converter { rules, root: &root, references: HashMap::new(), any: None, depth: 0 };
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

    fn object_schema(&mut self, schema: &Json, path: &str) -> Result<Expr> {
        for (key, help) in REFUSED {
            ensure!(schema.get(key).is_none(), "{key} cannot be kept to; {help}");
        }
        // Alone neither says anything.
        let cases = schema.get("if").is_some() && (schema.get("then").is_some() || schema.get("else").is_some());
        ensure!(!cases, "if cannot be kept to; write the cases as anyOf");
        if let Some(Json::Array(parts)) = schema.get("allOf") {
            let mut all = schema.without("allOf");
            for part in parts {
                all = merged(&all, self.resolved(part)?)?;
            }
            return self.value(&all, path);
        }
        if let Some(reference) = schema.get("$ref") {
            let reference = reference.text().context("$ref must be a string")?;
            let rest = schema.without("$ref");
            if rest.restricts() {
                return self.value(&merged(&rest, self.resolved(schema)?)?, path);
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
                        self.value(&merged(&rest, self.resolved(option)?)?, &path)?
                    } else {
                        self.value(option, &path)?
                    });
                }
                return Ok(Expr::Choice(exprs));
            }
        }
        let is_string = schema.get("type").and_then(Json::text) == Some("string");
        ensure!(
            schema.get("not").is_none() || is_string && schema.get("enum").is_none() && schema.get("const").is_none(),
            "not is known of strings in an enum or a const, beside \"type\": \"string\"; say what is allowed instead"
        );
        if let Some(value) = schema.get("const") {
            return Ok(Expr::text(&value.written()));
        }
        if let Some(values) = schema.get("enum") {
            let Json::Array(values) = values else { bail!("enum must be an array") };
            ensure!(!values.is_empty(), "enum is empty");
            return Ok(Expr::Choice(values.iter().map(|value| Expr::text(&value.written())).collect()));
        }
        match schema.get("type") {
            Some(Json::Array(types)) => {
                let types: Option<Vec<&str>> = types.iter().map(Json::text).collect();
                let types = types.context("type must be a name, or an array of names")?;
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
                match (step.transpose()?, bounds(schema, whole)?) {
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

    /// The schema itself, or what it refers to.
    fn resolved<'s>(&self, mut schema: &'s Json) -> Result<&'s Json>
    where
        'a: 's,
    {
        for _ in 0..MOST_REFERENCES {
            let Some(reference) = schema.get("$ref") else { return Ok(schema) };
            schema = self.pointed(reference.text().context("$ref must be a string")?)?;
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
