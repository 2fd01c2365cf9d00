//! Fits a model's predictors, layer by layer.

use super::auto::{Costs, Load, NeuronBytes};
use super::calibrate::{ALWAYS, Expected, Measured, calibrate, measure};
use super::data::{self, Covariance, Inputs, Split, Truth};
use super::lowrank::{self, RANK_STEP, Weighted};
use super::mlp::{self, Evaluation, Firings, Mlp, Training};
use super::stored::{Kind, Weights};
use super::tensor::Tensor;
use super::{LayerMeasures, LayerPredictor, Predictors, sign};
use crate::model::{Activation, Layer, Model, NeuronGroup};
use crate::profile::Fingerprint;
use crate::profile::samples::Samples;
use crate::progress::{self, Progress};
use crate::quant::GgmlType;
use anyhow::{Context, Result, bail, ensure};
use std::str::FromStr;

/// Which predictors to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PredictorChoice {
    /// In each layer the one with the best predicted token time, or none.
    Auto,
    /// This kind in every layer.
    Only(Kind),
}

impl FromStr for PredictorChoice {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "sign" => Ok(Self::Only(Kind::Sign)),
            "lowrank" => Ok(Self::Only(Kind::Lowrank)),
            "mlp" => Ok(Self::Only(Kind::Mlp)),
            _ => bail!("predictor \"{name}\" is not known; sign, lowrank, mlp and auto are"),
        }
    }
}

/// How to fit.
#[derive(Debug, Clone)]
pub struct FitParams {
    /// What to fit.
    pub choice: PredictorChoice,
    /// Share of a layer's activation mass to keep, above 0 and at most 1; [`Kind::default_target`] if not given.
    pub target: Option<f64>,
    /// Of everything random.
    pub seed: u64,
    /// Rank or hidden units of every layer, a multiple of 32; otherwise what is predicted to be fastest.
    pub hidden: Option<usize>,
    /// Speeds of the machine that the predictors are for.
    pub costs: Costs,
}

impl FitParams {
    fn target_of(&self, kind: Kind) -> f64 {
        self.target.unwrap_or_else(|| kind.default_target())
    }
}

/// Fits predictors to all layers of `model`. The result does not depend on threads.
///
/// Memory, beyond `model` and `samples`: the mask matrix and two `[n_embd][n_embd]` matrices as floats, and 16 bytes
/// per neuron and token for at most 8,192 tokens (1 GB for a 7B model).
///
/// # Errors
/// When the model's activations are never zero, samples are too few or not the model's, something is not a finite
/// number, or the user stops it.
pub fn fit(model: &Model, samples: &Samples, params: &FitParams, progress: &dyn Progress) -> Result<Predictors> {
    if let Some(target) = params.target {
        ensure!(target > 0.0 && target <= 1.0, "target {target}: a share of activation mass is above 0 and at most 1");
    }
    if let Some(n) = params.hidden {
        let most = model.config.n_embd;
        ensure!(
            n > 0 && n.is_multiple_of(RANK_STEP) && n <= most.next_multiple_of(RANK_STEP),
            "a rank of {n}: must be a multiple of {RANK_STEP} from {RANK_STEP} to {most}"
        );
    }
    let activation = model.config.activation.activation;
    ensure!(activation.is_sparse(), "activation {activation} is never zero, so there is nothing to predict");
    let file = || model.gguf.source().name().to_owned();
    data::check_samples(model, samples).with_context(file)?;
    let n_layer = model.config.n_layer;
    // Where no layer is fitted to them, samples need not be many.
    let fits = (0..n_layer).any(|layer| data::group(model, layer).is_some());
    let split = if fits { Split::new(&samples.keys)? } else { Split::default() };
    let expected = Expected::new(activation);
    let fingerprint = Fingerprint::of(model)?;
    progress.begin("fitting predictors", n_layer as u64);
    let mut layers = Vec::new();
    for layer in 0..n_layer {
        progress::check(progress)?;
        layers.push(match data::group(model, layer) {
            Some(group) => {
                let fitter = Fitter::new(model, group, samples, layer, &split, params, &expected)?;
                fitter.fit(activation, progress).with_context(|| format!("layer {layer}"))?
            }
            None => LayerPredictor { weights: Weights::None, bias: Vec::new(), measured: LayerMeasures::COMPUTED },
        });
        progress.advance(1);
    }
    Ok(Predictors { fingerprint, name: model.config.name.clone(), layers })
}

/// Which layers get no predictor since a router chooses among their groups of neurons, and why; `None` where there are none.
pub fn left_out(model: &Model) -> Option<String> {
    let routed = |layer: &&Layer| layer.groups.iter().any(NeuronGroup::is_routed);
    let layers: Vec<&Layer> = model.weights.layers.iter().filter(routed).collect();
    let first = layers.first()?;
    let experts = || first.groups.iter().filter(|group| group.is_routed());
    let (n, n_ff) = (experts().count(), experts().map(NeuronGroup::n_ff).max()?);
    let seen = 100.0 * first.router.map_or(0, |router| router.n_used) as f64 / n as f64;
    Some(format!(
        "{} of {} layers have {n} experts of {n_ff} neurons and are computed exactly: an expert is too small for a predictor of \
         its own, and {seen:.1} % of the samples would tell of one",
        layers.len(),
        model.weights.layers.len()
    ))
}

