//! Commands of a conversation.

use super::said::Said;
use super::settings::Changed;
use super::turn::Repl;
use crate::common::terminal::{Bar, clear_stop, tell};
use anyhow::{Context, Result, ensure};
use powerinfer::chat::Message;
use powerinfer::conversation::{load, save};
use powerinfer::files::{MOST_PROMPT, read_text};
use powerinfer::grammar::Grammar;
use powerinfer::sampler::Sampler;
use std::env;
use std::path::PathBuf;

/// Lines of 78 columns at most.
const HELP: &str = "\
/help          this list
/regen         take back the last answer and give another
/undo          take back the last answer and what it answers
/clear         forget everything said so far, also /reset (without a chat
               template, so does the end of the model's text)
/system TEXT   change what the model is told before all messages; /system
               alone shows it, /system none takes it away
/read FILE     put a text before what you say next
/save FILE     write the conversation as JSON
/load FILE     go on with such a conversation in place of this one
/set temp 0.7  change a parameter of sampling, by the name of its flag; /set
               alone lists them
/stats         tokens in the context, and what share of FFN neurons fired
/exit          leave (also /quit, Ctrl-D)

\"\"\" begins a block of several lines, which ends with \"\"\". Ctrl-C stops an
answer. Any line that does not begin with / goes to the model; of one that
begins with //, all but the first / does.";

/// What comes of a command.
pub enum Done {
    /// The next line.
    Next,
    /// The end.
    Leave,
}

impl Repl<'_, '_> {
    /// Does what `command` says, which begins with a slash.
    ///
    /// # Errors
    /// Those that end a conversation.
    pub fn obey(&mut self, command: &str) -> Result<Done> {
        clear_stop();
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match (name, rest) {
            ("/exit" | "/quit", "") => return Ok(Done::Leave),
            ("/help", "") => tell!("{HELP}"),
            ("/clear" | "/reset", "") => {
                self.forget();
                tell!("(forgotten)");
            }
            ("/stats", "") => self.stats(),
            ("/undo", "") => match self.said.undo() {
                true => tell!("(taken back)"),
                false => tell!("/undo: nothing has been said"),
            },
            ("/regen", "") => {
                self.n_turns += 1;
                match self.regenerate() {
                    Some(result) => self.ended(result, "")?,
                    None => tell!("/regen: nothing has been said"),
                }
            }
            ("/read" | "/save" | "/load", "") => tell!("{name}: names no file, as in {name} FILE"),
            ("/read", file) => told(name, self.read(file)),
            ("/save", file) => told(name, self.save(file)),
            ("/load", file) => told(name, self.load(file)),
            ("/set", text) => told(name, self.set(text)),
            ("/system", text) => told(name, self.change_system(text)),
            _ => {
                let line = command.lines().next().unwrap_or_default();
                tell!("{line}: unknown command; /help lists them, and /{line} says it to the model");
            }
        }
        Ok(Done::Next)
    }

    fn stats(&self) {
        let fired = self.executor.stats().density();
        let fired = fired.map_or_else(String::new, |d| format!("; {:.2} % of FFN neurons fired", 100.0 * d));
        tell!("{} of {} tokens in the context{fired}", self.executor.n_past(), self.executor.params().n_ctx);
    }

    fn set(&mut self, text: &str) -> Result<()> {
        // As in temp 0.7, temp=0.7 and temp = 0.7; a grammar has signs of its own.
        let Some((name, value)) = text.split_once(|c: char| c.is_whitespace() || c == '=') else {
            match text {
                "" => tell!("{}", self.settings.list()),
                name => tell!("{}", self.settings.one(name)?),
            }
            return Ok(());
        };
        let value = value.trim();
        let value = value.strip_prefix('=').map_or(value, str::trim_start);
        let Changed { params, grammar, settings } = self.settings.with(name, value)?;
        let tokenizer = self.setup.tokenizer;
        let mut sampler = Sampler::for_tokens(&params, tokenizer)?;
        sampler.set_grammar(match grammar {
            Some(rules) => rules.map(|rules| Grammar::new(&rules, tokenizer)).transpose()?,
            None => self.sampler.take_grammar(),
        });
        *self.sampler = sampler;
        self.settings = settings;
        tell!("{}", self.settings.one(name)?);
        Ok(())
    }

    fn read(&mut self, file: &str) -> Result<()> {
        let path = path(file);
        let text = read_text(&path, MOST_PROMPT, &Bar::new()).with_context(|| path.display().to_string())?;
        ensure!(!text.trim().is_empty(), "{}: is empty", path.display());
        let (n_lines, n_bytes) = (text.lines().count(), text.len());
        self.unsaid += text.trim_end();
        self.unsaid += "\n\n";
        tell!("({n_lines} lines, {n_bytes} bytes; they go before what you say next)");
        Ok(())
    }

    fn save(&self, file: &str) -> Result<()> {
        let Said::Messages(messages) = &self.said else { anyhow::bail!("plain text has no messages; -cnv chats") };
        let path = path(file);
        save(messages, &path, &Bar::new())?;
        tell!("({} messages in {})", messages.len(), path.display());
        Ok(())
    }

    fn load(&mut self, file: &str) -> Result<()> {
        let Some(chat) = &mut self.chat else { anyhow::bail!("plain text has no messages; -cnv chats") };
        let messages = load(&path(file))?;
        let system = messages.first().filter(|first| first.role == "system").cloned();
        let before = chat.system.clone();
        chat.set_system(system)?;
        if let Err(error) = chat.try_out(&messages, self.executor.params().n_ctx) {
            chat.set_system(before)?;
            return Err(error.context(format!("{file}: not loaded")));
        }
        tell!("({} messages)", messages.len());
        self.unsaid.clear();
        self.said = Said::Messages(messages);
        Ok(())
    }

    fn change_system(&mut self, text: &str) -> Result<()> {
        let (Some(chat), Said::Messages(messages)) = (&mut self.chat, &mut self.said) else {
            anyhow::bail!("plain text has no system message; -cnv chats")
        };
        let system = match text {
            "" => {
                let text = chat.system.as_ref().map_or("none", |message| message.content.as_str());
                tell!("system: {text}");
                return Ok(());
            }
            "none" => None,
            text => Some(Message { role: "system".to_owned(), content: text.to_owned() }),
        };
        chat.set_system(system.clone())?;
        messages.retain(|message| message.role != "system");
        messages.splice(..0, system);
        tell!("(changed)");
        Ok(())
    }
}

/// Tells what has gone wrong.
fn told(name: &str, result: Result<()>) {
    if let Err(error) = result {
        tell!("{name}: {error:#}");
    }
}

/// A path as shells have them: `~/` is the home folder.
fn path(file: &str) -> PathBuf {
    let home = file.strip_prefix("~/").and_then(|rest| Some(PathBuf::from(env::var_os("HOME")?).join(rest)));
    home.unwrap_or_else(|| PathBuf::from(file))
}
