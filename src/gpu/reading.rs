//! How fast the kernels that read weights read them: what the planner's bandwidths and the table of kernels both come from.

use super::matrix::DeviceMatrix;
use super::memory::{Arena, Ptr};
use super::meter::{Copies, Meter, POSITIVE, Times};
use super::ops::down::{self, Factors};
use super::ops::experts::{self, Activated, ENTRY_BYTES, Hot, Index};
use super::ops::ffn::{self, List};
use super::ops::matvec;
use super::ops::norm::{Acts, x8_bytes};
use super::ops::route::Routes;
use crate::model::Activation;
use crate::placement::budget::aligned;
use crate::placement::hardware::SLOWEST;
use crate::placement::probe::one_in_ten;
use crate::quant::GgmlType;
use anyhow::Result;

/// A kernel that reads weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reader {
    /// Products of all rows of one to three matrices.
    Matvec {
        /// Applied to each.
        activation: Option<Activation>,
    },
    /// Products of two matrices with as many rows each, of which none is left out.
    GateUp,
    /// Products of some or all rows of a matrix.
    Up,
    /// Sum of some or all rows of a matrix.
    Down,
    /// The first half of the FFN of experts: as many matrices each as there are experts, two for each where they are gated.
    Experts {
        /// Whether there are gates.
        gated: bool,
    },
    /// Sum of some or all rows of experts' matrices.
    ExpertsDown,
}

impl Reader {
    /// What its kernels are called, without the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Matvec { .. } => "matvec",
            Self::GateUp => "gate_up",
            Self::Up => "up",
            Self::Down => "down",
            Self::Experts { .. } => "experts",
            Self::ExpertsDown => "experts_down",
        }
    }
}

/// Matrices of one type and width that one launch reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Type of the weights.
    pub dtype: GgmlType,
    /// Rows of each.
    pub n_rows: Vec<usize>,
    /// Elements of a row.
    pub n_cols: usize,
}

/// What was measured of a kernel.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// Seconds of a launch.
    pub times: Times,
    /// Bytes of weights that a launch has to read.
    pub bytes: u64,
    /// Places that launches read from in turn.
    pub n_copies: usize,
}

impl Read {
    /// Bytes per second at best, where `kernel` seconds of each launch do not count as reading.
    pub fn bandwidth(&self, kernel: f64) -> f64 {
        // Launches that overlap with reading cost less than on their own.
        let bandwidth = self.bytes as f64 / (self.times.best - kernel).max(self.times.best / 2.0);
        // An emulated card may be slower than any that is believed.
        bandwidth.max(SLOWEST)
    }
}

