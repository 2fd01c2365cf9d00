//! Results that come in any order and are wanted in that of their numbers.

use std::collections::BTreeMap;

/// Holds results back until those before them are there.
pub struct InOrder<T> {
    next: usize,
    held: BTreeMap<usize, T>,
}

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        Self { next: 0, held: BTreeMap::new() }
    }
}

impl<T> InOrder<T> {
    /// Takes the result of that number.
    pub fn push(&mut self, number: usize, result: T) {
        self.held.insert(number, result);
    }

    /// The result that is next, once it is there.
    pub fn next_ready(&mut self) -> Option<T> {
        let ready = self.held.remove(&self.next)?;
        self.next += 1;
        Some(ready)
    }

    /// Those that are left where no others come, in their order.
    pub fn rest(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.held).into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_waits_for_those_before_it_and_at_the_end_for_none() {
        let mut order = InOrder::default();
        let mut got = Vec::new();
        for (number, result) in [(2, "c"), (0, "a"), (1, "b"), (5, "f"), (4, "e")] {
            order.push(number, result);
            got.push(std::iter::from_fn(|| order.next_ready()).collect::<String>());
        }
        assert_eq!(got, ["", "a", "bc", "", ""]);
        assert_eq!(order.rest().collect::<String>(), "ef");
        assert_eq!(order.rest().count(), 0);
    }
}
