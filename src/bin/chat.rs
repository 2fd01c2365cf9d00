//! The flags of `powerinfer-run` for conversations, and what they make of a file with or without a chat template.

use crate::common::models;
use crate::common::terminal::tell;
use crate::repl::Around;
use crate::template::{Chat, Template};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use powerinfer::chat::{Message, Unusable, Value, builtin};
use powerinfer::files::MOST_PROMPT;
use powerinfer::gguf::Gguf;
use powerinfer::progress::Silent;
use powerinfer::tokenizer::Tokenizer;
use powerinfer::units::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

const NO_THINKING: &str = "--reasoning-budget 0";
const VARIABLES: &str = "--chat-template-kwargs";
/// Of a chat template: more than are rendered.
const MOST_TEMPLATE: Bytes = Bytes(2 << 20);

/// How a conversation is held.
#[derive(Args)]
#[command(next_help_heading = "Chat")]
pub struct ChatArgs {
    /// Chat, with the file's chat template (-cnv), also through a pipe, a message per line; -p is the first message. The default
    /// at a terminal where the file has a template and there is neither -p nor -f
    #[arg(long, overrides_with = "no_conversation", conflicts_with_all = ["no_bos", "parse_special"])]
    conversation: bool,
    /// Never chat: plain text, also where the file has a chat template (-no-cnv). The default for -p, -f and pipes
    #[arg(long)]
    no_conversation: bool,
    /// Keep the text going: each line that you type continues it, until the model ends it
    #[arg(short, long, conflicts_with_all = ["tokenize", "no_display_prompt"])]
    interactive: bool,
    /// With -i: put TEXT before each line that is typed
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    in_prefix: Option<String>,
    /// With -i: put TEXT behind each line that is typed, on the next line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    in_suffix: Option<String>,
    /// What the model is told before all messages (-sys); asks for a chat
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "system_prompt_file")]
    system_prompt: Option<String>,
    /// The same from a file (-sysf)
    #[arg(long, value_name = "FILE")]
    system_prompt_file: Option<PathBuf>,
    /// Leave after one answer (-st): to -p, -f, all of a pipe, or a line that is typed. With the chat template where there is one
    #[arg(long)]
    single_turn: bool,
    /// The chat template, in place of the file's: a name as chatml (docs/chat.md lists them), or a file of Jinja; does not ask for
    /// a chat by itself
    #[arg(long, value_name = "NAME|FILE")]
    chat_template: Option<String>,
    /// 0: without thinking, where the chat template knows enable_thinking; -1: as the template has it
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..=0))]
    reasoning_budget: Option<i64>,
    /// Variables that the chat template is told, an object of JSON, as in {"reasoning_effort":"low"}; several add up
    #[arg(long, value_name = "JSON")]
    chat_template_kwargs: Vec<Variables>,
    /// Do not keep what is typed at a terminal for the next conversation
    #[arg(long)]
    no_history: bool,
    /// Stop where the answer would contain TEXT, which is not printed; may be given several times
    #[arg(short, long = "reverse-prompt", value_name = "TEXT", allow_hyphen_values = true,
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub reverse_prompt: Vec<String>,
}

/// Variables of a chat template.
#[derive(Clone)]
struct Variables(Vec<(String, Value)>);

impl FromStr for Variables {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let object: BTreeMap<String, Value> =
            serde_json::from_str(text).context("an object of JSON is wanted, as in {\"reasoning_effort\":\"low\"}")?;
        for name in ["messages", "add_generation_prompt"] {
            ensure!(!object.contains_key(name), "{name} is told by the conversation");
        }
        Ok(Self(object.into_iter().collect()))
    }
}

/// What is done with the prompt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// It is gone on with, once.
    Once,
    /// Lines are read, and the text goes on with each.
    Text,
    /// Messages are read and answered, with a chat template.
    Chat,
}

impl ChatArgs {
    /// Whether the flags alone ask for a chat.
    pub fn is_asked_for(&self) -> bool {
        self.conversation || !self.no_conversation && self.has_system()
    }

    /// Whether lines are read, whatever the file has.
    pub fn reads_lines(&self) -> bool {
        !self.single_turn && (self.interactive || self.is_asked_for())
    }

    /// Whether what is typed is kept for the next time.
    pub fn keeps_history(&self) -> bool {
        !self.no_history
    }

