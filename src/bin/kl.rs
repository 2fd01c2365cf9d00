//! `--kl`: how far a mode, or a quantized file, is from dense.

use crate::Args;
use crate::benchmark::meter::Bench;
use crate::benchmark::speed_args::Setting;
use crate::benchmark::texts::{Scored, Text};
use crate::common::models;
use anyhow::{Context, Result};
use powerinfer::executor::Mode;
use powerinfer::gpu::Chosen;
use powerinfer::measure::divergence::{check_vocabularies, divergence};
use powerinfer::measure::row::{Kl, Row};
use powerinfer::measure::speed::{Test, bytes_per_token};
use powerinfer::measure::timing::Timing;
use powerinfer::model::Model;
use powerinfer::progress::Progress;
use std::path::PathBuf;

/// One in so many tokens is looked at for what the predictors missed.
const AUDITED: u64 = 16;

/// What to compare, and with what.
#[derive(clap::Args)]
pub struct KlArgs {
    /// KL divergence of each --mode from dense over a text (-: standard input): both decode windows of -c tokens, the second half of each scored
    #[arg(long, value_name = "FILE", help_heading = "Perplexity and KL divergence")]
    pub kl: Option<PathBuf>,
    /// Compare with this model in dense mode instead, such as the file that was quantized
    #[arg(long, value_name = "MODEL", requires = "kl", help_heading = "Perplexity and KL divergence")]
    kl_base: Option<PathBuf>,
}

/// A text to compare over.
pub struct Comparison {
    text: Scored,
    base: Option<Model>,
}

impl Comparison {
    /// What the arguments ask for, over `text`.
    pub fn new(args: &Args, model: &Model, text: &Text, progress: &dyn Progress) -> Result<Self> {
        let text = Scored::new(args, model, text)?;
        let base = args.kl.kl_base.as_deref().map(|path| -> Result<_> {
            let check = args.compute.check_tensors.then_some(progress);
            let path = args.which.found(path, progress)?;
            let base =
                models::open(args.compute.memory.open(path.as_deref(), progress)?, args.compute.activation, check)?;
            check_vocabularies(&base, model)?;
            Ok(base)
        });
        Ok(Self { text, base: base.transpose()? })
    }

    /// The row of one mode and number of threads.
    pub fn row(&self, bench: &Bench, progress: &dyn Progress) -> Result<Row> {
        let (args, Scored { name, tokens, bos }) = (bench.args, &self.text);
        let (n_ctx, row) = (args.ctx_size, bench.row("kl".to_owned(), name));
        let base = self.base.as_ref().unwrap_or(bench.model);
        // A card holds one of them; the reference can wait.
        let alone = Chosen::Cpu { why: Some("the other is on the card".to_owned()) };
        let setting = Setting { mode: Mode::Dense, ..bench.setting };
        let dense = Bench { model: base, setting, chosen: &alone, ..*bench };
        let mut reference = dense.executor(n_ctx)?;
        let mut placed = bench.executor(n_ctx)?;
        placed.executor.set_audit(AUDITED);
        let compared = placed.measure(|executor| {
            divergence(&mut reference.executor, executor, tokens, n_ctx, *bos, args.chunks, progress)
        });
        let compared = compared.with_context(|| name.clone())?;
        let (executor, card) = (&placed.executor, placed.used_card());
        let n_tokens = compared.perplexity.n_windows * n_ctx;
        let timing = Timing::of(n_tokens, vec![compared.decoding.as_nanos() as u64]);
        let decoded = Test { n_prompt: 0, n_gen: n_ctx, n_depth: 0, n_parallel: 1 };
        let (stats, n_ubatch) = (executor.stats(), bench.setting.at_once());
        let row = Row {
            n_gen: n_tokens,
            n_ctx: Some(n_ctx),
            bytes_per_token: Some(bytes_per_token(bench.model, stats, decoded, bench.setting.mode, n_ubatch)),
            ffn_bytes_per_token: bench.ffn_bytes(stats),
            predicted: bench.predicted(stats, timing.avg_ts),
            ffn_density: compared.perplexity.ffn_density,
            ffn_up_density: compared.perplexity.ffn_opened.filter(|_| bench.model.has_two_masks()),
            perplexity: Some(compared.perplexity.value),
            stderr: Some(compared.perplexity.stderr),
            timing,
            kl: Some(Kl { kl_base: base.gguf.source().name().to_owned(), divergence: compared.divergence }),
            ..row
        };
        Ok(row.on(card))
    }
}