impl Meter {
    /// Measures `reader` on `shape`: on all rows, or, where `listed`, on the one row in ten, without a pattern, that fires:
    /// by a list, or by factors that are 0.
    ///
    /// # Errors
    /// When there is no kernel for it; when the card fails or has no memory left.
    pub fn read(&self, reader: Reader, shape: &Shape, listed: bool) -> Result<Read> {
        let Shape { dtype, ref n_rows, n_cols } = *shape;
        let sizes = n_rows.iter().map(|n| Ok(aligned(DeviceMatrix::bytes(dtype, *n, n_cols)?)));
        let sizes = sizes.collect::<Result<Vec<_>>>()?;
        let copies = Copies::new(self, sizes.iter().sum())?;
        let matrices_at = |i: usize| -> Result<Vec<DeviceMatrix>> {
            let mut at = copies.at(i);
            let matrices = n_rows.iter().zip(&sizes).map(|(n, bytes)| {
                let matrix = DeviceMatrix::at(at, dtype, *n, n_cols);
                at = at.offset(*bytes);
                matrix
            });
            matrices.collect()
        };
        let matrices = (0..copies.n).map(matrices_at).collect::<Result<Vec<_>>>()?;

        let (all, float) = (n_rows.iter().sum::<usize>(), size_of::<f32>() as u64);
        let mut slots = one_in_ten(n_rows[0]);
        if slots.is_empty() {
            slots.push(0);
        }
        let n_used = n_rows.len() / if reader == (Reader::Experts { gated: true }) { 2 } else { 1 };
        let scratch_bytes = match reader {
            Reader::Down => down::scratch_bytes(dtype, n_cols)?,
            Reader::ExpertsDown => experts::scratch_bytes(&matrices[0][0], n_used)?,
            Reader::Matvec { .. } | Reader::GateUp | Reader::Up | Reader::Experts { .. } => 0,
        };
        let is_routed = matches!(reader, Reader::Experts { .. } | Reader::ExpertsDown);
        let index_bytes = if is_routed { n_used as u64 * ENTRY_BYTES } else { 0 };
        let vectors =
            [n_cols as u64 * float, x8_bytes(n_cols), n_cols as u64 * float, all as u64 * float, all as u64 * float];
        let sum = vectors.iter().map(|n| aligned(*n)).sum::<u64>() + aligned(slots.len() as u64 * float);
        let lists = copies.n as u64 * aligned(index_bytes) + 2 * aligned(n_used as u64 * float);
        let mut memory = Arena::new(self.device(), sum + aligned(scratch_bytes) + lists, "measuring")?;
        // Activations that are 0 would be skipped.
        self.stream.fill(memory.buffer().ptr(), POSITIVE, memory.buffer().len())?;
        let [x, x8, y, act, h] = vectors;
        let acts = Acts { f32: memory.take(x, "x")?, x8: memory.take(x8, "x8")? };
        let y = memory.take(y, "y")?;
        let (act, h) = (memory.take(act, "activations")?, memory.take(h, "h")?);
        let at = memory.take_of::<u32>(slots.len(), "a list")?;
        let scratch = memory.take(scratch_bytes, "sums")?;
        if scratch_bytes > 0 {
            down::clear_scratch(&self.stream, scratch)?;
        }
        // Weights are whatever numbers above zero are there.
        let chosen = memory.take_of::<u32>(n_used, "a choice")?;
        let routes = Routes { chosen, weights: memory.take_of::<f32>(n_used, "weights")?, n_used };
        self.stream.write(chosen, &(0..n_used as u32).collect::<Vec<_>>())?;
        let mut indices = Vec::new();
        for matrices in matrices.iter().filter(|_| is_routed) {
            let hot = |i: usize| Hot { mask: matrices[i], up: matrices.get(n_used + i).copied(), down: matrices[i] };
            let entries: Vec<_> = (0..n_used).map(|i| (Some(hot(i)), i)).collect();
            let ptr = memory.take(index_bytes, "an index")?;
            self.stream.write(ptr, &experts::index_bytes(&entries)?)?;
            indices.push(Index { ptr, most_hot: n_rows[0], like: hot(0) });
        }
        let activated = Activated { h: act, stride: n_rows[0], counts: Ptr::NULL };
        self.stream.write(at, &slots)?;
        if listed {
            let mut fired = vec![0.0f32; all];
            // One group of neurons behind the other.
            let starts = (0..n_used).map(|i| i * n_rows[0]).take(if is_routed { n_used } else { 1 });
            starts.for_each(|start| slots.iter().for_each(|slot| fired[start + *slot as usize] = 1.0));
            self.stream.write(act, &fired)?;
        }
        let list = if listed { List { slots: at, count: Ptr::NULL, n: slots.len() } } else { List::all(n_rows[0]) };
        let (kernels, stream) = (&self.kernels, &self.stream);
        let times = self.per_launch(|i| {
            let matrices = &matrices[i % copies.n];
            match reader {
                Reader::Matvec { activation } => {
                    let mut to = h;
                    let rows = matrices.iter().map(|m| {
                        let rows = matvec::Rows::all(m, to);
                        to = to.offset(m.n_stored() as u64 * float);
                        rows
                    });
                    matvec::matvec(kernels, stream, &rows.collect::<Vec<_>>(), acts, activation)
                }
                // Never 0 behind numbers above 0.
                Reader::GateUp => {
                    let (gate, up) = (&matrices[0], &matrices[1]);
                    ffn::gate_up(kernels, stream, gate, up, n_rows[0], acts, Activation::Relu, h)
                }
                Reader::Up => ffn::up(kernels, stream, &matrices[0], Ptr::NULL, &list, act, acts, Activation::Relu, h),
                Reader::Down => {
                    let factors = Factors { h: act, n: n_rows[0], all: !listed };
                    down::down(kernels, stream, &matrices[0], &factors, y, scratch)
                }
                Reader::Experts { .. } => {
                    let (index, to) = (&indices[i % copies.n], Activated { h, ..activated });
                    experts::experts(kernels, stream, index, &routes, acts, Activation::Relu, &to)
                }
                Reader::ExpertsDown => {
                    let index = &indices[i % copies.n];
                    experts::experts_down(kernels, stream, index, &routes, &activated, !listed, y, scratch)
                }
            }
        })?;
        let n_read = if listed { slots.len() * if is_routed { n_used } else { 1 } } else { all };
        let bytes = n_read as u64 * matrices[0][0].row_bytes() as u64;
        Ok(Read { times, bytes, n_copies: copies.n })
    }
}
