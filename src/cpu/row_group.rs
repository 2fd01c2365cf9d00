//! Rows that are added together, so that the sums are loaded and stored less often.

#[cfg(target_arch = "x86_64")]
pub(super) use super::fetch::near as fetch;
use super::rows::Rows;

/// Rows added at a time.
pub(super) const AT_ONCE: usize = 4;

/// Some consecutive rows of a list. At its end, missing ones are its last row with a factor of 0.
pub(super) struct RowGroup<'a> {
    pub rows: [&'a [u8]; AT_ONCE],
    /// Rows that are a little further on.
    pub ahead: [&'a [u8]; AT_ONCE],
    pub a: [f32; AT_ONCE],
}

impl<'a> RowGroup<'a> {
    #[inline]
    pub fn new(rows: Rows<'a>, a: &[f32], start: usize) -> Self {
        let last = a.len() - 1;
        Self {
            rows: std::array::from_fn(|i| rows.get((start + i).min(last))),
            ahead: std::array::from_fn(|i| rows.ahead((start + i).min(last))),
            a: std::array::from_fn(|i| if start + i <= last { a[start + i] } else { 0.0 }),
        }
    }

    /// Fetches the cache line at `offset` of each row that is a little further on.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub fn fetch(&self, offset: usize) {
        for ahead in self.ahead {
            fetch(ahead, offset);
        }
    }
}
