//! The groups of neurons that a router has chosen, all in one launch (`kernels/ffn.cu`, `kernels/down.cu`): which they are
//! is in memory of the card, so the launch is the same for every token.

use super::down::{self, ROW_LANES_OF_SPLIT};
use super::norm::Acts;
use super::route::Routes;
use super::{THREADS, activation_code};
use crate::gpu::matrix::DeviceMatrix;
use crate::gpu::{Args, Kernels, Ptr, Stream};
use crate::model::Activation;
use anyhow::{Result, ensure};

/// Rows that a block works on at once.
const ROWS_OF_BLOCK: usize = THREADS / 32 * 2;
/// Bytes of an entry of an [`Index`].
pub const ENTRY_BYTES: u64 = 32;

/// What the card has of a group: the hot rows of each matrix.
#[derive(Debug, Clone, Copy)]
pub struct Hot {
    /// The mask matrix.
    pub mask: DeviceMatrix,
    /// Where there is a gate.
    pub up: Option<DeviceMatrix>,
    /// A row per neuron.
    pub down: DeviceMatrix,
}

/// The groups among which a layer's router chooses.
#[derive(Debug, Clone, Copy)]
pub struct Index {
    /// An entry for each row of the router, on the card.
    pub ptr: Ptr,
    /// Hot neurons of the group that has most.
    pub most_hot: usize,
    /// Any of those that have some: all are of the same types and widths.
    pub like: Hot,
}

/// The bytes of an index: for each row of the router what the card has of its group, if anything, and the group's number in
/// its layer.
///
/// # Errors
/// When groups differ in types or widths, or in what they have; when a number is too large.
pub fn index_bytes(entries: &[(Option<Hot>, usize)]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_BYTES as usize);
    let like = entries.iter().find_map(|(hot, _)| *hot);
    for (hot, group) in entries {
        let place = |matrix: Option<DeviceMatrix>| matrix.map_or(Ptr::NULL, |matrix| matrix.ptr());
        let n_hot = hot.map_or(0, |hot| hot.mask.n_stored());
        if let (Some(hot), Some(like)) = (hot, &like) {
            let form = |m: &DeviceMatrix| (m.dtype(), m.n_cols());
            let alike = form(&hot.mask) == form(&like.mask) && form(&hot.down) == form(&like.down);
            let of_one_type = hot.up.is_none_or(|up| form(&up) == form(&hot.mask));
            ensure!(alike && of_one_type && hot.up.is_some() == like.up.is_some(), "experts of several types");
            let n = [hot.up.map_or(n_hot, |up| up.n_stored()), hot.down.n_stored()];
            ensure!(n == [n_hot; 2], "an expert of {n_hot} neurons has {n:?} of other matrices");
        }
        for ptr in [place(hot.map(|hot| hot.mask)), place(hot.and_then(|hot| hot.up)), place(hot.map(|hot| hot.down))] {
            bytes.extend_from_slice(&ptr.0.to_ne_bytes());
        }
        for n in [n_hot, *group] {
            bytes.extend_from_slice(&i32::try_from(n)?.to_ne_bytes());
        }
    }
    Ok(bytes)
}

/// What chosen groups give goes where.
#[derive(Debug, Clone, Copy)]
pub struct Activated {
    /// `f32[n_used][stride]`: what the neurons' vectors are multiplied with, the group's weight in it.
    pub h: Ptr,
    /// At least the most hot neurons of a group.
    pub stride: usize,
    /// Two `u32` for each group of the layer, to which is added how many neurons fire and for how many `up` is read; or
    /// [`Ptr::NULL`].
    pub counts: Ptr,
}

