//! Reads a command line by the table, before clap does: what comes out has only flags of ours in their long form.

use super::escapes::unescaped;
use super::{Habit, Here, Reading, Takes, Tool};
use clap::{Arg, Command};
use std::ffi::{OsStr, OsString};
use std::iter::Peekable;

/// Flags of texts that people write escapes in.
const ESCAPED: [&str; 6] =
    ["prompt", "system-prompt", "reverse-prompt", "in-prefix", "in-suffix", "dry-sequence-breaker"];

/// A command line as clap may have it.
#[derive(Debug, Default)]
pub struct Line {
    /// The program's name, then its arguments.
    pub arguments: Vec<OsString>,
    /// What is to be said of flags that have no effect.
    pub notes: Vec<String>,
}

/// Why a command line is not taken.
#[derive(Debug)]
pub struct Refusal {
    /// One line: the flag, and what helps.
    pub line: String,
    /// The flag of ours that it stands for, where the command has none of that name.
    pub missing: Option<&'static str>,
}

/// Reads `line`, which begins with the program's name, for `command`.
///
/// # Errors
/// When it has a flag that is not to be taken for another: the first in full, others by their names.
pub fn read(command: &Command, line: impl IntoIterator<Item = OsString>) -> Result<Line, Refusal> {
    let mut reader = Reader {
        command,
        tool: Tool::named(command.get_name()),
        line: Line::default(),
        refused: Vec::new(),
        texts: Vec::new(),
        escapes: true,
    };
    let mut rest = line.into_iter().peekable();
    reader.line.arguments.extend(rest.next());
    while let Some(argument) = rest.next() {
        if argument == "--" {
            reader.line.arguments.push(argument);
            reader.line.arguments.extend(rest.by_ref());
        } else {
            reader.one(argument, &mut rest);
        }
    }
    reader.unescape();
    reader.finish()
}

struct Reader<'a> {
    command: &'a Command,
    tool: Option<&'static Tool>,
    line: Line,
    /// Flags, and why.
    refused: Vec<(String, Refusal)>,
    /// Where texts stand that may have escapes: the flag as typed, and which argument.
    texts: Vec<(String, usize)>,
    escapes: bool,
}

/// A flag as it was typed.
struct Typed<'a> {
    /// With its dashes, and with those in the place of underscores.
    flag: &'a str,
    /// The value behind `=`.
    given: Option<&'a str>,
}

