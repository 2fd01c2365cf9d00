//! `--draft`: decoding with drafts, next to decoding without.

use super::texts::Texts;
use crate::Args;
use crate::common::models;
use crate::common::terminal::Bar;
use anyhow::{Context, Result, ensure};
use powerinfer::executor::{Executor, ExecutorParams, Worker};
use powerinfer::measure::drafted::{DraftedRow, Source, Work, drafted};
use powerinfer::measure::lists::Numbers;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::speculation::{Drafter, Lookup, ModelDrafter, check_vocabulary};
use std::path::PathBuf;
use std::str::FromStr;

/// Tokens of a prompt, and of the context behind what is decoded.
const PROMPT: usize = 32;
const ROOM: usize = 64;

/// Who drafts.
#[derive(clap::Args)]
#[command(next_help_heading = "Speculation")]
pub struct DraftArgs {
    /// Measure greedy decoding of -n tokens behind the first -p [default: 32] of the text with drafts, next to decoding without, and
    /// exit: lookup (what the text has said before), a draft model, or a number: scripted drafts, each token of which is right with that
    /// probability, next to what a formula says of such drafts
    #[arg(long, value_name = "lookup|MODEL|P,...", value_delimiter = ',', conflicts_with_all = ["measure_hardware", "kernels", "perplexity", "kl", "predict", "compare", "against"])]
    pub draft: Vec<Kind>,
}

/// A source of drafts as it is named.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// The text.
    Lookup,
    /// A model.
    Model(PathBuf),
    /// Right with this probability.
    Scripted(f64),
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Ok(share) = text.parse::<f64>() {
            ensure!((0.0..=1.0).contains(&share), "a probability is from 0 to 1");
            return Ok(Self::Scripted(share));
        }
        Ok(if text == "lookup" { Self::Lookup } else { Self::Model(text.into()) })
    }
}

impl DraftArgs {
    /// Measures each of them with `model`.
    ///
    /// # Errors
    /// When a draft model cannot be read or has another vocabulary; when there is no memory for what is measured.
    pub fn measure(&self, args: &Args, model: &Model, bar: &Bar) -> Result<Vec<DraftedRow>> {
        let first = |of: &[Numbers]| of.first().and_then(|numbers| numbers.0.first()).copied();
        let n = first(&args.speed.n_gen).unwrap_or(128);
        let n_prompt = first(&args.speed.n_prompt).unwrap_or(PROMPT);
        let (n_threads, kv_type) = args.speed.first();
        let setting = args.speed.settings().first().copied().context("nothing to measure")?;
        let tokens = Texts::read(args, true, bar)?.tokens(args, model)?;
        let n_ctx = n.checked_add(n_prompt).and_then(|n| n.checked_add(ROOM));
        let n_ctx = n_ctx.with_context(|| format!("-p {n_prompt} -n {n}: more tokens than any context has"))?;
        ensure!(
            (1..=tokens.len()).contains(&n_prompt),
            "-p {n_prompt}: {} has 1 to {} tokens to begin with",
            args.text(),
            tokens.len()
        );
        let isa = args.compute.isa();
        let params = ExecutorParams { n_threads, n_ctx, kv_type, mode: setting.mode, n_ubatch: setting.at_once(), isa };
        let worker = Worker::new(n_threads, isa)?;
        let mut executor = Executor::with_worker(model, Placement::all_cold(model), params.clone(), &worker)?;
        let open = |kind: &Kind| -> Result<Option<Model>> {
            let Kind::Model(name) = kind else { return Ok(None) };
            let path = args.which.found(name, bar).context("--draft")?;
            let draft = models::open(models::open_file(path.as_deref())?, None, None)?;
            check_vocabulary(&models::tokenizer(&model.gguf)?, &models::tokenizer(&draft.gguf)?)
                .with_context(|| format!("--draft {}", name.display()))?;
            Ok(Some(draft))
        };
        let drafts: Vec<Option<Model>> = self.draft.iter().map(open).collect::<Result<_>>()?;
        let n_tokens = model.config.n_tokens;
        let mut sources = Vec::new();
        for (kind, draft) in self.draft.iter().zip(&drafts) {
            sources.push(match (kind, draft) {
                (Kind::Scripted(share), _) => Source::Scripted(*share),
                (Kind::Model(name), Some(draft)) => {
                    let (params, worker) = (&params, &worker);
                    let open = move || -> Result<Box<dyn Drafter>> {
                        let of = Executor::with_worker(draft, Placement::all_cold(draft), params.clone(), worker)?;
                        Ok(Box::new(ModelDrafter::new(of, "model", n_tokens, 0.0)))
                    };
                    Source::Drafter(name.display().to_string(), Box::new(open))
                }
                _ => Source::Drafter("lookup".to_owned(), Box::new(|| Ok(Box::<Lookup>::default()))),
            });
        }
        let work = Work { prompt: &tokens[..n_prompt], n, n_rounds: args.speed.repetitions() };
        drafted(&mut executor, &work, sources, bar)
    }
}
