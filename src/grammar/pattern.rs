//! Strings of JSON that a regular expression describes.

use super::expr::{Chars, Expr};
use super::strings::character;
use anyhow::{Context, Result, anyhow, bail, ensure};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// What stands between the quotation marks of a string that `pattern` matches, somewhere unless it has `^` and `$`.
///
/// # Errors
/// When it is no regular expression, or has what looks around.
pub fn content(pattern: &str) -> Result<Expr> {
    let hir = parsed(pattern)?;
    let branches = match hir.kind() {
        HirKind::Alternation(branches) => branches.iter().map(branch).collect::<Result<_>>()?,
        _ => vec![branch(&hir)?],
    };
    Ok(Expr::Choice(branches))
}

/// Whether `pattern` matches `text`, somewhere unless it has `^` and `$`.
///
/// # Errors
/// As [`content`].
pub fn fits(pattern: &str, text: &str) -> Result<bool> {
    parsed(pattern)?;
    let regex = fancy_regex::Regex::new(&ascii(pattern)?).context("pattern")?;
    regex.is_match(text).context("pattern")
}

fn parsed(pattern: &str) -> Result<Hir> {
    ParserBuilder::new().build().parse(&ascii(pattern)?).map_err(|error| {
        let message = error.to_string();
        anyhow!("pattern: {}", message.lines().last().unwrap_or_default().trim_start_matches("error: "))
    })
}

/// The same in the syntax of regex-syntax: JSON schemas mean the digits and letters of ASCII by `\d` and `\w`, and know neither
/// classes within classes nor what two of `&`, `~` and `-` ask for there.
fn ascii(pattern: &str) -> Result<String> {
    let (mut out, mut in_class, mut chars) = (String::new(), false, pattern.chars());
    while let Some(c) = chars.next() {
        match c {
            '[' if !in_class => {
                in_class = true;
                let rest = chars.as_str();
                let is_empty = rest.strip_prefix('^').unwrap_or(rest).starts_with(']');
                ensure!(!is_empty, "pattern: a class begins with ], which means several things; \\] is a bracket");
            }
            ']' => in_class = false,
            '[' | '&' | '~' if in_class => out.push('\\'),
            '-' if in_class && out.ends_with('-') && !out.ends_with("\\-") => out.push('\\'),
            '\\' => {
                let next = chars.next();
                let short = match next {
                    Some('d') => "0-9",
                    Some('w') => "A-Za-z0-9_",
                    // A slash needs no backslash, but may have one.
                    Some('/') => "/",
                    _ => "",
                };
                match (short, next) {
                    ("", Some('D')) if !in_class => out += "[^0-9]",
                    ("", Some('W')) if !in_class => out += "[^A-Za-z0-9_]",
                    ("", next) => out.extend(['\\'].into_iter().chain(next)),
                    ("/", _) => out.push('/'),
                    (short, _) if in_class => out += short,
                    (short, _) => out += &format!("[{short}]"),
                }
                continue;
            }
            _ => {}
        }
        out.push(c);
    }
    Ok(out)
}

/// One that need not match from the beginning and to the end, unless it says so.
fn branch(hir: &Hir) -> Result<Expr> {
    let parts = match hir.kind() {
        HirKind::Concat(parts) => &parts[..],
        _ => std::slice::from_ref(hir),
    };
    let is = |part: Option<&Hir>, look: Look| part.is_some_and(|part| *part.kind() == HirKind::Look(look));
    let (begins, ends) = (is(parts.first(), Look::Start), is(parts.last(), Look::End));
    let inner = parts.get(usize::from(begins)..parts.len() - usize::from(ends)).unwrap_or_default();
    let any = || character(&Chars::any()).any_number();
    let mut all = Vec::new();
    all.extend((!begins).then(any));
    for part in inner {
        all.push(expr(part)?);
    }
    all.extend((!ends).then(any));
    Ok(Expr::Sequence(all))
}

fn expr(hir: &Hir) -> Result<Expr> {
    Ok(match hir.kind() {
        HirKind::Empty => Expr::Sequence(vec![]),
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0)?;
            Expr::Sequence(text.chars().map(|c| character(&Chars::of(&[(c, c)]))).collect())
        }
        HirKind::Class(Class::Unicode(class)) => {
            character(&Chars(class.ranges().iter().map(|range| (range.start().into(), range.end().into())).collect()))
        }
        HirKind::Class(Class::Bytes(class)) => {
            character(&Chars(class.ranges().iter().map(|range| (range.start().into(), range.end().into())).collect()))
        }
        HirKind::Look(_) => bail!("pattern: ^, $ and \\b are known only at the beginning and at the end"),
        HirKind::Repetition(times) => expr(&times.sub)?.times(times.min as usize, times.max.map(|most| most as usize)),
        HirKind::Capture(capture) => expr(&capture.sub)?,
        HirKind::Concat(parts) => Expr::Sequence(parts.iter().map(expr).collect::<Result<_>>()?),
        HirKind::Alternation(options) => Expr::Choice(options.iter().map(expr).collect::<Result<_>>()?),
    })
}
