//! The filter `tojson` as transformers defines it: Python's `json.dumps`, without escapes for HTML.

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Deeper values are refused: some hold themselves.
const MAX_DEPTH: usize = 200;

struct Style {
    ensure_ascii: bool,
    /// What each level is indented by; everything on one line without.
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
}

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`
pub(super) fn tojson(value: &Value, given: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let argument = |at: usize, name: &str| -> Result<Value, Error> {
        match given.get(at) {
            Some(value) => Ok(value.clone()),
            None => Ok(named.get::<Option<Value>>(name)?.unwrap_or_default()),
        }
    };
    let ensure_ascii = argument(0, "ensure_ascii")?.is_true();
    let indent = argument(1, "indent")?;
    let indent = match indent.kind() {
        ValueKind::Undefined | ValueKind::None => None,
        ValueKind::String => Some(indent.as_str().unwrap_or_default().to_owned()),
        _ => Some(" ".repeat(i64::try_from(indent)?.clamp(0, 1000) as usize)),
    };
    let separators = argument(2, "separators")?;
    let sort_keys = argument(3, "sort_keys")?.is_true();
    named.assert_all_used()?;
    let (item, key) = if separators.is_none() || separators.is_undefined() {
        let item = if indent.is_some() { "," } else { ", " };
        (item.to_owned(), ": ".to_owned())
    } else {
        (separators.get_item_by_index(0)?.to_string(), separators.get_item_by_index(1)?.to_string())
    };
    let mut out = String::new();
    Style { ensure_ascii, indent, item, key, sort_keys }.value(&mut out, value, 0)?;
    Ok(out)
}

fn fails(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {}", why.into()))
}

impl Style {
    fn value(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(fails("the value nests too deeply"));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)),
            ValueKind::String => self.string(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let mut empty = true;
                for item in value.try_iter()? {
                    self.next(out, if empty { "[" } else { &self.item }, depth + 1);
                    self.value(out, &item, depth + 1)?;
                    empty = false;
                }
                self.close(out, empty, ["[", "]"], depth);
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                for (i, key) in keys.iter().enumerate() {
                    self.next(out, if i == 0 { "{" } else { &self.item }, depth + 1);
                    self.string(out, &key_text(key)?);
                    out.push_str(&self.key);
                    self.value(out, &value.get_item(key)?, depth + 1)?;
                }
                self.close(out, keys.is_empty(), ["{", "}"], depth);
            }
            kind => return Err(fails(format!("{kind} cannot be written"))),
        }
        Ok(())
    }

    /// What stands before an item.
    fn next(&self, out: &mut String, before: &str, depth: usize) {
        out.push_str(before);
        self.line(out, depth);
    }

    fn line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn close(&self, out: &mut String, empty: bool, [open, close]: [&str; 2], depth: usize) {
        if empty {
            out.push_str(open);
        } else {
            self.line(out, depth);
        }
        out.push_str(close);
    }

    fn string(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || self.ensure_ascii && c > '~' => {
                    c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// As Python writes it: floats keep their point.
pub(super) fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(x) if !value.is_integer() => float(x),
        _ => value.to_string(),
    }
}

/// Python's `repr` of a float, with the names that its JSON has for what is no number.
fn float(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    // Rust's debug form has the same thresholds and digits, but writes exponents as in 1e16.
    let text = format!("{x:?}");
    match text.split_once('e').map(|(digits, exponent)| (digits, exponent.parse::<i32>())) {
        Some((digits, Ok(exponent))) => format!("{digits}e{exponent:+03}"),
        _ => text,
    }
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::Number => Ok(number(key)),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        kind => Err(fails(format!("keys cannot be of kind {kind}"))),
    }
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, context};

    fn written(expression: &str) -> String {
        let mut env = Environment::new();
        env.add_filter("tojson", super::tojson);
        env.render_str(&format!("{{{{ {expression} }}}}"), context! {}).unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn values_are_written_as_python_does() {
        let value =
            "{'b': [1, 2.0, 1e20, true, none], 'a': {'<&>': '\"\u{e9}\u{1f600}\\n\\x01\u{7f}'}, 'e': [], 'o': {}}";
        assert_eq!(
            written(&format!("{value}|tojson")),
            "{\"b\": [1, 2.0, 1e+20, true, null], \"a\": {\"<&>\": \"\\\"\u{e9}\u{1f600}\\n\\u0001\u{7f}\"}, \
             \"e\": [], \"o\": {}}"
        );
        assert_eq!(
            written(&format!("{value}|tojson(ensure_ascii=true, separators=(',', ':'), sort_keys=true)")),
            "{\"a\":{\"<&>\":\"\\\"\\u00e9\\ud83d\\ude00\\n\\u0001\\u007f\"},\"b\":[1,2.0,1e+20,true,null],\"e\":[],\"o\":{}}"
        );
        assert_eq!(
            written("{'a': [1, {}], 'b': []}|tojson(indent=2)"),
            "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}"
        );
        assert_eq!(written("{1: 2}|tojson(false, '--')"), "{\n--\"1\": 2\n}");
    }

    #[test]
    fn what_json_does_not_have_is_an_error() {
        assert!(written("missing|tojson").contains("tojson: undefined cannot be written"));
        assert!(written("range|tojson").contains("tojson: "));
        assert!(written("1|tojson(typo=1)").contains("typo"));
        let cyclic = "1 }}{% set ns = namespace() %}{% set ns.a = ns %}{{ ns|tojson";
        assert!(written(cyclic).contains("nests too deeply"), "{}", written(cyclic));
    }
}
