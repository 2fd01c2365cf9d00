//! A turn of a conversation: the prompt, as much of it as is new, and the answer.

use super::said::{Around, Said};
use super::{Settings, Setup};
use crate::common::terminal::{Bar, print, print_generated, print_json, tell};
use crate::room::Room;
use crate::template::{self, Chat};
use crate::{report, speculate, stored};
use anyhow::Result;
use powerinfer::executor::Executor;
use powerinfer::generate::{Generated, Limits, Stop, generate};
use powerinfer::progress::Interrupted;
use powerinfer::sampler::Sampler;
use powerinfer::session::Session;
use powerinfer::speculation::{Speculation, Target};

/// Tokens at the end of a prompt that the next one may have others in place of: templates open an answer in other words than
/// they tell of it.
const OPENING: usize = 16;

/// A conversation.
pub struct Repl<'a, 'm> {
    pub setup: &'a Setup<'a>,
    pub executor: &'a mut Executor<'m>,
    /// What guesses ahead for it, if anything does.
    pub speculation: Option<Speculation<'m>>,
    pub sampler: &'a mut Sampler,
    /// What the sampler was made of.
    pub settings: Settings,
    /// The template; none where the text just goes on.
    pub chat: Option<Chat<'a>>,
    /// What has been said.
    pub said: Said,
    /// What the executor holds, token by token; it may hold less.
    pub cached: Vec<u32>,
    /// What is put around a line of plain text.
    pub around: Around<'a>,
    /// Texts of files that go before what the user says next.
    pub unsaid: String,
    /// What is done where the context is full.
    pub room: Room,
    /// The session file, if there is one.
    pub session: Option<Session>,
    /// Turns so far, those that failed among them.
    pub n_turns: usize,
}