/// One layer, with what all kinds share.
struct Fitter<'a> {
    group: &'a NeuronGroup,
    params: &'a FitParams,
    expected: &'a Expected,
    bytes: NeuronBytes,
    train: Inputs<'a>,
    held_out: Inputs<'a>,
    /// By neuron.
    mask: Vec<f32>,
    x: Vec<f32>,
    truth: Truth,
}

/// A predictor with its biases, and how long a token is predicted to take with it.
struct Candidate {
    weights: Weights,
    bias: Vec<f32>,
    seconds: f64,
}

/// Types of the inner and outer factor, in the order they are tried: the first finds the most firings per byte.
const TYPES: [(GgmlType, GgmlType); 4] = [
    (GgmlType::Q4_0, GgmlType::Q4_0),
    (GgmlType::Q8_0, GgmlType::Q4_0),
    (GgmlType::Q8_0, GgmlType::Q8_0),
    (GgmlType::Q4_0, GgmlType::Q8_0),
];

/// Tokens whose firings are computed at a time.
const TRAINED: usize = 2048;
/// Samples that a network sees in all, as far as the limits on epochs allow; six epochs of 50,000 are enough.
const EPOCH_SAMPLES: usize = 300_000;
const EPOCHS: (usize, usize) = (6, 40);

impl<'a> Fitter<'a> {
    fn new(
        model: &'a Model,
        group: &'a NeuronGroup,
        samples: &'a Samples,
        layer: usize,
        split: &'a Split,
        params: &'a FitParams,
        expected: &'a Expected,
    ) -> Result<Self> {
        let n_embd = model.config.n_embd;
        let inputs = |which: &'a [usize]| Inputs::new(samples, layer, n_embd, which);
        let mask = data::weights(group, group.mask_matrix())?;
        let x = inputs(&split.calibration).all();
        let truth = Truth::new(group, &mask, &x, model.config.activation.activation)?;
        Ok(Self {
            group,
            params,
            expected,
            bytes: NeuronBytes::new(group, truth.opened_per_fired),
            train: inputs(&split.train),
            held_out: inputs(&split.held_out),
            mask,
            x,
            truth,
        })
    }

    fn fit(mut self, activation: Activation, progress: &dyn Progress) -> Result<LayerPredictor> {
        let x = self.held_out.all();
        let truth = Truth::new(self.group, &self.mask, &x, activation)?;
        let wanted =
            |kind| self.params.choice == PredictorChoice::Only(kind) || self.params.choice == PredictorChoice::Auto;
        let (sign, lowrank) = (wanted(Kind::Sign), wanted(Kind::Lowrank));
        let mut candidates = Vec::new();
        if self.params.choice == PredictorChoice::Auto {
            candidates.push(self.none());
        }
        if sign {
            candidates.push(self.candidate(Weights::Sign(sign::signs(&self.mask, self.train.n_embd)?))?);
        }
        if wanted(Kind::Mlp) {
            candidates.push(self.mlp(activation, progress)?);
        }
        // This consumes the mask matrix, so it comes last.
        if lowrank {
            candidates.push(self.lowrank(progress)?);
        }
        let best = candidates.into_iter().reduce(|a, b| if b.seconds < a.seconds { b } else { a });
        let Candidate { weights, bias, .. } = best.context("no kind of predictor to fit")?;
        let target = self.params.target_of(weights.kind()) as f32;
        let measured = match weights.kind() {
            Kind::None => {
                let all = measure(&truth.z, &truth, &vec![ALWAYS; truth.n_ff]);
                LayerMeasures { active: 1.0, ..measures(&all, target) }
            }
            _ => measures(&measure(&weights.scores(&x, truth.n)?, &truth, &bias), target),
        };
        Ok(LayerPredictor { weights, bias, measured })
    }

    /// The layer, computed exactly.
    fn none(&self) -> Candidate {
        let all = measure(&self.truth.z, &self.truth, &vec![ALWAYS; self.truth.n_ff]);
        let load = Load { predictor: 0.0, regions: 0.0, active: None, fired: f64::from(all.fired()) };
        Candidate { weights: Weights::None, bias: Vec::new(), seconds: self.params.costs.seconds(&self.bytes, &load) }
    }

    /// Finds the biases, and what the predictor costs.
    fn candidate(&self, weights: Weights) -> Result<Candidate> {
        let scores = weights.scores(&self.x, self.truth.n)?;
        let break_even = self.params.costs.break_even(&self.bytes, weights.score_row() as f64);
        let target = self.params.target_of(weights.kind());
        let bias = calibrate(&scores, &self.truth, self.expected, target, break_even);
        let measured = measure(&scores, &self.truth, &bias);
        let scored = bias.iter().filter(|b| **b < ALWAYS).count();
        let load = Load {
            predictor: (weights.common_bytes() + scored * (weights.score_row() + 4)) as f64,
            regions: weights.regions(),
            active: Some(f64::from(measured.active())),
            fired: f64::from(measured.hit()),
        };
        let seconds = self.params.costs.seconds(&self.bytes, &load);
        Ok(Candidate { weights, bias, seconds })
    }

