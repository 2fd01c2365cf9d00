//! What says which neurons may fire before their rows of the mask matrix are read.

use super::matrix::Matrix;
use crate::cpu::signs::{agreement, sign_bytes};
use crate::gguf::{Gguf, Metadata, Source, TensorInfo};
use crate::quant::GgmlType;
use anyhow::{Context, Result, ensure};
use std::ops::Range;

/// A bias from which on a neuron is active whatever its score.
pub const ALWAYS: f32 = 1e30;

/// What a predictor looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PredictorInput {
    /// What the FFN reads: the residual stream behind a norm.
    Normed,
    /// The residual stream itself, as it is when the FFN is computed: PowerInfer's predictors do.
    Residual,
}

/// What the predictors of a file look at, where that is not what the FFN reads.
pub const INPUT_KEY: &str = "powerinfer.predictor.input";

impl PredictorInput {
    /// Name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normed => "normed",
            Self::Residual => "residual",
        }
    }

    /// What the key says.
    ///
    /// # Errors
    /// When it names nothing that is known.
    pub(super) fn read(metadata: &Metadata) -> Result<Self> {
        let Some(name) = metadata.str(INPUT_KEY)? else { return Ok(Self::Normed) };
        let found = [Self::Normed, Self::Residual].into_iter().find(|input| input.name() == name);
        let shown = || name.chars().take(60).collect::<String>().escape_debug().to_string();
        found.with_context(|| format!("{INPUT_KEY}: \"{}\" is not known; normed and residual are", shown()))
    }
}

/// One group's predictor: a neuron is active where its score plus its bias is at least 0.
#[derive(Clone)]
pub struct Predictor {
    /// What scores are computed from.
    pub scores: Scores,
    /// What it looks at.
    pub reads: PredictorInput,
    /// By slot (`[n_ff]`).
    pub bias: Vec<f32>,
    /// Slots from the first on that are always active; nothing is read for them.
    pub n_always: usize,
    /// What was measured when it was fitted, where the file says.
    pub measured: Option<ActiveShare>,
}

/// How many neurons a predictor names, on tokens that it was not fitted to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActiveShare {
    /// Share of neurons that are active.
    pub active: f32,
    /// Share of neurons that fire.
    pub fired: f32,
}

impl ActiveShare {
    /// By number of the group, what the keys of the predictors in `gguf` say.
    ///
    /// # Errors
    /// When they do not have a share for every one of `n_groups` groups (of layers, in dense models).
    pub(super) fn read(gguf: &Gguf, n_groups: usize) -> Result<Option<Vec<Self>>> {
        let shares = |name: &str| -> Result<Option<Vec<f32>>> {
            let key = format!("powerinfer.predictor.{name}");
            let Some(array) = gguf.metadata().array(&key)? else { return Ok(None) };
            let values = array.floats().with_context(|| key.clone())?;
            ensure!(values.len() == n_groups, "{key}: {} values for {n_groups} groups of neurons", values.len());
            let wrong = values.iter().find(|v| !(0.0..=1.0).contains(*v));
            ensure!(wrong.is_none(), "{key}: {} is no share", wrong.unwrap_or(&0.0));
            Ok(Some(values))
        };
        // What is only for people has to make sense, too.
        for name in ["target", "recall", "recall_count", "precision"] {
            shares(name)?;
        }
        let both = shares("active")?.zip(shares("fired")?);
        Ok(both.map(|(a, f)| a.into_iter().zip(f).map(|(active, fired)| Self { active, fired }).collect()))
    }
}

/// Weights that give a score for each neuron.
#[derive(Clone)]
pub enum Scores {
    /// Signs of the mask matrix: the score is the number of inputs whose sign is the weight's, less the others.
    Signs(Signs),
    /// Two matrices with a few hidden values between them.
    Factors {
        /// `[n_hidden][n_embd]`.
        input: Matrix,
        /// `[n_hidden]`, in a network of two layers: it is added, and what is negative then becomes 0. Without it the
        /// two matrices are one of low rank.
        bias: Option<Vec<f32>>,
        /// `[n_ff][n_hidden]`, rows by slot.
        output: Matrix,
    },
}

