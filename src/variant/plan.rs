//! What a variant will hold: decided before anything is written.

use super::recipe::{Recipe, Shape, is_float, layer_and_part, refuse_quantized};
use crate::executor::dense_bytes;
use crate::gguf::TensorInfo;
use crate::model::{ColdQuantiles, Down, Model, NeuronId};
use crate::placement::covering_prefix;
use crate::profile::{Fingerprint, Kinship, Profile, report};
use crate::quant::GgmlType;
use crate::quant::blocks::QK;
use anyhow::{Result, bail, ensure};
use std::str::FromStr;

/// Share of a layer's firings that its planned hot prefix covers. Without knowing the device this is the plan;
/// `run` takes another prefix of the same file when it does.
const HOT_SHARE: f64 = 0.8;

/// Sizes of the hot prefix for which it is stored how many neurons behind it fire, and into how many quantiles.
const COLD_SIZES: usize = 17;
const COLD_QUANTILES: usize = 16;

/// How `ffn_down` of a quantized source is stored: its blocks run across neurons, so transposing it means
/// quantizing again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownType {
    /// `Q8_0`, which loses little.
    Q8_0,
    /// The type that the source has.
    Same,
    /// The source's own quants, with its scales beside them: nothing is lost, for more bytes per neuron.
    Lossless,
}

impl FromStr for DownType {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "q8_0" => Ok(Self::Q8_0),
            "same" => Ok(Self::Same),
            "lossless" => Ok(Self::Lossless),
            _ => bail!("--down {name}: q8_0, same and lossless are possible"),
        }
    }
}

/// How one layer's `ffn_down` will be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownPlan {
    /// Transposed, as this type.
    Rows(GgmlType),
    /// Transposed quants of this type with the source's scales.
    Lossless(GgmlType),
}

/// What the user asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Types of all matrices; the source's own where not given.
    pub recipe: Option<Recipe>,
    /// Type of `ffn_down_t` from a quantized source.
    pub down: Option<DownType>,
}

/// One layer of a variant.
#[derive(Debug, Clone)]
pub struct LayerPlan {
    /// Which neuron comes to which slot: falling firing count, then mass, then id.
    pub order: Vec<NeuronId>,
    /// Firing rates by slot.
    pub rates: Vec<f32>,
    /// Mean mass per token by slot.
    pub mass: Vec<f32>,
    /// Planned size of the hot prefix.
    pub n_hot: usize,
    /// How many neurons behind a prefix fire for a token; profiles of version 1 cannot tell.
    pub cold: Option<ColdQuantiles>,
}

/// A variant before it is written.
pub struct Plan {
    /// By layer number.
    pub layers: Vec<LayerPlan>,
    /// What all matrices are converted to; `None` keeps the source's types.
    pub recipe: Option<Recipe>,
    shape: Shape,
    /// How `ffn_down` is stored, by layer number.
    pub down: Vec<DownPlan>,
    /// Whether weights are quantized again or further.
    pub lossy: bool,
    /// Fingerprint of the source, in hex.
    pub fingerprint: String,
    /// SHA-256 of the profile, in hex.
    pub profile_sha256: String,
    /// Tokens that the profile counts.
    pub profile_tokens: u64,
    /// Share of neurons that fire.
    pub density: f64,
    /// Things the user should know.
    pub notes: Vec<String>,
}

impl Plan {
    /// Decides on a variant of `model` by `profile`.
    ///
    /// # Errors
    /// When the profile is of another model or activation, the model is a variant already, or the types asked for
    /// cannot be made from those of the source.
    pub fn new(model: &Model, profile: &Profile, options: Options) -> Result<Self> {
        let plain = model.weights.layers.iter().flat_map(|l| &l.ffn).all(|g| matches!(g.ffn_down, Down::Columns(_)));
        ensure!(plain, "is a variant already; split the model it was made from");
        let fingerprint = Fingerprint::of(model)?;
        let mut notes = Vec::new();
        match fingerprint.kinship(&profile.fingerprint) {
            Kinship::Same => {}
            Kinship::Sibling => notes.push("the profile was made with another quantization of this model".to_owned()),
            Kinship::OtherWeights => bail!("the profile is of a model with other weights (\"{}\")", profile.name),
            Kinship::OtherFamily => bail!("the profile is of another model (\"{}\", {})", profile.name, profile.arch),
        }
        let n_ff = profile.layers.iter().map(|l| l.fired.len());
        ensure!(n_ff.eq(model.config.n_ff.iter().copied()), "the profile's layers are not those of the model");
        let activation = &model.config.activation;
        let (ours, theirs) = (activation.activation.to_string(), &profile.activation);
        ensure!(
            ours == *theirs,
            "the profile was made with activation {theirs}, but the model has {ours} (from {}); give --activation",
            activation.from
        );
        if !activation.activation.is_sparse() {
            notes.push(format!("with activation {ours} every neuron fires: a variant of this model skips nothing"));
        }
        let shape = Shape::of(&model.gguf);
        if let Some(recipe) = options.recipe {
            recipe.check()?;
            refuse_quantized(&model.gguf)?;
            let matrices = model.gguf.tensors().iter().filter(|t| t.dims.len() > 1);
            notes.extend(recipe.misfits(matrices.map(|t| (&*t.name, stored_row(t))), shape));
        }
        let down = down_types(model, options, shape)?;
        let lossy = options.recipe.is_some_and(Recipe::is_lossy)
            || model.weights.layers.iter().zip(&down).any(|(l, to)| {
                let from = l.ffn[0].ffn_down.dtype();
                matches!(to, DownPlan::Rows(to) if !is_float(from) || (from != *to && !is_float(*to)))
            });
        Ok(Self {
            layers: (0..profile.layers.len()).map(|i| plan_layer(profile, i)).collect(),
            recipe: options.recipe,
            shape,
            down,
            lossy,
            fingerprint: fingerprint.hex(),
            profile_sha256: profile.sha256(),
            profile_tokens: profile.n_tokens(),
            density: 1.0 - report::sparsity(profile),
            notes,
        })
    }

