//! What was counted of tokens that may be taken back.

/// Events of a batch, by the tokens that they are of.
#[derive(Debug, Clone)]
pub(super) struct Journal<E> {
    /// Whether events are kept here until it is known which tokens stay.
    pub is_open: bool,
    /// The token of the batch that is counted.
    pub token: u32,
    /// What was counted, with the token of the batch that it was of.
    pub events: Vec<(u32, E)>,
}

impl<E> Default for Journal<E> {
    fn default() -> Self {
        Self { is_open: false, token: 0, events: Vec::new() }
    }
}

impl<E> Journal<E> {
    /// Keeps an event, where it is open.
    pub fn takes(&mut self, event: E) -> bool {
        if self.is_open {
            self.events.push((self.token, event));
        }
        self.is_open
    }
}
