//! Speculation of `powerinfer-run`.

use crate::common::models;
use crate::common::terminal::{Bar, tell};
use crate::common::which::Which;
use anyhow::{Context, Result, ensure};
use clap::Args;
use powerinfer::executor::{Executor, ExecutorParams, Mode, Worker};
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::placement::plan::Room;
use powerinfer::speculation::{Drafter, LONGEST_DRAFT, Lengths, Lookup, ModelDrafter, Speculation, check_vocabulary};
use powerinfer::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::PathBuf;

/// Flags that say what is guessed ahead.
#[derive(Args)]
#[command(next_help_heading = "Speculation (the text is the same with and without)")]
pub struct SpeculationArgs {
    /// Tokens at the most that are guessed ahead and computed at once with the last one, where that is measured to be faster; 0
    /// guesses none
    #[arg(long, value_name = "N", default_value_t = LONGEST_DRAFT, allow_negative_numbers = true)]
    draft_max: usize,
    /// Tokens at the least, also where that is slower; 0 leaves it to what is measured
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    draft_min: usize,
    /// Do not guess by what followed the last tokens where the text had them before
    #[arg(long)]
    no_lookup: bool,
    /// Guess with this model, too (-md), which has the same vocabulary and is much smaller
    #[arg(long, value_name = "FILE|NAME")]
    model_draft: Option<PathBuf>,
    /// Context of the draft model (-cd) [default: that of the model, at most what the draft model was trained on]
    #[arg(long, value_name = "N")]
    ctx_size_draft: Option<usize>,
    /// Guess with the model itself in this mode, too: predicted or thresholded
    #[arg(long, value_name = "MODE")]
    draft_mode: Option<Mode>,
    /// What a model finds less likely than P is no guess of it
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    draft_p_min: f32,
}

impl SpeculationArgs {
    fn lengths(&self) -> Lengths {
        Lengths { most: self.draft_max, least: self.draft_min }
    }

    /// Finds out whether the flags make sense where the model is run as `run` says.
    ///
    /// # Errors
    /// Names the flag that does not.
    pub fn check(&self, model: &Model, run: &ExecutorParams) -> Result<()> {
        self.lengths().check(run.n_ctx)?;
        ensure!((0.0..=1.0).contains(&self.draft_p_min), "--draft-p-min {}: must be from 0 to 1", self.draft_p_min);
        ensure!(self.ctx_size_draft != Some(0), "--ctx-size-draft 0: the draft model would see nothing");
        ensure!(
            self.ctx_size_draft.is_none() || self.model_draft.is_some(),
            "--ctx-size-draft: there is no draft model; -md names one"
        );
        if let Some(mode) = self.draft_mode {
            let faster = matches!(mode, Mode::Predicted | Mode::Thresholded);
            ensure!(faster, "--draft-mode {}: predicted and thresholded compute less", mode.name());
            ensure!(mode != run.mode, "--draft-mode {}: that is the --mode of the text", mode.name());
            model.check_mode(mode).context("--draft-mode")?;
        }
        Ok(())
    }

    /// What a card is to have room for.
    pub fn room(&self) -> Room {
        if self.draft_max > 0 && self.has_source() { Room::of_guesses() } else { Room::default() }
    }

    /// The draft model, if there is to be one.
    ///
    /// # Errors
    /// When it cannot be read, or has another vocabulary than `tokenizer`.
    pub fn model(&self, which: &Which, tokenizer: &Tokenizer) -> Result<Option<Model>> {
        let Some(name) = self.model_draft.as_ref().filter(|_| self.draft_max > 0) else { return Ok(None) };
        let bar = Bar::new();
        let path = which.found(name, &bar).context("-md")?;
        let model = models::open(models::open_file(path.as_deref())?, None, None)?;
        check_vocabulary(tokenizer, &models::tokenizer(&model.gguf)?)
            .with_context(|| format!("-md {}", name.display()))?;
        Ok(Some(model))
    }

