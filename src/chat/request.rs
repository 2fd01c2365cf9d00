//! What a template is asked for, and how its answer is checked: every message must reach the prompt.

use super::errors::Unusable;
use super::template::ChatTemplate;
use anyhow::{Context, Result, bail, ensure};
use minijinja::context;
use minijinja::value::Value;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One turn of the conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`; which of them and in which order is up to the template.
    pub role: String,
    /// Given to the template as it is. Special tokens spelled out in it stay text where
    /// [`Prompter`](crate::conversation::Prompter) makes the prompt; in the text of [`Request::render`] nothing tells them apart.
    pub content: String,
}

/// A template, and what it is to make a prompt of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The template, Jinja2.
    pub source: String,
    /// What has been said.
    pub messages: Vec<Message>,
    /// What else the template may ask for by name: the texts of special tokens, as `bos_token`. Templates write them
    /// themselves, so the tokenizer must not add them again. `tools` and `documents` are none unless they are given
    /// here.
    pub variables: BTreeMap<String, Value>,
    /// Opens the assistant's turn at the end.
    pub add_generation_prompt: bool,
}

/// Whose messages a template wants as lists of parts (`[{"type": "text", "text": ...}]`) instead of texts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parts {
    Nobodys,
    Everybodys,
    AllButTheSystems,
    TheUsers,
}

/// In the order in which they are tried.
const PARTS: [Parts; 4] = [Parts::Nobodys, Parts::Everybodys, Parts::AllButTheSystems, Parts::TheUsers];

impl Parts {
    fn hold(self, role: &str) -> bool {
        match self {
            Self::Nobodys => false,
            Self::Everybodys => true,
            Self::AllButTheSystems => role != "system",
            Self::TheUsers => role == "user",
        }
    }
}

/// Where a mark is put into a message. Templates may cut off the beginning (a model's thoughts) or the end.
#[derive(Clone, Copy)]
enum Place {
    Behind,
    Before,
}

impl Request {
    /// Reads the template without rendering it, in this process.
    ///
    /// # Errors
    /// Those of its syntax.
    pub fn check(&self) -> Result<()> {
        ChatTemplate::new(&self.source).map(drop)
    }

    /// The prompt, made in this process: a hostile template may take all memory or end the process, so programs use
    /// [`contained::render`](super::contained::render).
    ///
    /// Messages are given as texts, or as lists of parts where the template ignores texts.
    ///
    /// # Errors
    /// Those of the template, and when it leaves out a message.
    pub fn render(&self) -> Result<String> {
        let template = ChatTemplate::new(&self.source)?;
        let mark = unused_mark(&self.messages)?;
        let mut dropped = None;
        for parts in PARTS {
            match self.dropped(&template, parts, mark) {
                Ok(None) => return self.render_as(&template, parts, |_, content| content.to_owned()),
                Ok(Some(i)) => dropped = dropped.or(Some(i)),
                Err(_) => {}
            }
        }
        // Where the template rejects the marks alone, it says nothing of the messages.
        let prompt = self.render_as(&template, Parts::Nobodys, |_, content| content.to_owned())?;
        if let Some(i) = dropped {
            let role = self.messages.get(i).map_or("", |m| m.role.as_str());
            let what = format!("leaves out message {} ({role})", i + 1);
            // With one that leaves out the only message there can be no conversation.
            ensure!(self.messages.len() > 1, Unusable::because(what));
            bail!("the model's chat template: {what}");
        }
        Ok(prompt)
    }

    fn render_as(
        &self,
        template: &ChatTemplate,
        parts: Parts,
        content: impl Fn(usize, &str) -> String,
    ) -> Result<String> {
        let messages = self.messages.iter().enumerate().map(|(i, m)| {
            let text = Value::from(content(i, &m.content));
            let content = match parts.hold(&m.role) {
                true => Value::from(vec![context! { type => "text", text }]),
                false => text,
            };
            context! { role => m.role.as_str(), content }
        });
        let mut variables = BTreeMap::from([
            ("tools".to_owned(), Value::from(())),
            ("documents".to_owned(), Value::from(())),
            ("add_generation_prompt".to_owned(), Value::from(self.add_generation_prompt)),
            ("messages".to_owned(), messages.collect()),
        ]);
        variables.extend(self.variables.clone());
        template.render(&Value::from(variables), self.messages.len())
    }

    /// The first message that does not reach the prompt.
    fn dropped(&self, template: &ChatTemplate, parts: Parts, mark: char) -> Result<Option<usize>> {
        let behind = self.missing(template, parts, mark, Place::Behind)?;
        if behind.is_empty() {
            return Ok(None);
        }
        let before = self.missing(template, parts, mark, Place::Before)?;
        Ok(behind.into_iter().find(|i| before.contains(i)))
    }

    /// The messages whose marks do not reach the prompt.
    fn missing(&self, template: &ChatTemplate, parts: Parts, mark: char, place: Place) -> Result<Vec<usize>> {
        let marked = |i: usize, content: &str| match place {
            Place::Behind => format!("{content}{mark}{i}{mark}"),
            Place::Before => format!("{mark}{i}{mark}{content}"),
        };
        let prompt = self.render_as(template, parts, marked)?;
        // A list that is printed as a list was not understood.
        let listed = ["'type': 'text'", "\"type\": \"text\""].iter().any(|l| prompt.contains(l));
        ensure!(parts == Parts::Nobodys || !listed, "the template does not look into lists");
        let reaches = |i: &usize| {
            let escaped = format!("\\u{:04x}", u32::from(mark));
            prompt.contains(&format!("{mark}{i}{mark}")) || prompt.contains(&format!("{escaped}{i}{escaped}"))
        };
        Ok((0..self.messages.len()).filter(|i| !reaches(i)).collect())
    }
}

/// A character that stands for nothing in any text, and in none of the messages.
pub(crate) fn unused_mark(messages: &[Message]) -> Result<char> {
    let unused = |c: &char| messages.iter().all(|m| !m.content.contains(*c));
    // Noncharacters: Unicode promises never to give them a meaning.
    ('\u{fdd0}'..='\u{fdef}').find(unused).context("the messages use up all noncharacters of Unicode")
}
