//! The chat template of `powerinfer-run`: where it is rendered, and what of it is shown.

use crate::common::own_program;
use crate::common::terminal::{Bar, tell};
use anyhow::{Context, Result};
use powerinfer::chat::{Message, Refused, Request, Value, contained};
use powerinfer::conversation::{Prompt, Prompter, without_system};
use powerinfer::gguf::Gguf;
use powerinfer::progress::Interrupted;
use powerinfer::tokenizer::Tokenizer;

/// A chat template, before it is tried.
pub struct Template {
    /// Of the model, the file or the flag that it comes from.
    pub name: String,
    /// Jinja.
    pub source: String,
}

/// What a chat is held with.
pub struct Chat<'a> {
    prompter: Prompter<'a>,
    /// The system message, which stands before all others.
    pub system: Option<Message>,
    /// Whether the template refuses system messages, which then head what the user says first.
    merges_system: bool,
}

impl<'a> Chat<'a> {
    /// With `template`, which is told `variables`, after a try that shows whether it can be used at all.
    ///
    /// # Errors
    /// When it cannot.
    pub fn new(
        template: &Template,
        variables: Vec<(String, Value)>,
        gguf: &Gguf,
        tokenizer: &'a Tokenizer,
        system: Option<Message>,
    ) -> Result<Self> {
        let mut prompter = Prompter::new(&template.source, tokenizer, gguf.metadata())?;
        variables.into_iter().for_each(|(name, value)| prompter.tell(name, value));
        match render(&prompter.request(vec![user("Hello")])) {
            // It may want a system message, or another beginning.
            Err(error) if error.is::<Refused>() => {}
            tried => drop(tried.with_context(|| template.name.clone())?),
        }
        let mut chat = Self { prompter, system: None, merges_system: false };
        chat.set_system(system)?;
        Ok(chat)
    }

    /// Changes the system message, and finds out whether the template takes one.
    ///
    /// # Errors
    /// When the user stops it.
    pub fn set_system(&mut self, system: Option<Message>) -> Result<()> {
        self.merges_system = false;
        if let Some(system) = &system {
            match render(&self.prompter.request(vec![system.clone(), user("Hello")])) {
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(_) => {
                    self.merges_system = true;
                    tell!("note: the chat template takes no system message; it heads your first message");
                }
                Ok(_) => {}
            }
        }
        self.system = system;
        Ok(())
    }

    /// Finds out whether the template takes `messages`, and that the user goes on with them.
    ///
    /// # Errors
    /// Why not.
    pub fn try_out(&self, messages: &[Message], n_ctx: usize) -> Result<()> {
        let mut messages = messages.to_vec();
        if messages.last().is_none_or(|last| last.role != "user") {
            messages.push(user("Hello"));
        }
        self.encode(&messages, n_ctx).map(drop)
    }

    /// Tokens that come before anything the user says.
    pub fn n_opening(&self, messages: &[Message]) -> usize {
        match self.merges_system {
            true => self.prompter.n_opening(&without_system(messages), render),
            false => self.prompter.n_opening(messages, render),
        }
    }

    /// The prompt for `messages` in a context of `n_ctx` tokens.
    pub fn encode(&self, messages: &[Message], n_ctx: usize) -> Result<Prompt> {
        match self.merges_system {
            true => self.prompter.encode(&without_system(messages), n_ctx, render),
            false => self.prompter.encode(messages, n_ctx, render),
        }
    }
}

/// What the user says.
pub fn user(text: &str) -> Message {
    Message { role: "user".to_owned(), content: text.to_owned() }
}

/// Renders a template in a process of its own.
pub fn render(request: &Request) -> Result<String> {
    let program = own_program().context("the chat template")?;
    contained::render(&program, request, &Bar::new())
}

/// `--verbose-prompt`: the prompt and its tokens, on stderr.
pub fn show(prompt: &Prompt, tokenizer: &Tokenizer) {
    tell!("prompt: '{}'", escaped(prompt.text.as_bytes()));
    tell!("number of tokens in prompt = {}", prompt.tokens.len());
    for id in &prompt.tokens {
        let special = tokenizer.unprinted_text(*id);
        let text = if special.is_empty() { tokenizer.token_bytes(*id) } else { special.as_bytes() };
        tell!("{id:>6} -> '{}'", escaped(text));
    }
}

/// On one line, with what is no character as a number.
fn escaped(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' { out.extend(c.escape_default()) } else { out.push(c) }
        }
        out.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    out
}
