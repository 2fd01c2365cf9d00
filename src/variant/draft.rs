//! What a variant will hold: decided before anything is written.

use super::counted::{Counted, GroupDraft, Line, Order};
use super::outline::Outline;
use super::recipe::{Recipe, fitting, is_float, is_whole_matrix, misfits, refuse_quantized};
use crate::executor::dense_bytes;
use crate::gguf::TensorInfo;
use crate::model::{Down, Model, NeuronGroup, Part, Role, Thresholds};
use crate::profile::experts::Hits;
use crate::profile::{Fingerprint, Kinship, Profile, RouterCounts};
use crate::quant::blocks::QK;
use crate::quant::{GgmlType, convert};
use anyhow::{Result, bail, ensure};
use std::str::FromStr;

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

/// How one group's `ffn_down` will be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownLayout {
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

/// A variant before it is written.
pub struct Draft {
    /// By number of the group.
    pub groups: Vec<GroupDraft>,
    /// What all matrices are converted to; `None` keeps the source's types.
    pub recipe: Option<Recipe>,
    outline: Outline,
    /// Lines of the table.
    lines: Vec<Line>,
    /// Shares of choices that sets of experts hit, and which sets: one expert in so many; empty without experts or a profile.
    pub hits: Vec<(usize, Hits)>,
    /// How `ffn_down` is stored, by number of the group.
    pub down: Vec<DownLayout>,
    /// Whether weights are quantized again or further.
    pub lossy: bool,
    /// Fingerprint of the source, in hex.
    pub fingerprint: String,
    /// SHA-256 of the profile in hex, and the tokens that it counts; `None` where there is none.
    pub profile: Option<(String, u64)>,
    /// Share of neurons that fire, or are taken to.
    pub density: f64,
    /// Share of gates that are above zero: the same, unless `up` has a mask of its own.
    pub open_density: f64,
    /// Below which activations neurons may be skipped, by number of the group.
    pub thresholds: Option<Thresholds>,
    /// Things the user should know.
    pub notes: Vec<String>,
}

impl Draft {
    /// Decides on a variant of `model` by `profile`.
    ///
    /// # Errors
    /// When the profile is of another model or activation, the model is a variant already, or the types asked for
    /// cannot be made from those of the source.
    pub fn new(model: &Model, profile: &Profile, options: Options) -> Result<Self> {
        let fingerprint = source_fingerprint(model)?;
        let mut notes = Vec::new();
        match fingerprint.kinship(&profile.fingerprint) {
            Kinship::Same => {}
            Kinship::Sibling => notes.push("the profile was made with another quantization of this model".to_owned()),
            Kinship::OtherWeights => bail!("the profile is of a model with other weights (\"{}\")", profile.name),
            Kinship::OtherFamily => bail!(
                "the profile is of another model (\"{}\", {}){}",
                profile.name,
                profile.arch,
                profile.unlike(&model.weights.group_sizes())
            ),
        }
        let layer_of = model.weights.groups().map(|(layer, _)| layer as u32);
        let same = profile.n_ff() == model.weights.group_sizes() && layer_of.eq(profile.layer_of.iter().copied());
        ensure!(same, "the profile's layers are not those of the model");
        let chooses = |routers: &[RouterCounts]| routers.iter().map(|r| r.groups.clone()).collect::<Vec<_>>();
        let same = chooses(&profile.routers) == chooses(&RouterCounts::of_model(model));
        ensure!(same, "the profile's routers, or the experts that they choose from, are not those of the model");
        let activation = &model.config.activation;
        let (ours, theirs) = (activation.activation.to_string(), &profile.activation);
        ensure!(
            ours == *theirs,
            "the profile was made with activation {theirs}, but the model has {ours} (from {}); give --activation",
            activation.from
        );
        let thresholds = profile.thresholds.clone().or(model.thresholds.clone());
        Self::with(model, Counted::of_profile(profile), fingerprint, options, (thresholds, notes))
    }

    /// Decides on a variant of `model` without a profile: neurons have this order, and each is taken to fire as often as any
    /// other.
    ///
    /// # Errors
    /// When the model is a variant already, or the types asked for cannot be made from those of the source.
    pub fn ordered(model: &Model, order: &Order, options: Options) -> Result<Self> {
        let counted = Counted::assumed(model, order);
        let experts = if model.weights.groups().any(|(_, group)| group.is_routed()) {
            " that it is computed for, and every expert to be chosen as often as any other"
        } else {
            ""
        };
        let mut notes = vec![format!(
            "no profile: every neuron is taken to fire for {:.0} % of tokens{experts}, which plans for a card depend on",
            100.0 * counted.density
        )];
        if let Order::Listed(index) = order {
            notes.extend(index.note());
        }
        Self::with(model, counted, source_fingerprint(model)?, options, (model.thresholds.clone(), notes))
    }