impl Predictor {
    /// Puts the parts of a predictor together, which looks at what the FFN reads.
    ///
    /// # Errors
    /// When a bias is no number.
    pub fn new(scores: Scores, bias: Vec<f32>) -> Result<Self> {
        ensure!(bias.iter().all(|b| !b.is_nan()), "a bias is not a number");
        let n_always = bias.iter().take_while(|b| **b >= ALWAYS).count();
        Ok(Self { scores, reads: PredictorInput::Normed, bias, n_always, measured: None })
    }

    /// The matrix that the predictor's input is multiplied with, where there is one.
    pub fn input(&self) -> Option<&Matrix> {
        match &self.scores {
            Scores::Signs(_) => None,
            Scores::Factors { input, .. } => Some(input),
        }
    }

    /// Name of the kind in flags and tables: `sign`, `lowrank` or `mlp`.
    pub fn kind(&self) -> &'static str {
        match &self.scores {
            Scores::Signs(_) => "sign",
            Scores::Factors { bias: None, .. } => "lowrank",
            Scores::Factors { bias: Some(_), .. } => "mlp",
        }
    }

    /// The slots of `slots` that have to be scored.
    pub fn scored(&self, slots: Range<usize>) -> Range<usize> {
        slots.start.max(self.n_always).min(slots.end)..slots.end
    }

    /// Bytes that are read however many neurons are scored, bytes per neuron that is, and the type of the latter. Biases
    /// count.
    pub fn sizes(&self) -> (usize, usize, GgmlType) {
        const BIAS: usize = 4;
        match &self.scores {
            Scores::Signs(signs) => (0, signs.row_bytes + BIAS, GgmlType::I8),
            Scores::Factors { input, bias, output } => {
                let fixed = input.n_bytes() + BIAS * bias.as_ref().map_or(0, Vec::len);
                (fixed, output.row_bytes() + BIAS, output.dtype())
            }
        }
    }

    /// Bytes read to predict which of `slots` are active.
    pub fn bytes_for(&self, slots: Range<usize>) -> usize {
        let n = self.scored(slots).len();
        if n == 0 {
            return 0;
        }
        match &self.scores {
            Scores::Signs(signs) => n * signs.row_bytes,
            Scores::Factors { input, output, .. } => input.n_bytes() + n * output.row_bytes(),
        }
    }
}

/// Signs of a matrix, a bit each. Cloning is cheap.
#[derive(Clone)]
pub struct Signs {
    source: Source,
    data: Range<usize>,
    row_bytes: usize,
}

impl Signs {
    /// The tensor as the signs of `n_rows` rows of `n_cols` weights.
    ///
    /// # Errors
    /// When it has another shape or type.
    pub fn new(gguf: &Gguf, tensor: &TensorInfo, n_rows: usize, n_cols: usize) -> Result<Self> {
        let (name, row_bytes) = (&tensor.name, sign_bytes(n_cols));
        ensure!(tensor.dtype == GgmlType::I8, "{name}: has type {} where I8 is wanted", tensor.dtype);
        let fits = n_cols.is_multiple_of(8) && tensor.dims == [row_bytes, n_rows];
        ensure!(fits, "{name}: shape {:?}, but [{row_bytes}, {n_rows}] follows from the metadata", tensor.dims);
        Ok(Self { source: gguf.source_of(tensor).clone(), data: tensor.data.clone(), row_bytes })
    }

    /// The signs of `n` rows from `first` on.
    pub fn rows(&self, first: usize, n: usize) -> &[u8] {
        &self.source[self.data.clone()][first * self.row_bytes..][..n * self.row_bytes]
    }

    /// Scores of the rows from `first` on against the signs of `x`.
    pub fn scores(&self, first: usize, x: &[u64], out: &mut [f32]) {
        agreement(self.rows(first, out.len()), self.row_bytes, x, out);
    }
}
