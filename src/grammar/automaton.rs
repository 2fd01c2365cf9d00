//! Runs a grammar byte by byte: which bytes may come next, and what then.

use super::graph::{Edge, Graph};
use anyhow::{Result, ensure};
use std::collections::{HashMap, HashSet};

/// A state of the automaton.
pub type State = u32;
/// No text that begins so fits the grammar.
pub const DEAD: State = u32::MAX;
/// Not yet known.
const UNKNOWN: State = u32::MAX - 1;
/// Where rules return to when the whole text is over.
const BOTTOM: u32 = u32::MAX;

/// Places in the grammar that one text may have led to at most: more are a slip, and would take forever.
const MOST_PLACES: usize = 20_000;
/// States that are kept; with more, all are found anew.
const MOST_STATES: usize = 8_192;
/// Rules within rules that are kept.
const MOST_FRAMES: usize = 2_000_000;

/// A place: a node, and where its rule returns to.
type Place = (u32, u32);

/// The places that a text may have led to.
#[derive(Debug)]
struct Known {
    /// Those with an edge that takes a byte or a token, in order.
    places: Vec<Place>,
    /// Whether the text may end here.
    complete: bool,
    /// The state after each byte, as far as it is known; `None` before one is.
    next: Option<Box<[State; 256]>>,
}

/// A grammar that is run. States are found as they are needed, and kept: where a text goes on and on in the same way, each byte is
/// one look into a table.
#[derive(Debug)]
pub struct Automaton {
    graph: Graph,
    /// Node to go on with, and the frame around it.
    frames: Vec<(u32, u32)>,
    frame_numbers: HashMap<(u32, u32), u32>,
    states: Vec<Known>,
    state_numbers: HashMap<(Vec<Place>, bool), State>,
}

impl Automaton {
    /// At the beginning of the first rule.
    ///
    /// # Errors
    /// As [`Automaton::after`].
    pub fn new(graph: Graph) -> Result<(Self, State)> {
        let (frames, frame_numbers) = (Vec::new(), HashMap::new());
        let mut new = Self { graph, frames, frame_numbers, states: Vec::new(), state_numbers: HashMap::new() };
        let start = new.graph.starts.first().copied().unwrap_or(0);
        let state = new.state(vec![(start, BOTTOM)])?;
        Ok((new, state))
    }

    /// Whether the text may end here.
    pub fn is_complete(&self, state: State) -> bool {
        self.states.get(state as usize).is_some_and(|known| known.complete)
    }

    /// The state after another byte; [`DEAD`] where that does not fit.
    ///
    /// # Errors
    /// When the grammar is so ambiguous that it would take forever.
    pub fn after(&mut self, state: State, byte: u8) -> Result<State> {
        let Some(known) = self.states.get(state as usize) else { return Ok(DEAD) };
        if let Some(next) = known.next.as_ref().map(|next| next[usize::from(byte)]).filter(|next| *next != UNKNOWN) {
            return Ok(next);
        }
        let mut places = Vec::new();
        for &(node, frame) in &known.places {
            for edge in &self.graph.edges[node as usize] {
                match *edge {
                    Edge::Bytes(first, last, to) if (first..=last).contains(&byte) => places.push((to, frame)),
                    _ => {}
                }
            }
        }
        let next = self.state(places)?;
        let known = &mut self.states[state as usize].next;
        known.get_or_insert_with(|| Box::new([UNKNOWN; 256]))[usize::from(byte)] = next;
        Ok(next)
    }

    /// The tokens that the grammar names as what may come next: each with whether it is any other.
    pub fn tokens(&self, state: State) -> impl Iterator<Item = (u32, bool)> {
        let places = self.states.get(state as usize).map_or(&[][..], |known| &known.places);
        places.iter().flat_map(|(node, _)| &self.graph.edges[*node as usize]).filter_map(|edge| match *edge {
            Edge::Token(id, other, _) => Some((id, other)),
            _ => None,
        })
    }

