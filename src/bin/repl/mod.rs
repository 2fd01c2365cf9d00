//! The conversation loop of `powerinfer-run`.

mod block;
mod commands;
mod history;
mod input;
mod said;
mod settings;
mod turn;

use crate::common::ending;
use crate::common::terminal::{clear_stop, is_quiet, print_json, tell};
use crate::room::{Kept, Room};
use crate::stored;
use crate::template::Chat;
use anyhow::Result;
use block::Typed;
use commands::Done;
use input::Input;
use powerinfer::chat::Unusable;
use powerinfer::executor::{CardFailed, Executor, Worker};
use powerinfer::generate::{Limits, Stop};
use powerinfer::model::Model;
use powerinfer::progress::Interrupted;
use powerinfer::sampler::Sampler;
use powerinfer::session::Session;
use powerinfer::speculation::Speculation;
use powerinfer::tokenizer::{Special, Tokenizer};
pub use said::Around;
use said::{Said, Text};
pub use settings::Settings;
use std::io;
use turn::Repl;

/// What a conversation is held with.
pub struct Setup<'a> {
    /// The model.
    pub model: &'a Model,
    /// What computes it.
    pub worker: &'a Worker,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Length of answers.
    pub limits: Limits<'a>,
    /// What stays where the context is full; `None` is to end an answer there.
    pub kept: Option<Kept>,
    /// Whether plain text goes on with that of the session file.
    pub goes_on: bool,
    /// How special tokens count that are written in plain text.
    pub special: Special,
    /// Show prompts and their tokens.
    pub verbose: bool,
    /// What is put around lines of plain text that are typed.
    pub around: Around<'a>,
    /// Leave after one answer.
    pub single: bool,
    /// Print one JSON object for each turn instead of text.
    pub json: bool,
    /// Keep what is typed for the next time.
    pub history: bool,
    /// Report on each answer.
    pub stats: bool,
}

/// Reads lines and answers them until the input ends, with the template of `chat`; without one the text goes on with each line.
/// `sampling` is the sampler, and what it was made of. `first` is said before the first line is read. `stored` is a session file,
/// and the tokens that it has given the executor.
pub fn run<'m>(
    setup: &Setup,
    (executor, speculation): (&mut Executor<'m>, Option<Speculation<'m>>),
    sampling: (&mut Sampler, Settings),
    chat: Option<Chat>,
    first: Option<String>,
    stored: Option<(Session, Vec<u32>)>,
) -> Result<()> {
    let (session, cached) = stored.map_or_else(Default::default, |(session, tokens)| (Some(session), tokens));
    let said = match &chat {
        Some(chat) => Said::Messages(chat.system.iter().cloned().collect()),
        None if setup.goes_on && first.is_none() => Said::Text(Text::begun(cached.clone())),
        None => Said::Text(Default::default()),
    };
    let (sampler, settings) = sampling;
    let room = Room::new(setup.kept);
    let unsaid = String::new();
    let (around, n_turns) = (Around::default(), 0);
    let mut repl = Repl {
        setup,
        executor,
        speculation,
        sampler,
        settings,
        chat,
        said,
        cached,
        around,
        unsaid,
        room,
        session,
        n_turns,
    };
    if !setup.single && !is_quiet() {
        tell!("/help lists the commands; Ctrl-C stops an answer, Ctrl-D leaves");
    }
    let mut input = Input::new(setup.history)?;
    if let Some(text) = first {
        repl.answer(&text)?;
    }
    // What is said first is as it is.
    repl.around = setup.around;
    while !(setup.single && repl.n_turns > 0) {
        let Some(typed) = ending::while_waiting(|| input.read())? else { break };
        match typed {
            Typed::Block(text) => repl.answer(&text)?,
            Typed::Line(line) => match line.trim() {
                "" => {}
                said if said.starts_with("//") => repl.answer(&said[1..])?,
                command if command.starts_with('/') => match repl.obey(command)? {
                    Done::Next => {}
                    Done::Leave => break,
                },
                _ => repl.answer(&line)?,
            },
        }
        if ending::is_wanted() {
            return Err(Interrupted.into());
        }
    }
    stored::end(repl.session, repl.executor, &repl.cached)
}

impl Repl<'_, '_> {
    /// Says `text` and prints the answer.
    fn answer(&mut self, text: &str) -> Result<()> {
        clear_stop();
        self.n_turns += 1;
        let text = std::mem::take(&mut self.unsaid) + text;
        let result = self.turn(&text);
        self.ended(result, &text)
    }

    /// What comes of a turn. Problems are told and end the turn, not the conversation; only an answer that cannot be printed
    /// does, a template that no turn can be held with, and a card that has failed. Where there is but one turn all do.
    fn ended(&self, result: Result<Stop>, text: &str) -> Result<()> {
        let error = match result {
            Ok(Stop::Interrupted) if self.setup.single => return Err(Interrupted.into()),
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let ends = error.is::<io::Error>() || error.is::<Unusable>() || error.is::<CardFailed>();
        if ends || self.setup.single {
            return Err(error);
        }
        let interrupted = error.is::<Interrupted>();
        if self.setup.json {
            let why = if interrupted { "interrupted".to_owned() } else { format!("{error:#}") };
            print_json(serde_json::json!({ "turn": self.n_turns, "prompt": text, "error": why }))?;
        }
        if interrupted {
            tell!("(stopped)");
        } else {
            tell!("error: {error:#}");
        }
        Ok(())
    }
}