    /// Type that a matrix of the source gets.
    pub fn matrix_type(&self, name: &str, source: GgmlType, n_cols: usize) -> GgmlType {
        self.recipe.map_or(source, |recipe| recipe.matrix_type(name, source, n_cols, self.shape))
    }

    /// The plan of `model`'s variant as lines for people.
    pub fn table(&self, model: &Model) -> String {
        let mut out = String::from("layer   neurons    hot   covering   density   down\n");
        for (i, layer) in self.layers.iter().enumerate() {
            let sum: f32 = layer.rates.iter().sum();
            let hot: f32 = layer.rates[..layer.n_hot].iter().sum();
            let covering = if layer.n_hot > 0 && sum > 0.0 { 100.0 * hot / sum } else { 0.0 };
            let down = match self.down[i] {
                DownPlan::Rows(dtype) => dtype.name(),
                DownPlan::Lossless(_) => "lossless",
            };
            let (n, hot, density) = (layer.order.len(), layer.n_hot, 100.0 * sum / layer.order.len() as f32);
            out += &format!("{i:>5} {n:>9} {hot:>6} {covering:>8.1} % {density:>7.2} % {down:>6}\n");
        }
        let dense = dense_bytes(model) as f64;
        let ffn: f64 = model
            .weights
            .layers
            .iter()
            .flat_map(|l| &l.ffn)
            .map(|g| {
                let skippable = if g.ffn_gate.is_some() { g.ffn_up.n_bytes() } else { 0 };
                (skippable + g.ffn_down.n_bytes()) as f64
            })
            .sum();
        let exact = dense - ffn * (1.0 - self.density);
        out += &format!(
            "on average {:.2} % of neurons fire ({} tokens profiled): exact decode reads {:.0} % of the weights\n",
            100.0 * self.density,
            self.profile_tokens,
            100.0 * exact / dense
        );
        out
    }
}

/// Length of the rows that a variant stores this matrix in.
fn stored_row(tensor: &TensorInfo) -> usize {
    match layer_and_part(&tensor.name) {
        Some((_, "ffn_down.weight")) => tensor.n_rows(),
        _ => tensor.n_cols(),
    }
}

fn down_types(model: &Model, options: Options, shape: Shape) -> Result<Vec<DownPlan>> {
    let sources = model.weights.layers.iter().map(|l| l.ffn[0].ffn_down.dtype());
    sources
        .enumerate()
        .map(|(i, source)| {
            let name = format!("blk.{i}.ffn_down.weight");
            if is_float(source) {
                ensure!(
                    options.down.is_none(),
                    "--down is for quantized sources; {} is {source}: use --type",
                    name
                );
            }
            let n_embd = model.config.n_embd;
            if options.down == Some(DownType::Lossless) {
                let n_embd = model.config.n_embd;
                ensure!(
                    [GgmlType::Q8_0, GgmlType::Q4_0].contains(&source) && n_embd.is_multiple_of(QK),
                    "--down lossless is for Q8_0 and Q4_0 with rows of whole blocks; {name} is {source}: use q8_0 or same"
                );
                return Ok(DownPlan::Lossless(source));
            }
            let wanted = match (options.recipe, options.down) {
                (Some(recipe), _) => recipe.matrix_type(&name, source, n_embd, shape),
                (None, None) if is_float(source) => source,
                (None, Some(DownType::Same)) => source,
                (None, _) => GgmlType::Q8_0,
            };
            ensure!(
                wanted.row_bytes(n_embd).is_some(),
                "{}: transposed rows of {n_embd} are not whole {wanted} blocks; split an F16 source",
                name
            );
            Ok(DownPlan::Rows(wanted))
        })
        .collect()
}

/// The planned hot prefix of neurons that fire with these falling rates, where no profile has counted them.
pub(crate) fn planned_hot(rates: &[f32]) -> usize {
    let counts: Vec<u64> = rates.iter().map(|r| (f64::from(*r) * 1e9) as u64).collect();
    covering_prefix(&counts, HOT_SHARE)
}

fn plan_layer(profile: &Profile, layer: usize) -> LayerPlan {
    let counts = &profile.layers[layer];
    let (rates, mass) = (profile.rates(layer), profile.mean_mass(layer));
    let order = profile.order(layer);
    let falling: Vec<u64> = order.iter().map(|id| counts.fired[id.0 as usize]).collect();
    LayerPlan {
        rates: order.iter().map(|id| rates[id.0 as usize]).collect(),
        mass: order.iter().map(|id| mass[id.0 as usize]).collect(),
        n_hot: covering_prefix(&falling, HOT_SHARE),
        cold: ColdQuantiles::of_counts(order.len(), COLD_SIZES, COLD_QUANTILES, &|n_hot| {
            profile.cold_histogram(layer, &order, n_hot)
        }),
        order,
    }
}
