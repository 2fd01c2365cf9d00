//! How much is drafted, and by whom.

use super::Speculation;
use super::drafter::Guess;
use anyhow::Result;

/// A guess that is reached less often than that is not worth its place, whatever a pass costs.
const LEAST_REACH: f64 = 0.04;

/// What a source would draft.
#[derive(Default)]
struct Offer {
    /// Its first guess, also where nothing is drafted.
    first: Option<Guess>,
    guesses: Vec<Guess>,
    /// How many times as fast as single tokens it is hoped to be, and expected to be.
    hope: f64,
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
        let compares = self.lengths.least == 0 && self.economy.must_compare();
        let mut best = Offer::default();
        for source in 0..self.sources.len() {
            let is_free = self.sources[source].drafter.is_free();
            if !is_free && (compares || !self.is_worth_asking(source, most, best.hope)) {
                continue;
            }
            let offer = self.offer(source, most)?;
            if is_free {
                self.watched.extend(offer.first.map(|guess| (source, guess)));
            }
            if !offer.guesses.is_empty() && (best.guesses.is_empty() || offer.hope > best.hope) {
                (best, self.from) = (offer, source);
            }
        }
        if !compares && self.accepts(&best) {
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
        let is_tried = self.economy.is_steady() && self.economy.pays(offer.hope);
        let pays = self.economy.pays(offer.gain) || is_tried;
        n > 0 && self.economy.can_lose(n, self.drafting.as_secs_f64()) && (pays || self.economy.tries())
    }

    /// Whether a source's guesses, which cost something, are likely to be better than a gain of `than`.
    fn is_worth_asking(&mut self, source: usize, most: usize, than: f64) -> bool {
        let known = &self.sources[source];
        if self.lengths.least > 0 {
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
        let (mut draft, mut best, mut n_best) = (Vec::new(), Offer::default(), 0);
        while guesses.len() < most && (forced || reach >= LEAST_REACH) {
            let n = guesses.len() + 1;
            // A further guess costs time: is it likely to be worth that?
            if !is_free && !forced && n > 1 {
                let known = &self.sources[source];
                let further = tokens + reach * known.share_of_all();
                let drafting = known.seconds(n);
                if self.economy.gain(n, drafting, further) < best.gain || !self.economy.can_lose(n, drafting) {
                    break;
                }
            }
            let Some(guess) = self.guess(source, &draft)? else { break };
            guesses.push(guess);
            draft.push(guess.token);
            reach *= self.sources[source].share(guess);
            tokens += reach;
            let drafting = self.sources[source].seconds(n);
            let hope = self.economy.hope(n, drafting, tokens);
            if forced || hope > best.hope && self.economy.can_lose(n, drafting) {
                (best.hope, best.gain) = (hope, self.economy.gain(n, drafting, tokens));
                n_best = n;
            }
        }
        best.first = guesses.first().copied();
        guesses.truncate(n_best);
        Ok(Offer { guesses, ..best })
    }
}
