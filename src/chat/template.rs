//! Chat templates: Jinja2 as Hugging Face's `apply_chat_template` runs it.
//!
//! They come from downloaded files, so what they may do is bounded: their size, instructions, recursion and output. Not
//! bounded here are the memory that one instruction takes, the time that it takes, and how deeply values nest: minijinja
//! offers no hook for that. So `contained` runs this in a process of its own.

use super::errors::{Refused, Unusable};
use super::{filters, rewrite, tojson};
use anyhow::{Result, anyhow, ensure};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, escape_formatter};
use std::io::{self, Write};

/// Instructions of the template engine per rendering, besides those per message.
const FUEL: u64 = 500_000;
/// The templates in the tests take 20 to 40 instructions per message.
const FUEL_PER_MESSAGE: u64 = 1_000;
/// Of the engine's stack frames. A macro call takes several; the engine's own limit is 500.
const RECURSION_LIMIT: usize = 200;
/// Longer prompts exceed any context.
pub(super) const MAX_OUTPUT_BYTES: usize = 16 << 20;
/// The longest published templates have some 20 KiB.
pub(super) const MAX_SOURCE_BYTES: usize = 1 << 20;
/// What the engine says where a limit of its own is exceeded.
const LIMITS: [&str; 3] = ["recursion limit", "is too large", "too many elements"];
const MAX_ERROR_CHARS: usize = 300;
const TEMPLATE_NAME: &str = "chat_template";

/// Fails where a template is longer than any that is meant.
pub(super) fn check_size(source: &str) -> Result<()> {
    let (n, most) = (source.len(), MAX_SOURCE_BYTES >> 20);
    ensure!(n <= MAX_SOURCE_BYTES, Unusable::because(format_args!("has {n} bytes; at most {most} MiB are read")));
    Ok(())
}

/// A compiled `tokenizer.chat_template`.
#[derive(Debug)]
pub(super) struct ChatTemplate {
    env: Environment<'static>,
}

impl ChatTemplate {
    /// Compiles `source`; a syntax error is one line with the line number in the template.
    pub(super) fn new(source: &str) -> Result<Self> {
        check_size(source)?;
        let mut env = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        env.set_syntax(syntax.map_err(|e| template_error(&e))?);
        env.set_debug(false);
        env.set_recursion_limit(RECURSION_LIMIT);
        env.set_formatter(write_value);
        filters::add_to(&mut env);
        env.add_template_owned(TEMPLATE_NAME, rewrite::rewritten(source)?).map_err(|e| template_error(&e))?;
        Ok(Self { env })
    }

    /// The text that the template makes of `variables`, of which `n_messages` messages are one.
    ///
    /// It depends on the date if the template asks for it. Fails with the template's own words where it rejects the
    /// conversation (such as a system message), and as [`Unusable`] when it exceeds its instructions, recursion or
    /// output.
    pub(super) fn render(&self, variables: &Value, n_messages: usize) -> Result<String> {
        // Fuel is set on the environment, which is shared; the copy is of reference counts.
        let mut env = self.env.clone();
        let fuel = FUEL.saturating_add(FUEL_PER_MESSAGE.saturating_mul(n_messages as u64));
        env.set_fuel(Some(fuel));
        let template = env.get_template(TEMPLATE_NAME).map_err(|e| template_error(&e))?;
        let mut prompt = CappedBuffer::default();
        let rendered = template.render_captured_to(variables.clone(), &mut prompt).map(drop);
        match rendered {
            _ if prompt.overflowed => {
                Err(Unusable::because(format_args!("writes more than {} MiB", MAX_OUTPUT_BYTES >> 20)))
            }
            Err(e) if e.kind() == ErrorKind::OutOfFuel => {
                Err(Unusable::because(format_args!("takes more than {fuel} instructions: an endless loop?")))
            }
            Err(e) => Err(template_error(&e)),
            Ok(()) => Ok(String::from_utf8(prompt.bytes)?),
        }
    }
}

#[derive(Default)]
struct CappedBuffer {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl Write for CappedBuffer {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if more.len() > MAX_OUTPUT_BYTES - self.bytes.len() {
            self.overflowed = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One line without control characters: parts of the message are the template's own.
fn template_error(error: &Error) -> anyhow::Error {
    let line = error.to_string();
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_ERROR_CHARS).collect();
    match error.kind() {
        ErrorKind::SyntaxError => Unusable::because(line.replacen("syntax error", "cannot be read", 1)),
        ErrorKind::UnknownFilter | ErrorKind::UnknownFunction | ErrorKind::UnknownTest | ErrorKind::UnknownMethod => {
            Unusable::because(line)
        }
        _ if LIMITS.iter().any(|limit| has_cause(error, |e| e.to_string().contains(limit))) => Unusable::because(line),
        _ if has_cause(error, |e| e.is::<Refused>()) => Refused(format!("the model's chat template: {line}")).into(),
        _ => anyhow!("the model's chat template: {line}"),
    }
}

fn has_cause(error: &Error, is_it: impl Fn(&(dyn std::error::Error + 'static)) -> bool) -> bool {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |e| e.source()).any(is_it)
}

/// Floats as Python writes them; all else as the engine does.
fn write_value(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if value.kind() == ValueKind::Number && !value.is_integer() {
        return out
            .write_str(&tojson::number(value).replace("Infinity", "inf").replace("NaN", "nan"))
            .map_err(Error::from);
    }
    escape_formatter(out, state, value)
}
