//! The predictor file: a GGUF file laid out in docs/formats.md.

use super::stored::{Kind, Weights};
use super::tensor::Tensor;
use super::{LayerMeasures, LayerPredictor, Predictors};
use crate::gguf::write::{MetadataBuilder, PlannedTensor, Value, Writer};
use crate::gguf::{Gguf, TensorInfo};
use crate::model::Model;
use crate::profile::{Fingerprint, Kinship, hex};
use crate::progress::Progress;
use crate::quant::{GgmlType, convert};
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashSet;
use std::path::Path;

const ARCHITECTURE: &str = "powerinfer-predictor";
const VERSION: u32 = 1;
const ALIGNMENT: usize = 32;
/// The most layers accepted, as for models.
const MAX_LAYERS: usize = 1024;

fn key(name: &str) -> String {
    format!("powerinfer.predictor.{name}")
}

fn tensor_name(layer: usize, part: &str) -> String {
    format!("blk.{layer}.ffn_pred_{part}")
}

/// A figure of a layer, and where it is stored.
type Figure = (&'static str, fn(&mut LayerMeasures) -> &mut f32);

const FIGURES: [Figure; 6] = [
    ("target", |m| &mut m.target),
    ("recall", |m| &mut m.recall),
    ("recall_count", |m| &mut m.recall_count),
    ("precision", |m| &mut m.precision),
    ("active", |m| &mut m.active),
    ("fired", |m| &mut m.fired),
];

impl Predictors {
    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written, or the user stops waiting for the reader of a FIFO.
    pub fn write(&self, path: &Path, progress: &dyn Progress) -> Result<()> {
        let mut metadata = MetadataBuilder::default();
        let text = |s: &str| Value::Str(s.to_owned());
        metadata.add("general.architecture", &text(ARCHITECTURE));
        metadata.add("general.name", &text(&self.name));
        metadata.add(&key("version"), &Value::U32(VERSION));
        let kinds = self.layers.iter().map(|l| l.weights.kind().name().as_bytes().to_vec());
        metadata.add(&key("kinds"), &Value::ArrayStr(kinds.collect()));
        for (name, of) in FIGURES {
            let values = self.layers.iter().map(|l| *of(&mut l.measured.clone())).collect();
            metadata.add(&key(name), &Value::ArrayF32(values));
        }
        metadata.add(&key("source_fingerprint"), &text(&self.fingerprint.hex()));
        metadata.add(&key("source_family"), &text(&hex(&self.fingerprint.family)));
        metadata.add(&key("source_samples"), &Value::ArrayF32(self.fingerprint.samples.clone()));
        let (mut planned, mut data) = (Vec::new(), Vec::new());
        for (i, layer) in self.layers.iter().enumerate() {
            for (part, dims, dtype, bytes) in parts(layer) {
                planned.push(PlannedTensor { name: tensor_name(i, part), dtype, dims });
                data.push(bytes);
            }
        }
        let mut writer = Writer::create(path, &metadata, &planned, ALIGNMENT, progress)?;
        for bytes in data {
            writer.append(&bytes)?;
        }
        writer.finish()
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// One line that names the file and what is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_gguf(&Gguf::open(path)?)
    }

    /// Reads and checks a file that is open.
    ///
    /// # Errors
    /// As [`Predictors::read`].
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        parse(gguf).with_context(|| gguf.source().name().to_owned())
    }

    /// Checks that they are for `model`, or for the same model in another precision.
    ///
    /// # Errors
    /// When they are not; says which model they are for.
    pub fn check(&self, model: &Model) -> Result<Kinship> {
        let (config, name) = (&model.config, &self.name);
        let kinship = self.fingerprint.kinship(&Fingerprint::of(model)?);
        match kinship {
            Kinship::Same | Kinship::Sibling => {}
            Kinship::OtherWeights => bail!("the predictors are for a model of other weights ({name}); fit them anew"),
            Kinship::OtherFamily => bail!("the predictors are for another model ({name}); fit them anew"),
        }
        ensure!(
            self.layers.len() == config.n_layer,
            "predictors of {} layers for {}",
            self.layers.len(),
            config.n_layer
        );
        for (i, (layer, n_ff)) in self.layers.iter().zip(&config.n_ff).enumerate() {
            let width = match &layer.weights {
                Weights::None => continue,
                Weights::Sign(signs) => signs.n_cols * 8,
                Weights::Factors { inner, .. } => inner.n_cols,
            };
            let fits = layer.bias.len() == *n_ff && width == config.n_embd;
            ensure!(fits, "the predictor of layer {i} is for {} neurons of {width} inputs", layer.bias.len());
        }
        Ok(kinship)
    }
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Name, shape (row length first), type and bytes of a layer's tensors.
fn parts(layer: &LayerPredictor) -> Vec<(&'static str, Vec<usize>, GgmlType, Vec<u8>)> {
    let matrix = |name, t: &Tensor| (name, vec![t.n_cols, t.n_rows], t.dtype, t.bytes.clone());
    let vector = |name, v: &[f32]| (name, vec![v.len()], GgmlType::F32, floats(v));
    let mut out = Vec::new();
    match &layer.weights {
        Weights::None => return out,
        Weights::Sign(signs) => out.push(matrix("sign", signs)),
        Weights::Factors { inner, inner_bias, outer } => {
            out.push(matrix("in.weight", inner));
            out.extend(inner_bias.as_ref().map(|bias| vector("in.bias", bias)));
            out.push(matrix("out.weight", outer));
        }
    }
    out.push(vector("bias", &layer.bias));
    out
}

fn parse(gguf: &Gguf) -> Result<Predictors> {
    let metadata = gguf.metadata();
    let arch = metadata.str("general.architecture")?.unwrap_or_default();
    ensure!(
        arch == ARCHITECTURE,
        "is no predictor file but one of architecture \"{arch}\"; profile --predictor writes them"
    );
    let missing = |name: &str| format!("{}: the key is missing", key(name));
    let version = metadata.u32(&key("version"))?.with_context(|| missing("version"))?;
    ensure!(version == VERSION, "has predictors of version {version}; this program reads version {VERSION}");
    let array = |name: &str| metadata.array(&key(name))?.with_context(|| missing(name));
    let kinds = array("kinds")?.strings().with_context(|| key("kinds"))?;
    ensure!(!kinds.is_empty() && kinds.len() <= MAX_LAYERS, "has predictors of {} layers", kinds.len());
    let kinds: Vec<Kind> = kinds
        .iter()
        .map(|k| String::from_utf8_lossy(k).parse())
        .collect::<Result<_>>()
        .with_context(|| key("kinds"))?;
    let nothing =
        LayerMeasures { target: 0.0, recall: 0.0, recall_count: 0.0, precision: 0.0, active: 0.0, fired: 0.0 };
    let mut measured = vec![nothing; kinds.len()];
    for (name, of) in FIGURES {
        let values = array(name)?.floats().with_context(|| key(name))?;
        ensure!(values.len() == kinds.len(), "{}: {} values for {} layers", key(name), values.len(), kinds.len());
        for (m, v) in measured.iter_mut().zip(values) {
            ensure!((0.0..=1.0).contains(&v), "{}: {v} is no share", key(name));
            *of(m) = v;
        }
    }
    let mut taker = Taker { gguf, taken: HashSet::new() };
    let mut layers = Vec::new();
    for (i, (kind, measured)) in kinds.iter().zip(measured).enumerate() {
        let (weights, bias) = taker.layer(i, *kind)?;
        layers.push(LayerPredictor { weights, bias, measured });
    }
    taker.finish()?;
    let name = metadata.str("general.name")?.unwrap_or_default().to_owned();
    Ok(Predictors { fingerprint: fingerprint(gguf)?, name, layers })
}

fn fingerprint(gguf: &Gguf) -> Result<Fingerprint> {
    let metadata = gguf.metadata();
    let text = |name: &str| metadata.str(&key(name))?.with_context(|| format!("{}: the key is missing", key(name)));
    let digits = text("source_family")?;
    let mut family = [0; 32];
    let whole = digits.len() == 64 && digits.is_ascii();
    for (i, byte) in family.iter_mut().enumerate().filter(|_| whole) {
        *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).with_context(|| key("source_family"))?;
    }
    let array = metadata.array(&key("source_samples"))?;
    let samples = array.with_context(|| format!("{}: the key is missing", key("source_samples")))?.floats();
    let fingerprint = Fingerprint { family, samples: samples.with_context(|| key("source_samples"))? };
    let stated = text("source_fingerprint")?;
    ensure!(whole && stated == fingerprint.hex(), "{}: is not what follows from the rest", key("source_fingerprint"));
    Ok(fingerprint)
}

