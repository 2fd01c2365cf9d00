//! When the system is asked for weights ahead: while passes had to wait for the disk lately.

use crate::files::waits_for_pages;

/// Asks for what a router has chosen, as long as it helps. Where all of a model is in memory, the question is a look at
/// each page for nothing; so the count of waits decides, which takes one call per pass.
pub(super) struct Ahead {
    waits: u64,
    /// Passes for which it goes on.
    left: u64,
}

/// Passes after which a model that nobody waited for counts as in memory. More than one, because asking ahead in time is
/// what makes the waits go away. Fewer where there were fewer waits: what a pass asks takes about as long as one of them.
const LINGER: u64 = 64;

impl Default for Ahead {
    /// The first pass asks: the file may never have been read.
    fn default() -> Self {
        Self { waits: waits_for_pages(), left: 2 }
    }
}

impl Ahead {
    /// A pass begins.
    pub fn begin(&mut self) {
        self.begins_after(waits_for_pages());
    }

    fn begins_after(&mut self, waits: u64) {
        let waited = waits.saturating_sub(std::mem::replace(&mut self.waits, waits));
        self.left = self.left.saturating_sub(1).max(waited.min(LINGER));
    }

    /// Whether this pass asks.
    pub fn asks(&self) -> bool {
        self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_at_first_and_for_a_while_after_each_wait() {
        let mut ahead = Ahead { waits: 7, left: 2 };
        let mut asked = |waits: u64, n: u32| {
            let asks = (0..n).filter(|_| {
                ahead.begins_after(waits);
                ahead.asks()
            });
            asks.count() as u64
        };
        assert_eq!(asked(7, 10), 1);
        assert_eq!(asked(9, 10), 2);
        assert_eq!(asked(1009, 1000), LINGER);
        assert_eq!(asked(1009, 10), 0);
        assert_eq!((asked(1109, 1), asked(1110, 1000)), (1, LINGER - 1));
        assert!(waits_for_pages() <= waits_for_pages());
    }
}
