//! The weights of a model, named as the tensors are, each checked against the configuration.

use super::cold::ColdQuantiles;
use super::config::{Config, NormKind};
use super::lossless::LosslessDown;
use super::matrix::Matrix;
use super::neurons::NeuronIndex;
use super::predictor::{ActiveShare, Predictor, Scores, Signs};
use crate::gguf::{Gguf, TensorInfo};
use crate::quant::{GgmlType, convert};
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashSet;

/// Scale, and for [`NormKind::Layer`] a bias; `[n_embd]` each.
pub struct Norm {
    /// Multiplied with the normalised vector.
    pub weight: Vec<f32>,
    /// Added afterwards.
    pub bias: Option<Vec<f32>>,
}

/// A matrix, and a bias of one value per row where the model has one.
pub struct Linear {
    /// `[n_out][n_in]`.
    pub weight: Matrix,
    /// `[n_out]`.
    pub bias: Option<Vec<f32>>,
}

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

    /// Bytes of all weights.
    pub fn n_bytes(&self) -> usize {
        match self {
            Self::Columns(m) | Self::Rows(m) => m.n_bytes(),
            Self::Lossless(down) => down.n_bytes(),
        }
    }
}

/// Neurons that are computed together: all of a dense layer's, or one expert's.
pub struct NeuronGroup {
    /// `[n_ff][n_embd]`, absent where the FFN has no gate.
    pub ffn_gate: Option<Matrix>,
    /// `[n_ff][n_embd]`.
    pub ffn_up: Matrix,
    /// From `[n_ff]` back to `[n_embd]`.
    pub ffn_down: Down,
    /// Which neuron lies where, in a variant.
    pub index: Option<NeuronIndex>,
    /// Who may fire, where a predictor is packed in.
    pub predictor: Option<Predictor>,
}

impl NeuronGroup {
    /// Number of neurons.
    pub fn n_ff(&self) -> usize {
        self.ffn_up.n_rows
    }

    /// The matrix whose product, through the activation, says who fires: gate, or up where there is no gate.
    pub fn mask_matrix(&self) -> &Matrix {
        self.ffn_gate.as_ref().unwrap_or(&self.ffn_up)
    }

    /// Bytes read for `n` neurons that fire, beyond their mask rows.
    pub fn bytes_for_active(&self, n: f64) -> f64 {
        let up = if self.ffn_gate.is_some() { n * self.ffn_up.row_bytes() as f64 } else { 0.0 };
        match &self.ffn_down {
            Down::Rows(down) => up + n * down.row_bytes() as f64,
            Down::Lossless(down) => up + down.bytes_for(n),
            Down::Columns(_) => up,
        }
    }
}

/// One layer.
pub struct Layer {
    /// Before attention; with a parallel residual, before the FFN as well.
    pub attn_norm: Norm,
    /// `[n_head * head_dim][n_embd]`.
    pub attn_q: Linear,
    /// `[n_head_kv * head_dim][n_embd]`.
    pub attn_k: Linear,
    /// `[n_head_kv * head_dim][n_embd]`.
    pub attn_v: Linear,
    /// `[n_embd][n_head * head_dim]`.
    pub attn_output: Linear,
    /// Before the FFN; absent with a parallel residual.
    pub ffn_norm: Option<Norm>,
    /// Groups of neurons: one in a dense layer.
    pub ffn: Vec<NeuronGroup>,
}

/// All weights.
pub struct Weights {
    /// `[n_vocab][n_embd]`.
    pub token_embd: Matrix,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
    /// Before the output.
    pub output_norm: Norm,
    /// `[n_vocab][n_embd]`; absent where tied to `token_embd`.
    pub output: Option<Matrix>,
    /// Divisors of the rotary frequencies (`[n_dims / 2]`, LLaMA 3.1 and later), where the file has them.
    pub rope_freqs: Option<Vec<f32>>,
}

impl Weights {
    /// Views of all weights.
    ///
    /// # Errors
    /// Names the tensor that is missing, misshapen, of an unsupported type, or unknown to the architecture: leaving
    /// one out would give a different model.
    pub fn load(gguf: &Gguf, config: &Config) -> Result<Self> {
        let measured = ActiveShare::read(gguf, config.n_layer)?;
        let mut taker = Taker { gguf, config, measured, taken: HashSet::new() };
        let token_embd = taker.matrix("token_embd.weight", config.n_vocab, config.n_embd)?;
        let n_hot = planned_n_hot(gguf, config)?;
        let mut layers = Vec::new();
        for i in 0..config.n_layer {
            layers.push(taker.layer(i, n_hot.get(i).copied())?);
        }
        let output_norm = taker.norm("output_norm")?;
        let output = taker.has("output.weight").then(|| taker.matrix("output.weight", config.n_vocab, config.n_embd));
        let output = output.transpose()?;
        let rope_freqs = taker.vector("rope_freqs.weight", config.rope.n_dims / 2)?;
        if let Some(freqs) = &rope_freqs {
            ensure!(freqs.iter().all(|f| *f > 0.0), "rope_freqs.weight: a divisor is not positive");
        }
        taker.finish()?;
        Ok(Self { token_embd, layers, output_norm, output, rope_freqs })
    }

