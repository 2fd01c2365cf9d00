//! A layer's predictor as stored, and the scores it gives.

use super::linalg::{View, product};
use super::sign;
use super::tensor::Tensor;
use crate::quant::GgmlType;
use anyhow::{Result, bail};
use std::fmt;
use std::str::FromStr;

/// Kind of a layer's predictor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// None: the layer is computed exactly.
    None,
    /// Signs of the mask matrix against signs of the input.
    Sign,
    /// Two factors of the mask matrix.
    Lowrank,
    /// Two trained layers with ReLU between them.
    Mlp,
}

impl Kind {
    const ALL: [Self; 4] = [Self::None, Self::Sign, Self::Lowrank, Self::Mlp];

    /// Share of a layer's activation mass that is kept by default: the smallest, in steps of a thousandth, with which
    /// the mean KL divergence from dense stays at or below 0.0014 nats on the embedded model (docs/predictors.md).
    pub fn default_target(self) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Sign => 0.996,
            Self::Lowrank => 0.991,
            Self::Mlp => 0.995,
        }
    }

    /// Name in files, flags and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Sign => "sign",
            Self::Lowrank => "lowrank",
            Self::Mlp => "mlp",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|k| k.name() == name);
        match found {
            Some(kind) => Ok(kind),
            None => bail!("predictor \"{name}\" is not known; none, sign, lowrank and mlp are"),
        }
    }
}

/// What a layer's predictor computes scores from, by neuron.
#[derive(Debug, Clone, PartialEq)]
pub enum Weights {
    /// [`Kind::None`].
    None,
    /// [`Kind::Sign`]: `[n_ff][n_embd / 8]` bytes; bit `j % 8` of byte `j / 8` is set where weight `j` is negative.
    Sign(Tensor),
    /// [`Kind::Lowrank`] and [`Kind::Mlp`]: `out . f(in . x)`.
    Factors {
        /// `[n_hidden][n_embd]`.
        inner: Tensor,
        /// `[n_hidden]`: then f(h) is `max(h + bias, 0)`, otherwise h.
        inner_bias: Option<Vec<f32>>,
        /// `[n_ff][n_hidden]`.
        outer: Tensor,
    },
}

impl Weights {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::None => Kind::None,
            Self::Sign(_) => Kind::Sign,
            Self::Factors { inner_bias: None, .. } => Kind::Lowrank,
            Self::Factors { inner_bias: Some(_), .. } => Kind::Mlp,
        }
    }

    /// Type of the rows that give scores, if there are any.
    pub(super) fn dtype(&self) -> Option<GgmlType> {
        match self {
            Self::None => None,
            Self::Sign(signs) => Some(signs.dtype),
            Self::Factors { outer, .. } => Some(outer.dtype),
        }
    }

    /// Rank, or units of the hidden layer; 0 if it has neither.
    pub fn n_hidden(&self) -> usize {
        match self {
            Self::None | Self::Sign(_) => 0,
            Self::Factors { inner, .. } => inner.n_rows,
        }
    }

    /// Neurons it scores.
    pub(super) fn n_rows(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Sign(signs) => signs.n_rows,
            Self::Factors { outer, .. } => outer.n_rows,
        }
    }

    /// Bytes of the row that gives one neuron's score.
    pub(super) fn score_row(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Sign(signs) => signs.row_bytes(),
            Self::Factors { outer, .. } => outer.row_bytes(),
        }
    }

    /// Bytes that every token reads, whatever neurons are scored.
    pub(super) fn common_bytes(&self) -> usize {
        match self {
            Self::None | Self::Sign(_) => 0,
            Self::Factors { inner, inner_bias, .. } => inner.bytes.len() + 4 * inner_bias.as_ref().map_or(0, Vec::len),
        }
    }

    /// Parallel regions that scoring takes.
    pub(super) fn regions(&self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Sign(_) => 1.0,
            Self::Factors { .. } => 2.0,
        }
    }

    /// Scores of the tokens of `x` (`[n][n_embd]`): `[n][n_ff]`. They are those of the stored weights.
    ///
    /// # Errors
    /// When a type cannot be read.
    pub(super) fn scores(&self, x: &[f32], n: usize) -> Result<Vec<f32>> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::Sign(signs) => Ok(sign::scores(signs, x, n)),
            Self::Factors { inner, inner_bias, outer } => {
                let (w1, w2) = (inner.values()?, outer.values()?);
                let w1 = View::new(&w1, inner.n_rows, inner.n_cols);
                let mut hidden = product(View::new(x, n, inner.n_cols), w1.t());
                if let Some(bias) = inner_bias {
                    for row in hidden.chunks_exact_mut(inner.n_rows) {
                        row.iter_mut().zip(bias).for_each(|(h, b)| *h = (*h + b).max(0.0));
                    }
                }
                let hidden = View::new(&hidden, n, inner.n_rows);
                Ok(product(hidden, View::new(&w2, outer.n_rows, outer.n_cols).t()))
            }
        }
    }
}
