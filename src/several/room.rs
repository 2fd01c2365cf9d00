//! Whether the memory holds so many sequences.

use crate::units::Bytes;

/// Memory that `n` sequences need, where that is more than is free: `each` of them so much, and all but the first less what they
/// have with it.
pub fn lacking(n: usize, each: Bytes, shared: Bytes, free: Option<Bytes>) -> Option<Bytes> {
    let further = each.0.saturating_sub(shared.0).saturating_mul(n.saturating_sub(1) as u64);
    let needed = Bytes(each.0.saturating_add(further));
    free.filter(|free| *free < needed).map(|_| needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_sequences_have_is_needed_once() {
        let lacking = |n, each, shared, free: Option<u64>| lacking(n, Bytes(each), Bytes(shared), free.map(Bytes));
        assert_eq!((lacking(4, 10, 0, Some(40)), lacking(4, 10, 0, None)), (None, None));
        assert_eq!(lacking(4, 10, 0, Some(39)), Some(Bytes(40)));
        assert_eq!((lacking(4, 10, 9, Some(13)), lacking(4, 10, 9, Some(12))), (None, Some(Bytes(13))));
    }
}