    /// Trains the two layers.
    fn mlp(&self, activation: Activation, progress: &dyn Progress) -> Result<Candidate> {
        let (n, n_ff, n_embd) = (self.train.len(), self.truth.n_ff, self.train.n_embd);
        let firings = |truth: &Truth, out: &mut Firings| truth.mass.chunks_exact(n_ff).try_for_each(|m| out.push(m));
        let (mut fired, mut held_fired) = (Firings::new(n_ff), Firings::new(n_ff));
        firings(&self.truth, &mut held_fired)?;
        for first in (0..n).step_by(TRAINED) {
            progress::check(progress)?;
            let x = self.train.block(first, TRAINED.min(n - first));
            firings(&Truth::new(self.group, &self.mask, &x, activation)?, &mut fired)?;
        }
        let types = (fitting(TYPES[0].0, n_embd), TYPES[0].1);
        let x = self.train.all();
        let training = Training {
            n_embd,
            n_ff,
            x: &x,
            fired: &fired,
            held_x: &self.x,
            held_fired: &held_fired,
            in_type: types.0,
            out_type: types.1,
            epochs: (EPOCH_SAMPLES / n).clamp(EPOCHS.0, EPOCHS.1),
            seed: self.params.seed,
        };
        let weights = |mlp: &Mlp| -> Result<Weights> {
            let inner = Tensor::new(&mlp.w1, n_embd, types.0)?;
            let outer = Tensor::new(&mlp.w2, mlp.hidden, types.1)?;
            Ok(Weights::Factors { inner, inner_bias: Some(mlp.b1.clone()), outer })
        };
        let trained = if let Some(hidden) = self.params.hidden {
            mlp::train(&training, hidden, progress)?
        } else {
            // Biases reach the target whatever the size, so only the time distinguishes sizes.
            let mut evaluate = |mlp: &Mlp| {
                let cost = weights(mlp).and_then(|w| self.candidate(w)).map_or(f64::NAN, |c| c.seconds);
                Evaluation { recall: 1.0, cost }
            };
            let most = (self.bytes.n_ff * self.bytes.mask_row) as usize;
            mlp::fit_size(&training, self.params.target_of(Kind::Mlp), most, &mut evaluate, progress)?
        };
        self.candidate(weights(&trained)?)
    }

    /// The fastest rank and types.
    fn lowrank(&mut self, progress: &dyn Progress) -> Result<Candidate> {
        let n_embd = self.train.n_embd;
        let ranks = self.params.hidden.map_or_else(|| lowrank::ladder(n_embd), |rank| vec![rank.min(n_embd)]);
        let inputs = Covariance::estimate(&self.train)?;
        let moments = self.truth.moments();
        let importance: Vec<f64> =
            moments.iter().map(|(mean, variance)| lowrank::importance(*mean, *variance)).collect();
        let mask = std::mem::take(&mut self.mask);
        let weighted = Weighted::new(mask, &importance, &inputs);
        let mut directions = Vec::new();
        let mut best: Option<(usize, Candidate)> = None;
        let attempt = |rank: usize, types: (GgmlType, GgmlType), directions: &[f32], best: &mut Option<_>| {
            progress::check(progress)?;
            let types = (fitting(types.0, n_embd), fitting(types.1, rank));
            let candidate = self.candidate(weighted.factors(&directions[..rank * n_embd], &inputs, types)?)?;
            let better = best.as_ref().is_none_or(|(_, best): &(usize, Candidate)| candidate.seconds < best.seconds);
            if better {
                *best = Some((rank, candidate));
            }
            anyhow::Ok(better)
        };
        for (i, rank) in ranks.iter().enumerate() {
            if directions.len() < rank * n_embd {
                // Few layers get as far as the largest ranks, and finding their directions takes most of the time.
                let n = ranks[i..].iter().rfind(|r| **r <= n_embd * 3 / 16).unwrap_or(&ranks[ranks.len() - 1]);
                directions = weighted.directions(&inputs, *n, self.params.seed)?;
            }
            if !attempt(*rank, TYPES[0], &directions, &mut best)? {
                break;
            }
        }
        let rank = best.as_ref().map_or(RANK_STEP, |(rank, _)| *rank);
        for types in &TYPES[1..] {
            attempt(rank, *types, &directions, &mut best)?;
        }
        best.map(|(_, candidate)| candidate).context("no rank to try")
    }
}

/// The type, or one without blocks if rows of `n` are not whole blocks of it.
fn fitting(dtype: GgmlType, n: usize) -> GgmlType {
    if n.is_multiple_of(dtype.block_len()) { dtype } else { GgmlType::F16 }
}

fn measures(m: &Measured, target: f32) -> LayerMeasures {
    LayerMeasures {
        target,
        recall: m.recall(),
        recall_count: m.recall_count(),
        precision: m.precision(),
        active: m.active(),
        fired: m.fired(),
    }
}
