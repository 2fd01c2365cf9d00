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
        let is_left_to_it = self.lengths.least == 0;
        let compares = is_left_to_it && self.economy.must_compare();
        // Right after a disturbance a trial would tell nothing.
        let is_due = is_left_to_it && self.economy.is_steady() && self.economy.is_due();
        let (mut best, mut is_tried) = (Offer::default(), false);
        for source in 0..self.sources.len() {
            let is_free = self.sources[source].drafter.is_free();
            if !is_free {
                let gain = if compares { 0.0 } else { self.expected_gain(source, most) };
                let pays = self.economy.pays(gain);
                if gain <= best.hope || !pays && !is_due {
                    continue;
                }
                is_tried |= !pays;
            }
            let offer = self.offer(source, most)?;
            if is_free {
                self.watched.extend(offer.first.map(|guess| (source, guess)));
            }
            if !offer.guesses.is_empty() && (best.guesses.is_empty() || offer.hope > best.hope) {
                (best, self.from) = (offer, source);
            }
        }
        if !compares && self.accepts(&best, is_due) {
            let from = self.from;
            self.watched.retain(|(source, _)| *source != from);
            is_tried |= is_due && !self.pays(&best);
            self.draft = best.guesses;
        }
        if is_tried {
            self.economy.tried();
        }
        Ok(())
    }

    /// Whether a draft is made of what was offered.
    fn accepts(&self, offer: &Offer, is_due: bool) -> bool {
        let n = offer.guesses.len();
        if self.lengths.least > 0 {
            return n >= self.lengths.least;
        }
        n > 0 && (self.pays(offer) || is_due) && self.economy.can_lose(n, self.drafting.as_secs_f64())
    }

    /// Whether what was offered is expected to pay, or can be hoped to.
    fn pays(&self, offer: &Offer) -> bool {
        self.economy.pays(offer.gain) || self.economy.is_steady() && self.economy.pays(offer.hope)
    }

    /// How many times as fast as single tokens the guesses of a source, which cost something, are likely to be at best; 0 where there
    /// is no room to lose one.
    fn expected_gain(&self, source: usize, most: usize) -> f64 {
        let known = &self.sources[source];
        if self.lengths.least > 0 {
            return f64::INFINITY;
        }
        if !self.economy.is_ready() || !self.economy.can_lose(1, known.seconds(1)) {
            return 0.0;
        }
        let share = known.share_of_all();
        let (mut tokens, mut reach, mut gain) = (1.0, 1.0, 0.0f64);
        for n in 1..=most {
            reach *= share;
            tokens += reach;
            gain = gain.max(self.economy.gain(n, known.seconds(n), tokens));
        }
        gain
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
