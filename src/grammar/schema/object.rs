//! Objects: keys in the order of the schema, how many there may be, and which need which.

use super::super::expr::{Expr, Rules};
use super::super::json::Json;
use super::super::keywords::{count, entries, names, needs, others_of};
use super::super::overlap::overlap;
use super::super::{pattern, strings};
use super::{Converter, comma, entry, in_brackets, list, string};
use anyhow::{Context, Result, ensure};
use std::collections::HashMap;

/// Keys that may depend on each other at most: of each, whether it has come must be known.
const MOST_TRACKED: usize = 16;
/// Keys at most where it matters how many, or which, have come.
const MOST_COUNTED: usize = 500;
/// Rules of one object at most.
const MOST_STATES: usize = 20_000;

/// Names, or patterns of names, with their schemas.
type Entries<'a> = &'a [(String, Json)];

/// What is known between two properties: which is next, how many have come (as far as that matters), and which of those that
/// others depend on or that depend on others.
type At = (usize, usize, u32);

/// An object on its way to rules.
struct Object {
    properties: Vec<Property>,
    /// Any further key, with its value.
    other: Option<Expr>,
    least: usize,
    most: Option<usize>,
    /// Bits of keys: where all of the first have come, so must the second.
    needs: Vec<(u32, u32)>,
    /// What is left of the object at each place; `None` where it cannot be ended well.
    known: HashMap<At, Option<Expr>>,
}

struct Property {
    /// Key and value.
    entry: Expr,
    required: bool,
    /// Its bit, or none.
    bit: u32,
}

impl Object {
    /// Numbers of properties beyond this are all the same.
    fn cap(&self) -> usize {
        self.least.max(self.most.unwrap_or(0)).max(1)
    }

    /// What may stand from a property on.
    fn rest(&mut self, at: At, rules: &mut Rules, path: &str) -> Result<Option<Expr>> {
        if let Some(known) = self.known.get(&at) {
            return Ok(known.clone());
        }
        ensure!(self.known.len() < MOST_STATES, "too many keys whose number or company is prescribed");
        let (next, count, bits) = at;
        let rest = match self.properties.get(next) {
            None => self.others(count, bits),
            Some(property) => {
                let (entry, required, bit) = (property.entry.clone(), property.required, property.bit);
                let has_room = self.most.is_none_or(|most| count < most);
                let with = match has_room {
                    true => self.rest((next + 1, (count + 1).min(self.cap()), bits | bit), rules, path)?,
                    false => None,
                };
                let with = with.map(|rest| match count {
                    0 => Expr::Sequence(vec![entry, rest]),
                    _ => Expr::Sequence(vec![comma(), entry, rest]),
                });
                let without = if required { None } else { self.rest((next + 1, count, bits), rules, path)? };
                let options: Vec<Expr> = with.into_iter().chain(without).collect();
                let rule = |mut options: Vec<Expr>| match options.len() {
                    1 => options.remove(0),
                    _ => Expr::Choice(options),
                };
                (!options.is_empty()).then(|| rules.add(format!("{path} from key {next}"), rule(options)))
            }
        };
        self.known.insert(at, rest.clone());
        Ok(rest)
    }

    /// What may stand behind the properties.
    fn others(&self, count: usize, bits: u32) -> Option<Expr> {
        if self.needs.iter().any(|(of, needed)| bits & of == *of && bits & needed != *needed) {
            return None;
        }
        let more = self.most.map(|most| most.saturating_sub(count));
        // Further keys may be the same again, so that only the first of them surely counts.
        let missing = self.least.saturating_sub(count);
        match &self.other {
            Some(other) if missing <= 1 && more.is_none_or(|more| more >= missing) => Some(match count {
                0 => list(other, missing, more),
                _ => Expr::Sequence(vec![comma(), other.clone()]).times(missing, more),
            }),
            _ if missing == 0 => Some(Expr::Sequence(vec![])),
            _ => None,
        }
    }
}

