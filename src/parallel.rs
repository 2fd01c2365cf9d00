//! Work on pieces of an array, by as many threads as rayon has. What computes tokens has threads of its own
//! (`cpu::pool`); this is for the rest: predictors, conversion, checks.
//!
//! rayon's machinery is compiled once, here. With parallel iterators at every caller it was a tenth of the library.

use rayon::prelude::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs `work` once for each piece and its place in the order. Threads take them as they come: `work` must not depend on
/// which came first.
pub fn each<P: Send>(pieces: impl Iterator<Item = P>, work: impl Fn(usize, P) + Sync) {
    let pieces: Vec<Mutex<Option<P>>> = pieces.map(|p| Mutex::new(Some(p))).collect();
    indices(pieces.len(), &|i| {
        let piece = pieces[i].lock().ok().and_then(|mut p| p.take());
        piece.into_iter().for_each(|p| work(i, p));
    });
}

/// What `work` returns for each piece, in their order.
pub fn map<P: Send, R: Send>(pieces: impl Iterator<Item = P>, work: impl Fn(usize, P) -> R + Sync) -> Vec<R> {
    let pieces: Vec<P> = pieces.collect();
    let mut results: Vec<Option<R>> = pieces.iter().map(|_| None).collect();
    each(pieces.into_iter().zip(&mut results), |i, (piece, result)| *result = Some(work(i, piece)));
    results.into_iter().flatten().collect()
}

/// Whether `holds` for every value.
pub fn all<T: Sync>(values: &[T], holds: impl Fn(&T) -> bool + Sync) -> bool {
    const PIECE: usize = 1 << 16;
    let all = AtomicBool::new(true);
    each(values.chunks(PIECE), |_, values| {
        if !values.iter().all(&holds) {
            all.store(false, Ordering::Relaxed);
        }
    });
    all.into_inner()
}

fn indices(n: usize, work: &(dyn Fn(usize) + Sync)) {
    (0..n).into_par_iter().with_max_len(1).for_each(work);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_worked_on_once_and_results_keep_their_order() {
        let mut values = vec![1u32; 1000];
        each(values.chunks_mut(7), |i, piece| piece.iter_mut().for_each(|v| *v += i as u32));
        assert!(values.iter().enumerate().all(|(i, v)| *v == 1 + i as u32 / 7));
        let lengths = map(values.chunks(7), |i, piece| (i, piece.len()));
        assert_eq!(lengths.len(), 143);
        assert!(lengths.iter().enumerate().all(|(i, (at, len))| *at == i && *len == if i == 142 { 6 } else { 7 }));
        assert!(map(std::iter::empty::<u8>(), |_, v| v).is_empty());
    }

    #[test]
    fn one_value_in_many_decides() {
        let mut values = vec![0.0f32; 200_000];
        assert!(all(&values, |v| v.is_finite()));
        values[199_999] = f32::NAN;
        assert!(!all(&values, |v| v.is_finite()));
        assert!(all(&[] as &[f32], |v| v.is_finite()));
    }
}
