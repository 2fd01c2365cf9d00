//! What the self-test works on: one piece of the card's memory, one that both sides see, waits that end, comparisons.

use super::random::Random;
use crate::cpu::{ActKind, Activations, Isa};
use crate::gpu::matrix::takes_floats;
use crate::gpu::ops::norm::Acts;
use crate::gpu::waiting::give_up;
use crate::gpu::{Device, DeviceBuffer, Kernels, Mapped, Plain, Ptr, Stream};
use crate::placement::budget::aligned;
use crate::quant::GgmlType;
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// How long a kernel may take. All of them are done in microseconds on a card, in a second under the emulator on a
/// busy machine.
pub(super) const LIMIT: Duration = Duration::from_secs(8);
/// The largest test takes a tenth of it.
const ON_CARD: u64 = 4 << 20;
/// How much further than in the tests of kernels results may be from what is expected: those tests are for us, this is for
/// the user of a card whose functions round in another way than any that we know. What is wrong is off by far more.
pub(super) const SLACK: f64 = 8.0;
/// What memory holds before it is written: no number.
const POISON: u8 = 0xff;

/// Memory for one test at a time.
pub(super) struct Memory {
    pub kernels: Kernels,
    pub stream: Stream,
    pub random: Random,
    /// Memory that both sides see.
    pub shared: Mapped,
    card: DeviceBuffer,
    used: u64,
}

impl Memory {
    pub fn new(device: &Device, kernels: Kernels, shared_bytes: usize) -> Result<Self> {
        Ok(Self {
            kernels,
            stream: Stream::new(device)?,
            random: Random::anew(),
            shared: Mapped::new(device, shared_bytes, "the self-test")?,
            card: DeviceBuffer::new(device, ON_CARD, "the self-test")?,
            used: 0,
        })
    }

    /// Begins another test, which may use all of it. Nothing is enqueued any more.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// Memory for `bytes`, which holds no numbers.
    pub fn room(&mut self, bytes: u64) -> Result<Ptr> {
        let size = aligned(bytes.max(1));
        ensure!(self.used + size <= self.card.len(), "the self-test has no room for {bytes} bytes");
        let ptr = self.card.ptr().offset(self.used);
        self.used += size;
        self.stream.fill(ptr, POISON, size)?;
        Ok(ptr)
    }

    /// Room for `n` values.
    pub fn room_of<T: Plain>(&mut self, n: usize) -> Result<Ptr> {
        self.room((n * size_of::<T>()) as u64)
    }

    /// `values` on the card.
    pub fn put<T: Plain>(&mut self, values: &[T]) -> Result<Ptr> {
        let ptr = self.room(size_of_val(values) as u64)?;
        self.wait()?;
        self.stream.write(ptr, values)?;
        Ok(ptr)
    }

    /// `bytes` zeros on the card.
    pub fn zeros(&mut self, bytes: u64) -> Result<Ptr> {
        let ptr = self.room(bytes)?;
        self.stream.fill(ptr, 0, bytes)?;
        Ok(ptr)
    }

    /// `n` values from the card, once all that was enqueued is done.
    pub fn get<T: Plain>(&mut self, from: Ptr, n: usize) -> Result<Vec<T>> {
        self.wait()?;
        self.stream.read_vec(from, n)
    }

    /// Waits until the card has done all that was enqueued.
    pub fn wait(&self) -> Result<()> {
        let begin = Instant::now();
        let mut pause = Duration::ZERO;
        while !self.stream.query()? {
            if begin.elapsed() > LIMIT {
                // Giving anything back would wait for it.
                give_up();
                bail!("has not ended within {} s", LIMIT.as_secs());
            }
            thread::sleep(pause);
            pause = (pause + Duration::from_micros(10)).min(Duration::from_millis(1));
        }
        Ok(())
    }

    /// `x` for kernels of `dtype`: here and on the card, in the one form that they read.
    pub fn acts(&mut self, dtype: GgmlType, x: &[f32]) -> Result<(Activations, Acts)> {
        let mut acts = Activations::default();
        acts.load(x, x.len(), [Isa::Plain.kernels(dtype).act]);
        if takes_floats(dtype) {
            return Ok((acts, Acts { f32: self.put(x)?, x8: Ptr::NULL }));
        }
        let x8 = quantized(&acts);
        Ok((acts, Acts { f32: Ptr::NULL, x8: self.put(&x8)? }))
    }

    /// Fails where an x8 of `n` values on the card is not what the processor makes of `x`. Bits may differ: a quant may be the
    /// next one.
    pub fn check_quantized(&mut self, x8: Ptr, x: &[f32]) -> Result<()> {
        let n = x.len();
        let mut acts = Activations::default();
        acts.load(x, n, [ActKind::Q8]);
        let row = acts.row(0);
        let (quants, scales) = (self.get::<i8>(x8, n)?, self.get::<f32>(x8.offset(n as u64), n / 16)?);
        let quants: Vec<f32> = quants.into_iter().map(f32::from).collect();
        near("quant", &quants, row.q.iter().map(|q| f64::from(*q)), |_| 1.0)?;
        let expected: Vec<f64> = row.d.iter().chain(row.ds).map(|d| f64::from(*d)).collect();
        // The second half are scales times sums of quants.
        let size = |i: usize| if i < n / 32 { expected[i].abs() } else { 4.0 * expected[i - n / 32].abs() };
        near("scale", &scales, expected.iter().copied(), |i| if i < n / 32 { 1e-6 * size(i) } else { size(i) })
    }
}

/// The bytes of an x8.
fn quantized(acts: &Activations) -> Vec<u8> {
    let row = acts.row(0);
    let scales = row.d.iter().chain(row.ds).flat_map(|d| d.to_ne_bytes());
    row.q.iter().map(|q| *q as u8).chain(scales).collect()
}

/// Fails unless `got` is `expected`.
pub(super) fn equal<T: PartialEq + Display>(what: &str, got: &[T], expected: &[T]) -> Result<()> {
    ensure!(got.len() == expected.len(), "{} {what}s, {} expected", got.len(), expected.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        ensure!(got == expected, "{what} {i} is {got}, {expected} expected");
    }
    Ok(())
}

/// Fails unless each of `got` is within `tolerance` of `expected`.
pub(super) fn near(
    what: &str,
    got: &[f32],
    expected: impl IntoIterator<Item = f64>,
    tolerance: impl Fn(usize) -> f64,
) -> Result<()> {
    let mut expected = expected.into_iter();
    for (i, got) in got.iter().enumerate() {
        let expected = expected.next().context("too many values")?;
        // What is no number is never near.
        let near = (f64::from(*got) - expected).abs() <= tolerance(i);
        ensure!(near, "{what} {i} is {got}, {} expected", expected as f32);
    }
    ensure!(expected.next().is_none(), "too few values");
    Ok(())
}
