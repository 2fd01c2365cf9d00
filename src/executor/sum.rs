//! Adding up the output vectors of neurons, divided among the threads by columns.

use super::matvec::Wanted;
use crate::cpu::Isa;
use crate::cpu::pool::{Pool, Region, Work};
use crate::model::Down;

/// `y += h[i] * row[i]` for neurons in rising order. Every column belongs to one chunk, which adds in that order: so
/// neither threads nor neurons that are left out because their factor is 0 change a bit of it.
#[derive(Default)]
pub(super) struct NeuronSum {
    region: Region<Terms>,
}

#[derive(Default)]
struct Terms {
    isa: Option<Isa>,
    down: Option<Down>,
    list: Vec<u32>,
    first: usize,
    listed: bool,
    h: Vec<f32>,
    y: Vec<f32>,
}

/// Columns of a chunk are a multiple of this: whole blocks of every type, whole vectors of every kernel.
const GRAIN: usize = 256;

impl NeuronSum {
    /// Adds to `y` (`[n_embd]`) the neurons of `down`, which is stored by rows, each times its `h`.
    pub fn add(&mut self, pool: &Pool, isa: Isa, down: &Down, wanted: &Wanted, h: &[f32], y: &mut [f32]) {
        let chunk = y.len().div_ceil(pool.n_threads()).next_multiple_of(GRAIN);
        let sum = pool.run(&mut self.region, y.len(), chunk, |work: &mut Terms| {
            work.isa = Some(isa);
            work.down = Some(down.clone());
            work.list.clear();
            match wanted {
                Wanted::Range(range) => (work.first, work.listed) = (range.start, false),
                Wanted::List(list) => {
                    work.listed = true;
                    work.list.extend_from_slice(list);
                }
            }
            work.h.clear();
            work.h.extend_from_slice(h);
            work.y.clear();
            work.y.extend_from_slice(y);
        });
        y.copy_from_slice(sum);
    }
}

impl Work for Terms {
    fn compute(&self, start: usize, out: &mut [f32]) {
        let (Some(isa), Some(down)) = (self.isa, &self.down) else { return };
        out.copy_from_slice(&self.y[start..start + out.len()]);
        let range = self.first..self.first + self.h.len();
        let wanted = if self.listed { Wanted::List(&self.list) } else { Wanted::Range(range) };
        add_columns(isa, down, &wanted, &self.h, start, out);
    }
}

/// Adds to `y`, the columns from `first` on, what the wanted neurons of `down`, stored by rows, have there, each times
/// its `h`, in rising order.
pub(super) fn add_columns(isa: Isa, down: &Down, wanted: &Wanted, h: &[f32], first: usize, y: &mut [f32]) {
    match (down, wanted) {
        (Down::Lossless(down), Wanted::Range(range)) => down.add(isa, range.clone(), h, first, y),
        (Down::Lossless(down), Wanted::List(list)) => down.add(isa, list.iter().map(|i| *i as usize), h, first, y),
        (Down::Rows(down) | Down::Columns(down), _) => {
            let rows = match wanted {
                Wanted::Range(range) => down.rows(range.start, range.len()),
                Wanted::List(list) => down.rows_in(list),
            };
            let dtype = down.dtype();
            let bytes = |columns: usize| columns / dtype.block_len() * dtype.block_bytes();
            (isa.kernels(dtype).add_scaled)(rows.piece(bytes(first), bytes(y.len())), h, y);
        }
    }
}
