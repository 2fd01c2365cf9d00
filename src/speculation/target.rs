//! What decodes a text: an executor, alone or with speculation.

use super::Speculation;
use crate::executor::Executor;
use anyhow::Result;
use std::time::{Duration, Instant};

/// An executor that decodes its own sequence token by token, for all that can be seen from outside. Within, it may hold tokens
/// that have only been guessed, until [`Target::settle`].
pub struct Target<'a, 'm, 'd> {
    executor: &'a mut Executor<'m>,
    speculation: Option<&'a mut Speculation<'d>>,
    /// Tokens of the last pass, its draft among them, and how many of them have come.
    n_pass: usize,
    n_come: usize,
    /// Time that it took.
    computing: Duration,
}

impl<'a, 'm> From<&'a mut Executor<'m>> for Target<'a, 'm, 'static> {
    fn from(executor: &'a mut Executor<'m>) -> Self {
        Self { executor, speculation: None, n_pass: 0, n_come: 0, computing: Duration::ZERO }
    }
}

impl<'a, 'm, 'd> Target<'a, 'm, 'd> {
    /// An executor with speculation, if there is any; alone where it has nothing to gain from that.
    pub fn new(executor: &'a mut Executor<'m>, speculation: Option<&'a mut Speculation<'d>>) -> Self {
        let speculation = speculation.filter(|_| executor.can_take_back());
        Self { executor, speculation, n_pass: 0, n_come: 0, computing: Duration::ZERO }
    }

    /// The executor, with nothing in it but what has come.
    ///
    /// # Errors
    /// As [`Target::settle`].
    pub fn executor(&mut self) -> Result<&mut Executor<'m>> {
        self.settle()?;
        Ok(self.executor)
    }

    /// How the executor was set up, and what it runs.
    pub fn run(&self) -> &Executor<'m> {
        self.executor
    }

    /// Tokens that have come.
    pub fn n_past(&self) -> usize {
        self.executor.n_past() - (self.n_pass - self.n_come)
    }

    /// `tokens` of a prompt follow.
    pub fn read(&mut self, tokens: &[u32]) {
        if let Some(speculation) = &mut self.speculation {
            tokens.iter().for_each(|token| speculation.push(*token));
        }
    }

    /// Takes in one token and returns the logits after it (`[n_vocab]`). At most `n_more` further ones are of use.
    ///
    /// # Errors
    /// As [`Executor::decode`].
    pub fn decode(&mut self, token: u32, n_more: usize) -> Result<&[f32]> {
        let Some(speculation) = &mut self.speculation else { return self.executor.decode(token) };
        if let Some(guess) = speculation.draft.get(self.n_come.wrapping_sub(1)).filter(|_| self.n_come < self.n_pass) {
            let came_true = guess.token == token;
            if came_true {
                self.n_come += 1;
            }
            if !came_true || self.n_come == self.n_pass {
                self.end_pass(true)?;
            }
            if came_true {
                if let Some(speculation) = &mut self.speculation {
                    speculation.push(token);
                }
                return Ok(self.executor.logits_of(self.at()));
            }
        }
        self.begin_pass(token, n_more)
    }

    fn at(&self) -> usize {
        self.n_come.saturating_sub(1)
    }

    /// A pass of a token and a draft.
    fn begin_pass(&mut self, token: u32, n_more: usize) -> Result<&[f32]> {
        let Some(speculation) = &mut self.speculation else { return self.executor.decode(token) };
        speculation.push(token);
        let params = self.executor.params();
        let room = params.n_ctx.saturating_sub(self.executor.n_past() + 1);
        speculation.plan(n_more.min(room).min(self.executor.most_tentative() - 1))?;
        let tokens: Vec<u32> = [token].into_iter().chain(speculation.draft.iter().map(|guess| guess.token)).collect();
        (self.n_pass, self.n_come) = (0, 0);
        let start = Instant::now();
        if let [token] = tokens[..] {
            self.executor.decode(token)?;
            speculation.learn(start.elapsed(), 0, true);
        } else {
            self.executor.decode_tentatively(&tokens)?;
            self.computing = start.elapsed();
            (self.n_pass, self.n_come) = (tokens.len(), 1);
        }
        Ok(self.executor.logits_of(0))
    }

    /// The tokens of the pass that have come stay, and no others. `all_seen` is whether one has come in place of the next.
    fn end_pass(&mut self, all_seen: bool) -> Result<()> {
        let start = Instant::now();
        let done = self.executor.settle(self.n_come);
        let computing = self.computing + start.elapsed();
        self.n_pass = self.n_come;
        if let Some(speculation) = &mut self.speculation {
            speculation.learn(computing, self.n_come - 1, all_seen);
        }
        done
    }

    /// Has the executor hold nothing but what has come.
    ///
    /// # Errors
    /// As [`Executor::settle`].
    pub fn settle(&mut self) -> Result<()> {
        if self.n_come < self.n_pass { self.end_pass(false) } else { Ok(()) }
    }
}
