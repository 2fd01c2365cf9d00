//! The session file of `powerinfer-run`.

use crate::common::terminal::{Bar, tell};
use anyhow::{Context, Result};
use clap::Args;
use powerinfer::executor::Executor;
use powerinfer::files::check_writable;
use powerinfer::generate::check_room;
use powerinfer::progress::Interrupted;
use powerinfer::session::{Session, Use};
use std::path::{Path, PathBuf};

/// Flags that name it.
#[derive(Args)]
#[command(next_help_heading = "Session file")]
pub struct SessionArgs {
    /// Keep what the model remembers of the prompt in FILE: a later run goes on from there as far as its prompt begins alike
    #[arg(long, value_name = "FILE")]
    prompt_cache: Option<PathBuf>,
    /// Keep what it remembers of the generated text there, too; -i without a prompt goes on with that text
    #[arg(long, requires = "prompt_cache", conflicts_with = "prompt_cache_ro")]
    prompt_cache_all: bool,
    /// Read the session file, and do not write it
    #[arg(long, requires = "prompt_cache")]
    prompt_cache_ro: bool,
}

impl SessionArgs {
    /// Whether one is named.
    pub fn is_named(&self) -> bool {
        self.prompt_cache.is_some()
    }

    /// The session file.
    pub fn path(&self) -> Option<&Path> {
        self.prompt_cache.as_deref()
    }

    /// Whether the text of the last run is to go on.
    pub fn goes_on(&self) -> bool {
        self.prompt_cache_all
    }

    /// The session file for what `executor` computes, with the tokens that it gives the executor: as many as `prompt` begins
    /// with, or all.
    pub fn open(&self, executor: &mut Executor, prompt: Option<&[u32]>) -> Result<Option<(Session, Vec<u32>)>> {
        let Some(path) = &self.prompt_cache else { return Ok(None) };
        let how = match (self.prompt_cache_all, self.prompt_cache_ro) {
            (_, true) => Use::ReadOnly,
            (true, _) => Use::All,
            _ => Use::Prompt,
        };
        if how != Use::ReadOnly {
            check_writable(path)?;
        }
        let mut session = Session::new(path, how, executor)?;
        let tokens = session.load(executor, prompt).context("--prompt-cache")?;
        match (prompt, tokens.len()) {
            (Some(prompt), n) => {
                tell!("session: {n} of {} tokens of the prompt are from {}", prompt.len(), path.display())
            }
            (None, 0) => {}
            (None, n) => tell!("session: {n} tokens from {}", path.display()),
        }
        Ok(Some((session, tokens)))
    }
}

/// Computes the first prompt of a run but for its end, and writes the session file where there is one. Returns how many of the
/// tokens are in then. A file that cannot be written is told of: the text does not need it.
pub fn prompt(session: &mut Option<Session>, executor: &mut Executor, tokens: &[u32]) -> Result<usize> {
    let Some(session) = session else { return Ok(executor.n_past()) };
    check_room(executor, tokens.len() - executor.n_past())?;
    let bar = Bar::new();
    let n = session.prompt(executor, tokens, &bar)?;
    told(session.save(executor, tokens, &bar))?;
    Ok(n)
}

/// Writes the session file at the end of a run, of whose tokens `tokens` the executor holds the first ones.
pub fn end(session: Option<Session>, executor: &mut Executor, tokens: &[u32]) -> Result<()> {
    let Some(mut session) = session else { return Ok(()) };
    told(session.end(executor, tokens, &Bar::new()))
}

fn told(written: Result<()>) -> Result<()> {
    match written {
        Err(error) if error.is::<Interrupted>() => Err(error),
        Err(error) => {
            tell!("warning: the session was not kept: {error:#}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
