//! States of recurrent layers, and copies of them that one can go back to.

use crate::cpu::ssm::Sizes;
use crate::model::{Layer, Model, Role};
use anyhow::{Context, Result, ensure};
use std::sync::Arc;

/// Copies that are kept at the most.
const MOST_COPIES: usize = 4;
/// Bytes of all of them at the most, unless one alone has more.
const MOST_BYTES: usize = 256 << 20;

/// What a recurrent layer remembers of a sequence.
#[derive(Clone)]
pub(super) struct State {
    /// Channels of the last tokens before the convolution, the oldest first: `[n_conv - 1][n_channels]`.
    pub conv: Vec<f32>,
    /// `[n_heads][n_state][head_dim]`.
    pub heads: Vec<f32>,
}

impl State {
    fn new(sizes: Sizes) -> Self {
        Self { conv: vec![0.0; sizes.n_conv_state()], heads: vec![0.0; sizes.n_states()] }
    }
}

/// The states of all layers, by layer; `None` for those that do not recur.
type States = Vec<Option<Arc<State>>>;

/// The states behind the last token, and behind some earlier ones: what both have unchanged is there once.
pub(super) struct Recurrent {
    sizes: Sizes,
    live: States,
    /// With the number of tokens that they are behind, the oldest first.
    copies: Vec<(usize, States)>,
    /// Those before tokens that may be taken back.
    mark: Option<States>,
    most_copies: usize,
}

impl Recurrent {
    /// Those of a sequence of `model` without tokens; `None` where nothing recurs.
    ///
    /// # Errors
    /// When they do not fit in memory.
    pub fn new(model: &Model) -> Result<Option<Self>> {
        let Some(ssm) = model.config.ssm else { return Ok(None) };
        let sizes = ssm.sizes();
        let recurs = |layer: &Layer| layer.find(Role::SsmIn).is_some();
        let layers = &model.weights.layers;
        let n_floats = (sizes.n_states() + sizes.n_conv_state()) * layers.iter().filter(|layer| recurs(layer)).count();
        // Zeroed vectors cannot be asked for in a way that may fail.
        let fits = Vec::<f32>::new().try_reserve_exact(n_floats);
        fits.ok().context("the states of recurrent layers do not fit in memory")?;
        let live = layers.iter().map(|layer| recurs(layer).then(|| Arc::new(State::new(sizes)))).collect();
        let n_bytes = (n_floats * size_of::<f32>()).max(1);
        let most_copies = (MOST_BYTES / n_bytes).clamp(1, MOST_COPIES);
        Ok(Some(Self { sizes, live, copies: Vec::new(), mark: None, most_copies }))
    }

    /// Whether they are of the same layers and sizes.
    pub fn is_like(&self, other: &Self) -> bool {
        let alike = self.live.iter().map(Option::is_some).eq(other.live.iter().map(Option::is_some));
        self.sizes == other.sizes && alike
    }

    /// Bytes of all states, each counted once.
    pub fn n_bytes(&self) -> usize {
        let mut seen: Vec<*const State> = Vec::new();
        let all = self.copies.iter().map(|(_, states)| states).chain(&self.mark).chain([&self.live]);
        all.flatten().flatten().for_each(|state| seen.push(Arc::as_ptr(state)));
        seen.sort_unstable();
        seen.dedup();
        seen.len() * (self.sizes.n_states() + self.sizes.n_conv_state()) * size_of::<f32>()
    }

    /// That of a layer, to change: taken apart from the copies that share it.
    ///
    /// # Panics
    /// When the layer does not recur.
    pub fn state(&mut self, layer: usize) -> &mut State {
        match &mut self.live[layer] {
            Some(state) => Arc::make_mut(state),
            None => panic!("layer {layer} does not recur"),
        }
    }

    /// That of a layer, to be written anew as a whole: of its own, whatever it holds.
    ///
    /// # Panics
    /// When the layer does not recur.
    pub fn replaced(&mut self, layer: usize) -> &mut State {
        let sizes = self.sizes;
        let Some(state) = &mut self.live[layer] else { panic!("layer {layer} does not recur") };
        if Arc::get_mut(state).is_none() {
            *state = Arc::new(State::new(sizes));
        }
        Arc::make_mut(state)
    }

    /// That of a layer; `None` where it does not recur.
    pub fn of_layer(&self, layer: usize) -> Option<&State> {
        self.live[layer].as_deref()
    }

    /// The numbers of tokens behind which states are kept, and these: of each layer that recurs.
    pub fn places(&self) -> impl Iterator<Item = (usize, impl Iterator<Item = &State>)> {
        self.copies.iter().map(|(at, states)| (*at, states.iter().flatten().map(|state| &**state)))
    }

    /// Has `change` write each of the states anew, apart from the copies.
    pub fn change_all(&mut self, mut change: impl FnMut(&mut State)) {
        for state in self.live.iter_mut().flatten() {
            change(Arc::make_mut(state));
        }
    }

    /// Keeps the states as they are behind `n_past` tokens. The oldest copy goes where there are too many.
    pub fn keep(&mut self, n_past: usize) {
        self.copies.retain(|(n, _)| *n != n_past);
        self.copies.push((n_past, self.live.clone()));
        if self.copies.len() > self.most_copies {
            self.copies.remove(0);
        }
    }

    /// Numbers of tokens, up to `n_past`, behind which the states are kept, the greatest first.
    pub fn kept(&self, n_past: usize) -> Vec<usize> {
        let mut kept: Vec<usize> = self.copies.iter().map(|(n, _)| *n).filter(|n| *n <= n_past).collect();
        kept.sort_unstable_by(|a, b| b.cmp(a));
        kept
    }

    /// Whether there is a way back to `n_past` tokens from `now`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn check_return(&self, now: usize, n_past: usize) -> Result<()> {
        ensure!(
            n_past == 0 || self.copies.iter().any(|(n, _)| *n == n_past),
            "after {now} tokens the state of recurrent layers cannot go back to the first {n_past}, which must be computed again"
        );
        Ok(())
    }

    /// Makes the states those behind `n_past` tokens, after [`Recurrent::check_return`], and forgets later ones.
    pub fn go_back(&mut self, n_past: usize) {
        self.copies.retain(|(n, _)| *n <= n_past);
        match self.copies.iter().find(|(n, _)| *n == n_past) {
            Some((_, states)) => self.live.clone_from(states),
            None => self.clear(),
        }
    }

    /// Makes the states those of `other` behind `n` tokens, of which it has `n_past`; `false` where it does not have them.
    pub fn copy_from(&mut self, other: &Self, n: usize, n_past: usize) -> bool {
        let kept = other.copies.iter().find(|(at, _)| *at == n).map(|(_, states)| states);
        let Some(states) = kept.or((n == n_past).then_some(&other.live)) else { return false };
        self.live.clone_from(states);
        self.copies.clear();
        true
    }

    /// The next tokens may be taken back.
    pub fn mark(&mut self) {
        self.mark = Some(self.live.clone());
    }

    /// The tokens since the mark stay, or all of them go.
    pub fn leave_mark(&mut self, stay: bool) {
        if let Some(states) = self.mark.take().filter(|_| !stay) {
            self.live = states;
        }
    }

    /// Makes the states those of no tokens.
    pub fn clear(&mut self) {
        self.copies.clear();
        for state in self.live.iter_mut().flatten() {
            match Arc::get_mut(state) {
                Some(state) => {
                    state.conv.fill(0.0);
                    state.heads.fill(0.0);
                }
                None => *state = Arc::new(State::new(self.sizes)),
            }
        }
    }
}
