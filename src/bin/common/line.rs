//! From the command line to a command's arguments.

use super::habits::page;
use super::habits::reader::{self, Line};
use super::terminal::{print, tell};
use super::{DONE, USAGE, devices, failed, help, papers};
use anyhow::Context;
use clap::{ArgMatches, Command, CommandFactory, Parser};
use powerinfer::printable::printable;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::io::{BufRead, Write, stdin, stdout};

/// First argument that has command lines of standard input read and told, one array of arguments in JSON a line: for tests.
const READ: &str = "--read-lines";
/// First argument that prints docs/llama-cpp.md.
const PAGE: &str = "--llama-cpp-page";
/// First argument that prints a page of the manual.
const MANUAL: &str = "--manual-page";
/// First argument that prints completions; the shell follows.
const COMPLETIONS: &str = "completions";
/// How variables begin that llama.cpp reads in the place of flags.
const VARIABLES: &str = "LLAMA_ARG_";

/// The arguments that the command was started with; or its exit code, where that is all there is to do.
pub fn arguments<A: Parser>() -> Result<A, u8> {
    let line: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = special::<A>(&line) {
        return Err(code);
    }
    let mut command = command::<A>();
    let Line { arguments, notes } = match reader::read(&command, line) {
        Ok(line) => line,
        Err(refusal) => {
            tell!("error: {}", printable(&refusal.line));
            return Err(USAGE);
        }
    };
    let parsed = command.try_get_matches_from_mut(arguments).and_then(|matches| {
        let args = A::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        Ok((matches, args))
    });
    let (matches, args) = match parsed {
        Ok(parsed) => parsed,
        Err(error) if error.use_stderr() && std::env::args_os().any(|arg| has_commands(&arg.to_string_lossy())) => {
            // It may repeat the argument.
            tell!("{}", error.to_string().trim_end());
            return Err(USAGE);
        }
        Err(error) if error.use_stderr() => error.exit(),
        // Help, or the version.
        Err(error) => return Err(code(error.print().and_then(|()| stdout().flush()).context("standard output"))),
    };
    if !is_set(&matches, "quiet") {
        notes.iter().chain(&variables()).for_each(|note| tell!("note: {note}"));
    }
    if is_set(&matches, "list_devices") {
        return Err(code(print(devices::list())));
    }
    Ok(args)
}

/// Flags of this command line, without their dashes, with their values as they were given.
pub fn given<A: CommandFactory>() -> Vec<(String, String)> {
    let command = command::<A>();
    let Ok(read) = reader::read(&command, std::env::args_os().collect::<Vec<_>>()) else { return Vec::new() };
    let Ok(matches) = command.clone().try_get_matches_from(read.arguments) else { return Vec::new() };
    let mut given = Vec::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let is_given = matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
        let raw = matches.try_get_raw(id).ok().flatten().filter(|_| is_given);
        let values = raw.into_iter().flatten().map(|value| value.to_string_lossy().into_owned());
        given.extend(arg.get_long().into_iter().flat_map(|name| values.clone().map(|value| (name.to_owned(), value))));
    }
    given
}

/// Of a command that does only this.
fn code(done: anyhow::Result<()>) -> u8 {
    done.map_or_else(|error| failed(&error), |()| DONE)
}

/// The command as clap has it, with what all commands share.
fn command<A: CommandFactory>() -> Command {
    help::dressed(A::command())
}

/// Whether the flag is there, and was given.
fn is_set(matches: &ArgMatches, id: &str) -> bool {
    matches.try_get_one::<bool>(id).is_ok_and(|set| set.copied().unwrap_or(false))
}

/// Whether a terminal could take a part of `text` for commands.
fn has_commands(text: &str) -> bool {
    printable(text) != text
}

/// Says of variables that llama.cpp reads that they are not read.
fn variables() -> Option<String> {
    let set = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let mut set: Vec<String> = set.filter(|name| name.starts_with(VARIABLES)).collect();
    set.sort();
    let (first, others) = set.split_first()?;
    let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
    Some(format!("{first}{more}: variables of llama.cpp are not read; give flags"))
}

/// What is done instead of the command where the first argument asks for that.
fn special<A: CommandFactory>(line: &[OsString]) -> Option<u8> {
    match line.get(1)?.to_str()? {
        PAGE => Some(code(print(page::text()))),
        READ => Some(code(tell_lines::<A>())),
        MANUAL => Some(code(papers::manual(command::<A>()))),
        COMPLETIONS => {
            let shell = line.get(2).filter(|_| line.len() == 3);
            Some(match shell.map(|shell| papers::completions(command::<A>(), &shell.to_string_lossy())) {
                Some(Some(done)) => code(done),
                Some(None) | None => {
                    tell!("error: {COMPLETIONS}: name one shell: bash, elvish, fish, powershell or zsh");
                    USAGE
                }
            })
        }
        _ => None,
    }
}

/// `--read-lines`.
fn tell_lines<A: CommandFactory>() -> anyhow::Result<()> {
    for line in stdin().lock().lines() {
        let arguments: Vec<String> = serde_json::from_str(&line?)?;
        print(format!("{}\n", told::<A>(&arguments)))?;
    }
    Ok(())
}

/// What a command line means: the arguments that it sets, or why it is refused.
fn told<A: CommandFactory>(arguments: &[String]) -> Value {
    let command = command::<A>();
    let line = std::iter::once("command").chain(arguments.iter().map(String::as_str)).map(OsString::from);
    let read = match reader::read(&command, line) {
        Ok(read) => read,
        Err(refusal) => return json!({ "refused": refusal.line, "missing": refusal.missing }),
    };
    match command.try_get_matches_from(read.arguments) {
        Ok(matches) => json!({ "set": set(&matches), "notes": read.notes }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

/// Arguments from the command line, with their values as they were given.
fn set(matches: &ArgMatches) -> Map<String, Value> {
    let given = |id: &&str| matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
    let value = |id: &str| {
        let raw = matches.try_get_raw(id).ok().flatten();
        raw.map(|raw| raw.map(|value| value.to_string_lossy().into_owned()).collect::<Vec<_>>())
    };
    // Groups have no values of their own.
    let ids = matches.ids().map(clap::Id::as_str).filter(given);
    ids.filter(|id| id.starts_with(|c: char| c.is_ascii_lowercase()) && *id != "source")
        .map(|id| (id.to_owned(), json!(value(id))))
        .collect()
}
