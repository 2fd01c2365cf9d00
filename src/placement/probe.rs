//! A short measurement of this machine: what our own kernels reach on weights that lie in memory.

use super::hardware::{Bandwidth, Bandwidths, Cpu};
use crate::cpu::pool::{Region, Work};
use crate::cpu::several::Vectors;
use crate::cpu::{ActKind, Activations, Isa, Pool, Rows};
use crate::progress::{self, Progress};
use crate::quant::{GgmlType, convert};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Row length: that of a 7B model.
const N_COLS: usize = 4096;
/// Bytes of weights: enough to leave every cache behind.
const BYTES: usize = 320 << 20;
/// Bytes per region, as large as a matrix of a layer.
const REGION_BYTES: usize = 16 << 20;
/// One row in so many is in a gathered list: what ReLU leaves of a sparse model.
const ONE_IN: u64 = 10;
/// Passes of each kind; the best counts, for others use the memory, too.
const PASSES: usize = 3;
/// Vectors that rows meet at once where arithmetic is measured, and bytes of the rows, which stay in the caches.
const VECTORS: usize = 4;
const CACHED_BYTES: usize = 256 << 10;
/// Chunks per thread, as in the executor.
const CHUNKS_PER_THREAD: usize = 8;

/// What one region computes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Nothing,
    Dot,
    Several,
    Add,
}

#[derive(Default)]
struct Probe {
    kind: Kind,
    isa: Option<(Isa, GgmlType)>,
    data: Arc<Vec<u8>>,
    row_bytes: usize,
    /// Rows, or the list of them where it is not empty.
    first: usize,
    len: usize,
    list: Vec<u32>,
    x: Activations,
    h: Vec<f32>,
}

impl Probe {
    fn rows(&self) -> Rows<'_> {
        if self.list.is_empty() {
            Rows::range(&self.data, self.row_bytes, self.first, self.len)
        } else {
            Rows::list(&self.data, self.row_bytes, &self.list)
        }
    }
}

impl Work for Probe {
    fn compute(&self, start: usize, out: &mut [f32]) {
        let Some((isa, dtype)) = self.isa else { return };
        let kernels = isa.kernels(dtype);
        match self.kind {
            Kind::Nothing => out.fill(start as f32),
            Kind::Dot => (kernels.dot)(self.rows().part(start, out.len()), self.x.row(0), out),
            Kind::Several => {
                let (first, n) = (start / VECTORS, out.len() / VECTORS);
                kernels.dots(self.rows(), first..first + n, &Vectors::of(VECTORS, |_| self.x.row(0)), out, VECTORS);
            }
            Kind::Add => {
                out.fill(0.0);
                let bytes = |columns: usize| columns / dtype.block_len() * dtype.block_bytes();
                (kernels.add_scaled)(self.rows().piece(bytes(start), bytes(out.len())), &self.h, out);
            }
        }
    }
}

/// Measures the processor with the threads of `pool` on rows of `types`: about half a second each.
///
/// # Errors
/// When memory cannot be had, a type cannot be computed with, or the user stops it.
pub fn measure(pool: &Pool, isa: Isa, types: &[GgmlType], progress: &dyn Progress) -> Result<Cpu> {
    progress.begin("measuring", types.len() as u64 + 1);
    let mut by_type = BTreeMap::new();
    for dtype in types {
        progress::check(progress)?;
        by_type.insert(dtype.name(), bandwidth(pool, isa, *dtype)?);
        progress.advance(1);
    }
    let least = |of: fn(&Bandwidth) -> f64| by_type.values().map(of).fold(f64::INFINITY, f64::min);
    let other = if by_type.is_empty() {
        bandwidth(pool, isa, GgmlType::F16)?
    } else {
        Bandwidth {
            stream: least(|b| b.stream),
            gather: least(|b| b.gather),
            add_stream: least(|b| b.add_stream),
            add_gather: least(|b| b.add_gather),
            several: least(|b| b.several),
        }
    };
    let (region, value) = (region_seconds(pool, isa), value_seconds());
    progress.end();
    Ok(Cpu { threads: pool.n_threads(), bandwidth: Bandwidths { other, by_type }, region, value })
}

/// Values that look like weights.
fn values() -> Vec<f32> {
    (0..N_COLS as u32).map(|i| (hash(u64::from(i)) % 2001) as f32 / 1000.0 - 1.0).collect()
}

