//! Decoding takes no memory: once the buffers are warm, a token allocates nothing.
#![allow(unsafe_code, reason = "an allocator that counts is unsafe by nature")]

use anyhow::Result;
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_decoded_token_allocates_nothing_once_buffers_are_warm() -> Result<()> {
    let model = Model::new(Gguf::from_source(powerinfer::embedded::source())?, None)?;
    for (mode, n_threads) in [(Mode::Exact, 1), (Mode::Dense, 1), (Mode::Exact, 2)] {
        for kv_type in [KvType::F16, KvType::Q8_0] {
            let params = ExecutorParams { n_threads, n_ctx: 512, kv_type, mode, n_ubatch: 64, isa: Isa::detect() };
            let mut executor = Executor::new(&model, Placement::all_cold(&model), params)?;
            // How many neurons fire differs from token to token: buffers are warm when the most have been seen.
            for token in 0..256 {
                executor.decode(3 + token * 7 % 2000)?;
            }
            executor.truncate(0);
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for token in 0..256 {
                executor.decode(3 + token * 7 % 2000)?;
            }
            let n = ALLOCATIONS.load(Ordering::Relaxed) - before;
            // A thread that loses its core keeps its inputs, and the next region takes fresh ones: not once per token.
            let allowed = if n_threads == 1 { 0 } else { 64 };
            assert!(n <= allowed, "{mode:?}, {n_threads} threads, {kv_type:?}: {n} allocations in 256 tokens");
        }
    }
    Ok(())
}
