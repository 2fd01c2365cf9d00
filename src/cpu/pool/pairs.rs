//! Two slices that are written together, piece by piece: a state and what it gives.
#![allow(unsafe_code, reason = "pieces of two slices are written by different threads, which a scope bounds")]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::crew::{Hand, Help};
use super::{PIECES_PER_THREAD, Pool};

impl Pool {
    /// Calls `write(i, a, b)` for consecutive runs of the pairs that `a` and `b` consist of, in pieces of `grain.0` and
    /// `grain.1` elements: `i` is the number of the first pair. Otherwise as [`Pool::fill`].
    ///
    /// # Panics
    /// When `write` does, and when the two do not consist of as many pieces.
    pub fn fill_pairs<A: Send, B: Send>(
        &self,
        (a, b): (&mut [A], &mut [B]),
        grain: (usize, usize),
        write: impl Fn(usize, &mut [A], &mut [B]) + Sync,
    ) {
        let n = a.len() / grain.0.max(1);
        assert_eq!((n * grain.0, n * grain.1), (a.len(), b.len()), "pieces do not come in pairs");
        let piece = n.div_ceil(self.n_threads * PIECES_PER_THREAD).max(1);
        let lead = if piece < n { self.lead() } else { None };
        let Some((mut lead, crew)) = lead else { return write(0, a, b) };
        let (a, b) = (a.as_mut_ptr(), b.as_mut_ptr());
        let pairs = Pairs { a, b, n, grain, piece, write: &write, next: AtomicUsize::new(0), panic: Mutex::default() };
        let job: *const (dyn Help + '_) = &pairs;
        // SAFETY: only the lifetime changes.
        let job = unsafe { std::mem::transmute::<*const (dyn Help + '_), *const (dyn Help + 'static)>(job) };
        // SAFETY: nothing between here and `wait` unwinds, and `wait` returns when nobody is inside `pairs`.
        let slot = unsafe { lead.open(crew, job, None, n.div_ceil(piece) - 1) };
        pairs.help(&mut lead.hand);
        if let Some(slot) = slot {
            lead.close(crew, slot);
            lead.wait(crew, slot);
        }
        drop(lead);
        if let Some(panic) = pairs.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }
}

/// Two slices of `n` pieces each that threads fill, `piece` pairs at a time.
struct Pairs<'a, A, B, F> {
    a: *mut A,
    b: *mut B,
    n: usize,
    grain: (usize, usize),
    piece: usize,
    write: &'a F,
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `next` gives each pair to one thread, which A: Send and B: Send allow; `write` is shared, which F: Sync allows.
unsafe impl<A: Send, B: Send, F: Sync> Sync for Pairs<'_, A, B, F> {}

impl<A: Send, B: Send, F: Fn(usize, &mut [A], &mut [B]) + Sync> Help for Pairs<'_, A, B, F> {
    fn help(&self, _: &mut Hand) {
        loop {
            let start = self.next.fetch_add(1, Ordering::Relaxed).saturating_mul(self.piece);
            if start >= self.n {
                return;
            }
            let n = self.piece.min(self.n - start);
            // SAFETY: inside the slices, of `n` pieces each, that `fill_pairs` borrows exclusively until all have left; no
            // other thread gets a pair with this number.
            let (a, b) = unsafe {
                let a = std::slice::from_raw_parts_mut(self.a.add(start * self.grain.0), n * self.grain.0);
                (a, std::slice::from_raw_parts_mut(self.b.add(start * self.grain.1), n * self.grain.1))
            };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.write)(start, a, b))) {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_is_written_once_whatever_the_threads() {
        for (n_threads, n) in [(1, 5), (2, 0), (2, 1), (2, 7), (3, 64), (8, 33)] {
            let pool = Pool::new(n_threads).unwrap();
            let (mut a, mut b) = (vec![0usize; 3 * n], vec![0usize; 2 * n]);
            pool.fill_pairs((&mut a, &mut b), (3, 2), |first, a, b| {
                assert_eq!(a.len() / 3, b.len() / 2);
                a.iter_mut().enumerate().for_each(|(i, a)| *a += 3 * first + i + 1);
                b.iter_mut().enumerate().for_each(|(i, b)| *b += 2 * first + i + 1);
            });
            assert!(a.iter().enumerate().all(|(i, a)| *a == i + 1), "{n_threads} threads, {n} pairs");
            assert!(b.iter().enumerate().all(|(i, b)| *b == i + 1), "{n_threads} threads, {n} pairs");
        }
    }

    #[test]
    fn a_panic_in_a_pair_reaches_the_caller() {
        let pool = Pool::new(2).unwrap();
        let (mut a, mut b) = (vec![0u8; 64], vec![0u8; 64]);
        let run = catch_unwind(AssertUnwindSafe(|| {
            pool.fill_pairs((&mut a, &mut b), (1, 1), |first, _, _| assert!(first < 20, "too far"));
        }));
        assert!(run.is_err());
        pool.fill_pairs((&mut a, &mut b), (1, 1), |_, a, _| a.fill(1));
        assert!(a.iter().all(|a| *a == 1));
    }
}
