//! `powerinfer-profile --predictor`: fits predictors to the samples of a profile.

use crate::common::terminal::{Bar, print_table, tell};
use crate::common::{self, models};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use powerinfer::predictor::{Costs, FitParams, PredictorChoice, fit as fit_predictors, left_out, table};
use powerinfer::profile::samples::Samples;
use powerinfer::profile::{Fingerprint, Kinship, Profile};
use std::path::{Path, PathBuf};

/// What belongs to making a profile, and not to what is made from one.
const PROFILING: [&str; 12] = [
    "file",
    "random_tokens",
    "ctx_size",
    "tokens",
    "shard",
    "samples",
    "samples_cap",
    "parse_special",
    "merge",
    "show",
    "compare",
    "threshold_search",
];

/// Which predictors to fit, and to what.
#[derive(Args)]
pub struct PredictorArgs {
    /// Fit predictors of which neurons fire instead of making a profile: sign, lowrank, mlp, or auto (the best for each
    /// layer)
    #[arg(long, value_name = "KIND", requires = "samples_from")]
    predictor: Option<PredictorChoice>,
    /// Profile made with --samples, to fit the predictors to
    #[arg(long, value_name = "PROFILE", requires = "predictor", conflicts_with_all = PROFILING, conflicts_with = "plot")]
    samples_from: Option<PathBuf>,
    /// Share of the activation mass that the predictors must keep on held-out text [default: 0.996 for sign, 0.991 for
    /// lowrank, 0.995 for mlp]
    #[arg(long, value_name = "SHARE", requires = "predictor")]
    target: Option<f64>,
    /// Rank or hidden units in every layer, a multiple of 32 [default: whatever is predicted to be fastest]
    #[arg(long, value_name = "N", requires = "predictor")]
    predictor_size: Option<usize>,
}

/// Predictors that are wanted.
pub struct Wanted<'a> {
    choice: PredictorChoice,
    samples: &'a Path,
}

impl PredictorArgs {
    /// What is to be fitted, if anything.
    pub fn wanted(&self) -> Option<Wanted<'_>> {
        Some(Wanted { choice: self.predictor?, samples: self.samples_from.as_deref()? })
    }

    /// Files that are read.
    pub fn inputs(&self) -> impl Iterator<Item = &PathBuf> {
        self.samples_from.iter()
    }
}

/// Fits, writes and shows predictors.
pub fn fit(args: &crate::Args, model: Option<&Path>, wanted: &Wanted, output: &Path) -> Result<()> {
    let bar = Bar::new();
    let shown = || wanted.samples.display().to_string();
    let profile = Profile::read(wanted.samples)?;
    let model = models::open(models::open_file(model)?, args.activation, Some(&bar))?;
    args.which.warn(&model)?;
    match profile.fingerprint.kinship(&Fingerprint::of(&model)?) {
        Kinship::Same => {}
        Kinship::Sibling => tell!("note: {}: was made with another quantization of the model", shown()),
        Kinship::OtherWeights => bail!("{}: was made with a model that has other weights ({})", shown(), profile.name),
        Kinship::OtherFamily => bail!(
            "{}: was made with another model ({}, {}){}",
            shown(),
            profile.name,
            profile.arch,
            profile.unlike(&model.weights.group_sizes())
        ),
    }
    drop(profile);
    let samples = Samples::read(wanted.samples)?;
    let n_threads = args.threads.unwrap_or_else(common::default_threads);
    ensure!((1..=1024).contains(&n_threads), "-t {n_threads}: 1 to 1024 threads are possible");
    let params = FitParams {
        choice: wanted.choice,
        target: args.predictor.target,
        seed: args.seed,
        hidden: args.predictor.predictor_size,
        costs: Costs::default(),
    };
    if let Some(layers) = left_out(&model) {
        tell!("note: {layers}");
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().context("-t")?;
    let predictors = pool.install(|| fit_predictors(&model, &samples, &params, &bar)).with_context(shown)?;
    predictors.write(output, &bar)?;
    drop(bar);
    let (name, n) = (&predictors.name, samples.len());
    let table = table(&model, &predictors)?;
    print_table(format_args!("{name}: predictors fitted to {n} tokens\n{table}"))
}