    fn with(
        model: &Model,
        counted: Counted,
        fingerprint: Fingerprint,
        options: Options,
        (thresholds, mut notes): (Option<Thresholds>, Vec<String>),
    ) -> Result<Self> {
        let activation = model.config.activation.activation;
        if !activation.is_sparse() {
            let skips = match thresholds {
                Some(_) => "only --mode thresholded skips some, by the thresholds that the variant has",
                None => "a variant of this model skips nothing",
            };
            notes.push(format!("with activation {activation} every neuron fires: {skips}"));
        }
        let outline = Outline::of(&model.gguf, is_whole_matrix);
        if let Some(recipe) = options.recipe {
            recipe.check()?;
            refuse_quantized(&model.gguf)?;
            let matrices = model.gguf.tensors().iter().filter(|t| is_whole_matrix(t));
            notes.extend(misfits(matrices.map(|t| {
                let wanted = recipe.wanted(&t.name, &outline);
                (wanted, fitting(wanted, t.dtype, stored_row(t)))
            })));
        }
        let down = down_types(model, options, &outline)?;
        let lossy = options.recipe.is_some_and(Recipe::is_lossy)
            || model.weights.groups().zip(&down).any(|((_, group), to)| {
                let from = group.ffn_down().dtype();
                let transposed = matches!(group.ffn_down(), Down::Columns(_)) && !is_float(from);
                matches!(to, DownLayout::Rows(to) if transposed || (from != *to && !is_float(*to)))
            });
        Ok(Self {
            groups: counted.groups,
            lines: counted.lines,
            hits: counted.hits,
            recipe: options.recipe,
            outline,
            down,
            lossy,
            fingerprint: fingerprint.hex(),
            profile: counted.profile,
            density: counted.density,
            open_density: counted.open_density,
            thresholds,
            notes,
        })
    }

    /// Type that a matrix of the source gets.
    pub fn matrix_type(&self, name: &str, source: GgmlType, n_cols: usize) -> GgmlType {
        self.recipe.map_or(source, |recipe| recipe.matrix_type(name, source, n_cols, &self.outline))
    }

    /// Number in `general.file_type` of `model`'s variant, if its matrices are converted.
    pub fn file_type(&self, model: &Model) -> Option<u32> {
        let matrices = model.gguf.tensors().iter().filter(|t| is_whole_matrix(t));
        let types = matrices.map(|t| {
            let dtype = self.matrix_type(&t.name, t.dtype, stored_row(t));
            (&*t.name, dtype, t.n_rows() * t.n_cols())
        });
        self.recipe?.file_type_of(types)
    }

    /// What `model`'s variant will be, as lines for people.
    pub fn table(&self, model: &Model) -> String {
        let mut out = String::from("layer   neurons    hot   covering   density   down\n");
        for line in &self.lines {
            out += &self.line(line);
        }
        // What a token reads of experts that are chosen for it.
        let share = |number: usize| f64::from(self.groups[number].chosen.unwrap_or(1.0));
        let groups = || model.weights.groups().enumerate().map(|(number, (_, group))| (share(number), group));
        let bytes = |group: &NeuronGroup| group.parts().map(Part::weight_bytes).sum::<u64>() as f64;
        let unread = groups().map(|(share, group)| (1.0 - share) * bytes(group)).sum::<f64>();
        let dense = dense_bytes(model) as f64 - unread;
        let skipped = |group: &NeuronGroup| {
            let up = if group.gate.is_some() { group.ffn_up().n_bytes() } else { 0 };
            up as f64 * (1.0 - self.open_density) + group.ffn_down().n_bytes() as f64 * (1.0 - self.density)
        };
        let exact = dense - groups().map(|(share, group)| share * skipped(group)).sum::<f64>();
        let gates = match model.has_two_masks() {
            true => format!(", {:.2} % of gates are above zero", 100.0 * self.open_density),
            false => String::new(),
        };
        let (fired, exact) = (100.0 * self.density, 100.0 * exact / dense);
        out += &match &self.profile {
            Some((_, n_tokens)) => format!(
                "on average {fired:.2} % of neurons fire{gates} ({n_tokens} tokens profiled): exact decode reads {exact:.0} % of \
                 the weights\n"
            ),
            None => format!("if {fired:.0} % of neurons fire, exact decode reads {exact:.0} % of the weights\n"),
        };
        out
    }
}