    /// What is put around lines of plain text.
    pub fn around(&self) -> Around<'_> {
        Around { before: self.in_prefix.as_deref(), after: self.in_suffix.as_deref() }
    }

    /// Whether there is but one turn.
    pub fn is_single(&self) -> bool {
        self.single_turn
    }

    fn has_system(&self) -> bool {
        self.system_prompt.is_some() || self.system_prompt_file.is_some()
    }

    /// The system message, if there is one.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn system(&self) -> Result<Option<Message>> {
        let text = match (&self.system_prompt, &self.system_prompt_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => models::read_text(path, MOST_PROMPT, &Silent)?.trim_end().to_owned(),
            (None, None) => return Ok(None),
        };
        Ok(Some(Message { role: "system".to_owned(), content: text }).filter(|message| !message.content.is_empty()))
    }

    /// The chat template: the one that was named, or the file's; `None` where there is neither.
    ///
    /// # Errors
    /// When the name is unknown, and when the file cannot be read.
    pub fn template(&self, gguf: &Gguf) -> Result<Option<Template>> {
        let Some(given) = &self.chat_template else {
            let found = gguf.metadata().str("tokenizer.chat_template")?;
            return Ok(
                found.map(|source| Template { name: gguf.source().name().to_owned(), source: source.to_owned() })
            );
        };
        let named = |source| Ok(Some(Template { name: format!("--chat-template {given}"), source }));
        if let Some(source) = builtin::named(given) {
            return named(source.to_owned());
        }
        if given.contains("{{") || given.contains("{%") {
            return Ok(Some(Template { name: "--chat-template".to_owned(), source: given.clone() }));
        }
        let path = Path::new(given);
        if !path.exists() && !given.contains(['/', '\\', '.']) {
            let names: Vec<_> = builtin::names().collect();
            bail!(
                "--chat-template {given}: there is no such file, and no template of that name; known: {}",
                names.join(", ")
            );
        }
        Ok(Some(Template { name: given.clone(), source: models::read_text(path, MOST_TEMPLATE, &Silent)? }))
    }

    /// What the template is told beside the messages; says so where that has no effect.
    fn variables(&self, source: &str) -> Vec<(String, Value)> {
        let off = || (NO_THINKING, ("enable_thinking".to_owned(), Value::from(false)));
        let thinking = (self.reasoning_budget == Some(0)).then(off);
        let given = self.chat_template_kwargs.iter().flat_map(|variables| variables.0.clone());
        let all = thinking.into_iter().chain(given.map(|variable| (VARIABLES, variable)));
        all.filter(|(flag, (name, _))| {
            let is_known = source.contains(name);
            if !is_known {
                tell!("note: {flag} has no effect: the chat template does not know {name}");
            }
            is_known
        })
        .map(|(_, variable)| variable)
        .collect()
    }

    /// A chat with that template, and the system message of the flags.
    ///
    /// # Errors
    /// When there is no template, or none that can be used.
    pub fn chat<'t>(&self, gguf: &Gguf, tokenizer: &'t Tokenizer) -> Result<Chat<'t>> {
        let name = gguf.source().name();
        let template = self.template(gguf)?.with_context(|| {
            format!("{name}: has no chat template; --chat-template gives it one, and -i continues plain text")
        })?;
        Chat::new(&template, self.variables(&template.source), gguf, tokenizer, self.system()?)
    }

    /// What to do, and what a chat is held with.
    ///
    /// # Errors
    /// When a chat was asked for and cannot be held. Where it was not, a template that cannot be used leaves plain text.
    pub fn open<'t>(&self, gguf: &Gguf, tokenizer: &'t Tokenizer, given: bool) -> Result<(Form, Option<Chat<'t>>)> {
        let form = self.form(gguf, given)?;
        if form != Form::Text && (self.in_prefix.is_some() || self.in_suffix.is_some()) {
            tell!("note: --in-prefix and --in-suffix have no effect but on lines of plain text (-i)");
        }
        if form != Form::Chat {
            let given =
                [(self.reasoning_budget == Some(0), NO_THINKING), (!self.chat_template_kwargs.is_empty(), VARIABLES)];
            for (_, flag) in given.iter().filter(|(is_given, _)| *is_given) {
                tell!("note: {flag} has no effect on plain text");
            }
            return Ok((form, None));
        }
        match self.chat(gguf, tokenizer) {
            Err(error) if error.is::<Unusable>() && !self.is_asked_for() && !self.single_turn => {
                tell!("note: plain text all the same: {error:#}");
                Ok((Form::Text, None))
            }
            chat => Ok((form, Some(chat?))),
        }
    }

    /// What to do with a file that has a chat template or not, which is told where the flags leave it open; `given`: there is a
    /// prompt already.
    ///
    /// # Errors
    /// When a chat was asked for and there is no template.
    fn form(&self, gguf: &Gguf, given: bool) -> Result<Form> {
        let refused = self.has_system() && self.no_conversation;
        ensure!(!refused, "-sys: what it says is part of a chat, and -no-cnv asks for plain text");
        let has_template = self.chat_template.is_some() || gguf.metadata().str("tokenizer.chat_template")?.is_some();
        let text = if given && !self.interactive { Form::Once } else { Form::Text };
        if self.conversation {
            return Ok(Form::Chat);
        }
        if self.has_system() && !self.no_conversation {
            let name = gguf.source().name();
            ensure!(has_template, "{name}: has no chat template, which -sys needs; --chat-template gives it one");
            return Ok(Form::Chat);
        }
        if self.no_conversation || self.interactive {
            return Ok(text);
        }
        let (form, why) = match (has_template, given) {
            (true, _) if self.single_turn => return Ok(Form::Chat),
            (true, false) => (Form::Chat, "chat, as there is a chat template (-no-cnv: plain text)"),
            (true, true) => (text, "plain text, as there is a prompt (-cnv: a chat with the template)"),
            (false, true) => return Ok(text),
            (false, false) => (text, "plain text, as the file has no chat template (--chat-template gives it one)"),
        };
        tell!("note: {why}");
        Ok(form)
    }
}
