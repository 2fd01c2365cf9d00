//! Runs that a card has a part in: the plan that the flags ask for, and what is said of it.

use super::args::Compute;
use super::hardware::hardware;
use super::plan::Vram;
use super::terminal::{Bar, tell};
use anyhow::{Result, bail};
use powerinfer::executor::{Executor, ExecutorParams, Worker, check_card};
use powerinfer::gpu::{Chosen, Device, DeviceChoice};
use powerinfer::measure::row::OnCard;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::placement::budget::tokens_per_pass;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::plan::{Plan, PlannedLayer, Planner, Room, Run};
use powerinfer::placement::workload::Workload;
use powerinfer::progress::Interrupted;
use powerinfer::units::Bytes;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// What a card is to have room for.
    pub room: Room,
}

/// Memory that is left alone where the user gives no budget: for modules, and for what others do with the card.
const SPARE: u64 = 128 << 20;

/// Whether the card has failed: it is not tried again, and was told once.
static LOST: AtomicBool = AtomicBool::new(false);

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
    /// Taken of it.
    used: Bytes,
    limit_ts: f64,
    sheet_ts: Option<f64>,
}

/// What comes of asking for a card.
enum Asked<'m> {
    Placed(Box<Placed<'m>>),
    /// It would be of no use, for this reason.
    Useless(String),
}

impl Where<'_> {
    /// An executor of `model` on the card that was chosen, as far as there is one; else on the CPU under `placement`. With
    /// `--device auto` the CPU also takes over whatever the card fails to do, now or later, and that is told in one line.
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
        // A file that cannot be read is an error also where nothing depends on it.
        if let Some(path) = self.hardware {
            Hardware::read(path)?;
        }
        let Chosen::Cuda(device) = self.chosen else {
            // Where a reason was told already, it says this, too.
            if self.vram.is_given() && matches!(self.chosen, Chosen::Cpu { why: None }) {
                tell!("note: computing on the CPU: --vram-budget and --vram-total have no effect");
            }
            return alone(placement, params);
        };
        if !placement.is_all_cold() {
            tell!("note: computing on the CPU: --hot compares placements there");
            return alone(placement, params);
        }
        if LOST.load(Ordering::Relaxed) {
            return alone(placement, params);
        }
        model.check_mode(params.mode)?;
        let why = match self.on_card(device, model, params.clone(), worker) {
            Ok(Asked::Placed(placed)) => return Ok(*placed),
            Ok(Asked::Useless(why)) => why,
            Err(why) if why.is::<Interrupted>() => return Err(why),
            Err(why) if self.is_auto() => {
                LOST.store(true, Ordering::Relaxed);
                format!("{why:#}")
            }
            Err(why) => bail!("--device {}: {why:#}; --device cpu computes without the card", self.compute.device),
        };
        // What is wrong with the run itself is not the card's fault, and told as it is.
        let placed = alone(placement, params)?;
        tell!("note: computing on the CPU: {why}");
        Ok(placed)
    }

    /// Whether the user leaves open where to compute.
    fn is_auto(&self) -> bool {
        self.compute.device == DeviceChoice::Auto
    }

    /// An executor that `device` has a part in.
    fn on_card<'m>(
        &self,
        device: &Device,
        model: &'m Model,
        params: ExecutorParams,
        worker: &Worker,
    ) -> Result<Asked<'m>> {
        check_card(model, &params)?;
        let run = Run { room: self.room, ..params.run(params.n_ctx) };
        let work = Workload::of(model);
        let work = work.at_once(tokens_per_pass(true, &work, &run));
        let choice = self.compute.device_choice()?;
        let hardware = hardware(self.hardware, choice, &work, &run, params.n_threads, params.isa, &Bar::new())?;
        if hardware.device.is_none() && !self.vram.is_given() {
            return Ok(Asked::Useless(format!("{} is described without a graphics card", hardware.name)));
        }
        let (free, _) = device.memory()?;
        let planner = Planner { hardware: &hardware, work: &work, run: &run };
        let plan = match self.vram.budget(&hardware)? {
            Some(budget) => planner.plan(Some(budget))?,
            None => match Bytes(free.0.saturating_sub(SPARE)) {
                some if some >= planner.least() => {
                    planner.within(self.compute.layers_budget(&planner).map_or(some, |few| few.min(some)))
                }
                some => {
                    let (name, least) = (device.name(), planner.least());
                    let fewer = if self.room.n_sequences > 1 { "-np, " } else { "" };
                    bail!("{some} of {name} is free, and {least} is needed; lower {fewer}-ub or -c")
                }
            },
        };
        let budget = plan.budget().unwrap_or_default();
        if plan.is_cpu_only() {
            return Ok(Asked::Useless(format!("with {budget}, {} would not make it faster", device.name())));
        }
        let line = format!("{}: {}", device.name(), described(&plan, budget));
        let per_second = |seconds: f64| plan.per_pass as f64 / seconds;
        let limit_ts = per_second(planner.least_seconds(&plan));
        let sheet_ts = planner.data_sheet_seconds(&plan).map(per_second);
        let mut executor = Executor::on_card(model, device, plan, params, worker)?;
        let used = Bytes(free.0.saturating_sub(device.memory()?.0.0));
        tell!("{line}");
        if self.is_auto() {
            executor.go_on_without_card(|why| {
                LOST.store(true, Ordering::Relaxed);
                tell!("note: the card failed ({why:#}); going on on the CPU");
            });
        }
        let card = Card { device: device.clone(), budget, free, used, limit_ts, sheet_ts };
        Ok(Asked::Placed(Box::new(Placed { executor, card: Some(card) })))
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

impl<'m> Placed<'m> {
    /// Does `work`, which begins with an empty sequence, and all of it again where the card failed in its middle: figures are
    /// of one device.
    pub fn measure<T>(&mut self, mut work: impl FnMut(&mut Executor<'m>) -> Result<T>) -> Result<T> {
        let with_card = self.executor.card().is_some();
        let done = work(&mut self.executor)?;
        if with_card && self.executor.card().is_none() { work(&mut self.executor) } else { Ok(done) }
    }

    /// What the card did since the last reset of the executor's counts.
    pub fn used_card(&self) -> Option<OnCard> {
        let (Some(card), Some(report)) = (&self.card, self.executor.card()) else { return None };
        let (plan, times) = (report.plan, report.times);
        let n = times.n_tokens.max(1) as f64;
        Some(OnCard {
            device: card.device.name().to_owned(),
            ordinal: card.device.ordinal(),
            vram_budget: card.budget.0,
            vram_accounted: plan.account().sum(),
            vram_allocated: report.allocated.0,
            // One that does not answer any more has not failed in anything that was asked of it.
            vram_used: card.device.memory().map_or(card.used.0, |(free, _)| card.free.0.saturating_sub(free.0)),
            hot_share: plan.hot_share(),
            cpu_busy: times.cpu.as_secs_f64() / times.total.as_secs_f64().max(1e-9),
            card_waits: times.waited.as_secs_f64() / times.total.as_secs_f64().max(1e-9),
            tasks_per_token: times.n_tasks as f64 / n,
            planned_ts: plan.tokens_per_second(),
            limit_ts: card.limit_ts,
            sheet_ts: card.sheet_ts,
        })
    }
}
