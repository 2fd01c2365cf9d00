//! What templates use of Python: methods of strings, lists and dictionaries.
//!
//! minijinja-contrib has the common ones; here are those that it lacks, or that take more arguments in Python.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

fn fails<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, why.into()))
}

/// For [`Environment::set_unknown_method_callback`](minijinja::Environment::set_unknown_method_callback).
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let own = match value.kind() {
        ValueKind::String => string_method(value.as_str().unwrap_or_default(), name, args)?,
        ValueKind::Seq => list_method(value, name, args)?,
        ValueKind::Map if name == "copy" => Some(value.clone()),
        _ => None,
    };
    match own {
        Some(result) => Ok(result),
        None => unknown_method_callback(state, value, name, args),
    }
}

fn list_method(list: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match name {
        "copy" => Ok(Some(list.clone())),
        "index" => {
            let (wanted,): (&Value,) = from_args(args)?;
            match list.try_iter()?.position(|item| item == *wanted) {
                Some(at) => Ok(Some(Value::from(at))),
                None => fails("index: the list has no such item"),
            }
        }
        _ => Ok(None),
    }
}

/// `None` for methods that minijinja-contrib is to look for.
fn string_method(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let value = match name {
        "split" | "rsplit" => {
            let (separator, most, named): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.or(named.get("sep")?).filter(|s| !s.is_none());
            let most = most.or(named.get("maxsplit")?).unwrap_or(-1);
            named.assert_all_used()?;
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            split(text, separator.as_ref(), most, name == "rsplit")?
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let last = name == "rpartition";
            let cut = if last { text.rsplit_once(separator) } else { text.split_once(separator) };
            let parts = match cut {
                Some((before, after)) => [before, separator, after],
                None if last => ["", "", text],
                None => [text, "", ""],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (part, begin, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let (skipped, range) = slice(text, begin, end);
            let at = if name.starts_with('r') { range.rfind(part) } else { range.find(part) };
            match at {
                Some(at) => Value::from(skipped + range[..at].chars().count()),
                None if name.ends_with("find") => Value::from(-1),
                None => return fails(format!("{name}: the text has no such part")),
            }
        }
        "count" => {
            let (part, begin, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            Value::from(slice(text, begin, end).1.matches(part).count())
        }
        "startswith" | "endswith" if args.len() > 1 => {
            let (part, begin, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
            ends(slice(text, begin, end).1, name, part)?
        }
        "removeprefix" => {
            let (part,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(part).unwrap_or(text))
        }
        "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(part).unwrap_or(text))
        }
        "replace" => {
            let (old, new, count, named): (&str, &str, Option<i64>, Kwargs) = from_args(args)?;
            let count = count.or(named.get("count")?);
            named.assert_all_used()?;
            Value::from(replaced(text, old, new, count))
        }
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            join(text, items)?
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            let sign = &text[..text.len() - digits.len()];
            Value::from(sign.to_owned() + &padded(digits, width.saturating_sub(sign.len()), '0', Side::Left))
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            let side = match name {
                "ljust" => Side::Right,
                "rjust" => Side::Left,
                _ => Side::Both,
            };
            Value::from(padded(text, width, fill.unwrap_or(' '), side))
        }
        "title" => Value::from(title(text)),
        "capitalize" => Value::from(capitalize(text)),
        "casefold" => Value::from(text.to_lowercase().replace('\u{df}', "ss")),
        "swapcase" => {
            let swap =
                |c: char| if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<Value>,) = from_args(args)?;
            let chars = chars.filter(|c| !c.is_none());
            let set =
                chars.as_ref().map(|c| c.as_str().map_or_else(|| fails("strip: takes a string"), Ok)).transpose()?;
            let strips = |c: char| stripped(c, set);
            Value::from(match name {
                "strip" => text.trim_matches(strips),
                "lstrip" => text.trim_start_matches(strips),
                _ => text.trim_end_matches(strips),
            })
        }
        "isdecimal" => Value::from(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())),
        "isidentifier" => Value::from(is_identifier(text)),
        "istitle" => Value::from(text == title(text) && text.chars().any(char::is_uppercase)),
        "splitlines" => {
            let (keep, named): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.or(named.get("keepends")?).unwrap_or(false);
            lines(text, keep)
        }
        "expandtabs" => {
            let (width,): (Option<usize>,) = from_args(args)?;
            Value::from(expanded(text, width.unwrap_or(8)))
        }
        "format_map" => {
            let (map,): (&Value,) = from_args(args)?;
            let pairs = map.try_iter()?.map(|key| Ok((key.to_string(), map.get_item(&key)?)));
            let named: Kwargs = pairs.collect::<Result<Vec<_>, Error>>()?.into_iter().collect();
            Value::from(format(FormatStyle::StrFormat, text, &[named.into()])?)
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

/// Python strips these besides what Unicode calls white space.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Whether `strip` takes `c` off, given the characters that it is to take off, if any.
pub(super) fn stripped(c: char, set: Option<&str>) -> bool {
    set.map_or_else(|| is_space(c), |set| set.contains(c))
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c == '_' || c.is_alphabetic()) && text.chars().all(|c| c == '_' || c.is_alphanumeric())
}

fn ends(text: &str, name: &str, part: &Value) -> Result<Value, Error> {
    let holds = |part: &Value| match part.as_str() {
        Some(part) if name == "startswith" => Ok(text.starts_with(part)),
        Some(part) => Ok(text.ends_with(part)),
        None => fails(format!("{name}: takes strings")),
    };
    if part.kind() == ValueKind::String {
        return holds(part).map(Value::from);
    }
    for part in part.try_iter()? {
        if holds(&part)? {
            return Ok(Value::from(true));
        }
    }
    Ok(Value::from(false))
}

/// `text[begin:end]` by characters, and how many characters stand before it.
fn slice(text: &str, begin: Option<i64>, end: Option<i64>) -> (usize, &str) {
    let n = text.chars().count();
    let place = |at: i64| if at < 0 { n.saturating_sub(at.unsigned_abs() as usize) } else { n.min(at as usize) };
    let (begin, end) = (begin.map_or(0, place), end.map_or(n, place));
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    (begin, text.get(byte(begin)..byte(end)).unwrap_or(""))
}

fn split(text: &str, separator: Option<&Value>, most: usize, from_right: bool) -> Result<Value, Error> {
    let n = most.saturating_add(1);
    let mut parts: Vec<&str> = match separator {
        Some(separator) => match separator.as_str() {
            Some("") => return fails("split: the separator is empty"),
            Some(separator) if from_right => text.rsplitn(n, separator).collect(),
            Some(separator) => text.splitn(n, separator).collect(),
            None => return fails("split: takes a string"),
        },
        None => words(text, most, from_right),
    };
    if from_right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// At most `most` words, and the rest; from the right in reverse order.
fn words(text: &str, most: usize, from_right: bool) -> Vec<&str> {
    let trim =
        |text| if from_right { str::trim_end_matches(text, is_space) } else { str::trim_start_matches(text, is_space) };
    let (mut rest, mut parts) = (trim(text), Vec::new());
    while !rest.is_empty() {
        let space = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(at) = space.filter(|_| parts.len() < most) else {
            parts.push(rest);
            break;
        };
        let after = at + rest[at..].chars().next().map_or(0, char::len_utf8);
        let (word, more) = if from_right { (&rest[after..], &rest[..at]) } else { (&rest[..at], &rest[after..]) };
        parts.push(word);
        rest = trim(more);
    }
    parts
}

fn lines(text: &str, keep: bool) -> Value {
    let is_end = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let (mut rest, mut lines) = (text, Vec::new());
    while !rest.is_empty() {
        let end = rest.find(is_end).unwrap_or(rest.len());
        let len = match rest[end..].chars().next() {
            Some('\r') if rest[end..].starts_with("\r\n") => 2,
            c => c.map_or(0, char::len_utf8),
        };
        lines.push(Value::from(&rest[..if keep { end + len } else { end }]));
        rest = &rest[end + len..];
    }
    Value::from(lines)
}

fn expanded(text: &str, width: usize) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' => {
                let n = if width == 0 { 0 } else { width - column % width };
                out.extend(std::iter::repeat_n(' ', n));
                column += n;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    out
}

#[derive(PartialEq)]
pub(super) enum Side {
    Left,
    Right,
    Both,
}

pub(super) fn padded(text: &str, width: usize, fill: char, side: Side) -> String {
    let missing = width.saturating_sub(text.chars().count());
    let left = match side {
        Side::Left => missing,
        Side::Right => 0,
        // Python puts the odd one to the left where the width is odd.
        Side::Both => missing / 2 + (missing & width & 1),
    };
    let fills = |n| std::iter::repeat_n(fill, n);
    fills(left).chain(text.chars()).chain(fills(missing - left)).collect()
}

/// A letter is large where no letter stands before it.
pub(super) fn title(text: &str) -> String {
    let mut in_word = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if in_word {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        in_word = c.is_lowercase() || c.is_uppercase() || c.is_alphabetic() && c.is_ascii();
    }
    out
}

pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    first + &chars.as_str().to_lowercase()
}

pub(super) fn replaced(text: &str, old: &str, new: &str, count: Option<i64>) -> String {
    match count.and_then(|n| usize::try_from(n).ok()) {
        Some(n) => text.replacen(old, new, n),
        None => text.replace(old, new),
    }
}

fn join(separator: &str, items: &Value) -> Result<Value, Error> {
    let mut out = String::new();
    for (i, item) in items.try_iter()?.enumerate() {
        let Some(item) = item.as_str() else { return fails(format!("join: item {i} is no string")) };
        if i > 0 {
            out.push_str(separator);
        }
        out.push_str(item);
    }
    Ok(Value::from(out))
}