/// A number without a pattern (splitmix64).
fn hash(i: u64) -> u64 {
    let mut z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The rows of a gathered list, of `n_rows`.
pub(crate) fn one_in_ten(n_rows: usize) -> Vec<u32> {
    (0..n_rows as u32).filter(|i| hash(u64::from(*i)).is_multiple_of(ONE_IN)).collect()
}

fn bandwidth(pool: &Pool, isa: Isa, dtype: GgmlType) -> Result<Bandwidth> {
    let row_bytes = dtype.row_bytes(N_COLS).with_context(|| format!("{dtype}: no rows of {N_COLS}"))?;
    let mut row = vec![0; row_bytes];
    // A type that is only read has no writer: zeros are as fast as other weights.
    if let Ok(write) = convert::quantizer(dtype) {
        write(&values(), &mut row);
    }
    let n_rows = BYTES / row_bytes;
    let mut data: Vec<u8> = Vec::new();
    data.try_reserve_exact(n_rows * row_bytes).context("no memory for measuring")?;
    (0..n_rows).for_each(|_| data.extend_from_slice(&row));
    let data = Arc::new(data);
    let per_region = REGION_BYTES / row_bytes;
    let listed = one_in_ten(n_rows);

    let mut x = Activations::default();
    x.load(&values(), N_COLS, [isa.kernels(dtype).act]);
    let mut region = Region::<Probe>::default();
    let mut best = |kind: Kind, gather: bool| {
        let mut seconds = f64::INFINITY;
        let mut n = 0;
        for _ in 0..PASSES {
            let start = Instant::now();
            n = 0;
            // The same rows again, or all of them once.
            let cached = kind == Kind::Several;
            for first in (0..n_rows - per_region).step_by(per_region) {
                let (first, per_region) = if cached { (0, CACHED_BYTES / row_bytes) } else { (first, per_region) };
                let range = first as u32..(first + per_region) as u32;
                let at = |row: u32| listed.partition_point(|i| *i < row);
                let list = if gather { &listed[at(range.start)..at(range.end)] } else { &[] };
                let len = if gather { list.len() } else { per_region };
                n += len;
                let threads = pool.n_threads();
                let (n_out, chunk) = match kind {
                    Kind::Several => (len * VECTORS, len.div_ceil(threads).next_multiple_of(4) * VECTORS),
                    Kind::Dot => (len, len.div_ceil(threads * CHUNKS_PER_THREAD).next_multiple_of(4)),
                    Kind::Add | Kind::Nothing => (N_COLS, N_COLS.div_ceil(threads).next_multiple_of(256)),
                };
                pool.run(&mut region, n_out, chunk, |work| {
                    (work.kind, work.isa, work.row_bytes) = (kind, Some((isa, dtype)), row_bytes);
                    work.data = Arc::clone(&data);
                    (work.first, work.len) = (first, len);
                    work.list.clear();
                    work.list.extend_from_slice(list);
                    work.x.copy_from(&x);
                    work.h.clear();
                    work.h.resize(len, 1e-3);
                });
            }
            seconds = seconds.min(start.elapsed().as_secs_f64());
        }
        (n * row_bytes) as f64 / seconds
    };
    Ok(Bandwidth {
        stream: best(Kind::Dot, false),
        gather: best(Kind::Dot, true),
        add_stream: best(Kind::Add, false),
        add_gather: best(Kind::Add, true),
        several: VECTORS as f64 * best(Kind::Several, false),
    })
}

/// Seconds of a region that computes nothing.
fn region_seconds(pool: &Pool, isa: Isa) -> f64 {
    const REGIONS: usize = 500;
    let mut region = Region::<Probe>::default();
    let n = pool.n_threads() * CHUNKS_PER_THREAD;
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let start = Instant::now();
        for _ in 0..REGIONS {
            pool.run(&mut region, n, 1, |work| work.isa = Some((isa, GgmlType::F32)));
        }
        best = best.min(start.elapsed().as_secs_f64() / REGIONS as f64);
    }
    best
}

/// Seconds per number of what one thread does with vectors between the products; quantizing them stands for all.
fn value_seconds() -> f64 {
    const TIMES: usize = 500;
    let values = values();
    let mut x = Activations::default();
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let start = Instant::now();
        for _ in 0..TIMES {
            x.load(std::hint::black_box(&values), N_COLS, [ActKind::Q8]);
        }
        best = best.min(start.elapsed().as_secs_f64() / (TIMES * N_COLS) as f64);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn this_machine_has_bandwidths() {
        let pool = Pool::new(2).unwrap();
        let cpu = measure(&pool, Isa::detect(), &[GgmlType::Q4_0], &Silent).unwrap();
        let b = cpu.bandwidth.of(GgmlType::Q4_0);
        let believable = |x: f64| (1e6..1e13).contains(&x);
        assert!([b.stream, b.gather, b.add_stream, b.add_gather, b.several].into_iter().all(believable), "{b:?}");
        assert!(cpu.region > 0.0 && cpu.region < 0.1 && cpu.value > 0.0 && cpu.value < 1e-5, "{cpu:?}");
        assert_eq!(cpu.threads, 2);
    }
}