impl Reader<'_> {
    fn one(&mut self, argument: OsString, rest: &mut Peekable<impl Iterator<Item = OsString>>) {
        let Some(text) = argument.to_str() else {
            let bytes = argument.as_encoded_bytes();
            if bytes.starts_with(b"-") && !bytes.starts_with(b"--") {
                let shown = argument.to_string_lossy().into_owned();
                return self.refuse(&shown, "no such flag; a value stands apart from its flag");
            }
            return self.line.arguments.push(argument);
        };
        if !is_flag(text) {
            if let Some(why) = self.stands_alone() {
                return self.refuse(text, why);
            }
            return self.line.arguments.push(argument);
        }
        let (flag, given) = text.split_once('=').map_or((text, None), |(flag, value)| (flag, Some(value)));
        let flag = if flag.starts_with("--") { flag.replace('_', "-") } else { flag.to_owned() };
        let typed = Typed { flag: &flag, given };
        match self.tool.and_then(|tool| tool.habit(&flag)) {
            Some(habit) => self.take(habit, &typed, rest),
            None => self.own(&argument, &typed, rest),
        }
    }

    /// Why a word without a flag before it is refused, where the command takes none.
    fn stands_alone(&self) -> Option<&'static str> {
        // One of a list, perhaps.
        let several = |arg: &Arg| arg.get_num_args().is_some_and(|n| n.max_values() > 1);
        let takes_words = self.command.get_positionals().next().is_some() || self.command.get_arguments().any(several);
        let has_prompt = long(self.command, "prompt").is_some();
        (has_prompt && !takes_words)
            .then_some("no flag is before it; -m FILE names a model, -p TEXT a prompt, and --help lists the others")
    }

    /// A flag of the table.
    fn take(&mut self, habit: &Habit, typed: &Typed, rest: &mut Peekable<impl Iterator<Item = OsString>>) {
        if let Here::Same(ours) = habit.here {
            return self.same(ours, typed, rest);
        }
        if let Here::Refused(why) = habit.here {
            // What follows may be its value.
            rest.next_if(|next| next.to_str().is_some_and(|text| !is_flag(text)));
            return self.refuse(typed.flag, why);
        }
        let value = match habit.takes {
            Takes::Nothing if typed.given.is_some() => return self.refuse(typed.flag, "takes no value"),
            Takes::Nothing => None,
            _ if typed.given.is_some() => typed.given.map(str::to_owned),
            Takes::Value => match rest.next_if(|next| next.to_str().is_some_and(|text| !is_flag(text))) {
                Some(value) => Some(value.to_string_lossy().into_owned()),
                None => return self.refuse(typed.flag, "a value is missing behind it"),
            },
            Takes::Maybe(words) => {
                // Lists of them, too.
                let word = |text: &str| text.split(',').all(|part| words.iter().any(|w| w.eq_ignore_ascii_case(part)));
                rest.next_if(|next| next.to_str().is_some_and(word)).map(|value| value.to_string_lossy().into_owned())
            }
        };
        match habit.here {
            Here::Note(note) => self.note(typed.flag, note),
            Here::Undo(ours) => self.undo(ours),
            // Without a value it is switched on.
            Here::By(read) => match read(value.as_deref().unwrap_or("on")) {
                Reading::Already => {}
                Reading::Note(note) => self.note(typed.flag, &note),
                Reading::Refused(why) => self.refuse(typed.flag, &why),
                Reading::Flag(ours, value) => match self.target(ours, typed) {
                    Some(arg) if takes_value(&arg) => self.push(format!("--{ours}={value}")),
                    Some(_) => self.push(format!("--{ours}")),
                    None => {}
                },
            },
            Here::Already | Here::Same(_) | Here::Refused(_) => {}
        }
    }

    /// The flag of ours; where there is none, what was typed is refused.
    fn target(&mut self, ours: &'static str, typed: &Typed) -> Option<Arg> {
        let found = long(self.command, ours).cloned();
        if found.is_none() {
            let line = format!("{}: {} has no --{ours}; leave it out", typed.flag, self.command.get_name());
            self.refused.push((typed.flag.to_owned(), Refusal { line, missing: Some(ours) }));
        }
        found
    }

    /// A flag that is the same as `ours`.
    fn same(&mut self, ours: &'static str, typed: &Typed, rest: &mut Peekable<impl Iterator<Item = OsString>>) {
        // Clap adds these two itself.
        if ["help", "version"].contains(&ours) {
            return self.push(format!("--{ours}"));
        }
        match self.target(ours, typed) {
            Some(arg) => self.forward(&arg, typed, rest),
            None => drop(rest.next_if(|next| next.to_str().is_some_and(|text| !is_flag(text)))),
        }
    }

    /// A flag that is not in the table.
    fn own(&mut self, argument: &OsStr, typed: &Typed, rest: &mut Peekable<impl Iterator<Item = OsString>>) {
        if let Some(name) = typed.flag.strip_prefix("--") {
            match long(self.command, name).cloned() {
                Some(arg) => self.forward(&arg, typed, rest),
                None => self.line.arguments.push(argument.to_owned()),
            }
            return;
        }
        let mut letters = typed.flag[1..].chars();
        let arg = letters.next().and_then(|letter| short(self.command, letter).cloned());
        let attached = letters.as_str();
        match arg {
            // In short they say less than in their long form.
            Some(arg) if attached.is_empty() && ["help", "version"].contains(&arg.get_id().as_str()) => {
                self.line.arguments.push(argument.to_owned());
            }
            Some(arg) if attached.is_empty() => self.forward(&arg, typed, rest),
            // -n4
            Some(arg) if takes_value(&arg) && attached.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                self.line.arguments.push(argument.to_owned());
            }
            None if attached.is_empty() => self.line.arguments.push(argument.to_owned()),
            arg => {
                let name = &typed.flag[1..];
                let why = match arg {
                    _ if long(self.command, name).is_some() => format!("no such flag; --{name} is one"),
                    Some(arg) if takes_value(&arg) => {
                        "no such flag; flags of one letter stand alone, and so do their values".to_owned()
                    }
                    _ => "no such flag; --help lists all of them".to_owned(),
                };
                self.refuse(typed.flag, &why);
            }
        }
    }

    /// Passes `arg` on in its long form, with its value.
    fn forward(&mut self, arg: &Arg, typed: &Typed, rest: &mut Peekable<impl Iterator<Item = OsString>>) {
        let name = match (arg.get_long(), arg.get_short()) {
            (Some(long), _) => format!("--{long}"),
            (None, Some(short)) => format!("-{short}"),
            (None, None) => typed.flag.to_owned(),
        };
        match &*name {
            "--escape" => self.escapes = true,
            "--no-escape" => self.escapes = false,
            _ => {}
        }
        if !takes_value(arg) {
            return self.push(typed.given.map_or(name.clone(), |given| format!("{name}={given}")));
        }
        let given = typed.given.map(OsString::from);
        let Some(value) = given.or_else(|| rest.next_if(|next| may_follow(arg, next))) else { return self.push(name) };
        let several = arg.get_num_args().is_some_and(|n| n.max_values() > 1);
        if several && typed.given.is_none() {
            // Behind `=` there could be no second.
            self.push(name);
            return self.line.arguments.push(value);
        }
        if ESCAPED.iter().any(|text| arg.get_long() == Some(text)) {
            self.texts.push((typed.flag.to_owned(), self.line.arguments.len()));
        }
        let mut argument = OsString::from(name + "=");
        argument.push(value);
        self.line.arguments.push(argument);
    }

    fn push(&mut self, argument: String) {
        self.line.arguments.push(argument.into());
    }

    fn note(&mut self, flag: &str, note: &str) {
        let line = format!("{flag}: {note}");
        if !self.line.notes.contains(&line) {
            self.line.notes.push(line);
        }
    }

    fn refuse(&mut self, flag: &str, why: &str) {
        self.refused.push((flag.to_owned(), Refusal { line: format!("{flag}: {why}"), missing: None }));
    }

    /// Takes back what was said before.
    fn undo(&mut self, ours: &str) {
        let ours = format!("--{ours}");
        // What it stood before moves: an empty argument in its place would be a positional one.
        while let Some(at) = self.line.arguments.iter().position(|argument| *argument == *ours) {
            self.line.arguments.remove(at);
            self.texts.iter_mut().filter(|(_, text)| *text > at).for_each(|(_, text)| *text -= 1);
        }
    }

    fn unescape(&mut self) {
        if !self.escapes {
            return;
        }
        for (flag, at) in std::mem::take(&mut self.texts) {
            let Some(text) = self.line.arguments.get(at).and_then(|argument| argument.to_str()) else { continue };
            match unescaped(text) {
                Ok(text) => self.line.arguments[at] = text.into(),
                Err(why) => self.refuse(&flag, &why),
            }
        }
    }

    fn finish(self) -> Result<Line, Refusal> {
        let mut refused = self.refused.into_iter();
        let Some((first, mut refusal)) = refused.next() else { return Ok(self.line) };
        let mut others: Vec<String> = Vec::new();
        for (flag, _) in refused {
            if flag != first && !others.contains(&flag) {
                others.push(flag);
            }
        }
        if !others.is_empty() {
            refusal.line += &format!(" (nor can there be {})", others.join(", "));
        }
        Err(refusal)
    }
}

/// Whether `text` is a flag, and no number or file.
fn is_flag(text: &str) -> bool {
    text.len() > 1 && text.starts_with('-') && !is_number(text)
}

fn is_number(text: &str) -> bool {
    // Not `-inf`, which begins as a flag does.
    text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit() || c == '.') && text.parse::<f64>().is_ok()
}

fn long<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let is = |arg: &&Arg| arg.get_long_and_visible_aliases().is_some_and(|names| names.contains(&name));
    let hidden = |arg: &&Arg| arg.get_all_aliases().is_some_and(|names| names.contains(&name));
    command.get_arguments().find(|arg| is(arg) || hidden(arg))
}

fn short(command: &Command, letter: char) -> Option<&Arg> {
    command.get_arguments().find(|arg| arg.get_short_and_visible_aliases().is_some_and(|all| all.contains(&letter)))
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

/// Whether `next` can be the value of `arg`.
fn may_follow(arg: &Arg, next: &OsStr) -> bool {
    let Some(text) = next.to_str() else { return true };
    arg.is_allow_hyphen_values_set()
        || !is_flag(text) && (arg.is_allow_negative_numbers_set() || !is_number(text) || !text.starts_with('-'))
}
