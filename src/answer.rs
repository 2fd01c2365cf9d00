//! An answer as it is drawn: token by token, until something ends it.

use crate::context::Shift;
use crate::sampler::Sampler;
use crate::stop_strings::StopStrings;
use crate::tokenizer::{TextStream, Tokenizer};
use anyhow::Result;

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The model ended its text, or the grammar came to its end.
    EndOfText,
    /// One of [`Limits::stop_strings`], by its place there.
    StopString(usize),
    /// As many tokens as asked for.
    Length,
    /// No room in the context.
    ContextFull,
    /// The user.
    Interrupted,
}

impl Stop {
    /// Name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndOfText => "eos",
            Self::StopString(_) => "stop_string",
            Self::Length => "length",
            Self::ContextFull => "context",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Settings of one generation.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'a> {
    /// Tokens at most; `None` is until the text or the context ends.
    pub n_predict: Option<usize>,
    /// Never end the text.
    pub ignore_eos: bool,
    /// Print special tokens as the vocabulary spells them, with the one that ends the text.
    pub show_special: bool,
    /// Texts before which the generation ends, also where they come in several tokens or are the spelling of a special one.
    pub stop_strings: &'a [String],
    /// Where the context is full, goes on; `None` is to end there.
    pub shift: Option<Shift>,
}

/// What [`Answer::next`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawn {
    /// A token, which is to be fed back.
    Token(u32),
    /// The end.
    End(Stop),
}

/// What was drawn so far of one answer, and what may still become a stop string.
pub struct Answer<'a> {
    limits: Limits<'a>,
    /// Tokens, without the one that ended the text, but with those of a stop string.
    pub tokens: Vec<u32>,
    /// Their text, without special tokens and the stop string.
    pub text: String,
    stream: TextStream,
    stops: StopStrings<'a>,
    /// The token that ended the text.
    end: Option<u32>,
}

impl<'a> Answer<'a> {
    /// Of which nothing was drawn yet.
    pub fn new(limits: Limits<'a>) -> Self {
        let stops = StopStrings::new(limits.stop_strings);
        Self { limits, tokens: Vec::new(), text: String::new(), stream: TextStream::new(), stops, end: None }
    }

    /// What ends it before a further token is drawn.
    fn is_complete(&self, sampler: &Sampler) -> Option<Stop> {
        if sampler.is_over() {
            return Some(Stop::EndOfText);
        }
        (self.limits.n_predict == Some(self.tokens.len())).then_some(Stop::Length)
    }

    /// Draws the next token from `logits`, of the tokens of the vocabulary alone, and takes it up; `print` gets what of the text
    /// is whole characters and cannot become a stop string.
    ///
    /// # Errors
    /// When no token can follow as the sampler's grammar wants, or `print` fails.
    pub fn next(
        &mut self,
        logits: &mut [f32],
        sampler: &mut Sampler,
        tokenizer: &Tokenizer,
        print: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Drawn> {
        if let Some(stop) = self.is_complete(sampler) {
            return Ok(Drawn::End(stop));
        }
        if self.limits.ignore_eos {
            let ends = (0..logits.len() as u32).filter(|t| tokenizer.is_end_of_generation(*t));
            ends.for_each(|t| logits[t as usize] = f32::NEG_INFINITY);
        }
        let token = sampler.sample(logits)?;
        if tokenizer.is_end_of_generation(token) {
            self.end = Some(token);
            return Ok(Drawn::End(Stop::EndOfText));
        }
        let accepted = sampler.accept_answer(token);
        self.tokens.push(token);
        let piece = self.stops.push(&self.stream.push(tokenizer.token_bytes(token)));
        self.text += &piece.text;
        print(&piece.text)?;
        if let Some(stop) = piece.stop {
            // What the token goes on with belongs to nothing.
            self.stream = TextStream::new();
            return Ok(Drawn::End(Stop::StopString(stop)));
        }
        let special = tokenizer.unprinted_text(token);
        let stop_strings = self.limits.stop_strings;
        if let Some(stop) = stop_strings.iter().position(|stop| !stop.is_empty() && *stop == special) {
            return Ok(Drawn::End(Stop::StopString(stop)));
        }
        if self.limits.show_special && !special.is_empty() {
            let held = self.stops.finish();
            self.text += &held;
            print(&(held + &special))?;
        }
        accepted?;
        Ok(self.is_complete(sampler).map_or(Drawn::Token(token), Drawn::End))
    }

    /// Prints what was held back, where no more comes.
    ///
    /// # Errors
    /// When `print` fails.
    pub fn finish(&mut self, tokenizer: &Tokenizer, print: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        let rest = self.stops.push(&self.stream.finish()).text + &self.stops.finish();
        self.text += &rest;
        print(&rest)?;
        if let Some(end) = self.end.filter(|_| self.limits.show_special) {
            print(&tokenizer.unprinted_text(end))?;
        }
        Ok(())
    }
}
