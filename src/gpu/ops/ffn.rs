//! `kernels/ffn.cu`: the first half of an FFN.

use super::norm::Acts;
use super::several::{Several, check_several};
use super::{THREADS, activation_code, resident};
use crate::gpu::matrix::DeviceMatrix;
use crate::gpu::{Args, Kernels, Ptr, Stream};
use crate::model::Activation;
use anyhow::{Result, ensure};

/// Warps per block.
const WARPS: usize = THREADS / 32;
/// Rows that a warp works on at once.
const ROWS: usize = 2;

/// The neurons to compute, in ascending order of slots.
#[derive(Debug, Clone, Copy)]
pub struct List {
    /// `u32` slots, or [`Ptr::NULL`] for 0, 1, and so on.
    pub slots: Ptr,
    /// One `u32`: how many there are, at most `n`; or [`Ptr::NULL`] if there are exactly `n`.
    pub count: Ptr,
    /// The most there can be; all of them are rows of the matrices.
    pub n: usize,
}

impl List {
    /// The slots 0 to `n - 1`.
    pub fn all(n: usize) -> Self {
        Self { slots: Ptr::NULL, count: Ptr::NULL, n }
    }

    /// Checks that all can be rows of `matrix`.
    pub(super) fn check(&self, matrix: &DeviceMatrix) -> Result<()> {
        let n_stored = matrix.n_stored();
        ensure!(self.n <= n_stored, "a list of {} neurons, and the matrix has {n_stored}", self.n);
        Ok(())
    }
}

/// Enqueues `h[s] = act[s] * (up[s] . x + bias[s])` for the slots `s` of the list, exactly 0 where `act[s]` is 0, and where
/// `activation`, which has given `act`, lets a neuron rest for its second factor. `act`, `bias` (or [`Ptr::NULL`]) and `h`:
/// `f32`, by slot; the first and the last may be the same. What is not in the list stays as it is in `h`.
///
/// # Errors
/// When sizes do not match, or the card has failed.
#[allow(clippy::too_many_arguments, reason = "one per operand")]
pub fn up(
    kernels: &Kernels,
    stream: &Stream,
    up: &DeviceMatrix,
    bias: Ptr,
    list: &List,
    act: Ptr,
    x: Acts,
    activation: Activation,
    h: Ptr,
) -> Result<()> {
    up_of(kernels, stream, up, bias, list, act, x, activation, h, Several::ONE)
}

/// The same for several tokens, one behind the other in `x`: the list has the slots at which any of them has an `act`, and each
/// row is read once.
///
/// # Errors
/// As [`up`].
#[allow(clippy::too_many_arguments, reason = "one per operand")]
pub fn up_of(
    kernels: &Kernels,
    stream: &Stream,
    up: &DeviceMatrix,
    bias: Ptr,
    list: &List,
    act: Ptr,
    x: Acts,
    activation: Activation,
    h: Ptr,
    of: Several,
) -> Result<()> {
    list.check(up)?;
    check_several(up, of.n_tokens)?;
    if list.n == 0 {
        return Ok(());
    }
    let args = Args::new().ptr(up.ptr()).n(up.n_stored()).ptr(list.slots).ptr(list.count).n(list.n);
    let args = args.ptr(act).ptr(up.input(x)?);
    let (args, name) = if of.n_tokens > 1 { (args.n(of.n_tokens), "up_several") } else { (args, "up") };
    let args = args.n(up.n_cols()).ptr(bias).i32(activation_code(Some(activation))?).ptr(h);
    let args = if of.n_tokens > 1 { args.n(of.acts) } else { args };
    let grid = resident(stream.device()).min(list.n.div_ceil(WARPS) as u32);
    kernels.launch(stream, &format!("{name}_{}", up.kernel()), [grid, 1, 1], [THREADS as u32, 1, 1], args)
}

/// Enqueues `a = activation(gate[i] . x)`, `h[i] = a * (up[i] . x)`, exactly 0 where [`up`] has it so, for slots 0 to `n - 1`.
/// `h`: `f32[n]`, by slot. Only for two matrices of one type without biases; otherwise use [`super::matvec::matvec`], a selection, and
/// [`up`].
///
/// # Errors
/// When types or sizes do not match, or the card has failed.
#[allow(clippy::too_many_arguments, reason = "one per operand")]
pub fn gate_up(
    kernels: &Kernels,
    stream: &Stream,
    gate: &DeviceMatrix,
    up: &DeviceMatrix,
    n: usize,
    x: Acts,
    activation: Activation,
    h: Ptr,
) -> Result<()> {
    gate_up_of(kernels, stream, gate, up, n, x, activation, h, Several::ONE)
}

/// The same for several tokens, one behind the other in `x`: each row is read once.
///
/// # Errors
/// As [`gate_up`].
#[allow(clippy::too_many_arguments, reason = "one per operand")]
pub fn gate_up_of(
    kernels: &Kernels,
    stream: &Stream,
    gate: &DeviceMatrix,
    up: &DeviceMatrix,
    n: usize,
    x: Acts,
    activation: Activation,
    h: Ptr,
    of: Several,
) -> Result<()> {
    check_several(gate, of.n_tokens)?;
    ensure!(gate.dtype() == up.dtype(), "gate is {} and up {}: not in one kernel", gate.dtype(), up.dtype());
    ensure!(gate.n_cols() == up.n_cols(), "gate has {} columns and up {}", gate.n_cols(), up.n_cols());
    List::all(n).check(gate)?;
    List::all(n).check(up)?;
    if n == 0 {
        return Ok(());
    }
    let args = Args::new().ptr(gate.ptr()).n(gate.n_stored()).ptr(up.ptr()).n(up.n_stored()).n(n);
    let args = args.ptr(gate.input(x)?);
    let (args, name) = if of.n_tokens > 1 { (args.n(of.n_tokens), "gate_up_several") } else { (args, "gate_up") };
    let args = args.n(gate.n_cols()).i32(activation_code(Some(activation))?).ptr(h);
    let args = if of.n_tokens > 1 { args.n(of.acts) } else { args };
    let grid = n.div_ceil(WARPS * ROWS) as u32;
    kernels.launch(stream, &format!("{name}_{}", gate.kernel()), [grid, 1, 1], [THREADS as u32, 1, 1], args)
}
