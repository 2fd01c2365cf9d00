//! Runs that a card has a part in: the plan that the flags ask for, and what is said of it.

use super::args::Compute;
use super::hardware::hardware;
use super::plan::Vram;
use super::terminal::{Bar, tell};
use anyhow::{Result, ensure};
use powerinfer::executor::{Executor, ExecutorParams, Worker, check_card};
use powerinfer::gpu::{Chosen, Device, DeviceChoice};
use powerinfer::measure::row::OnCard;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::plan::{Plan, PlannedLayer, Planner};
use powerinfer::placement::workload::Workload;
use powerinfer::units::Bytes;
use std::path::Path;

/// Where to compute, and with how much of it.
pub struct Where<'a> {
    /// `--device`.
    pub compute: &'a Compute,
    /// What that gave.
    pub chosen: &'a Chosen,
    /// `--vram-budget` and `--vram-total`.
    pub vram: &'a Vram,
    /// `--hardware`.
    pub hardware: Option<&'a Path>,
}

/// Memory that is left alone where the user gives no budget: for modules, and for what others do with the card.
const SPARE: u64 = 128 << 20;

/// An executor with what it was planned with, where a card has a part.
pub struct Placed<'m> {
    /// Ready to run.
    pub executor: Executor<'m>,
    card: Option<Card>,
}

struct Card {
    device: Device,
    budget: Bytes,
    /// Free before anything was taken there.
    free: Bytes,
    limit_ts: f64,
}

impl Where<'_> {
    /// An executor of `model` on the card that was chosen, as far as there is one; else on the CPU under `placement`.
    pub fn executor<'m>(
        &self,
        model: &'m Model,
        placement: Placement,
        params: ExecutorParams,
        worker: &Worker,
    ) -> Result<Placed<'m>> {
        let alone = |placement, params| {
            Ok(Placed { executor: Executor::with_worker(model, placement, params, worker)?, card: None })
        };
        let auto = self.compute.device == DeviceChoice::Auto;
        // A file that cannot be read is an error also where nothing depends on it.
        if let Some(path) = self.hardware {
            Hardware::read(path)?;
        }
        let Chosen::Cuda(device) = self.chosen else {
            if self.vram.is_given() {
                tell!("note: computing on the CPU: --vram-budget and --vram-total have no effect");
            }
            return alone(placement, params);
        };
        if !placement.is_all_cold() {
            tell!("note: computing on the CPU: --hot compares placements there");
            return alone(placement, params);
        }
        if let Err(why) = check_card(model, &params) {
            if !auto {
                return Err(why.context(format!("--device {}", self.compute.device)));
            }
            tell!("note: computing on the CPU: {why:#}");
            return alone(placement, params);
        }
        model.check_mode(params.mode)?;
        let work = Workload::of(model);
        let run = params.run(params.n_ctx);
        let choice = self.compute.device_choice()?;
        let (threads, isa) = (params.n_threads, params.isa);
        let measured = hardware(self.hardware, choice, &work, &run, threads, isa, &Bar::new());
        let hardware = match measured {
            Err(why) if auto && self.hardware.is_none() => {
                tell!("note: computing on the CPU: {why:#}");
                return alone(placement, params);
            }
            measured => measured?,
        };
        if hardware.device.is_none() && !self.vram.is_given() {
            tell!("note: computing on the CPU: {} is described without a graphics card", hardware.name);
            return alone(placement, params);
        }
        let (free, _) = device.memory()?;
        let planner = Planner { hardware: &hardware, work: &work, run: &run };
        let plan = match self.vram.budget(&hardware)? {
            Some(budget) => planner.plan(Some(budget))?,
            None => match Bytes(free.0.saturating_sub(SPARE)) {
                some if some >= planner.least() => planner.within(some),
                some => {
                    let least = planner.least();
                    let why = format!("{some} of {} is free, and {least} is needed", device.name());
                    ensure!(auto, "--device {}: {why}; lower -ub or -c", self.compute.device);
                    tell!("note: computing on the CPU: {why}");
                    return alone(placement, params);
                }
            },
        };
        let budget = plan.budget().unwrap_or_default();
        if plan.is_cpu_only() {
            tell!("note: computing on the CPU: with {budget}, {} would not make it faster", device.name());
            return alone(placement, params);
        }
        tell!("{}: {}", device.name(), described(&plan, budget));
        let limit_ts = 1.0 / planner.least_seconds(&plan);
        let executor = Executor::on_card(model, device, plan, params, worker)?;
        Ok(Placed { executor, card: Some(Card { device: device.clone(), budget, free, limit_ts }) })
    }
}

fn described(plan: &Plan, budget: Bytes) -> String {
    let attention = plan.layers.iter().filter(|l| l.choice.attention).count();
    let looks = |l: &&PlannedLayer| l.choice.groups.iter().all(|g| g.mask) || l.choice.n_hot() == l.n_ff;
    let masks = plan.layers.iter().filter(looks).count();
    let n = plan.layers.len();
    format!(
        "{} of {budget}: attention of {attention} and masks of {masks} of {n} layers, {:.1} % of neurons ({:.1} % of \
         activation mass); {:.1} tokens/s expected",
        plan.account().taken(),
        100.0 * plan.hot_share(),
        100.0 * plan.mass_covered(),
        plan.tokens_per_second()
    )
}

impl Placed<'_> {
    /// What the card did since the last reset of the executor's counts.
    pub fn on_card(&self) -> Result<Option<OnCard>> {
        let (Some(card), Some(report)) = (&self.card, self.executor.card()) else { return Ok(None) };
        let (plan, times) = (report.plan, report.times);
        let n = times.n_tokens.max(1) as f64;
        Ok(Some(OnCard {
            device: card.device.name().to_owned(),
            vram_budget: card.budget.0,
            vram_accounted: plan.account().sum(),
            vram_allocated: report.allocated.0,
            vram_used: card.free.0.saturating_sub(card.device.memory()?.0.0),
            hot_share: plan.hot_share(),
            cpu_busy: times.cpu.as_secs_f64() / times.total.as_secs_f64().max(1e-9),
            card_waits: times.waited.as_secs_f64() / times.total.as_secs_f64().max(1e-9),
            tasks_per_token: times.n_tasks as f64 / n,
            planned_ts: plan.tokens_per_second(),
            limit_ts: card.limit_ts,
        }))
    }
}
