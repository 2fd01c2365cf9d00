//! What has been said in a conversation, and how the last of it is taken back.

use crate::template::user;
use anyhow::Result;
use powerinfer::chat::Message;
use powerinfer::conversation::Prompt;
use powerinfer::generate::{Generated, Stop};
use powerinfer::tokenizer::{Special, Tokenizer};
use std::ops::Range;

/// What has been said, in one of two ways.
#[derive(Clone)]
pub enum Said {
    /// With a chat template: whole messages, rendered anew for each turn.
    Messages(Vec<Message>),
    /// Without: the text just goes on.
    Text(Text),
}

/// A text that goes on.
#[derive(Clone, Default)]
pub struct Text {
    tokens: Vec<u32>,
    turns: Vec<Turn>,
}

/// A line, and what the model made of it.
#[derive(Clone)]
struct Turn {
    /// What the user typed.
    said: String,
    /// Where the line stands among the tokens; the answer follows it.
    line: Range<usize>,
    end: End,
}

/// How a text stands.
#[derive(Clone, PartialEq, Eq)]
enum End {
    /// It can go on.
    Open,
    /// The model has ended it: the next line begins a new one.
    Ended,
    /// Before this stop string, which its tokens hold.
    Stopped(String),
}

/// What is put around a line of plain text.
#[derive(Clone, Copy, Default)]
pub struct Around<'a> {
    /// Before it, in place of the space that separates it from a stop string.
    pub before: Option<&'a str>,
    /// Behind it, on the next line.
    pub after: Option<&'a str>,
}

impl Around<'_> {
    /// `line` as it goes on with a text that stands like `end`.
    fn dressed(self, line: &str, end: &End) -> String {
        let own_line = if *end == End::Open { "\n" } else { "" };
        // Behind a stop string, which is what asks for the line, it stands on the same line.
        let asked = matches!(end, End::Stopped(_));
        let space = matches!(end, End::Stopped(by) if !by.ends_with(char::is_whitespace));
        let before = self.before.unwrap_or(if space { " " } else { "" });
        let after = self.after.unwrap_or_default();
        let break_behind = if asked || self.after.is_some() { "\n" } else { "" };
        format!("{own_line}{before}{line}{break_behind}{after}")
    }
}

impl Text {
    /// A text that has begun in another run.
    pub fn begun(tokens: Vec<u32>) -> Self {
        Self { tokens, turns: Vec::new() }
    }

    /// The text with a further line.
    fn add(&mut self, line: &str, around: Around, tokenizer: &Tokenizer, special: Special) -> Result<Prompt> {
        let end = self.turns.last().map_or(&End::Open, |turn| &turn.end);
        let text = around.dressed(line, if self.tokens.is_empty() { &End::Ended } else { end });
        if *end == End::Ended {
            *self = Self::default();
        }
        let begin = self.tokens.len();
        let tokens = match begin {
            0 => tokenizer.encode_opening(&text, special, true)?,
            _ => tokenizer.encode(&text, special)?,
        };
        self.tokens.extend(&tokens);
        self.turns.push(Turn { said: line.to_owned(), line: begin..self.tokens.len(), end: End::Open });
        Ok(Prompt { text, tokens })
    }

    /// All of it.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}

impl Said {
    /// Adds what the user says; without a template also returns what that is.
    ///
    /// # Errors
    /// When it cannot be tokenized.
    pub fn add(
        &mut self,
        text: &str,
        around: Around,
        tokenizer: &Tokenizer,
        special: Special,
    ) -> Result<Option<Prompt>> {
        match self {
            Self::Messages(messages) => {
                messages.push(user(text));
                Ok(None)
            }
            Self::Text(said) => said.add(text, around, tokenizer, special).map(Some),
        }
    }

    /// Adds the answer.
    pub fn add_answer(&mut self, answer: &Generated, stop_strings: &[String]) {
        match self {
            Self::Messages(messages) => {
                messages.push(Message { role: "assistant".to_owned(), content: answer.text.clone() });
            }
            Self::Text(text) => {
                text.tokens.extend(&answer.tokens);
                let end = match answer.stop {
                    Stop::EndOfText => End::Ended,
                    Stop::StopString(i) => stop_strings.get(i).cloned().map_or(End::Open, End::Stopped),
                    _ => End::Open,
                };
                if let Some(turn) = text.turns.last_mut() {
                    turn.end = end;
                }
            }
        }
    }

    /// What the user has said last.
    pub fn last(&self) -> Option<&str> {
        match self {
            Self::Messages(messages) => messages.iter().rfind(|m| m.role == "user").map(|m| m.content.as_str()),
            Self::Text(text) => text.turns.last().map(|turn| turn.said.as_str()),
        }
    }

    /// Whether a further line begins a new text.
    pub fn has_ended(&self) -> bool {
        match self {
            Self::Messages(_) => false,
            Self::Text(text) => text.turns.last().is_some_and(|turn| turn.end == End::Ended),
        }
    }

    /// Takes back the last answer, so that another can be given, and returns what it answered; `None` where there is nothing to
    /// answer.
    pub fn undo_answer(&mut self) -> Option<String> {
        match self {
            Self::Messages(messages) => {
                messages.pop_if(|last| last.role == "assistant");
                messages.last().filter(|last| last.role == "user").map(|last| last.content.clone())
            }
            Self::Text(text) => {
                let turn = text.turns.last_mut()?;
                turn.end = End::Open;
                text.tokens.truncate(turn.line.end);
                Some(turn.said.clone())
            }
        }
    }

    /// Takes back the last answer and what it answers; whether there was anything.
    pub fn undo(&mut self) -> bool {
        match self {
            Self::Messages(messages) => {
                let answer = messages.pop_if(|last| last.role == "assistant");
                messages.pop_if(|last| last.role == "user").or(answer).is_some()
            }
            Self::Text(text) => {
                let turn = text.turns.pop();
                text.tokens.truncate(turn.as_ref().map_or(0, |turn| turn.line.start));
                turn.is_some()
            }
        }
    }

    /// Forgets all but the system message.
    pub fn clear(&mut self) {
        match self {
            Self::Messages(messages) => messages.retain(|message| message.role == "system"),
            Self::Text(text) => *text = Text::default(),
        }
    }
}
