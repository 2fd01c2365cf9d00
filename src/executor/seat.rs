//! Places of sequences on a device that remembers something of each.

use std::sync::{Arc, Mutex, PoisonError};

/// The places that a device has, of which each is lent to one sequence at a time.
pub(super) struct Seats {
    free: Arc<Mutex<Vec<usize>>>,
    n: usize,
}

impl Seats {
    /// `n` places, numbered from 0 on.
    pub fn new(n: usize) -> Self {
        Self { free: Arc::new(Mutex::new((0..n).rev().collect())), n }
    }

    /// How many there are.
    pub fn n(&self) -> usize {
        self.n
    }

    /// One that no sequence has, if there is one.
    pub fn take(&self) -> Option<Seat> {
        let number = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Seat { number, free: Arc::clone(&self.free) })
    }
}

/// A place that is lent; it is given back when it is dropped.
pub(super) struct Seat {
    number: usize,
    free: Arc<Mutex<Vec<usize>>>,
}

impl Seat {
    /// Its number.
    pub fn number(&self) -> usize {
        self.number
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_one_sequence_at_a_time_and_is_free_again_behind_it() {
        let seats = Seats::new(2);
        let (first, second) = (seats.take().unwrap(), seats.take().unwrap());
        assert_eq!((first.number(), second.number(), seats.n()), (0, 1, 2));
        assert!(seats.take().is_none());
        drop(first);
        assert_eq!(seats.take().map(|seat| seat.number()), Some(0));
        drop((seats, second));
    }
}
