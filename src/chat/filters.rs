//! Filters, tests and functions of Jinja2 and transformers that minijinja lacks, or has with fewer arguments.

use super::calendar::strftime;
use super::errors::Refused;
use super::printf::modulo;
use super::python::{Side, capitalize, method, padded, replaced, stripped, title};
use super::rewrite::MODULO;
use super::tojson;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};
use minijinja_contrib::{filters, globals};
use std::time::{SystemTime, UNIX_EPOCH};

/// Adds all of them, and the methods of Python.
pub(super) fn add_to(env: &mut Environment) {
    env.set_unknown_method_callback(method);
    env.add_function(MODULO, modulo);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", strftime_now);
    env.add_function("cycler", |items: Rest<Value>| globals::cycler(items.0));
    env.add_function("joiner", globals::joiner);
    env.add_filter("length", length);
    env.add_filter("count", length);
    env.add_filter("tojson", tojson::tojson);
    env.add_filter("title", |text: String| title(&text));
    env.add_filter("capitalize", |text: String| capitalize(&text));
    env.add_filter("center", |text: String, width: Option<usize>| padded(&text, width.unwrap_or(80), ' ', Side::Both));
    env.add_filter("trim", trim);
    env.add_filter("wordcount", wordcount);
    env.add_filter("replace", replace);
    env.add_filter("truncate", truncate);
    env.add_filter("striptags", filters::striptags);
    env.add_filter("filesizeformat", filters::filesizeformat);
    env.add_filter("urlencode", urlencode);
    env.add_filter("int", int);
    env.add_filter("float", float);
    // In Python texts, dictionaries and what is undefined have a length and items, too.
    env.add_test("sequence", holds_items);
    // minijinja finds that none can be iterated over, too, and templates ask whether `tools` can.
    env.add_test("iterable", holds_items);
    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
}

fn holds_items(value: &Value) -> bool {
    let kinds = [ValueKind::Seq, ValueKind::Iterable, ValueKind::String, ValueKind::Map, ValueKind::Undefined];
    kinds.contains(&value.kind())
}

/// As in Jinja2, where undefined has length 0; minijinja's own filter fails.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() { Ok(0) } else { minijinja::filters::length(value) }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    let refused = Refused(message.clone());
    Err(Error::new(ErrorKind::InvalidOperation, message).with_source(refused))
}

/// The present time in UTC, as the local time zone is not known without a dependency.
fn strftime_now(format: &str) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = strftime(now.as_secs(), format);
    text.ok_or_else(|| {
        let message = format!("strftime_now: unknown directive in {format:?}");
        Error::new(ErrorKind::InvalidOperation, message)
    })
}

/// An argument by its place or by its name.
pub(super) fn argument(given: &[Value], named: &Kwargs, at: usize, name: &str) -> Result<Option<Value>, Error> {
    match given.get(at) {
        Some(value) => Ok(Some(value.clone())),
        None => named.get(name),
    }
}

fn trim(text: &Value, given: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let chars = argument(&given, &named, 0, "chars")?.filter(|c| !c.is_none()).map(|c| c.to_string());
    named.assert_all_used()?;
    Ok(text.to_string().trim_matches(|c| stripped(c, chars.as_deref())).to_owned())
}

fn wordcount(text: String) -> usize {
    text.split(|c: char| c != '_' && !c.is_alphanumeric()).filter(|word| !word.is_empty()).count()
}

fn replace(text: &Value, given: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let missing = |name: &str| Error::new(ErrorKind::MissingArgument, format!("replace: {name} is missing"));
    let old = argument(&given, &named, 0, "old")?.ok_or_else(|| missing("old"))?;
    let new = argument(&given, &named, 1, "new")?.ok_or_else(|| missing("new"))?;
    let count = argument(&given, &named, 2, "count")?.filter(|c| !c.is_none());
    named.assert_all_used()?;
    Ok(replaced(&text.to_string(), &old.to_string(), &new.to_string(), count.map(i64::try_from).transpose()?))
}

/// Cuts at a space; texts that are at most `leeway` longer stay.
fn truncate(text: String, given: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let number = |at: usize, name: &str, default: usize| {
        argument(&given, &named, at, name)?.map_or(Ok(default), usize::try_from)
    };
    let (length, leeway) = (number(0, "length", 255)?, number(3, "leeway", 5)?);
    let killwords = argument(&given, &named, 1, "killwords")?.is_some_and(|v| v.is_true());
    let end = argument(&given, &named, 2, "end")?.map_or_else(|| "...".to_owned(), |v| v.to_string());
    named.assert_all_used()?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let cut: String = text.chars().take(length.saturating_sub(end.chars().count())).collect();
    let words = if killwords { &cut } else { cut.rsplit_once(' ').map_or(cut.as_str(), |(w, _)| w) };
    Ok(words.to_owned() + &end)
}

/// What is no number becomes `default`, or 0.
fn int(value: &Value, given: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let default = argument(&given, &named, 0, "default")?.unwrap_or_else(|| Value::from(0));
    let base = argument(&given, &named, 1, "base")?.map(u32::try_from).transpose()?;
    named.assert_all_used()?;
    let Some(text) = value.as_str() else {
        let truncated =
            || f64::try_from(value.clone()).ok().filter(|x| x.is_finite()).map(|x| Value::from(x.trunc() as i128));
        return Ok(match value.kind() {
            ValueKind::Bool => Value::from(i64::from(value.is_true())),
            _ if value.is_integer() => value.clone(),
            _ => truncated().unwrap_or(default),
        });
    };
    let (base, digits) = (base.unwrap_or(10), text.trim().replace('_', ""));
    let lower = digits.to_ascii_lowercase();
    let prefix = match base {
        16 => "0x",
        8 => "0o",
        2 => "0b",
        _ => "",
    };
    let number =
        (2..=36).contains(&base).then(|| i64::from_str_radix(lower.strip_prefix(prefix).unwrap_or(&lower), base));
    Ok(match (number, digits.parse::<f64>()) {
        (Some(Ok(number)), _) => Value::from(number),
        (_, Ok(x)) if x.is_finite() => Value::from(x.trunc() as i128),
        _ => default,
    })
}

/// What is no number becomes `default`, or 0.
fn float(value: &Value, default: Option<Value>) -> Value {
    let number = match value.as_str() {
        Some(text) => text.trim().replace('_', "").parse::<f64>().ok(),
        None => f64::try_from(value.clone()).ok(),
    };
    number.map(Value::from).or(default).unwrap_or_else(|| Value::from(0.0))
}

fn urlencode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/_.-~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
