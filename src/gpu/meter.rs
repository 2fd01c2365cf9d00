//! How long work on a card takes: launches of graphs, on so much memory that no cache holds what comes next.

use super::matrix::DeviceMatrix;
use super::memory::{Arena, DeviceBuffer, Ptr};
use super::ops::matvec;
use super::ops::norm::Acts;
use super::{Device, Event, Kernels, Stream};
use crate::placement::budget::{aligned, allocated};
use crate::quant::GgmlType;
use crate::units::Bytes;
use anyhow::Result;
use std::time::{Duration, Instant};

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Bytes of weights, at most half of what is free. Many times the size of the cache.
    pub bytes: u64,
    /// Rows of a matrix: neurons of a layer.
    pub n_rows: usize,
    /// Elements of a row.
    pub n_cols: usize,
    /// Launches of a kernel in one graph.
    pub n_launches: usize,
    /// Kernels of the graph that measures what a kernel itself costs.
    pub n_kernels: usize,
    /// Jobs of a token.
    pub n_jobs: u32,
    /// Runs of each kind.
    pub n_runs: usize,
    /// No further run of a kind begins when so much time has passed.
    pub limit: Duration,
}

impl Default for Effort {
    /// The shape of a 7B model, and as many kernels as 80 layers have with all of their neurons on the card.
    fn default() -> Self {
        Self {
            bytes: 1 << 30,
            n_rows: 11_008,
            n_cols: 4096,
            n_launches: 64,
            n_kernels: 80 * 9,
            n_jobs: 64,
            n_runs: 9,
            limit: Duration::from_millis(500),
        }
    }
}

impl Effort {
    /// The usual effort; next to none where the card is emulated, which takes long and tells nothing.
    pub fn of(device: &Device) -> Self {
        if device.is_emulated() { Self::least() } else { Self::default() }
    }

    /// As little as shows that it works.
    pub fn least() -> Self {
        let (n_rows, n_cols, n_kernels, n_jobs) = (64, 256, 8, 4);
        let limit = Duration::from_millis(10);
        Self { bytes: 1 << 16, n_rows, n_cols, n_launches: 1, n_kernels, n_jobs, n_runs: 3, limit }
    }
}

/// What several runs took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    /// Seconds of the fastest run.
    pub best: f64,
    /// Seconds of the one in the middle.
    pub median: f64,
}

impl Times {
    /// Of the seconds of at least one run.
    fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        // The clock may be too coarse for very short work.
        let at = |i: usize| seconds.get(i).copied().unwrap_or_default().max(1e-9);
        Self { best: at(0), median: at(seconds.len() / 2) }
    }

    /// The same for each of `n` things that the runs did.
    #[must_use]
    pub fn each(self, n: usize) -> Self {
        Self { best: self.best / n as f64, median: self.median / n as f64 }
    }
}

/// What a graph of kernels that do next to nothing takes.
#[derive(Debug, Clone, Copy)]
pub struct Launching {
    /// Kernels of the graph.
    pub n_kernels: usize,
    /// The call of the driver, by the processor's clock.
    pub call: Times,
    /// From the call until the processor knows that it is done, by the same clock.
    pub whole: Times,
    /// From the first kernel to the last, by the card's clock.
    pub running: Times,
}

impl Launching {
    /// Seconds per kernel of a graph, apart from what it reads.
    pub fn kernel(&self) -> f64 {
        self.running.best / self.n_kernels as f64
    }
}

/// A card to be measured, with its kernels loaded.
pub struct Meter {
    pub(super) kernels: Kernels,
    pub(super) stream: Stream,
    pub(super) effort: Effort,
    /// Bytes of memory that were free at first.
    pub(super) free: u64,
    /// Memory that the card has.
    pub vram: Bytes,
    /// What is gone of it before anything of ours is there.
    pub context: Bytes,
    /// Seconds that loading the kernels took. The driver compiles them when it meets them for the first time.
    pub loading: f64,
}

impl Meter {
    /// Loads the kernels.
    ///
    /// # Errors
    /// When the card fails.
    pub fn new(device: &Device, effort: Effort) -> Result<Self> {
        let begin = Instant::now();
        let kernels = Kernels::load(device)?;
        let loading = begin.elapsed().as_secs_f64();
        // With the kernels loaded and nothing of ours allocated: what is gone now will be gone later.
        let (free, vram) = device.memory()?;
        let context = Bytes(allocated(vram.0 - free.0).min(vram.0 - 1));
        Ok(Self { kernels, stream: Stream::new(device)?, effort, free: free.0, vram, context, loading })
    }

    /// The card.
    pub fn device(&self) -> &Device {
        self.stream.device()
    }

    /// Bytes that may be taken for what is read again and again.
    pub(super) fn most(&self) -> u64 {
        self.effort.bytes.min(self.free / 2)
    }

