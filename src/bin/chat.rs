//! The flags of `powerinfer-run` for conversations, and what they make of a file with or without a chat template.

use crate::common::models;
use crate::common::terminal::tell;
use anyhow::{Result, ensure};
use clap::Args;
use powerinfer::chat::Message;
use powerinfer::files::MOST_PROMPT;
use powerinfer::gguf::Gguf;
use powerinfer::progress::Silent;
use std::path::PathBuf;

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
    /// What the model is told before all messages (-sys); asks for a chat
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "system_prompt_file")]
    system_prompt: Option<String>,
    /// The same from a file (-sysf)
    #[arg(long, value_name = "FILE")]
    system_prompt_file: Option<PathBuf>,
    /// Leave after one answer (-st): to -p, -f, all of a pipe, or a line that is typed. With the chat template where there is one
    #[arg(long)]
    single_turn: bool,
    /// Stop where the answer would contain TEXT, which is not printed; may be given several times
    #[arg(short, long = "reverse-prompt", value_name = "TEXT", allow_hyphen_values = true,
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub reverse_prompt: Vec<String>,
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
    /// When the file cannot be read, or there is no chat to say it in.
    pub fn system(&self) -> Result<Option<Message>> {
        let text = match (&self.system_prompt, &self.system_prompt_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => models::read_text(path, MOST_PROMPT, &Silent)?.trim_end().to_owned(),
            (None, None) => return Ok(None),
        };
        ensure!(!self.no_conversation, "-sys: what it says is part of a chat, and -no-cnv asks for plain text");
        Ok(Some(Message { role: "system".to_owned(), content: text }).filter(|message| !message.content.is_empty()))
    }

    /// What to do with a file that has a chat template or not, which is told where the flags leave it open; `given`: there is a
    /// prompt already.
    ///
    /// # Errors
    /// When a chat was asked for and there is no template.
    pub fn form(&self, gguf: &Gguf, given: bool) -> Result<Form> {
        let has_template = gguf.metadata().str("tokenizer.chat_template")?.is_some();
        let text = if given && !self.interactive { Form::Once } else { Form::Text };
        if self.conversation {
            return Ok(Form::Chat);
        }
        if self.has_system() && !self.no_conversation {
            ensure!(has_template, "{}: has no chat template, and -sys is part of a chat", gguf.source().name());
            return Ok(Form::Chat);
        }
        if self.no_conversation || self.interactive {
            return Ok(text);
        }
        let (form, why) = match (has_template, given) {
            (true, _) if self.single_turn => return Ok(Form::Chat),
            (true, false) => (Form::Chat, "chat, as the file has a chat template (-no-cnv: plain text)"),
            (true, true) => (text, "plain text, as there is a prompt (-cnv: a chat with the file's template)"),
            (false, true) => return Ok(text),
            (false, false) => (text, "plain text, as the file has no chat template"),
        };
        tell!("note: {why}");
        Ok(form)
    }
}
