//! Products of parts with the activations of all tokens of a batch.

use super::compute::{Compute, How};
use super::matvec::{MatVec, untangle};
use super::tiles::{Each, Section, Tiles};
use crate::cpu::{ActKind, Activations};
use crate::model::Part;

/// Products, with the memory that they keep from call to call.
#[derive(Default)]
pub(super) struct Products {
    by_rows: MatVec,
    pub tiles: Tiles,
}

impl Products {
    /// `outs` become `[n_tokens][n_rows]` each: of `parts`, which have the same number of columns, with their biases.
    pub fn of<const N: usize>(
        &mut self,
        cx: Compute,
        how: How,
        parts: [&Part; N],
        x: &Activations,
        mut outs: [&mut Vec<f32>; N],
    ) {
        match how {
            How::Tiles => {
                for (i, (part, out)) in parts.iter().zip(&mut outs).enumerate() {
                    let section = Section { matrix: part.matrix(), vectors: None };
                    self.tiles.products(cx, x, &Each { n: 1, get: |_| section }, i > 0, |_, _| {}, out);
                }
            }
            How::Rows => {
                let n = x.n_tokens();
                let mut rest = self.by_rows.all(cx, x, &parts.map(Part::matrix));
                for (part, out) in parts.iter().zip(&mut outs) {
                    let (own, others) = rest.split_at(part.matrix().n_rows * n);
                    untangle(own, n, out);
                    rest = others;
                }
            }
        }
        for (part, out) in parts.iter().zip(outs) {
            add_bias(part, out);
        }
    }
}

/// Takes `[n_tokens][n]` values in the forms in which products need them: `kinds` are those of row by row.
pub(super) fn load(
    cx: Compute,
    how: How,
    forms: &mut Activations,
    (x, n): (&[f32], usize),
    kinds: impl IntoIterator<Item = ActKind>,
) {
    match how {
        How::Rows => forms.load(x, n, kinds),
        How::Tiles => forms.load_many(x, n, kinds.into_iter().any(|kind| kind != ActKind::F32), cx.pool),
    }
}

/// Adds the bias, where there is one, to each of `[n_tokens][n_out]`.
pub(super) fn add_bias(part: &Part, out: &mut [f32]) {
    if let Some(bias) = &part.bias {
        for out in out.chunks_exact_mut(bias.len()) {
            out.iter_mut().zip(&**bias).for_each(|(o, b)| *o += b);
        }
    }
}