    /// Speculation for what `executor` computes, with the threads of `worker`; `None` where there is to be none, as for several
    /// texts `in_lines`.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn open<'m>(
        &self,
        executor: &Executor<'m>,
        draft: Option<&'m Model>,
        worker: &Worker,
        in_lines: bool,
    ) -> Result<Option<Speculation<'m>>> {
        let asked = self.model_draft.is_some() || self.draft_mode.is_some();
        let why_not = match (self.draft_max, executor.can_take_back()) {
            (0, _) => Some("--draft-max is 0"),
            (_, false) => Some(ON_A_CARD),
            _ => in_lines.then_some("--lines computes texts side by side"),
        };
        if let Some(why) = why_not {
            if asked {
                tell!("note: no speculation: {why}");
            }
            return Ok(None);
        }
        let (model, run) = (executor.model(), executor.params());
        let n_tokens = model.config.n_tokens;
        let drafter = |of: &'m Model, run: ExecutorParams, name| -> Result<Box<dyn Drafter + 'm>> {
            let executor = Executor::with_worker(of, Placement::all_cold(of), run, worker)?;
            Ok(Box::new(ModelDrafter::new(executor, name, n_tokens, self.draft_p_min)))
        };
        let mut drafters: Vec<Box<dyn Drafter + 'm>> = Vec::new();
        if !self.no_lookup {
            drafters.push(Box::new(Lookup::default()));
        }
        if let Some(draft) = draft {
            let n_ctx = self.ctx_size_draft.unwrap_or(run.n_ctx.min(draft.config.n_ctx_train));
            let run = ExecutorParams { n_ctx, mode: Mode::Exact, ..run.clone() };
            let what = format!("-md with a context of {n_ctx} (-cd)");
            drafters.push(drafter(draft, run, "model").context(what)?);
        }
        if let Some(mode) = self.draft_mode {
            drafters.push(drafter(model, ExecutorParams { mode, ..run.clone() }, mode.name()).context("--draft-mode")?);
        }
        Ok(Some(Speculation::new(self.lengths(), drafters)).filter(|_| self.has_source()))
    }

    fn has_source(&self) -> bool {
        !self.no_lookup || self.model_draft.is_some() || self.draft_mode.is_some()
    }
}

const ON_A_CARD: &str = "a card computes one token of such a model after the other";

/// What speculation did, for people.
pub fn report(speculation: Option<&Speculation>, executor: &Executor) {
    let Some(counts) = speculation.map(Speculation::counts) else {
        // Where none was wanted no room was asked for.
        let wanted = executor.card().is_none_or(|card| card.plan.room.n_at_once > 1);
        let why = if executor.can_take_back() || !wanted { "switched off" } else { ON_A_CARD };
        tell!("speculation: none: {why}");
        return;
    };
    let all = counts.drafted();
    if all.n_drafted == 0 {
        tell!("speculation: nothing was drafted");
        return;
    }
    let of = |name: &str, n_taken: usize, n_drafted: usize| {
        let share = 100.0 * n_taken as f64 / n_drafted as f64;
        format!("{n_taken} of {n_drafted} drafted tokens stayed ({name}, {share:.1} %)")
    };
    let drafted = counts.sources.iter().filter(|(_, one)| one.n_drafted > 0);
    let sources: Vec<String> = drafted.map(|(name, one)| of(name, one.n_taken, one.n_drafted)).collect();
    tell!(
        "speculation: {}, {:.2} tokens per pass, about {:.3} s {}",
        sources.join(", "),
        counts.tokens_per_pass(),
        counts.saved.abs(),
        if counts.saved < 0.0 { "lost" } else { "saved" }
    );
}

/// What speculation did, for programs; `null` where there is none.
pub fn json(speculation: Option<&Speculation>) -> Value {
    let Some(counts) = speculation.map(Speculation::counts) else { return Value::Null };
    let all = counts.drafted();
    let of = |(name, one): &(&str, powerinfer::speculation::Drafted)| serde_json::json!({ "source": name, "n_drafted": one.n_drafted, "n_accepted": one.n_taken });
    serde_json::json!({
        "n_drafted": all.n_drafted,
        "n_accepted": all.n_taken,
        "n_passes": counts.n_passes,
        "tokens_per_pass": counts.tokens_per_pass(),
        "saved_s": counts.saved,
        "sources": counts.sources.iter().map(of).collect::<Vec<_>>(),
    })
}