    /// The state after a token, of which `bytes` are the text: as text, or named by the grammar.
    ///
    /// # Errors
    /// As [`Automaton::after`].
    pub fn after_token(&mut self, state: State, token: u32, bytes: &[u8]) -> Result<State> {
        let mut by_text = if bytes.is_empty() { DEAD } else { state };
        for byte in bytes {
            by_text = self.after(by_text, *byte)?;
        }
        let mut named = Vec::new();
        if let Some(known) = self.states.get(state as usize) {
            for &(node, frame) in &known.places {
                for edge in &self.graph.edges[node as usize] {
                    match *edge {
                        Edge::Token(id, other, to) if (id == token) != other => named.push((to, frame)),
                        _ => {}
                    }
                }
            }
        }
        if named.is_empty() {
            return Ok(by_text);
        }
        let complete = self.is_complete(by_text);
        named.extend(self.states.get(by_text as usize).into_iter().flat_map(|known| &known.places));
        self.state_with(named, complete)
    }

    /// Whether it is time to forget the states, because there are many.
    pub fn is_full(&self) -> bool {
        self.states.len() > MOST_STATES
    }

    /// Forgets all states but these, which get other numbers.
    pub fn forget_all_but(&mut self, kept: [&mut State; 2]) {
        let mut known = std::mem::take(&mut self.states);
        self.state_numbers.clear();
        let mut places =
            |state: &State| known.get_mut(*state as usize).map(|known| (known.places.clone(), known.complete));
        let places = [places(kept[0]), places(kept[1])];
        for (state, places) in kept.into_iter().zip(places) {
            *state = places.map_or(DEAD, |(places, complete)| self.number(places, complete));
        }
    }

    fn state(&mut self, places: Vec<Place>) -> Result<State> {
        self.state_with(places, false)
    }

    /// The state of `places` and all that can be reached from them with no text.
    fn state_with(&mut self, places: Vec<Place>, mut complete: bool) -> Result<State> {
        let (mut seen, mut wait, mut found) = (HashSet::new(), places, Vec::new());
        while let Some((node, frame)) = wait.pop() {
            if !seen.insert((node, frame)) {
                continue;
            }
            ensure!(seen.len() <= MOST_PLACES, "the grammar is too ambiguous: one text may mean too many things");
            let edges = &self.graph.edges[node as usize];
            let mut takes = false;
            for at in 0..edges.len() {
                match self.graph.edges[node as usize][at] {
                    Edge::Free(to) => wait.push((to, frame)),
                    Edge::Call(start, to) => wait.push((start, self.frame(to, frame)?)),
                    Edge::Bytes(..) | Edge::Token(..) => takes = true,
                    Edge::Return => match self.frames.get(frame as usize) {
                        Some(place) => wait.push(*place),
                        None => complete = true,
                    },
                }
            }
            if takes {
                found.push((node, frame));
            }
        }
        if found.is_empty() && !complete {
            return Ok(DEAD);
        }
        found.sort_unstable();
        Ok(self.number(found, complete))
    }

    fn number(&mut self, places: Vec<Place>, complete: bool) -> State {
        let next = self.states.len() as u32;
        let known = self.state_numbers.entry((places, complete));
        let places = known.key().0.clone();
        let number = *known.or_insert(next);
        if number == next {
            self.states.push(Known { places, complete, next: None });
        }
        number
    }

    /// The frame that goes on at `node` within `around`. What would do nothing but return is left out, so that a rule that ends
    /// with itself goes no deeper.
    fn frame(&mut self, node: u32, around: u32) -> Result<u32> {
        if self.only_returns(node) {
            return Ok(around);
        }
        let next = self.frames.len() as u32;
        let number = *self.frame_numbers.entry((node, around)).or_insert(next);
        if number == next {
            ensure!(self.frames.len() < MOST_FRAMES, "the text is nested too deeply for the grammar");
            self.frames.push((node, around));
        }
        Ok(number)
    }

    fn only_returns(&self, mut node: u32) -> bool {
        // A circle of nothing has another way out, so it is not only edges of this kind.
        for _ in 0..8 {
            match self.graph.edges[node as usize][..] {
                [Edge::Return] => return true,
                [Edge::Free(to)] => node = to,
                _ => return false,
            }
        }
        false
    }
}
