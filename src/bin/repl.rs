//! The conversation loop of `powerinfer-run`.

use crate::common::ending;
use crate::common::terminal::{Bar, clear_stop, print, print_generated, tell};
use crate::{report, template};
use anyhow::{Context, Result, ensure};
use powerinfer::chat::{Message, Unusable};
use powerinfer::conversation::{Prompt, Prompter};
use powerinfer::executor::{CardFailed, Executor, Worker};
use powerinfer::files::MOST_PROMPT;
use powerinfer::generate::{Generated, Limits, Stop, generate};
use powerinfer::model::Model;
use powerinfer::progress::Interrupted;
use powerinfer::sampler::Sampler;
use powerinfer::tokenizer::{Special, Tokenizer};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{self, BufRead, IsTerminal, Read, stdin};

const HELP: &str = "\
/help    this list
/reset   forget everything said so far (without a chat template, so does the end of the model's text)
/stats   tokens in the context, and what share of FFN neurons fired
/exit    leave (also Ctrl-D)
Ctrl-C stops an answer. Any line that does not begin with / goes to the model; of one that begins with // all but the first /.";

/// What a conversation is held with.
pub struct Setup<'a> {
    /// The model.
    pub model: &'a Model,
    /// What computes it.
    pub worker: &'a Worker,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Length of answers.
    pub limits: Limits,
    /// Whether to use the file's chat template.
    pub template: bool,
    /// How special tokens count that are written in plain text.
    pub special: Special,
    /// Show prompts and their tokens.
    pub verbose: bool,
    /// Report on each answer; holds the sampler's seed.
    pub stats: Option<u64>,
}

/// What has been said.
enum History<'a> {
    /// With a template: whole messages, rendered anew for each turn.
    Messages(Box<Prompter<'a>>, Vec<Message>),
    /// Without: the text just goes on.
    Text,
}

/// Reads lines and answers them until the input ends. `first` is said before the first line is read.
pub fn run(setup: &Setup, executor: &mut Executor, sampler: &mut Sampler, first: Option<String>) -> Result<()> {
    let mut repl = Repl { setup, executor, sampler, history: history(setup)?, tokens: Vec::new() };
    tell!("/help lists the commands; Ctrl-C stops an answer, Ctrl-D leaves");
    let mut editor = if stdin().is_terminal() { Some(DefaultEditor::new()?) } else { None };
    if let Some(text) = first {
        repl.say(&text)?;
    }
    while let Some(line) = ending::while_waiting(|| read(editor.as_mut()))? {
        match line.trim() {
            "" => {}
            "/exit" | "/quit" => break,
            "/help" => tell!("{HELP}"),
            "/reset" => repl.reset(),
            "/stats" => repl.stats(),
            said if said.starts_with("//") => repl.say(&said[1..])?,
            command if command.starts_with('/') => {
                tell!("{command}: unknown command; /help lists them, and /{command} says it to the model");
            }
            _ => repl.say(&line)?,
        }
        if ending::is_wanted() {
            return Err(Interrupted.into());
        }
    }
    Ok(())
}

fn history<'a>(setup: &Setup<'a>) -> Result<History<'a>> {
    if !setup.template {
        return Ok(History::Text);
    }
    let prompter = template::prompter(&setup.model.gguf, setup.tokenizer)?;
    Ok(History::Messages(Box::new(prompter), Vec::new()))
}