impl Draft {
    /// A line of the table.
    fn line(&self, line: &Line) -> String {
        let groups = || line.groups.iter().map(|group| &self.groups[*group]);
        // There may be hundreds of thousands of neurons.
        let total = |rates: &[f32]| rates.iter().map(|rate| f64::from(*rate)).sum::<f64>();
        let sum: f64 = groups().map(|group| total(&group.rates)).sum();
        let hot: f64 = groups().map(|group| total(&group.rates[..group.n_hot])).sum();
        let n_hot: usize = groups().map(|group| group.n_hot).sum();
        let covering = if n_hot > 0 && sum > 0.0 { 100.0 * hot / sum } else { 0.0 };
        // Of neurons that are computed.
        let computed = |group: &GroupDraft| group.order.len() as f64 * f64::from(group.chosen.unwrap_or(1.0));
        let possible: f64 = groups().map(computed).sum();
        let density = if possible > 0.0 { 100.0 * sum / possible } else { 0.0 };
        let down = match line.groups.first().map(|group| self.down[*group]) {
            Some(DownLayout::Rows(dtype)) => dtype.name(),
            Some(DownLayout::Lossless(_)) => "lossless",
            None => "-",
        };
        let n: usize = groups().map(|group| group.order.len()).sum();
        let cold = groups().filter(|group| group.n_hot == 0).count();
        let experts = if line.groups.len() > 1 {
            format!("   {cold} of {} wholly cold", line.groups.len())
        } else {
            String::new()
        };
        let label = &line.label;
        format!("{label:>5} {n:>9} {n_hot:>6} {covering:>8.1} % {density:>7.2} % {down:>6}{experts}\n")
    }
}

/// The fingerprint of a model whose neurons have their own order.
fn source_fingerprint(model: &Model) -> Result<Fingerprint> {
    let ordered = model.weights.groups().any(|(_, group)| group.index.is_some());
    ensure!(!ordered, "is a variant already; split the model it was made from");
    Fingerprint::of(model)
}

/// Length of the rows that a variant stores this matrix in.
fn stored_row(tensor: &TensorInfo) -> usize {
    match Role::of_name(&tensor.name) {
        Some(Role::FfnDown) => tensor.dims.get(1).copied().unwrap_or(1),
        Some(_) | None => tensor.n_cols(),
    }
}

fn down_types(model: &Model, options: Options, outline: &Outline) -> Result<Vec<DownLayout>> {
    let groups = model.weights.groups();
    groups
        .map(|(i, group)| {
            let source = group.ffn_down().dtype();
            let name = match group.ffn_down() {
                Down::Columns(down) => down.name().to_owned(),
                Down::Rows(_) | Down::Lossless(_) => format!("blk.{i}.ffn_down.weight"),
            };
            let by_neurons = matches!(group.ffn_down(), Down::Rows(_));
            if by_neurons {
                ensure!(
                    options.down.is_none(),
                    "--down says how ffn_down is transposed; this file has it by neurons, and it stays as it is"
                );
            } else if is_float(source) {
                ensure!(
                    options.down.is_none(),
                    "--down is for quantized sources; {} is {source}: use --type",
                    name
                );
            }
            let n_embd = group.width();
            if options.down == Some(DownType::Lossless) {
                ensure!(
                    model.weights.layers[i].groups.len() == 1,
                    "--down lossless: layer {i} has several groups of neurons; use q8_0 or same"
                );
                ensure!(
                    [GgmlType::Q8_0, GgmlType::Q4_0].contains(&source) && n_embd.is_multiple_of(QK),
                    "--down lossless is for Q8_0 and Q4_0 with rows of whole blocks; {name} is {source}: use q8_0 or same"
                );
                return Ok(DownLayout::Lossless(source));
            }
            let wanted = match (options.recipe, options.down) {
                (Some(recipe), _) => recipe.matrix_type(&name, source, n_embd, outline),
                (None, None) if by_neurons || is_float(source) => source,
                (None, Some(DownType::Same)) => {
                    ensure!(
                        convert::quantizer(source).is_ok(),
                        "--down same: {name} is {source}, which is read and not written: use q8_0"
                    );
                    source
                }
                (None, _) => GgmlType::Q8_0,
            };
            ensure!(
                wanted.row_bytes(n_embd).is_some(),
                "{}: transposed rows of {n_embd} are not whole {wanted} blocks; split an F16 source",
                name
            );
            Ok(DownLayout::Rows(wanted))
        })
        .collect()
}