/// Enqueues `h[j][i] = weight[j] * activation(mask[i] . x) * (up[i] . x)` for the hot neurons of the chosen groups `j`, exactly
/// 0 where a neuron does not fire.
///
/// # Errors
/// When there is no room for it, or the card has failed.
pub fn experts(
    kernels: &Kernels,
    stream: &Stream,
    index: &Index,
    routes: &Routes,
    x: Acts,
    activation: Activation,
    to: &Activated,
) -> Result<()> {
    let Activated { h, stride, counts } = *to;
    ensure!(index.most_hot <= stride, "{} hot neurons, and room for {stride}", index.most_hot);
    let mask = &index.like.mask;
    let args = Args::new().ptr(index.ptr).ptr(routes.chosen).ptr(routes.weights).ptr(mask.input(x)?).n(mask.n_cols());
    let args = args.i32(activation_code(Some(activation))?).ptr(h).n(stride).ptr(counts);
    let grid = [index.most_hot.div_ceil(ROWS_OF_BLOCK).max(1) as u32, u32::try_from(routes.n_used)?, 1];
    kernels.launch(stream, &format!("experts_{}", mask.kernel()), grid, [THREADS as u32, 1, 1], args)
}

/// Parts that the rows of each group are divided into: as few as give each thread some, and no more than the memory for sums
/// has room for.
fn splits(most: usize, n_used: usize, n_hot: usize) -> usize {
    (most / n_used.max(1)).min(n_hot.div_ceil(ROW_LANES_OF_SPLIT)).max(1)
}

/// Bytes of scratch memory that [`experts_down`] needs for rows of this form.
///
/// # Errors
/// When there is no kernel for the type or length.
pub fn scratch_bytes(like: &DeviceMatrix, n_used: usize) -> Result<u64> {
    let (_, most) = down::grid(like.dtype(), like.n_cols())?;
    down::scratch_of(like.dtype(), like.n_cols(), most.max(n_used))
}

/// Enqueues `y = sum over the chosen groups j and their hot neurons i of h[j][i] * down[i]`: `f32[n]`. In which order is
/// added depends on the shape alone, as for [`down::down`], whose scratch memory serves this, too, if it has
/// [`scratch_bytes`]. `all` has rows read that are multiplied with 0.
///
/// # Errors
/// When the card has failed.
#[allow(clippy::too_many_arguments, reason = "one per operand")]
pub fn experts_down(
    kernels: &Kernels,
    stream: &Stream,
    index: &Index,
    routes: &Routes,
    from: &Activated,
    all: bool,
    y: Ptr,
    scratch: Ptr,
) -> Result<()> {
    let like = &index.like.down;
    let (n_tiles, most) = down::grid(like.dtype(), like.n_cols())?;
    let splits = splits(most, routes.n_used, index.most_hot);
    let args = Args::new().ptr(index.ptr).ptr(routes.chosen).n(splits).ptr(from.h).n(from.stride);
    let args = args.i32(all.into()).n(like.n_cols()).ptr(y).ptr(scratch);
    let grid = [n_tiles as u32, u32::try_from(splits * routes.n_used)?, 1];
    kernels.launch(stream, &format!("experts_down_{}", like.kernel()), grid, [THREADS as u32, 1, 1], args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::GgmlType;

    #[test]
    fn an_entry_is_what_the_kernels_read() {
        let at = |ptr, n| DeviceMatrix::at(Ptr(ptr), GgmlType::F16, n, 64).unwrap();
        let hot = Hot { mask: at(256, 3), up: None, down: at(512, 3) };
        let bytes = index_bytes(&[(None, 7), (Some(hot), 2)]).unwrap();
        let words: Vec<u64> = bytes.chunks(8).map(|b| u64::from_ne_bytes(b.try_into().unwrap())).collect();
        assert_eq!(words, [0, 0, 0, 7 << 32, 256, 0, 512, 2 << 32 | 3]);
        let other = Hot { down: at(512, 2), ..hot };
        assert!(index_bytes(&[(Some(other), 0)]).is_err());
        let gated = Hot { up: Some(at(768, 3)), ..hot };
        assert!(index_bytes(&[(Some(hot), 0), (Some(gated), 1)]).is_err());
    }

    #[test]
    fn rows_are_divided_as_far_as_there_is_room() {
        assert_eq!([splits(24, 6, 1856), splits(24, 6, 65), splits(4, 8, 2048), splits(24, 1, 1)], [4, 2, 1, 1]);
    }
}
