//! How much is drafted, and by whom.

use super::Speculation;
use super::drafter::Guess;
use anyhow::Result;

/// A guess that is reached less often than that is not worth its place, whatever a pass costs.
const LEAST_REACH: f64 = 0.04;

/// What a source would draft.
#[derive(Default)]
struct Offer {
    guesses: Vec<Guess>,
    /// How many times as fast as single tokens it is expected to be.
    gain: f64,
}

impl Speculation<'_> {
    /// Makes the draft of the next pass, of at most `most` tokens, behind the text.
    ///
    /// # Errors
    /// When a drafter fails.
    pub(super) fn plan(&mut self, most: usize) -> Result<()> {
        self.draft.clear();
        self.watched.clear();
        let most = most.min(self.lengths.most);
        if most == 0 || most < self.lengths.least || self.text.is_empty() {
            return Ok(());
        }
        let mut best = Offer::default();
        for source in 0..self.sources.len() {
            if !self.is_worth_asking(source, most, best.gain) {
                continue;
            }
            let offer = self.offer(source, most)?;
            if self.sources[source].drafter.is_free() {
                self.watched.extend(offer.guesses.first().map(|guess| (source, *guess)));
            }
            if !offer.guesses.is_empty() && (best.guesses.is_empty() || offer.gain > best.gain) {
                (best, self.from) = (offer, source);
            }
        }
        if self.accepts(&best) {
            let from = self.from;
            self.watched.retain(|(source, _)| *source != from);
            self.draft = best.guesses;
        }
        Ok(())
    }

    /// Whether a draft is made of what was offered.
    fn accepts(&mut self, offer: &Offer) -> bool {
        let n = offer.guesses.len();
        if self.lengths.least > 0 {
            return n >= self.lengths.least;
        }
        n > 0
            && self.economy.is_ready()
            && self.economy.can_lose(n, self.drafting.as_secs_f64())
            && (self.economy.pays(offer.gain) || self.is_likely(offer) && self.economy.tries())
    }

    /// Whether what is offered comes true so often that it would pay if passes were what they may be: of the times of passes,
    /// a few that were disturbed may be all that is known.
    fn is_likely(&self, offer: &Offer) -> bool {
        offer.guesses.first().is_some_and(|guess| self.sources[self.from].share(*guess) > 0.5)
    }

    /// Whether a source's guesses, which cost something, are likely to be better than a gain of `than`.
    fn is_worth_asking(&mut self, source: usize, most: usize, than: f64) -> bool {
        let known = &self.sources[source];
        if known.drafter.is_free() || self.lengths.least > 0 {
            return true;
        }
        if !self.economy.is_ready() || !self.economy.can_lose(1, known.seconds(1)) {
            return false;
        }
        let share = known.share_of_all();
        let (mut tokens, mut reach, mut gain) = (1.0, 1.0, 0.0f64);
        for n in 1..=most {
            reach *= share;
            tokens += reach;
            gain = gain.max(self.economy.gain(n, known.seconds(n), tokens));
        }
        gain > than && (self.economy.pays(gain) || self.economy.tries())
    }

    /// What a source would draft: as many tokens as are expected to give most tokens in a second.
    fn offer(&mut self, source: usize, most: usize) -> Result<Offer> {
        let is_free = self.sources[source].drafter.is_free();
        let forced = self.lengths.least > 0;
        let (mut guesses, mut tokens, mut reach) = (Vec::new(), 1.0, 1.0);
        let (mut draft, mut best, mut n_best) = (Vec::new(), 0.0f64, 0);
        while guesses.len() < most && (forced || reach >= LEAST_REACH) {
            let n = guesses.len() + 1;
            // A further guess costs time: is it likely to be worth that?
            if !is_free && !forced && n > 1 {
                let known = &self.sources[source];
                let further = tokens + reach * known.share_of_all();
                if self.economy.gain(n, known.seconds(n), further) < best {
                    break;
                }
            }
            let Some(guess) = self.guess(source, &draft)? else { break };
            guesses.push(guess);
            draft.push(guess.token);
            reach *= self.sources[source].share(guess);
            tokens += reach;
            let gain = self.economy.gain(n, self.sources[source].seconds(n), tokens);
            if gain > best || forced {
                (best, n_best) = (gain.max(best), n);
            }
        }
        guesses.truncate(n_best);
        Ok(Offer { guesses, gain: best })
    }
}
