//! Decoding takes no memory: once the buffers are warm, a token allocates nothing.
#![allow(unsafe_code, reason = "an allocator that counts is unsafe by nature")]

use anyhow::Result;
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode, Worker};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::predictor::{LayerMeasures, LayerPredictor, Predictors, Tensor, Weights};
use powerinfer::profile::Fingerprint;
use powerinfer::progress::Silent;
use powerinfer::quant::GgmlType;
use powerinfer::trace::Recorder;
use powerinfer::variant;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
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

/// The embedded model with a predictor: two factors, in which nothing is true, that name about half of the neurons.
fn with_predictor(model: &Model, folder: &Path) -> Result<Model> {
    let (path, packed) = (folder.join("predictor"), folder.join("packed.gguf"));
    let n_embd = model.config.n_embd;
    let matrix = |n_rows: usize, n_cols: usize| Tensor {
        dtype: GgmlType::F32,
        n_rows,
        n_cols,
        bytes: (0..n_rows * n_cols).flat_map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0).to_le_bytes()).collect(),
    };
    let measured =
        LayerMeasures { target: 1.0, recall: 1.0, recall_count: 1.0, precision: 1.0, active: 1.0, fired: 0.1 };
    let layer = |n_ff: &usize| LayerPredictor {
        weights: Weights::Factors { inner: matrix(32, n_embd), inner_bias: None, outer: matrix(*n_ff, 32) },
        bias: vec![0.0; *n_ff],
        measured,
    };
    let layers = model.config.n_ff.iter().map(layer).collect();
    let fingerprint = Fingerprint::of(model)?;
    Predictors { fingerprint, name: String::new(), layers }.write(&path, &Silent)?;
    variant::pack(model, &Gguf::open(&path)?, &packed, &Silent)?;
    Model::new(Gguf::open(&packed)?, None)
}

/// Decodes 256 tokens of the first `n_vocab`, twice, and counts what the second time allocates.
fn count(model: &Model, mode: Mode, n_threads: usize, kv_type: KvType, n_vocab: u32) -> Result<()> {
    count_traced(model, mode, n_threads, kv_type, n_vocab, None)
}

/// The same, recorded where `trace` says for how many tokens.
fn count_traced(
    model: &Model,
    mode: Mode,
    n_threads: usize,
    kv_type: KvType,
    n_vocab: u32,
    trace: Option<usize>,
) -> Result<()> {
    let params = ExecutorParams { n_threads, n_ctx: 512, kv_type, mode, n_ubatch: 64, isa: Isa::detect() };
    let worker = Worker::new(n_threads, params.isa)?;
    if let Some(n_tokens) = trace {
        worker.set_trace(&Recorder::new(n_threads, n_tokens));
    }
    let mut executor = Executor::with_worker(model, Placement::all_cold(model), params, &worker)?;
    // How many neurons fire differs from token to token: buffers are warm when the most have been seen.
    for token in 0..256 {
        executor.decode(3 + token * 7 % n_vocab)?;
    }
    executor.clear();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for token in 0..256 {
        executor.decode(3 + token * 7 % n_vocab)?;
    }
    let n = ALLOCATIONS.load(Ordering::Relaxed) - before;
    // A thread that loses its core keeps its inputs, and the next region takes fresh ones: not once per token.
    let allowed = if n_threads == 1 { 0 } else { 64 };
    let name = &model.config.name;
    assert!(n <= allowed, "{name}, {mode:?}, {n_threads} threads, {kv_type:?}: {n} allocations in 256 tokens");
    Ok(())
}

#[test]
fn a_decoded_token_allocates_nothing_once_buffers_are_warm() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = with_predictor(&Model::new(Gguf::from_source(powerinfer::embedded::source())?, None)?, folder.path())?;
    for (mode, n_threads) in [(Mode::Exact, 1), (Mode::Dense, 1), (Mode::Predicted, 1), (Mode::Exact, 2)] {
        for kv_type in [KvType::F16, KvType::Q8_0] {
            count(&model, mode, n_threads, kv_type, 2000)?;
        }
    }
    // What threads do is recorded in memory that was taken before, also when there is no more room.
    for (mode, n_threads) in [(Mode::Exact, 1), (Mode::Predicted, 2)] {
        count_traced(&model, mode, n_threads, KvType::F16, 2000, Some(10_000))?;
    }
    // States of recurrent layers are changed where they are.
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/arch/nemotron_h.gguf");
    let model = Model::new(Gguf::open(&golden)?, None)?;
    for n_threads in [1, 2] {
        count(&model, Mode::Exact, n_threads, KvType::F16, 250)?;
    }
    // Which experts are chosen, and by how many tokens each, differs from token to token, too.
    let experts = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-stories-experts-f16.gguf");
    let model = Model::new(Gguf::open(&experts)?, None)?;
    for n_threads in [1, 2] {
        count(&model, Mode::Exact, n_threads, KvType::F16, 2000)?;
    }
    Ok(())
}