    /// Calls `run` once to warm up, then as often as the effort says.
    fn runs(&self, mut run: impl FnMut() -> Result<()>) -> Result<()> {
        run()?;
        let begin = Instant::now();
        for i in 0..self.effort.n_runs {
            if i > 0 && begin.elapsed() > self.effort.limit {
                break;
            }
            run()?;
        }
        Ok(())
    }

    /// What `enqueue` enqueues takes so long on the card.
    ///
    /// # Errors
    /// Those of `enqueue`; when the card fails.
    pub(super) fn times(&self, mut enqueue: impl FnMut() -> Result<()>) -> Result<Times> {
        let (begin, end) = (Event::new(self.device())?, Event::new(self.device())?);
        let mut seconds = Vec::new();
        self.runs(|| {
            self.stream.record(&begin)?;
            enqueue()?;
            self.stream.record(&end)?;
            end.wait()?;
            seconds.push(1e-3 * f64::from(begin.elapsed_ms(&end)?));
            Ok(())
        })?;
        Ok(Times::of(seconds.split_off(1)))
    }

    /// What each launch takes in a graph of them. `launch` is told which one it is, from 0 on.
    ///
    /// # Errors
    /// As [`Meter::times`].
    pub(super) fn per_launch(&self, launch: impl Fn(usize) -> Result<()>) -> Result<Times> {
        let n = self.effort.n_launches;
        let graph = self.stream.capture(|| (0..n).try_for_each(launch))?;
        Ok(self.times(|| graph.launch(&self.stream))?.each(n))
    }

    /// What a graph of as many kernels as the effort says takes, that read next to nothing.
    ///
    /// # Errors
    /// When the card fails.
    pub fn launching(&self) -> Result<Launching> {
        const N_ROWS: usize = 8;
        const N_COLS: usize = 32;
        let bytes = DeviceMatrix::bytes(GgmlType::F32, N_ROWS, N_COLS)?;
        let mut memory = Arena::new(self.device(), 2 * aligned(bytes), "measuring")?;
        let matrix = DeviceMatrix::at(memory.take(bytes, "a matrix")?, GgmlType::F32, N_ROWS, N_COLS)?;
        let (x, y) = (memory.take_of::<f32>(N_COLS, "x")?, memory.take_of::<f32>(N_ROWS, "y")?);
        self.stream.fill(memory.buffer().ptr(), 0, memory.buffer().len())?;
        let acts = Acts { f32: x, x8: Ptr::NULL };
        let n_kernels = self.effort.n_kernels;
        let graph = self.stream.capture(|| {
            (0..n_kernels).try_for_each(|_| {
                let rows = matvec::Rows::all(&matrix, y);
                matvec::matvec(&self.kernels, &self.stream, &[rows], acts, None)
            })
        })?;
        let running = self.times(|| graph.launch(&self.stream))?;
        let (mut calls, mut wholes) = (Vec::new(), Vec::new());
        self.runs(|| {
            self.stream.synchronize()?;
            let begin = Instant::now();
            graph.launch(&self.stream)?;
            calls.push(begin.elapsed().as_secs_f64());
            self.stream.synchronize()?;
            wholes.push(begin.elapsed().as_secs_f64());
            Ok(())
        })?;
        let warm = |mut seconds: Vec<f64>| Times::of(seconds.split_off(1));
        Ok(Launching { n_kernels, call: warm(calls), whole: warm(wholes), running })
    }
}

/// A byte with which every product of weights and activations is above 0, whatever their types: then nothing is left out.
pub(super) const POSITIVE: u8 = 0x3f;

/// The same bytes again and again, so that launches that follow each other read from different places.
pub(super) struct Copies {
    buffer: DeviceBuffer,
    bytes: u64,
    /// How many there are: one per launch, or as many as there is memory for.
    pub n: usize,
}

impl Copies {
    /// Copies of `bytes`, all [`POSITIVE`].
    pub fn new(meter: &Meter, bytes: u64) -> Result<Self> {
        let bytes = aligned(bytes).max(1);
        let n = (meter.most() / bytes).clamp(1, meter.effort.n_launches as u64);
        let buffer = DeviceBuffer::new(meter.device(), n * bytes, "measuring")?;
        meter.stream.fill(buffer.ptr(), POSITIVE, buffer.len())?;
        Ok(Self { buffer, bytes, n: n as usize })
    }

    /// Where launch number `i` finds its own.
    pub fn at(&self, i: usize) -> Ptr {
        self.buffer.ptr().offset((i % self.n) as u64 * self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_and_the_middle_of_several_runs() {
        assert_eq!(Times::of(vec![3.0, 1.0, 2.0]), Times { best: 1.0, median: 2.0 });
        assert_eq!(Times::of(vec![6.0]).each(3), Times { best: 2.0, median: 2.0 });
        assert_eq!(Times::of(vec![0.0]).best, 1e-9);
    }
}