    /// The matrix that turns the last state into logits.
    pub fn head(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.token_embd)
    }
}

/// Rows of `token_embd`, which exist before there is a configuration.
///
/// # Errors
/// When the tensor is missing, as in a file that holds only a vocabulary.
pub fn vocabulary_size(gguf: &Gguf) -> Result<usize> {
    let arch = gguf.metadata().str("general.architecture")?.context("general.architecture: the key is missing")?;
    super::arch::find(arch)?;
    let tensor = gguf.tensor("token_embd.weight");
    Ok(tensor.context("token_embd.weight: the tensor is missing; does the file hold only a vocabulary?")?.n_rows())
}

/// Layouts of variants in docs/formats.md: 1, and 2 where `ffn_down` is lossless.
const VARIANT_VERSIONS: [u32; 2] = [1, 2];

fn planned_n_hot(gguf: &Gguf, config: &Config) -> Result<Vec<usize>> {
    if let Some(version) = gguf.metadata().u32("powerinfer.version")? {
        let known = VARIANT_VERSIONS.contains(&version);
        ensure!(
            known,
            "powerinfer.version: {version} is not known; 1 and 2 are; take a newer powerinfer, or split again"
        );
    }
    const KEY: &str = "powerinfer.n_hot";
    let Some(array) = gguf.metadata().array(KEY)? else { return Ok(Vec::new()) };
    let values = array.integers().context(KEY)?;
    ensure!(values.len() == config.n_layer, "{KEY}: {} values for {} layers", values.len(), config.n_layer);
    values.into_iter().map(|n| usize::try_from(n).with_context(|| format!("{KEY}: {n}"))).collect()
}

struct Taker<'a> {
    gguf: &'a Gguf,
    config: &'a Config,
    /// Of predictors, by layer.
    measured: Option<Vec<ActiveShare>>,
    taken: HashSet<String>,
}

impl<'a> Taker<'a> {
    fn has(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    fn take(&mut self, name: &str) -> Result<&'a TensorInfo> {
        let tensor = self.gguf.tensor(name).with_context(|| format!("{name}: the tensor is missing"))?;
        self.taken.insert(name.to_owned());
        Ok(tensor)
    }

    fn matrix(&mut self, name: &str, n_rows: usize, n_cols: usize) -> Result<Matrix> {
        Matrix::new(self.gguf, self.take(name)?, n_rows, n_cols)
    }

