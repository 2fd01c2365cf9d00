//! Lines of a conversation: from a terminal, with editing and history, or from a pipe.

use super::block::{self, Typed};
use super::history::{History, MOST_ENTRIES};
use crate::common::terminal::{at_plain_prompt, print, tell};
use anyhow::{Context, Result, ensure};
use powerinfer::files::MOST_PROMPT;
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};
use std::io::{self, BufRead, IsTerminal, Read, stdin};

/// Where lines come from.
pub struct Input {
    /// None: a pipe.
    editor: Option<(DefaultEditor, History)>,
    /// Whether it is a terminal that cannot move its cursor: lines are not edited.
    is_plain: bool,
}

/// Kinds of terminals without editing, as the editor has them.
const PLAIN: [&str; 3] = ["dumb", "cons25", "emacs"];

/// A line of a terminal.
enum Answer {
    Line(String),
    /// Ctrl-C.
    Interrupted,
    End,
}

impl Input {
    /// Standard input; with `history` what is typed at a terminal is kept for the next time.
    ///
    /// # Errors
    /// When the terminal cannot be used.
    pub fn new(history: bool) -> Result<Self> {
        if !stdin().is_terminal() {
            return Ok(Self { editor: None, is_plain: false });
        }
        let mut editor = DefaultEditor::with_config(Config::builder().max_history_size(MOST_ENTRIES)?.build())?;
        let mut history = History::new(history);
        for entry in history.entries() {
            editor.add_history_entry(entry)?;
        }
        let kind = std::env::var("TERM").unwrap_or_default();
        let is_plain = cfg!(unix) && PLAIN.iter().any(|plain| plain.eq_ignore_ascii_case(&kind));
        Ok(Self { editor: Some((editor, history)), is_plain })
    }

    /// The next line or block; `None` at the end.
    ///
    /// # Errors
    /// When a line of a pipe is too long or no UTF-8, and when the terminal fails.
    pub fn read(&mut self) -> Result<Option<Typed>> {
        'typed: loop {
            let (mut whole, mut state) = match self.line("> ")? {
                Answer::Line(line) => (line.clone(), block::begun(&line)),
                Answer::Interrupted => {
                    tell!("Ctrl-D or /exit leaves");
                    continue;
                }
                Answer::End => return Ok(None),
            };
            let typed = loop {
                let open = match state {
                    Ok(typed) => break typed,
                    Err(open) => open,
                };
                match self.line("... ")? {
                    Answer::Line(line) => {
                        whole = whole + "\n" + &line;
                        ensure!(whole.len() as u64 <= MOST_PROMPT.0, "a block is longer than {MOST_PROMPT}");
                        state = open.with(&line);
                    }
                    Answer::Interrupted => {
                        tell!("(the block was dropped)");
                        continue 'typed;
                    }
                    Answer::End => {
                        tell!("(the block has no end and was not sent)");
                        return Ok(None);
                    }
                }
            };
            if let Some((editor, history)) = &mut self.editor
                && history.add(&whole)
            {
                editor.add_history_entry(whole)?;
            }
            return Ok(Some(typed));
        }
    }

    fn line(&mut self, prompt: &'static str) -> Result<Answer> {
        let Some((editor, _)) = &mut self.editor else {
            let mut line = String::new();
            let n = stdin().lock().take(MOST_PROMPT.0 + 1).read_line(&mut line).context("standard input")?;
            ensure!(n as u64 <= MOST_PROMPT.0, "standard input: a line is longer than {MOST_PROMPT}");
            let line = || line.trim_end_matches(['\n', '\r']).to_owned();
            return Ok(if n > 0 { Answer::Line(line()) } else { Answer::End });
        };
        loop {
            let line = match self.is_plain {
                true => at_plain_prompt(prompt, || editor.readline(prompt)),
                false => editor.readline(prompt),
            };
            match line {
                Ok(line) => return Ok(Answer::Line(line)),
                Err(ReadlineError::Interrupted) => return Ok(Answer::Interrupted),
                Err(ReadlineError::Eof) => {
                    if self.is_plain {
                        // What the shell says next begins a line.
                        print("\n")?;
                    }
                    return Ok(Answer::End);
                }
                Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    tell!("(what was typed is not UTF-8 and was not sent; set the terminal to UTF-8)");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
