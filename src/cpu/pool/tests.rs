//! Tests of the pool.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Pool, Region, Work};

/// Miri runs a thousand times slower.
const MANY: usize = if cfg!(miri) { 40 } else { 20_000 };
const STALL: Duration = Duration::from_millis(if cfg!(miri) { 2000 } else { 100 });
const LENS: &[usize] = if cfg!(miri) { &[0, 1, 7, 64, 300] } else { &[0, 1, 2, 7, 15, 16, 17, 64, 255, 999, 1000] };

/// Output i is `offset + i`.
#[derive(Default)]
struct Count {
    offset: f32,
}

impl Work for Count {
    fn compute(&self, start: usize, out: &mut [f32]) {
        for (i, o) in out.iter_mut().enumerate() {
            *o = self.offset + (start + i) as f32;
        }
    }
}

/// Lengths of pieces, none of which need be like another.
const UNEVEN: [usize; 7] = [3, 0, 40, 1, 0, 17, 2];

#[test]
fn pieces_of_any_lengths_are_written_once_whatever_the_threads() {
    let ends: Vec<usize> = UNEVEN
        .iter()
        .scan(0, |end, len| {
            Some({
                *end += len;
                *end
            })
        })
        .collect();
    for n_threads in [1, 2, 3, 8] {
        let pool = Pool::new(n_threads).unwrap();
        let mut out = vec![0; 63];
        pool.fill_cut(&mut out, &ends, |i, piece| {
            assert_eq!(piece.len(), UNEVEN[i]);
            piece.iter_mut().for_each(|o| *o += i + 1);
        });
        let of_piece = |at: usize| ends.partition_point(|end| *end <= at) + 1;
        assert!(out.iter().enumerate().all(|(at, o)| *o == of_piece(at)), "{n_threads} threads: {out:?}");
        pool.fill_cut(&mut out[..0], &[], |_, _| panic!("there is no piece"));
        let mut region = Region::<Count>::default();
        for _ in 0..MANY.min(2000) {
            let out = pool.run_cut(&mut region, UNEVEN, |work| work.offset = 5.0);
            assert!(out.len() == 63 && counts(out, 5.0), "{n_threads} threads");
        }
    }
}

#[test]
#[should_panic(expected = "pieces end elsewhere")]
fn pieces_beyond_the_end_are_refused() {
    Pool::new(2).unwrap().fill_cut(&mut [0; 8], &[4, 9], |_, _| ());
}

fn counts(out: &[f32], offset: f32) -> bool {
    out.iter().enumerate().all(|(i, o)| *o == offset + i as f32)
}

#[test]
fn every_element_is_written_once_whatever_the_threads() {
    for n_threads in [1, 2, 3, 8] {
        let pool = Pool::new(n_threads).unwrap();
        for &len in LENS {
            let mut out = vec![0usize; len];
            pool.fill(&mut out, 16, |start, piece| {
                assert!(start.is_multiple_of(16) && (piece.len().is_multiple_of(16) || start + piece.len() == len));
                piece.iter_mut().enumerate().for_each(|(i, o)| *o += start + i + 1);
            });
            assert!(out.iter().enumerate().all(|(i, o)| *o == i + 1), "{n_threads} threads, {len} elements");
        }
    }
}

#[test]
fn regions_compute_every_output_whatever_the_threads() {
    for n_threads in [1, 2, 3, 8] {
        let pool = Pool::new(n_threads).unwrap();
        let mut region = Region::<Count>::default();
        let all: Vec<usize> = if cfg!(miri) { LENS.to_vec() } else { (0..=1000).collect() };
        for len in all {
            for chunk in [1, 16, 100] {
                let out = pool.run(&mut region, len, chunk, |work| work.offset = len as f32);
                assert!(out.len() == len && counts(out, len as f32), "{n_threads} threads, {len} by {chunk}");
            }
        }
        assert!(region.n_instances() <= n_threads);
    }
}

#[test]
fn outputs_of_many_short_regions_are_right() {
    for n_threads in [2, 8] {
        let pool = Pool::new(n_threads).unwrap();
        let mut regions: [Region<Count>; 3] = Default::default();
        for i in 0..MANY / n_threads {
            let offset = i as f32;
            assert!(counts(pool.run(&mut regions[i % 3], 40, 8, |work| work.offset = offset), offset));
        }
        assert!(regions.iter().all(|region| region.n_instances() <= n_threads));
    }
}

/// Sleeps when a worker first comes to `compute`; outputs are `offset + i`.
#[derive(Default)]
struct Stalls {
    offset: f32,
    caller: Option<thread::ThreadId>,
    armed: Arc<AtomicBool>,
    stalled: Arc<AtomicUsize>,
    woken: Arc<AtomicUsize>,
}

impl Work for Stalls {
    fn compute(&self, start: usize, out: &mut [f32]) {
        let is_caller = self.caller == Some(thread::current().id());
        if !is_caller && self.armed.swap(false, Ordering::SeqCst) {
            self.stalled.fetch_add(1, Ordering::SeqCst);
            thread::sleep(STALL);
            self.woken.fetch_add(1, Ordering::SeqCst);
        } else if is_caller && self.armed.load(Ordering::SeqCst) {
            // Gives the worker time to arrive.
            thread::sleep(Duration::from_millis(1));
        }
        out.iter_mut().enumerate().for_each(|(i, o)| *o = self.offset + (start + i) as f32);
    }
}