    fn linear(&mut self, name: &str, n_rows: usize, n_cols: usize) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight"), n_rows, n_cols)?;
        let bias = self.vector(&format!("{name}.bias"), n_rows)?;
        Ok(Linear { weight, bias })
    }

    /// A vector of floats, decoded: a few kilobytes that every use wants as floats.
    fn vector(&mut self, name: &str, n: usize) -> Result<Option<Vec<f32>>> {
        if !self.has(name) {
            return Ok(None);
        }
        let tensor = self.take(name)?;
        ensure!(tensor.dims == [n], "{name}: shape {:?}, but [{n}] follows from the metadata", tensor.dims);
        let floats = matches!(tensor.dtype, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16);
        ensure!(floats, "{name}: has type {} where floats are wanted", tensor.dtype);
        let mut values = vec![0.0; n];
        convert::dequantizer(tensor.dtype)?(self.gguf.data(tensor), &mut values);
        Ok(Some(values))
    }

    fn norm(&mut self, name: &str) -> Result<Norm> {
        let n = self.config.n_embd;
        let missing = || format!("{name}.weight: the tensor is missing");
        let weight = self.vector(&format!("{name}.weight"), n)?.with_context(missing)?;
        let bias = match self.config.norm {
            NormKind::Rms => None,
            NormKind::Layer => self.vector(&format!("{name}.bias"), n)?,
        };
        Ok(Norm { weight, bias })
    }

    fn layer(&mut self, i: usize, n_hot: Option<usize>) -> Result<Layer> {
        let (n_embd, head_dim) = (self.config.n_embd, self.config.head_dim);
        let (n_q, n_kv) = (self.config.n_head * head_dim, self.config.n_head_kv * head_dim);
        let name = |suffix: &str| format!("blk.{i}.{suffix}");
        let ffn_norm = match self.config.residual {
            super::Residual::Serial => Some(self.norm(&name("ffn_norm"))?),
            super::Residual::Parallel => None,
        };
        Ok(Layer {
            attn_norm: self.norm(&name("attn_norm"))?,
            attn_q: self.linear(&name("attn_q"), n_q, n_embd)?,
            attn_k: self.linear(&name("attn_k"), n_kv, n_embd)?,
            attn_v: self.linear(&name("attn_v"), n_kv, n_embd)?,
            attn_output: self.linear(&name("attn_output"), n_embd, n_q)?,
            ffn_norm,
            ffn: vec![self.neurons(i, n_hot)?],
        })
    }

    fn neurons(&mut self, i: usize, n_hot: Option<usize>) -> Result<NeuronGroup> {
        let (n_embd, n_ff) = (self.config.n_embd, self.config.n_ff[i]);
        let name = |suffix: &str| format!("blk.{i}.{suffix}");
        let gate = self.config.gated.then(|| self.matrix(&name("ffn_gate.weight"), n_ff, n_embd)).transpose()?;
        let ffn_up = self.matrix(&name("ffn_up.weight"), n_ff, n_embd)?;
        let transposed = name("ffn_down_t.weight");
        let quants = name("ffn_down_t_q");
        let (ffn_down, index) = if self.has(&quants) {
            let (q, scales) = (self.take(&quants)?, self.take(&name("ffn_down_scale"))?);
            let index = self.index(i, n_ff, n_hot)?;
            let down = LosslessDown::new(self.gguf, q, scales, index.ids(), n_embd)?;
            (Down::Lossless(down), Some(index))
        } else if self.has(&transposed) {
            let down = Down::Rows(self.matrix(&transposed, n_ff, n_embd)?);
            (down, Some(self.index(i, n_ff, n_hot)?))
        } else {
            (Down::Columns(self.matrix(&name("ffn_down.weight"), n_embd, n_ff)?), None)
        };
        let predictor = self.predictor(i, n_ff)?;
        Ok(NeuronGroup { ffn_gate: gate, ffn_up, ffn_down, index, predictor })
    }

    /// Its rows are by slot, so a file without an index has them in the model's own order.
    fn predictor(&mut self, i: usize, n_ff: usize) -> Result<Option<Predictor>> {
        let n_embd = self.config.n_embd;
        let name = |suffix: &str| format!("blk.{i}.ffn_pred_{suffix}");
        let (signs, input) = (name("sign"), name("in.weight"));
        let scores = if self.has(&signs) {
            Scores::Signs(Signs::new(self.gguf, self.take(&signs)?, n_ff, n_embd)?)
        } else if self.has(&input) {
            let n_hidden = self.take(&input)?.n_rows();
            let input = self.matrix(&input, n_hidden, n_embd)?;
            let bias = self.vector(&name("in.bias"), n_hidden)?;
            let output = self.matrix(&name("out.weight"), n_ff, n_hidden)?;
            Scores::Factors { input, bias, output }
        } else {
            return Ok(None);
        };
        let bias_name = name("bias");
        let bias = self.vector(&bias_name, n_ff)?.with_context(|| format!("{bias_name}: the tensor is missing"))?;
        let mut predictor = Predictor::new(scores, bias).with_context(|| bias_name)?;
        predictor.measured = self.measured.as_ref().map(|layers| layers[i]);
        Ok(Some(predictor))
    }

    fn index(&mut self, i: usize, n_ff: usize, n_hot: Option<usize>) -> Result<NeuronIndex> {
        let id_name = format!("blk.{i}.ffn_neuron_id");
        let tensor = self.take(&id_name)?;
        ensure!(tensor.dims == [n_ff], "{id_name}: shape {:?}, but [{n_ff}] follows from the metadata", tensor.dims);
        ensure!(tensor.dtype == GgmlType::I32, "{id_name}: has type {} where I32 is wanted", tensor.dtype);
        let bytes = self.gguf.data(tensor).chunks_exact(4);
        let ids = bytes.map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let mut floats = |what: &str| {
            let name = format!("blk.{i}.ffn_neuron_{what}");
            self.vector(&name, n_ff)?.with_context(|| format!("{name}: the tensor is missing"))
        };
        let (rates, mass) = (floats("rate")?, floats("mass")?);
        let n_hot = n_hot.context("powerinfer.n_hot: the key is missing")?;
        let mut index = NeuronIndex::new(ids, rates, mass, n_hot).with_context(|| id_name)?;
        index.cold = self.cold(i, n_ff)?;
        Ok(index)
    }

    /// Quantiles of cold neurons, where the profile had seen tokens one by one.
    fn cold(&mut self, i: usize, n_ff: usize) -> Result<Option<ColdQuantiles>> {
        let name = format!("blk.{i}.ffn_cold_fired");
        if !self.has(&name) {
            return Ok(None);
        }
        let tensor = self.take(&name)?;
        ensure!(tensor.dtype == GgmlType::F32, "{name}: has type {} where F32 is wanted", tensor.dtype);
        ensure!(tensor.dims.len() == 2, "{name}: has {} dimensions where 2 are wanted", tensor.dims.len());
        let bytes = self.gguf.data(tensor).chunks_exact(4);
        let values: Vec<f32> = bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        ColdQuantiles::new(&values, tensor.n_rows(), tensor.n_cols(), n_ff).with_context(|| name).map(Some)
    }

    fn finish(self) -> Result<()> {
        let unknown = self.gguf.tensors().iter().find(|t| !self.taken.contains(&t.name));
        if let Some(tensor) = unknown {
            let arch = self.config.arch.name;
            bail!("{}: is not known for architecture {arch}; without it the model would be another one", tensor.name);
        }
        Ok(())
    }
}
