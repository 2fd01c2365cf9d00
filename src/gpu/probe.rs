//! A short measurement of a card: what our own kernels reach on weights in its memory, the bus, and the round trip.

use super::mailbox::{Arrival, Layout, Mailbox, Sizes, Wait};
use super::matrix::planes;
use super::memory::{Arena, DeviceBuffer, Mapped, Pinned, Ptr};
use super::meter::{Effort, Launching, Meter};
use super::ops::token::{self, Answer, Copied};
use super::reading::{Reader, Shape};
use super::{Device, Graph};
use crate::placement::hardware::{self, Bandwidth, Bandwidths, Bus, Gpu};
use crate::progress::{self, Progress};
use crate::quant::GgmlType;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

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
    let meter = Meter::new(device, *effort)?;
    let launching = meter.launching()?;
    meter.probe(types, &launching, progress)
}

impl Meter {
    /// [`measure`], where what launching takes is known.
    ///
    /// # Errors
    /// The same.
    pub fn probe(
        &self,
        types: &[GgmlType],
        launching: &Launching,
        progress: &dyn Progress,
    ) -> Result<hardware::Device> {
        let mut types: Vec<_> = types.iter().copied().filter(|t| planes(*t).is_ok()).collect();
        if types.is_empty() {
            types.push(GgmlType::F16);
        }
        progress.begin("measuring the card", types.len() as u64 + 2);
        let step = || {
            progress.advance(1);
            progress::check(progress)
        };
        progress::check(progress)?;
        let kernel = launching.kernel();
        let mut by_type = BTreeMap::new();
        for dtype in types {
            by_type.insert(dtype.name(), self.bandwidth(dtype, kernel)?);
            step()?;
        }
        let least = |of: fn(&Bandwidth) -> f64| by_type.values().map(of).fold(f64::INFINITY, f64::min);
        let other = Bandwidth {
            stream: least(|b| b.stream),
            gather: least(|b| b.gather),
            add_stream: least(|b| b.add_stream),
            add_gather: least(|b| b.add_gather),
            several: f64::INFINITY,
        };
        let bandwidth = self.bus_bandwidth()?;
        step()?;
        let rendezvous = self.rendezvous(kernel, progress)?;
        step()?;
        progress.end();
        let (vram, context, data_sheet) = (self.vram, self.context, self.device().data_sheet());
        Ok(hardware::Device {
            gpu: Gpu { vram, context, bandwidth: Bandwidths { other, by_type }, kernel, data_sheet },
            bus: Bus { bandwidth, rendezvous },
        })
    }

    /// Bandwidths of products with all rows, with listed rows, and of sums of all rows, of listed rows. `kernel`
    /// seconds of each launch do not count as reading.
    fn bandwidth(&self, dtype: GgmlType, kernel: f64) -> Result<Bandwidth> {
        let Effort { n_rows, n_cols, .. } = self.effort;
        let shape = Shape { dtype, n_rows: vec![n_rows], n_cols };
        let rate = |reader, listed| -> Result<f64> { Ok(self.read(reader, &shape, listed)?.bandwidth(kernel)) };
        Ok(Bandwidth {
            stream: rate(Reader::Matvec { activation: None }, false)?,
            gather: rate(Reader::Up, true)?,
            add_stream: rate(Reader::Down, false)?,
            add_gather: rate(Reader::Down, true)?,
            // Rows that it reads for one vector take the time of reading them; so they are taken to do for a few.
            several: f64::INFINITY,
        })
    }

    /// Bytes per second from pinned memory to the card.
    fn bus_bandwidth(&self) -> Result<f64> {
        const MOST: u64 = 64 << 20;
        let bytes = self.most().min(MOST);
        let to = DeviceBuffer::new(self.device(), bytes, "measuring")?;
        let mut from = Pinned::new(self.device(), bytes as usize, "measuring")?;
        let times = self.times(|| self.stream.copy_in(to.ptr(), &mut from, 0..bytes as usize))?;
        Ok(bytes as f64 / times.best)
    }

    /// Seconds from one answer to the next through the mailbox, less those of the two kernels of a job.
    fn rendezvous(&self, kernel: f64, progress: &dyn Progress) -> Result<f64> {
        const N: usize = 4;
        const LIMIT: Duration = Duration::from_secs(10);
        let n_jobs = self.effort.n_jobs;
        ensure!(n_jobs > 1, "measuring: {n_jobs} jobs are too few");
        let layout = Layout::new(Sizes { n_embd: N, n_ff: 0, n_vocab: N, n_groups: 0, n_tokens: 1 });
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
        for _ in 0..self.effort.n_runs {
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
