//! Plans on the command line: the flags of `--dry-run`, `--hardware` and budgets, and what they ask for.

use super::picture;
use super::terminal::{print_json, print_table, tell};
use anyhow::{Result, bail, ensure};
use clap::Args;
use powerinfer::executor::{ExecutorParams, Mode, check_card};
use powerinfer::model::Model;
use powerinfer::placement::budget::tokens_per_pass;
use powerinfer::placement::explain::Explained;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::picture::picture as picture_of;
use powerinfer::placement::plan::{Plan, Planner, Prepared, Run};
use powerinfer::placement::workload::Workload;
use powerinfer::units::Bytes;
use std::path::{Path, PathBuf};

/// What a plan is made for.
#[derive(Args)]
pub struct PlanArgs {
    /// Print the plan (bytes, predicted tokens/s, proof of optimality) and exit
    #[arg(long)]
    pub dry_run: bool,
    /// Description of the machine to plan for (TOML; see the folder `hardware`) [default: this machine, measured once]
    #[arg(long, value_name = "FILE")]
    pub hardware: Option<PathBuf>,
    #[command(flatten)]
    pub vram: Vram,
    /// With --dry-run: print a line for every layer, or one for several whose figures are the same
    #[arg(long, requires = "dry_run")]
    pub explain: bool,
    /// With --dry-run: draw the plan by layers into a file, .svg or .png
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    pub plot: Option<PathBuf>,
}

/// How much of a card a plan may take.
#[derive(Args)]
pub struct Vram {
    /// Device memory that a plan may take: a number with a unit, such as 8GiB or 8GB [default: all but the driver's own]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub vram_budget: Option<Bytes>,
    /// The same with what the driver takes for itself (measured): a limit on everything that this program has on the card
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, conflicts_with = "vram_budget")]
    pub vram_total: Option<Bytes>,
}

impl Vram {
    /// Whether the user has said something.
    pub fn is_given(&self) -> bool {
        self.vram_budget.or(self.vram_total).is_some()
    }

    /// The budget of a plan on `hardware`.
    pub fn budget(&self, hardware: &Hardware) -> Result<Option<Bytes>> {
        let Some(total) = self.vram_total else { return Ok(self.vram_budget) };
        let Some(device) = &hardware.device else {
            bail!("--vram-total: {} has no graphics card; describe one with --hardware FILE", hardware.name)
        };
        let context = device.gpu.context;
        ensure!(context < total, "--vram-total: {total} is less than the {context} that the driver takes for itself");
        Ok(Some(Bytes(total.0 - context.0)))
    }
}

/// Says of a plan for a card that there are no kernels for `model`, so that it is not what would be run.
pub fn tell_lack(hardware: &Hardware, model: &Model, params: &ExecutorParams) {
    if hardware.device.is_some()
        && let Err(error) = check_card(model, params)
    {
        tell!(
            "note: a card cannot compute this model: {error:#}; whatever is planned for one, the CPU computes all of it"
        );
    }
}

/// What a pass of the run needs of the model.
fn of_pass(hardware: &Hardware, work: &Workload, run: &Run) -> Workload {
    work.at_once(tokens_per_pass(hardware.device.is_some(), work, run))
}

/// Makes ready for plans.
fn prepare<'a>(hardware: &'a Hardware, work: &'a Workload, run: &'a Run) -> Result<Prepared<'a>> {
    ensure!(run.mode != Mode::Thresholded, "mode thresholded is computed on the CPU only; there is nothing to plan");
    Ok(Planner { hardware, work, run }.prepare())
}

/// Makes the plan that the flags ask for.
pub fn plan(args: &PlanArgs, hardware: &Hardware, work: &Workload, run: &Run) -> Result<Plan> {
    prepare(hardware, &of_pass(hardware, work, run), run)?.plan(args.vram.budget(hardware)?)
}

/// Finds out before a plan is made whether it can be drawn, and that the picture is none of `inputs`.
pub fn check_plot<'a>(args: &'a PlanArgs, inputs: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    picture::check(args.plot.as_deref(), inputs.into_iter().chain(args.hardware.as_deref()))
}

/// `--dry-run`: prints the plan.
pub fn show(args: &PlanArgs, json: bool, hardware: &Hardware, work: &Workload, run: &Run) -> Result<()> {
    let work = &of_pass(hardware, work, run);
    let prepared = prepare(hardware, work, run)?;
    let plan = prepared.plan(args.vram.budget(hardware)?)?;
    if let Some(path) = &args.plot {
        picture::write(path, &picture_of(&prepared.planner, &plan))?;
    }
    let explained = Explained::new(&prepared, &plan);
    if json {
        return print_json(serde_json::to_string_pretty(&explained.json())?);
    }
    print_table(explained.table(args.explain))
}
