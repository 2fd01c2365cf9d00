//! A short measurement of a card: what our own kernels reach on weights in its memory, the bus, and the round trip.

use super::mailbox::{Arrival, Layout, Mailbox, Sizes, Wait};
use super::matrix::{DeviceMatrix, planes};
use super::memory::{Arena, DeviceBuffer, Mapped, Pinned, Ptr};
use super::ops::ffn::{self, List};
use super::ops::norm::{Acts, x8_bytes};
use super::ops::token::{self, Answer, Copied};
use super::ops::{down, matvec};
use super::{Device, Event, Graph, Kernels, Stream};
use crate::placement::budget::{aligned, allocated};
use crate::placement::hardware::{self, Bandwidth, Bandwidths, Bus, Gpu};
use crate::placement::probe::one_in_ten;
use crate::progress::{self, Progress};
use crate::quant::GgmlType;
use crate::units::Bytes;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Bytes of weights of each type, at most half of what is free. Many times the size of the cache.
    pub bytes: u64,
    /// Rows of a matrix: neurons of a layer.
    pub n_rows: usize,
    /// Elements of a row.
    pub n_cols: usize,
    /// Kernels of the graph that measures what a kernel itself costs.
    pub n_kernels: usize,
    /// Jobs of a token.
    pub n_jobs: u32,
    /// Passes of each kind; the best counts.
    pub passes: usize,
}

impl Default for Effort {
    /// The shape of a 7B model.
    fn default() -> Self {
        Self { bytes: 1 << 30, n_rows: 11_008, n_cols: 4096, n_kernels: 256, n_jobs: 64, passes: 5 }
    }
}

/// Measures `device` on rows of those of `types` that have kernels. Takes some seconds.
///
/// # Errors
/// When the card fails or has no memory left, or the user stops it.
pub fn measure(
    device: &Device,
    types: &[GgmlType],
    effort: &Effort,
    progress: &dyn Progress,
) -> Result<hardware::Device> {
    let kernels = Kernels::load(device)?;
    // With the kernels loaded and nothing of ours allocated: what is gone now will be gone later.
    let (free, vram) = device.memory()?;
    let context = Bytes(allocated(vram.0 - free.0).min(vram.0 - 1));
    let probe = Probe { kernels, stream: Stream::new(device)?, effort, free: free.0 };
    let mut types: Vec<_> = types.iter().copied().filter(|t| planes(*t).is_ok()).collect();
    if types.is_empty() {
        types.push(GgmlType::F16);
    }
    progress.begin("measuring the card", types.len() as u64 + 3);
    let step = || {
        progress.advance(1);
        progress::check(progress)
    };
    let kernel = probe.kernel_seconds()?;
    step()?;
    let mut by_type = BTreeMap::new();
    for dtype in types {
        by_type.insert(dtype.name(), probe.bandwidth(dtype, kernel)?);
        step()?;
    }
    let least = |of: fn(&Bandwidth) -> f64| by_type.values().map(of).fold(f64::INFINITY, f64::min);
    let other = Bandwidth {
        stream: least(|b| b.stream),
        gather: least(|b| b.gather),
        add_stream: least(|b| b.add_stream),
        add_gather: least(|b| b.add_gather),
    };
    let bandwidth = probe.bus_bandwidth()?;
    step()?;
    let rendezvous = probe.rendezvous(kernel, progress)?;
    step()?;
    progress.end();
    Ok(hardware::Device {
        gpu: Gpu { vram, context, bandwidth: Bandwidths { other, by_type }, kernel, data_sheet: device.data_sheet() },
        bus: Bus { bandwidth, rendezvous },
    })
}

struct Probe<'a> {
    kernels: Kernels,
    stream: Stream,
    effort: &'a Effort,
    /// Bytes of memory that were free at first.
    free: u64,
}