impl<'a> Repl<'a, '_> {
    /// Says `text` and prints the answer. Where that fails, nothing has been said.
    pub fn turn(&mut self, text: &str) -> Result<Stop> {
        let before = self.said.clone();
        if self.said.has_ended() {
            self.room.clear();
        }
        let tokenizer = self.setup.tokenizer;
        let mut turn = || {
            if let Some(line) =
                self.said.add(text, self.around, tokenizer, self.setup.special)?.filter(|_| self.setup.verbose)
            {
                template::show(&line, tokenizer);
            }
            self.respond(text)
        };
        let result = turn();
        if result.is_err() {
            self.said = before;
        }
        result
    }

    /// Gives another answer to what was said last; `None` where nothing was. Where that fails, the old one stays.
    pub fn regenerate(&mut self) -> Option<Result<Stop>> {
        let before = self.said.clone();
        let text = self.said.undo_answer()?;
        let result = self.respond(&text);
        if result.is_err() {
            self.said = before;
        }
        Some(result)
    }

    /// Prints the answer to what has been said, which ends with `text`.
    fn respond(&mut self, text: &str) -> Result<Stop> {
        let wanted = self.prompt()?;
        let mut wanted = self.room.without_dropped(wanted);
        let limits = self.make_room(&mut wanted);
        let mut shown = String::new();
        let json = self.setup.json;
        let answer = self.generate(&wanted, limits, &mut |piece| {
            if json {
                shown += piece;
                return Ok(());
            }
            print_generated(piece)
        })?;
        if answer.stop == Stop::Interrupted && answer.tokens.is_empty() {
            return Err(Interrupted.into());
        }
        self.said.add_answer(&answer, self.setup.limits.stop_strings);
        if json {
            let (setup, texts) = (self.setup, (text, shown.as_str()));
            let stop_strings = setup.limits.stop_strings;
            let mut object =
                report::json(setup.model, self.executor, texts, &answer, stop_strings, self.settings.seed());
            object["turn"] = self.n_turns.into();
            object["speculation"] = speculate::json(self.speculation.as_ref());
            print_json(object)?;
        } else {
            print("\n")?;
        }
        report::doubt(self.executor, &wanted, self.setup.worker);
        self.after(&answer);
        Ok(answer.stop)
    }

    /// The tokens of all that has been said.
    fn prompt(&self) -> Result<Vec<u32>> {
        match (&self.said, &self.chat) {
            (Said::Messages(messages), Some(chat)) => {
                let prompt = chat.encode(messages, self.room.most_tokens(self.executor.params().n_ctx))?;
                if self.setup.verbose {
                    template::show(&prompt, self.setup.tokenizer);
                }
                Ok(prompt.tokens)
            }
            (Said::Text(text), _) => Ok(text.tokens().to_vec()),
            (Said::Messages(_), None) => anyhow::bail!("there is no chat template"),
        }
    }

    /// Has `wanted` fit into the context. Returns the limits of the answer.
    fn make_room(&mut self, wanted: &mut Vec<u32>) -> Limits<'a> {
        let (said, chat) = (&self.said, &self.chat);
        let n_opening = || match (said, chat) {
            (Said::Messages(messages), Some(chat)) => chat.n_opening(messages),
            _ => 0,
        };
        let Setup { tokenizer, limits, special, .. } = *self.setup;
        let n_last =
            || said.last().and_then(|text| tokenizer.encode(text, special).ok()).map_or(0, |tokens| tokens.len());
        self.room.make(self.executor, (&mut self.cached, wanted), tokenizer, limits, (n_opening, n_last))
    }

    /// The answer to `wanted`, of which only what the executor does not hold yet is computed.
    fn generate(
        &mut self,
        wanted: &[u32],
        limits: Limits,
        show: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Generated> {
        let n_dropped = self.executor.n_dropped();
        // The last token always is, for its logits.
        let agreed = self.cached.iter().zip(wanted).take_while(|(a, b)| a == b).count();
        let common =
            self.executor.keep(agreed.min(self.room.usable(self.executor)).min(wanted.len().saturating_sub(1)));
        let common = stored::prompt(&mut self.session, self.executor, wanted).inspect_err(|_| {
            self.executor.keep(common);
            self.cached.truncate(agreed);
        })?;
        self.executor.remember_at(wanted.len().saturating_sub(OPENING).max(common));
        self.sampler.forget();
        wanted[..common].iter().for_each(|t| self.sampler.accept(*t));
        self.speculation.iter_mut().for_each(|speculation| speculation.set_text(&wanted[..common]));
        let (sampler, tokenizer) = (&mut *self.sampler, self.setup.tokenizer);
        let target = Target::new(self.executor, self.speculation.as_mut());
        let result = generate(target, tokenizer, sampler, &wanted[common..], limits, &Bar::new(), show);
        // Whatever went wrong, the executor then holds nothing but what `cached` says: less of it where it cannot forget just
        // the last ones, and then the next line computes them again.
        match &result {
            Ok(answer) => {
                self.cached = [wanted, &answer.tokens].concat();
                self.room.dropped_of(&mut self.cached, answer.n_dropped);
            }
            Err(_) if self.executor.n_dropped() > n_dropped => {
                self.cached.clear();
                self.executor.clear();
            }
            Err(_) => {
                self.executor.keep(common);
                self.cached.truncate(agreed);
            }
        }
        result
    }

    fn after(&mut self, answer: &Generated) {
        self.room.tell_dropped();
        if self.setup.stats {
            report::timings(self.executor, answer, self.settings.seed());
            report::layers(self.setup.model, self.executor);
            speculate::report(self.speculation.as_ref(), self.executor);
        }
        match answer.stop {
            Stop::EndOfText if self.chat.is_none() && !self.setup.single => {
                tell!("(the text has ended; the next line begins a new one)");
            }
            Stop::ContextFull => {
                let more = self.setup.model.config.has_room_beyond(self.executor.params().n_ctx);
                let advice = if more { ", a larger -c gives more room" } else { "" };
                self.room.tell_why_full(self.executor);
                tell!("the context is full; /reset starts over{advice}");
            }
            Stop::Interrupted => tell!("(stopped)"),
            _ => {}
        }
    }

    /// Forgets all that was said.
    pub fn forget(&mut self) {
        self.said.clear();
        self.unsaid.clear();
        self.cached.clear();
        self.executor.clear();
        self.room.clear();
    }
}
