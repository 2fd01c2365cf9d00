//! The other operand of a dot product: activations, in every form that some weight type wants.

use crate::quant::GgmlType;
use crate::quant::blocks::QK;
use crate::quant::convert;

/// The form in which a weight type wants the activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActKind {
    /// 32-bit floats.
    F32,
    /// `Q8_0` blocks, so that the products are integers.
    Q8,
}

/// One vector of activations in all prepared forms.
#[derive(Clone, Copy)]
pub struct ActRow<'a> {
    /// The values, always there.
    pub f32: &'a [f32],
    /// The values as `Q8_0` blocks; empty unless asked for.
    pub q8: &'a [u8],
}

/// `[n_tokens][n]` activations. Quantized once per vector, however many weight rows they meet.
#[derive(Default)]
pub struct Activations {
    n: usize,
    f32: Vec<f32>,
    q8: Vec<u8>,
    q8_row: usize,
}

impl Activations {
    /// Takes `[n_tokens][n]` values and prepares the forms in `kinds`. Keeps its buffers from call to call.
    /// `n` must be whole blocks of 32 where `Q8` is asked for; the model's loader has checked that.
    pub fn load(&mut self, x: &[f32], n: usize, kinds: impl IntoIterator<Item = ActKind>) {
        self.n = n;
        self.f32.clear();
        self.f32.extend_from_slice(x);
        self.q8.clear();
        self.q8_row = 0;
        if kinds.into_iter().any(|k| k == ActKind::Q8) {
            debug_assert!(n.is_multiple_of(QK));
            self.q8_row = n / QK * GgmlType::Q8_0.block_bytes();
            self.q8.resize(x.len() / QK * GgmlType::Q8_0.block_bytes(), 0);
            convert::quantize_q8_0_rows(x, &mut self.q8);
        }
    }

    /// Number of vectors.
    pub fn n_tokens(&self) -> usize {
        self.f32.len().checked_div(self.n).unwrap_or(0)
    }

    /// Vector `token`.
    pub fn row(&self, token: usize) -> ActRow<'_> {
        let q8 = &self.q8[token * self.q8_row..][..self.q8_row];
        ActRow { f32: &self.f32[token * self.n..][..self.n], q8 }
    }
}