/// A line from the terminal, with editing and history, or from a pipe; `None` at the end.
fn read(editor: Option<&mut DefaultEditor>) -> Result<Option<String>> {
    let Some(editor) = editor else {
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

/// Tokens at the end of a prompt that the next one may have others in place of: templates open an answer in other words than
/// they tell of it.
const OPENING: usize = 16;

struct Repl<'a, 'm> {
    setup: &'a Setup<'a>,
    executor: &'a mut Executor<'m>,
    sampler: &'a mut Sampler,
    history: History<'a>,
    /// What the KV cache holds, token by token.
    tokens: Vec<u32>,
}

impl Repl<'_, '_> {
    /// Says `text` and prints the answer. Problems are told and end the turn, not the conversation; only an answer that
    /// cannot be printed does, a template that no turn can be held with, and a card that has failed.
    fn say(&mut self, text: &str) -> Result<()> {
        let Err(error) = self.turn(text) else { return Ok(()) };
        if error.is::<io::Error>() || error.is::<Unusable>() || error.is::<CardFailed>() {
            return Err(error);
        }
        if error.is::<Interrupted>() {
            tell!("(stopped)");
        } else {
            tell!("error: {error:#}");
        }
        if let History::Messages(_, messages) = &mut self.history {
            messages.pop_if(|m| m.role == "user");
        }
        Ok(())
    }

    fn turn(&mut self, text: &str) -> Result<()> {
        clear_stop();
        let tokenizer = self.setup.tokenizer;
        let wanted = match &mut self.history {
            History::Messages(prompter, messages) => {
                messages.push(template::user(text));
                let prompt = prompter.encode(messages, self.executor.params().n_ctx, template::render)?;
                if self.setup.verbose {
                    template::show(&prompt, tokenizer);
                }
                prompt.tokens
            }
            History::Text => {
                let begins = self.tokens.is_empty();
                let text = if begins { text.to_owned() } else { format!("\n{text}") };
                let tokens = if begins {
                    tokenizer.encode_opening(&text, self.setup.special, true)?
                } else {
                    tokenizer.encode(&text, self.setup.special)?
                };
                let more = Prompt { text, tokens };
                if self.setup.verbose {
                    template::show(&more, tokenizer);
                }
                [&self.tokens[..], &more.tokens].concat()
            }
        };
        // What the cache holds already need not be computed again; the last token always is, for its logits.
        let agreed = self.tokens.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
        let common = self.executor.keep(agreed.min(self.executor.n_past()).min(wanted.len().saturating_sub(1)));
        self.executor.remember_at(wanted.len().saturating_sub(OPENING).max(common));
        self.sampler.forget();
        wanted[..common].iter().for_each(|t| self.sampler.accept(*t));
        let mut show = |piece: &str| print_generated(piece);
        let (executor, sampler, limits) = (&mut *self.executor, &mut *self.sampler, self.setup.limits);
        let result = generate(executor, tokenizer, sampler, &wanted[common..], limits, &Bar::new(), &mut show);
        // Whatever went wrong, the cache then holds nothing but what `tokens` says: less of it where it cannot forget just the
        // last ones, and then the next line computes them again.
        let Ok(result) = result else {
            self.executor.keep(common);
            self.tokens.truncate(agreed);
            return result.map(drop);
        };
        print("\n")?;
        report::doubt(self.executor, &wanted, self.setup.worker);
        self.tokens = wanted;
        self.tokens.extend(&result.tokens);
        self.after(&result);
        Ok(())
    }

    fn after(&mut self, result: &Generated) {
        if let History::Messages(_, messages) = &mut self.history {
            messages.push(Message { role: "assistant".to_owned(), content: result.text.clone() });
        }
        if let Some(seed) = self.setup.stats {
            report::timings(self.executor, result, seed);
            report::layers(self.setup.model, self.executor);
        }
        match result.stop {
            Stop::EndOfText if matches!(self.history, History::Text) => {
                self.reset_text();
                tell!("(the text has ended; the next line begins a new one)");
            }
            Stop::ContextFull => {
                let more = self.setup.model.config.has_room_beyond(self.executor.params().n_ctx);
                let advice = if more { ", a larger -c gives more room" } else { "" };
                tell!("the context is full; /reset starts over{advice}");
            }
            Stop::Interrupted => tell!("(stopped)"),
            _ => {}
        }
    }

    /// The model ended its text: the next line begins a new one.
    fn reset_text(&mut self) {
        self.tokens.clear();
        self.executor.clear();
    }

    fn reset(&mut self) {
        self.reset_text();
        if let History::Messages(_, messages) = &mut self.history {
            messages.clear();
        }
        tell!("(forgotten)");
    }

    fn stats(&self) {
        let fired = self.executor.stats().density();
        let fired = fired.map_or_else(String::new, |d| format!("; {:.2} % of FFN neurons fired", 100.0 * d));
        tell!("{} of {} tokens in the context{fired}", self.executor.n_past(), self.executor.params().n_ctx);
    }
}