#[test]
fn a_stalled_chunk_is_done_again_and_its_late_thread_disturbs_nothing() {
    for n_threads in [2, 3] {
        let pool = Pool::new(n_threads).unwrap();
        let mut region = Region::<Stalls>::default();
        let (armed, stalled, woken) = (Arc::new(AtomicBool::new(true)), Arc::default(), Arc::default());
        let caller = Some(thread::current().id());
        let prepared = |offset| {
            let (armed, stalled, woken) = (Arc::clone(&armed), Arc::clone(&stalled), Arc::clone(&woken));
            move |work: &mut Stalls| *work = Stalls { offset, caller, armed, stalled, woken }
        };
        let begun = Instant::now();
        while stalled.load(Ordering::SeqCst) == 0 {
            assert!(counts(pool.run(&mut region, 64, 4, prepared(0.5)), 0.5));
        }
        // The late thread sleeps inside one instance while others are prepared.
        let mut n_meanwhile = 0;
        while woken.load(Ordering::SeqCst) == 0 || n_meanwhile < 3 {
            if woken.load(Ordering::SeqCst) == 0 {
                n_meanwhile += 1;
            } else {
                assert!(n_meanwhile > 0, "the region waited for the late thread: {:?}", begun.elapsed());
                n_meanwhile += 3;
            }
            let offset = n_meanwhile as f32;
            assert!(counts(pool.run(&mut region, 64, 4, prepared(offset)), offset));
        }
        for i in 0..10 {
            let offset = i as f32;
            assert!(counts(pool.run(&mut region, 64, 4, prepared(offset)), offset));
        }
        assert!((2..=n_threads).contains(&region.n_instances()));
    }
}

#[test]
fn regions_and_pools_can_go_while_a_late_thread_is_inside() {
    let pool = Pool::new(2).unwrap();
    let armed = Arc::new(AtomicBool::new(true));
    let stalled = Arc::new(AtomicUsize::new(0));
    while stalled.load(Ordering::SeqCst) == 0 {
        let mut region = Region::<Stalls>::default();
        let out = pool.run(&mut region, 64, 4, |work| {
            work.caller = Some(thread::current().id());
            (work.armed, work.stalled) = (Arc::clone(&armed), Arc::clone(&stalled));
        });
        assert!(counts(out, 0.0));
    }
}

#[derive(Default)]
struct Panics {
    at: Option<usize>,
}

impl Work for Panics {
    fn compute(&self, start: usize, out: &mut [f32]) {
        assert!(self.at.is_none_or(|at| !(start..start + out.len()).contains(&at)), "as asked");
        out.fill(start as f32);
    }
}

#[test]
fn panics_reach_the_caller_and_the_pool_lives_on() {
    for n_threads in [1, 2, 8] {
        let pool = Pool::new(n_threads).unwrap();
        let mut region = Region::<Panics>::default();
        for i in 0..if cfg!(miri) { 3 } else { 50 } {
            let run = AssertUnwindSafe(|| pool.run(&mut region, 64, 4, |work| work.at = Some(i)).len());
            let panic = catch_unwind(run).unwrap_err();
            assert_eq!(*panic.downcast::<&str>().unwrap(), "as asked");
            assert!(pool.run(&mut region, 64, 4, |work| work.at = None)[60..].iter().all(|o| *o == 60.0));
            let fill =
                AssertUnwindSafe(|| pool.fill(&mut [0; 100], 1, |at, out| assert!(at + out.len() < 60, "there")));
            assert!(catch_unwind(fill).is_err());
            assert!(catch_unwind(AssertUnwindSafe(|| pool.run(&mut region, 64, 4, |_| panic!()).len())).is_err());
        }
    }
}

#[test]
fn sleeping_workers_are_woken_and_can_be_dropped() {
    let pool = Pool::new(4).unwrap();
    let mut region = Region::<Count>::default();
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(5));
        assert!(counts(pool.run(&mut region, 1000, 10, |_| ()), 0.0));
        thread::sleep(Duration::from_millis(5));
        let mut out = [0; 1000];
        pool.fill(&mut out, 1, |_, piece| piece.fill(1));
        assert_eq!(out, [1; 1000]);
    }
    thread::sleep(Duration::from_millis(5));
    drop(pool);
    (1..5).for_each(|n_threads| drop(Pool::new(n_threads).unwrap()));
}

#[test]
fn work_inside_work_is_done_alone() {
    let pool = Pool::new(2).unwrap();
    let mut outer = vec![0.0; 64];
    pool.fill(&mut outer, 1, |start, piece| {
        let mut region = Region::<Count>::default();
        let inner = pool.run(&mut region, 64, 4, |_| ());
        piece.copy_from_slice(&inner[start..start + piece.len()]);
    });
    assert!(counts(&outer, 0.0));
}

#[test]
fn impossible_numbers_of_threads_are_refused() {
    assert!(Pool::new(0).is_err() && Pool::new(1025).is_err());
}