impl Converter<'_> {
    pub(super) fn object(&mut self, schema: &Json, path: &str) -> Result<Expr> {
        let mut properties = entries(schema, "properties")?.to_vec();
        let required = names(schema.get("required"), "required")?;
        let needs = needs(schema)?;
        let (least, most) =
            (count(schema, "minProperties", "keys")?.unwrap_or(0), count(schema, "maxProperties", "keys")?);
        ensure!(most.is_none_or(|most| most >= least), "maxProperties is less than minProperties");
        let others = others_of(schema);
        let only_named = others.is_some_and(|others| others.truth() == Some(false));
        let patterns = entries(schema, "patternProperties")?;
        let is_open = properties.is_empty()
            && required.is_empty()
            && others.is_none()
            && patterns.is_empty()
            && schema.get("propertyNames").is_none();
        if is_open && needs.is_empty() && least == 0 && most.is_none() {
            return Ok(self.any_object());
        }
        let known = |properties: &[(String, Json)], name: &str| properties.iter().any(|(known, _)| known == name);
        let open = Json::Plain(true.into());
        for name in &required {
            if !known(&properties, name) {
                ensure!(!only_named, "required \"{name}\" is no property");
                properties.push((name.clone(), others.unwrap_or(&open).clone()));
            }
        }
        for (of, needed) in &needs {
            // A key that cannot come needs none; one that is needed can.
            let comes = known(&properties, of) || others.is_some() && !only_named || is_open;
            for name in std::iter::once(of).chain(needed).filter(|_| comes && !only_named) {
                if !known(&properties, name) {
                    properties.push((name.clone(), others.unwrap_or(&open).clone()));
                }
            }
        }
        // A property that may be nothing must not be there; its name is none of other properties either.
        let forbidden = |(_, value): &&(String, Json)| value.truth() == Some(false);
        for (name, _) in properties.iter().filter(forbidden) {
            ensure!(!required.contains(name), "required \"{name}\" is allowed nothing");
        }
        let all_names: Vec<String> = properties.iter().map(|(name, _)| name.clone()).collect();
        ensure!(all_names.iter().all(|name| name.len() <= 1000), "a name of more than 1000 bytes");
        let other = self.other_entry(schema, path, (&properties, patterns), is_open)?;
        let tracked: Vec<&str> = all_names.iter().map(String::as_str).filter(|name| involved(&needs, name)).collect();
        ensure!(tracked.len() <= MOST_TRACKED, "dependentRequired names more than {MOST_TRACKED} keys");
        let bit = |name: &str| tracked.iter().position(|known| *known == name).map_or(0, |at| 1 << at);
        let needs = needs.iter().filter(|(of, _)| bit(of) != 0).flat_map(|(of, needed)| {
            // What is no property can never come.
            needed.iter().map(move |name| (of, name))
        });
        let never = 1 << 31;
        let needs: Vec<(u32, u32)> =
            needs.map(|(of, name)| (bit(of), if bit(name) == 0 { never } else { bit(name) })).collect();
        let counted = least > 0 || most.is_some() || !needs.is_empty();
        ensure!(
            !counted || properties.len() <= MOST_COUNTED,
            "more than {MOST_COUNTED} keys, whose number or company is prescribed"
        );
        let mut written = Vec::new();
        for (name, value) in properties.iter().filter(|property| !forbidden(property)) {
            let path = format!("{path}/properties/{name}");
            let value = self.named(value, &path)?;
            let key = Expr::text(&serde_json::Value::String(name.clone()).to_string());
            written.push(Property { entry: entry(key, value), required: required.contains(name), bit: bit(name) });
        }
        let mut object = Object { properties: written, other, least, most, needs, known: HashMap::new() };
        let attainable = object.properties.len() + usize::from(object.other.is_some());
        ensure!(
            least <= attainable,
            "minProperties {least}: of keys that are not named only one surely counts, as it could come twice; name {} more",
            least - attainable
        );
        // From the last one on: nothing is then deeper than a step.
        for next in (0..object.properties.len()).rev() {
            if !counted {
                for count in [0, 1] {
                    object.rest((next, count, 0), &mut self.rules, path)?;
                }
            }
        }
        let all = object.rest((0, 0, 0), &mut self.rules, path)?;
        let all = all.context("no object can have the keys that are required, as many as there may be")?;
        Ok(in_brackets("{", all, "}"))
    }

    /// A key that is none of the properties, with its value; `None` where there may be none.
    fn other_entry(
        &mut self,
        schema: &Json,
        path: &str,
        (properties, patterns): (Entries, Entries),
        is_open: bool,
    ) -> Result<Option<Expr>> {
        let others = others_of(schema);
        let wanted = others.filter(|others| others.truth() != Some(false));
        let names: Vec<&str> = properties.iter().map(|(name, _)| name.as_str()).collect();
        if !patterns.is_empty() {
            ensure!(
                wanted.is_none(),
                "patternProperties beside additionalProperties cannot be kept to; make that false"
            );
            ensure!(schema.get("propertyNames").is_none(), "patternProperties beside propertyNames cannot be kept to");
            return self.of_patterns(path, properties, patterns);
        }
        let key = match schema.get("propertyNames") {
            None => strings::other_than(&names),
            Some(of) => {
                ensure!(
                    names.is_empty(),
                    "propertyNames beside named properties cannot be kept to; leave either of them out"
                );
                let of = self.resolved(of)?;
                match of.truth() {
                    Some(true) => strings::other_than(&[]),
                    Some(false) => return Ok(None),
                    None => {
                        let Some(key) = self.key_of(&of)? else { return Ok(None) };
                        key
                    }
                }
            }
        };
        let value = match wanted {
            Some(others) => self.named(others, &format!("{path}/additionalProperties"))?,
            None if others.is_none() && (is_open || schema.get("propertyNames").is_some()) => self.any_value(),
            None => return Ok(None),
        };
        Ok(Some(entry(key, value)))
    }

    /// A key of which `propertyNames` says this; `None` where there is no such.
    fn key_of(&mut self, names: &Json) -> Result<Option<Expr>> {
        self.note_unknown(names);
        if names.get("enum").is_none() && names.get("const").is_none() {
            known_of_names(names)?;
            return string(names).map(Some);
        }
        // Names are strings, whatever else is listed.
        let values = self.values(names).context("propertyNames")?.unwrap_or_default();
        let texts: Vec<Expr> =
            values.iter().filter(|value| value.text().is_some()).map(|value| Expr::text(&value.written())).collect();
        Ok((!texts.is_empty()).then_some(Expr::Choice(texts)))
    }

    /// `patternProperties`: keys that match one of them each; `None` where there may be no such.
    fn of_patterns(&mut self, path: &str, properties: Entries, patterns: Entries) -> Result<Option<Expr>> {
        let mut keys = Vec::new();
        for (text, _) in patterns {
            let shown: String = text.chars().take(60).collect();
            let content = pattern::content(text).with_context(|| format!("patternProperties \"{shown}\""))?;
            keys.push((strings::quoted(content), shown));
        }
        for (at, ((key, shown), (_, schema))) in keys.iter().zip(patterns).enumerate() {
            for (name, own) in properties.iter().filter(|(_, own)| own != schema) {
                let name_text = Expr::text(&serde_json::Value::String(name.clone()).to_string());
                ensure!(
                    !overlap(key, &name_text)?,
                    "patternProperties \"{shown}\" matches the property \"{name}\", and both cannot be kept to ({})",
                    own.written().chars().take(60).collect::<String>()
                );
            }
            for ((other, other_shown), (_, other_schema)) in keys.iter().zip(patterns).take(at) {
                ensure!(
                    schema == other_schema || !overlap(key, other)?,
                    "patternProperties \"{shown}\" and \"{other_shown}\" match the same keys, and both cannot be kept to"
                );
            }
        }
        let mut options = Vec::new();
        let allowed = |(_, (_, schema)): &(_, &(String, Json))| schema.truth() != Some(false);
        for ((key, _), (text, schema)) in keys.into_iter().zip(patterns).filter(allowed) {
            let value = self.named(schema, &format!("{path}/patternProperties/{text}"))?;
            options.push(entry(key, value));
        }
        Ok((!options.is_empty()).then_some(Expr::Choice(options)))
    }
}

/// Whether all that `propertyNames` says is known.
fn known_of_names(schema: &Json) -> Result<()> {
    const KNOWN: [&str; 6] = ["type", "pattern", "minLength", "maxLength", "format", "not"];
    let rest = KNOWN.iter().fold(schema.clone(), |rest, key| rest.without(key));
    ensure!(!rest.restricts(), "propertyNames: only pattern, format, lengths, not and enum are known");
    let kind = schema.get("type").and_then(Json::text);
    ensure!(kind.is_none_or(|kind| kind == "string"), "propertyNames: names are strings");
    Ok(())
}

fn involved(needs: &[(String, Vec<String>)], name: &str) -> bool {
    needs.iter().any(|(of, needed)| of == name || needed.iter().any(|needed| needed == name))
}