struct Taker<'a> {
    gguf: &'a Gguf,
    taken: HashSet<String>,
}

impl<'a> Taker<'a> {
    fn take(&mut self, layer: usize, part: &str) -> Result<&'a TensorInfo> {
        let name = tensor_name(layer, part);
        let tensor = self.gguf.tensor(&name).with_context(|| format!("{name}: the tensor is missing"))?;
        self.taken.insert(name);
        Ok(tensor)
    }

    /// A matrix whose values are all finite.
    fn matrix(&mut self, layer: usize, part: &str) -> Result<Tensor> {
        let info = self.take(layer, part)?;
        let name = &info.name;
        ensure!(info.dims.len() == 2, "{name}: has {} dimensions where 2 are wanted", info.dims.len());
        let dequantize = convert::dequantizer(info.dtype).with_context(|| name.clone())?;
        let (n_rows, n_cols) = (info.n_rows(), info.n_cols());
        let bytes = self.gguf.data(info).to_vec();
        let mut row = vec![0.0; n_cols];
        for bytes in bytes.chunks_exact(bytes.len() / n_rows) {
            dequantize(bytes, &mut row);
            ensure!(row.iter().all(|v| v.is_finite()), "{name}: holds something that is no finite number");
        }
        Ok(Tensor { dtype: info.dtype, n_rows, n_cols, bytes })
    }

    fn vector(&mut self, layer: usize, part: &str, n: usize) -> Result<Vec<f32>> {
        let info = self.take(layer, part)?;
        let name = &info.name;
        ensure!(info.dims == [n], "{name}: shape {:?}, but [{n}] follows from the other tensors", info.dims);
        ensure!(info.dtype == GgmlType::F32, "{name}: has type {} where F32 is wanted", info.dtype);
        let mut values = vec![0.0; n];
        convert::from_f32(self.gguf.data(info), &mut values);
        ensure!(values.iter().all(|v| v.is_finite()), "{name}: holds something that is no finite number");
        Ok(values)
    }

    fn layer(&mut self, layer: usize, kind: Kind) -> Result<(Weights, Vec<f32>)> {
        let weights = match kind {
            Kind::None => return Ok((Weights::None, Vec::new())),
            Kind::Sign => {
                let info = self.take(layer, "sign")?;
                let name = &info.name;
                ensure!(info.dtype == GgmlType::I8, "{name}: has type {} where I8 is wanted", info.dtype);
                ensure!(info.dims.len() == 2, "{name}: has {} dimensions where 2 are wanted", info.dims.len());
                let bytes = self.gguf.data(info).to_vec();
                Weights::Sign(Tensor { dtype: info.dtype, n_rows: info.n_rows(), n_cols: info.n_cols(), bytes })
            }
            Kind::Lowrank | Kind::Mlp => {
                let (inner, outer) = (self.matrix(layer, "in.weight")?, self.matrix(layer, "out.weight")?);
                let (n, from) = (inner.n_rows, outer.n_cols);
                ensure!(n == from, "{}: takes {from} values, and {n} are there", tensor_name(layer, "out.weight"));
                let bias = (kind == Kind::Mlp).then(|| self.vector(layer, "in.bias", n)).transpose()?;
                Weights::Factors { inner, inner_bias: bias, outer }
            }
        };
        let bias = self.vector(layer, "bias", weights.n_rows())?;
        Ok((weights, bias))
    }

    fn finish(self) -> Result<()> {
        let unknown = self.gguf.tensors().iter().find(|t| !self.taken.contains(&t.name));
        match unknown {
            Some(tensor) => bail!("{}: does not belong to the predictors that the file says it has", tensor.name),
            None => Ok(()),
        }
    }
}