impl Probe<'_> {
    fn device(&self) -> &Device {
        self.stream.device()
    }

    /// Seconds that the work of `enqueue` takes: the fastest of several runs.
    fn seconds(&self, mut enqueue: impl FnMut() -> Result<()>) -> Result<f64> {
        let (begin, end) = (Event::new(self.device())?, Event::new(self.device())?);
        enqueue()?;
        let mut best = f64::INFINITY;
        for _ in 0..self.effort.passes {
            self.stream.record(&begin)?;
            enqueue()?;
            self.stream.record(&end)?;
            end.wait()?;
            best = best.min(1e-3 * f64::from(begin.elapsed_ms(&end)?));
        }
        // The clock may be too coarse for very short work.
        Ok(best.max(1e-9))
    }

    /// [`Probe::seconds`] of a graph of what `enqueue` enqueues.
    fn graph_seconds(&self, enqueue: impl FnOnce() -> Result<()>) -> Result<f64> {
        let graph = self.stream.capture(enqueue)?;
        self.seconds(|| graph.launch(&self.stream))
    }

    /// Seconds per kernel of a graph, apart from what it reads: measured with kernels that read next to nothing.
    fn kernel_seconds(&self) -> Result<f64> {
        const N_ROWS: usize = 8;
        const N_COLS: usize = 32;
        let bytes = DeviceMatrix::bytes(GgmlType::F32, N_ROWS, N_COLS)?;
        let mut memory = Arena::new(self.device(), 2 * aligned(bytes), "measuring")?;
        let matrix = DeviceMatrix::at(memory.take(bytes, "a matrix")?, GgmlType::F32, N_ROWS, N_COLS)?;
        let (x, y) = (memory.take_of::<f32>(N_COLS, "x")?, memory.take_of::<f32>(N_ROWS, "y")?);
        self.stream.fill(memory.buffer().ptr(), 0, memory.buffer().len())?;
        let acts = Acts { f32: x, x8: Ptr::NULL };
        let n = self.effort.n_kernels;
        let seconds = self.graph_seconds(|| {
            (0..n).try_for_each(|_| {
                let rows = matvec::Rows::all(&matrix, y);
                matvec::matvec(&self.kernels, &self.stream, &[rows], acts, None)
            })
        })?;
        Ok(seconds / n as f64)
    }

    /// Bandwidths of products with all rows, with listed rows, and of sums of all rows, of listed rows. `kernel`
    /// seconds of each launch do not count as reading.
    fn bandwidth(&self, dtype: GgmlType, kernel: f64) -> Result<Bandwidth> {
        let Effort { n_rows, n_cols, .. } = *self.effort;
        let device = self.device();
        let bytes = aligned(DeviceMatrix::bytes(dtype, n_rows, n_cols)?);
        let n_matrices = (self.effort.bytes.min(self.free / 2) / bytes).max(1);
        let weights = DeviceBuffer::new(device, n_matrices * bytes, "measuring")?;
        let at = |i| DeviceMatrix::at(weights.ptr().offset(i * bytes), dtype, n_rows, n_cols);
        let matrices = (0..n_matrices).map(at).collect::<Result<Vec<_>>>()?;
        let listed = one_in_ten(n_rows);
        ensure!(!listed.is_empty(), "measuring: {n_rows} rows are too few");

        let float = size_of::<f32>();
        let vectors = [n_cols, x8_bytes(n_cols) as usize / float, n_cols, n_rows, n_rows, n_rows].map(|n| n * float);
        let scratch_bytes = down::scratch_bytes(dtype, n_cols)?;
        let sum = vectors.iter().map(|n| aligned(*n as u64)).sum::<u64>() + aligned((n_rows * float) as u64);
        let mut memory = Arena::new(device, sum + scratch_bytes, "measuring")?;
        // The values of weights do not matter for speed; activations that are 0 would be skipped.
        for buffer in [&weights, memory.buffer()] {
            self.stream.fill(buffer.ptr(), 0x11, buffer.len())?;
        }
        let [x, x8, y, act, h, sparse] = vectors;
        let acts = Acts { f32: memory.take(x as u64, "x")?, x8: memory.take(x8 as u64, "x8")? };
        let y = memory.take(y as u64, "y")?;
        let (act, h) = (memory.take(act as u64, "activations")?, memory.take(h as u64, "h")?);
        let sparse = memory.take(sparse as u64, "factors")?;
        let slots = memory.take_of::<u32>(listed.len(), "a list")?;
        let scratch = memory.take(scratch_bytes, "sums")?;
        down::clear_scratch(&self.stream, scratch)?;
        self.stream.write(slots, &listed)?;
        let mut fired = vec![0.0f32; n_rows];
        listed.iter().for_each(|slot| fired[*slot as usize] = 1.0);
        self.stream.write(sparse, &fired)?;

        let (kernels, stream) = (&self.kernels, &self.stream);
        let sum =
            |m: &DeviceMatrix, h, all| down::down(kernels, stream, m, &down::Factors { h, n: n_rows, all }, y, scratch);
        let list = List { slots, count: Ptr::NULL, n: listed.len() };
        let rate = |rows: usize, launch: &dyn Fn(&DeviceMatrix) -> Result<()>| -> Result<f64> {
            let seconds = self.graph_seconds(|| matrices.iter().try_for_each(launch))?;
            let read = matrices.len() as f64 * rows as f64 * matrices[0].row_bytes() as f64;
            // Launches that overlap with reading cost less than on their own.
            Ok(read / (seconds - matrices.len() as f64 * kernel).max(seconds / 2.0))
        };
        Ok(Bandwidth {
            // There is a result per row: `h` has room for them.
            stream: rate(n_rows, &|m| matvec::matvec(kernels, stream, &[matvec::Rows::all(m, h)], acts, None))?,
            gather: rate(listed.len(), &|m| ffn::up(kernels, stream, m, &list, act, acts, h))?,
            add_stream: rate(n_rows, &|m| sum(m, act, true))?,
            add_gather: rate(listed.len(), &|m| sum(m, sparse, false))?,
        })
    }

    /// Bytes per second from pinned memory to the card.
    fn bus_bandwidth(&self) -> Result<f64> {
        const MOST: u64 = 64 << 20;
        let bytes = self.effort.bytes.min(self.free / 2).min(MOST);
        let to = DeviceBuffer::new(self.device(), bytes, "measuring")?;
        let mut from = Pinned::new(self.device(), bytes as usize, "measuring")?;
        let seconds = self.seconds(|| self.stream.copy_in(to.ptr(), &mut from, 0..bytes as usize))?;
        Ok(bytes as f64 / seconds)
    }

    /// Seconds from one answer to the next through the mailbox, less those of the two kernels of a job.
    fn rendezvous(&self, kernel: f64, progress: &dyn Progress) -> Result<f64> {
        const N: usize = 4;
        const LIMIT: Duration = Duration::from_secs(10);
        let n_jobs = self.effort.n_jobs;
        ensure!(n_jobs > 1, "measuring: {n_jobs} jobs are too few");
        let layout = Layout::new(Sizes { n_embd: N, n_ff: 0, n_vocab: N, n_groups: 0 });
        let mut mailbox = Mailbox::new(Mapped::new(self.device(), layout.bytes, "measuring")?, layout)?;
        let mut memory = Arena::new(self.device(), 1024, "measuring")?;
        let state = memory.take(token::TOKEN_BYTES, "state")?;
        let x = memory.take_of::<f32>(N, "x")?;
        self.stream.fill(memory.buffer().ptr(), 0, memory.buffer().len())?;
        let graph = self.jobs(&mailbox, state, x, N, LIMIT)?;
        let wait = Wait {
            limit: LIMIT,
            alive: &|| {
                progress::check(progress)?;
                self.stream.query().map(drop)
            },
        };
        let mut best = f64::INFINITY;
        for _ in 0..self.effort.passes {
            let token = one_token(&mut mailbox, n_jobs, &[0.0; N], wait, || graph.launch(&self.stream));
            if token.is_err() {
                // The card must not wait for answers that never come.
                mailbox.stop();
            }
            best = best.min(token?);
        }
        self.stream.synchronize()?;
        Ok((best - 2.0 * kernel).max(best / 2.0))
    }

    /// A token that consists of jobs only.
    fn jobs(&self, mailbox: &Mailbox, state: Ptr, x: Ptr, n: usize, limit: Duration) -> Result<Graph> {
        let (kernels, stream, at) = (&self.kernels, &self.stream, mailbox.addresses());
        let n_jobs = self.effort.n_jobs;
        let job = |number| token::Job { mailbox: at.base, token: state, number };
        let limit_ms = limit.as_millis() as u32;
        stream.capture(|| {
            token::begin_token(kernels, stream, at.base, state, at.in_x, x, n)?;
            for number in 0..n_jobs {
                token::post_x(kernels, stream, x, at.post_x, n, &job(number))?;
                let answer = Answer { reply: at.reply, job: job(number), limit_ms };
                token::take_reply(kernels, stream, x, n, &answer)?;
            }
            let logits = Copied { from: x, to: at.logits, n };
            let counts = Copied { from: x, to: at.counts, n: 0 };
            token::finish(kernels, stream, &logits, &counts, &job(n_jobs))
        })
    }
}

/// Answers all jobs of a token; returns the seconds per job, from the first answer on.
fn one_token(
    mailbox: &mut Mailbox,
    n_jobs: u32,
    x: &[f32],
    wait: Wait,
    launch: impl FnOnce() -> Result<()>,
) -> Result<f64> {
    mailbox.begin_token(n_jobs, 0, x)?;
    launch()?;
    let mut begin = None;
    for job in 0..n_jobs {
        ensure!(mailbox.wait_job(job, wait)? == Arrival::Posted, "measuring: the card left out job {job}");
        mailbox.reply(job, x)?;
        begin.get_or_insert_with(Instant::now);
    }
    let seconds = begin.context("no job")?.elapsed().as_secs_f64() / f64::from(n_jobs - 1);
    mailbox.wait_done(wait)?;
    Ok(seconds)
}
