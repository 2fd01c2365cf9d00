//! Python's operator `%`: remainders of numbers, and formats.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

fn fails<T>(why: impl AsRef<str>) -> Result<T, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("%: {}", why.as_ref())))
}

/// `left % right`: a text where `left` is a format, else the remainder, which has the sign of `right`.
pub(super) fn modulo(left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(text) = left.as_str() {
        return printf(text, right).map(Value::from);
    }
    if let (Some(a), Some(b)) = (integer(left), integer(right)) {
        let remainder = a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r });
        let Some(remainder) = remainder else { return fails("divides by 0") };
        return Ok(i64::try_from(remainder).map_or_else(|_| Value::from(remainder), Value::from));
    }
    match (float(left), float(right)) {
        (Some(_), Some(0.0)) => fails("divides by 0"),
        (Some(a), Some(b)) => {
            let remainder = a % b;
            Ok(Value::from(if remainder != 0.0 && (remainder < 0.0) != (b < 0.0) { remainder + b } else { remainder }))
        }
        _ => fails(format!("not for operands of kinds {} and {}", left.kind(), right.kind())),
    }
}

fn integer(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    integer(value).map(|n| n as f64).or_else(|| f64::try_from(value.clone()).ok())
}

fn printf(text: &str, right: &Value) -> Result<String, Error> {
    let mut operands = if right.is_tuple() { right.try_iter()?.collect() } else { vec![right.clone()] }.into_iter();
    let mut next = || match operands.next() {
        Some(operand) => Ok(operand),
        None => fails("too few operands for the format"),
    };
    let (mut out, mut rest, mut by_key) = (String::new(), text, false);
    while let Some((before, conversion)) = rest.split_once('%') {
        out += before;
        rest = conversion;
        let mut key = None;
        if let Some(keyed) = rest.strip_prefix('(') {
            let Some((name, after)) = keyed.split_once(')') else { return fails("the format ends within a key") };
            (key, rest, by_key) = (Some(name), after, true);
        }
        let mut spec = "%".to_owned();
        let kind = loop {
            let mut chars = rest.chars();
            let Some(c) = chars.next() else { return fails("the format ends within a conversion") };
            rest = chars.as_str();
            match c {
                '*' => spec += &next()?.to_string(),
                '#' | '-' | '+' | ' ' | '.' | '0'..='9' => spec.push(c),
                'h' | 'l' | 'L' => {}
                kind => break kind,
            }
        };
        if kind == '%' {
            out.push('%');
            continue;
        }
        let operand = match key {
            Some(key) => match right.get_attr(key) {
                Ok(value) if right.kind() == ValueKind::Map && !value.is_undefined() => value,
                _ => return fails(format!("no operand is named {key}")),
            },
            None => next()?,
        };
        let (kind, operand) = match kind {
            'r' | 'a' => ('s', Value::from(format!("{operand:?}"))),
            'd' | 'i' | 'u' => match float(&operand) {
                Some(x) if integer(&operand).is_none() => ('d', Value::from(x as i128)),
                _ => ('d', operand),
            },
            's' => ('s', Value::from(operand.to_string())),
            kind => (kind, operand),
        };
        if kind == 's' {
            out += &string(&spec, &operand.to_string());
            continue;
        }
        spec.push(kind);
        out += &format(FormatStyle::Printf, &spec, &[operand])?;
    }
    out += rest;
    // A mapping may be left over, as it may have keys that the format does not name.
    if operands.next().is_some() && !by_key && right.kind() != ValueKind::Map {
        return fails("more operands than the format takes");
    }
    Ok(out)
}

/// `%s` by characters, where minijinja counts bytes.
fn string(spec: &str, text: &str) -> String {
    let spec = spec.trim_start_matches('%');
    let width = spec.trim_start_matches(['#', '0', '+', ' ', '-']);
    let left = spec[..spec.len() - width.len()].contains('-');
    let (width, most) = width.split_once('.').map_or((width, None), |(w, p)| (w, Some(p.parse().unwrap_or(0))));
    let text: String = text.chars().take(most.unwrap_or(usize::MAX)).collect();
    let missing = width.parse::<usize>().unwrap_or(0).saturating_sub(text.chars().count());
    let spaces = " ".repeat(missing);
    if left { text + &spaces } else { spaces + &text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::value::Tuple;

    fn formatted(text: &str, operands: &[Value]) -> String {
        let tuple = Value::from(Tuple::from(operands));
        modulo(&Value::from(text), &tuple).map_or_else(|e| e.to_string(), |text| text.to_string())
    }

    #[test]
    fn formats_are_those_of_python() {
        let values = [Value::from("a"), Value::from(5), Value::from(2.5)];
        assert_eq!(formatted("%s-%03d-%.2f-%%", &values), "a-005-2.50-%");
        assert_eq!(formatted("%r|%-5s|%*d", &["a".into(), true.into(), 4.into(), 7.into()]), "'a'|True |   7");
        assert_eq!(formatted("%d %x %s", &[2.9.into(), 255.into(), ().into()]), "2 ff None");
        let map = minijinja::context! { name => "x", other => "y" };
        assert_eq!(modulo(&"<%(name)5s>".into(), &map).unwrap().to_string(), "<    x>");
        assert_eq!(modulo(&"%s".into(), &Value::from(vec![1, 2])).unwrap().to_string(), "[1, 2]");
        for (text, operands) in [("%s", &values[..0]), ("%s", &values[..2]), ("%", &values[..1]), ("%q", &values[..1])]
        {
            assert!(formatted(text, operands).starts_with("invalid operation: "), "{text}");
        }
    }

    #[test]
    fn remainders_have_the_sign_of_the_divisor() {
        let rem = |a: f64, b: f64| modulo(&a.into(), &b.into()).map(|v| v.to_string()).map_err(|e| e.to_string());
        assert_eq!(modulo(&(-7).into(), &3.into()).unwrap(), 2.into());
        assert_eq!(modulo(&7.into(), &(-3).into()).unwrap(), (-2).into());
        assert_eq!(rem(7.5, -2.0).unwrap(), "-0.5");
        assert!(
            rem(1.0, 0.0).is_err() && modulo(&1.into(), &0.into()).is_err() && modulo(&().into(), &1.into()).is_err()
        );
    }
}
