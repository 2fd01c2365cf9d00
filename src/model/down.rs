//! `ffn_down`, in the layouts in which files have it.

use super::lossless::LosslessDown;
use super::matrix::Matrix;
use crate::quant::GgmlType;

/// `ffn_down` in one of its layouts. Cloning is cheap.
#[derive(Clone)]
pub enum Down {
    /// `ffn_down`, as plain files have it: `[n_embd][n_ff]`, a neuron is a column.
    Columns(Matrix),
    /// `ffn_down_t`, as variants have it: `[n_ff][n_embd]`, a neuron is a row.
    Rows(Matrix),
    /// `ffn_down_t_q` and `ffn_down_scale`, as lossless variants have it: a neuron is a row of quants.
    Lossless(LosslessDown),
}

impl Down {
    /// Type of the weights.
    pub fn dtype(&self) -> GgmlType {
        match self {
            Self::Columns(m) | Self::Rows(m) => m.dtype(),
            Self::Lossless(down) => down.dtype(),
        }
    }

    /// `n_ff` and `n_embd`.
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Self::Columns(m) => (m.n_cols, m.n_rows),
            Self::Rows(m) => (m.n_rows, m.n_cols),
            Self::Lossless(down) => down.shape(),
        }
    }

    /// Has the system read all of it soon, where it is in a mapped file.
    pub fn will_need(&self) {
        match self {
            Self::Columns(m) | Self::Rows(m) => m.will_need(),
            Self::Lossless(down) => down.will_need(),
        }
    }

    /// Bytes of all weights.
    pub fn n_bytes(&self) -> usize {
        match self {
            Self::Columns(m) | Self::Rows(m) => m.n_bytes(),
            Self::Lossless(down) => down.n_bytes(),
        }
    }
}
