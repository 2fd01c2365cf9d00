//! Lines of a conversation: from a terminal, with editing and history, or from a pipe.

use crate::common::terminal::tell;
use anyhow::{Context, Result, ensure};
use powerinfer::files::MOST_PROMPT;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{self, BufRead, IsTerminal, Read, stdin};

/// Where lines come from.
pub struct Input {
    /// None: a pipe.
    editor: Option<DefaultEditor>,
}

impl Input {
    /// Standard input.
    ///
    /// # Errors
    /// When the terminal cannot be used.
    pub fn new() -> Result<Self> {
        let editor = if stdin().is_terminal() { Some(DefaultEditor::new()?) } else { None };
        Ok(Self { editor })
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// When a line of a pipe is too long or no UTF-8, and when the terminal fails.
    pub fn read(&mut self) -> Result<Option<String>> {
        let Some(editor) = &mut self.editor else {
            let mut line = String::new();
            let n = stdin().lock().take(MOST_PROMPT.0 + 1).read_line(&mut line).context("standard input")?;
            ensure!(n as u64 <= MOST_PROMPT.0, "standard input: a line is longer than {MOST_PROMPT}");
            return Ok((n > 0).then(|| line.trim_end_matches(['\n', '\r']).to_owned()));
        };
        loop {
            match editor.readline("> ") {
                Ok(line) => {
                    editor.add_history_entry(line.as_str())?;
                    return Ok(Some(line));
                }
                Err(ReadlineError::Interrupted) => tell!("Ctrl-D or /exit leaves"),
                Err(ReadlineError::Eof) => return Ok(None),
                Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    tell!("(what was typed is not UTF-8 and was not sent; set the terminal to UTF-8)");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
