//! A plan in words: a table for people and JSON for programs.

mod at_once;
mod experts;
mod favours;
mod rows;

use super::plan::{Place, Plan, PlannedLayer, Planner, Prepared};
use super::workload::LayerWork;
use crate::units::Bytes;
use at_once::AtOnce;
use experts::Experts;
use serde_json::{Value, json};

/// A plan with what it is compared to.
pub struct Explained<'a> {
    /// What it was made from.
    pub planner: Planner<'a>,
    /// The plan.
    pub plan: &'a Plan,
    /// Whole layers on the card and the rest on the CPU, everything computed: layers on the card, and the plan.
    pub offload: (usize, Plan),
    /// All but experts on the card, and the last layers' experts, everything computed: layers whose experts are on the CPU,
    /// and the plan. Absent without experts, or where the rest does not fit.
    pub expert_offload: Option<(usize, Plan)>,
    /// The plan with one GiB more, where the card has it or not.
    pub one_more: Option<Plan>,
}

/// One GiB.
const MORE: u64 = 1 << 30;

impl<'a> Explained<'a> {
    /// Adds the comparisons to a plan.
    pub fn new(prepared: &Prepared<'a>, plan: &'a Plan) -> Self {
        let planner = prepared.planner;
        let one_more = plan.budget().map(|budget| prepared.best(Bytes(budget.0.saturating_add(MORE))));
        let (offload, expert_offload) = (planner.layer_offload(plan.budget()), planner.expert_offload(plan.budget()));
        Self { planner, plan, offload, expert_offload, one_more }
    }

    /// Totals, and with `layers` a line for each layer, or for several that are alike.
    pub fn table(&self, layers: bool) -> String {
        let (plan, Planner { hardware, work, run }) = (self.plan, self.planner);
        let mut out = String::new();
        let mut line = |text: std::fmt::Arguments| out.push_str(&format!("{text}\n"));
        let bytes = Bytes(work.n_bytes());
        line(format_args!("plan      {}, {bytes} of weights, on {}", work.name, hardware.name));
        let (n_ctx, n_past, kv) = (run.n_ctx, run.n_past, run.kv_type);
        line(format_args!(
            "run       {}, context {n_ctx} ({kv}), timed with {n_past} tokens in it, batches of {}",
            run.mode.name(),
            run.n_ubatch
        ));
        if layers {
            rows::lines(&plan.layers).iter().for_each(|text| line(format_args!("{text}")));
        }
        let a = &plan.account();
        if let Some(budget) = plan.budget() {
            line(format_args!("budget    {budget}, taken {}, left {}", a.taken(), Bytes(budget.0 - a.taken().0)));
            line(format_args!(
                "bytes     attention {}, KV cache {}, masks {}, hot neurons {}, predictors {}, head {}, scratch {}, rounding {}",
                Bytes(a.attention),
                Bytes(a.kv_cache),
                Bytes(a.mask),
                Bytes(a.hot),
                Bytes(a.predictor),
                Bytes(a.head),
                Bytes(a.scratch),
                Bytes(a.rounding)
            ));
            if plan.is_cpu_only() {
                line(format_args!("note      nothing is on the card: handing over would cost more than it saves"));
            }
            line(format_args!(
                "hot       {:.1} % of neurons, {:.1} % of activation mass",
                100.0 * plan.hot_share(),
                100.0 * plan.mass_covered()
            ));
        }
        let experts = Experts::new(&self.planner, plan);
        let favours = favours::line(&self.planner, plan.hot_share());
        experts.lines().iter().chain(&favours).for_each(|text| line(format_args!("{text}")));
        let ms = |picoseconds: u64| picoseconds as f64 * 1e-9;
        let proof = match () {
            () if plan.objective == plan.bound => "optimal",
            () if work.layers.iter().any(LayerWork::is_routed) => "proved by a relaxation",
            () => "the search was cut off",
        };
        let at_once = AtOnce::of(&self.planner);
        let unit = if plan.per_pass > 1 { "pass" } else { "token" };
        line(format_args!(
            "time      {:.3} ms per {unit}; no plan is below {:.3} ms: gap {:.4} % ({proof})",
            ms(plan.objective),
            ms(plan.bound),
            100.0 * plan.gap()
        ));
        line(format_args!("{}", self.where_time_goes()));
        let n = plan.per_pass as f64;
        let (speed, limit) = (plan.tokens_per_second(), n / self.planner.least_seconds(plan));
        line(format_args!(
            "speed     {speed:.2} tokens/s predicted, {:.0} % of what both memories and the kernels allow at once ({limit:.2})",
            100.0 * speed / limit
        ));
        at_once.iter().flat_map(AtOnce::lines).for_each(|text| line(format_args!("{text}")));
        let (n_gpu, offload) = &self.offload;
        if plan.budget().is_some() {
            line(format_args!(
                "compare   {:.2} tokens/s dense with {n_gpu} of {} whole layers on the card",
                offload.tokens_per_second(),
                plan.layers.len()
            ));
        }
        if let Some((n_cpu, offload)) = &self.expert_offload {
            line(format_args!(
                "compare   {:.2} tokens/s dense with all but the experts of {n_cpu} of {} layers on the card",
                offload.tokens_per_second(),
                work.layers.iter().filter(|layer| layer.is_routed()).count()
            ));
        }
        if let Some(more) = &self.one_more {
            let (now, then) = (plan.tokens_per_second(), more.tokens_per_second());
            line(format_args!("one more GiB buys {:+.2} tokens/s ({:+.1} %)", then - now, 100.0 * (then / now - 1.0)));
        }
        out
    }

    /// A line that divides the time of a token.
    fn where_time_goes(&self) -> String {
        let sum = |of: fn(&PlannedLayer) -> f64| 1e3 * self.plan.layers.iter().map(of).sum::<f64>();
        let together = sum(|l| l.time.together);
        let rendezvous = sum(|l| l.time.rendezvous);
        let (mixers, before) = (sum(|l| l.time.attention), sum(|l| l.time.before));
        let rest = self.plan.objective as f64 * 1e-9 - mixers - before - together - rendezvous;
        format!(
            "of it     {mixers:.3} ms mixers, {before:.3} ms masks and norms on the card, {together:.3} ms neurons (card {:.3}, CPU {:.3}), \
             {rendezvous:.3} ms waiting for the other side, {rest:.3} ms head and embedding",
            sum(|l| l.time.gpu),
            sum(|l| l.time.cpu)
        )
    }

    /// All of it.
    pub fn json(&self) -> Value {
        let (plan, Planner { hardware, work, run }) = (self.plan, self.planner);
        let a = &plan.account();
        let experts = Experts::new(&self.planner, plan);
        let layer = |(i, l): (usize, &PlannedLayer)| layer_json(i, l, experts.json(i));
        let layers: Vec<Value> = plan.layers.iter().enumerate().map(layer).collect();
        json!({
            "model": work.name,
            "hardware": hardware.name,
            "mode": run.mode.name(),
            "n_ctx": run.n_ctx,
            "n_past": run.n_past,
            "kv_type": run.kv_type.to_string(),
            "n_ubatch": run.n_ubatch,
            "weights_bytes": work.n_bytes(),
            "budget_bytes": plan.budget().map(|b| b.0),
            "accounted_bytes": a.taken().0,
            "bytes": {
                "attention": a.attention, "kv_cache": a.kv_cache, "mask": a.mask, "hot": a.hot,
                "predictor": a.predictor, "head": a.head, "scratch": a.scratch, "rounding": a.rounding,
            },
            "hot_share": plan.hot_share(),
            "mass_covered": plan.mass_covered(),
            "home": side(plan.home),
            "head": side(plan.head),
            "objective_ps": plan.objective,
            "bound_ps": plan.bound,
            "gap": plan.gap(),
            "optimal": plan.objective == plan.bound,
            "tokens_per_second": plan.tokens_per_second(),
            "n_parallel": run.room.n_sequences,
            "at_once": AtOnce::of(&self.planner).map(|at_once| at_once.json()),
            "limit_tokens_per_second": plan.per_pass as f64 / self.planner.least_seconds(plan),
            "offload_layers": self.offload.0,
            "offload_tokens_per_second": self.offload.1.tokens_per_second(),
            "expert_offload_layers": self.expert_offload.as_ref().map(|(n_cpu, _)| n_cpu),
            "expert_offload_tokens_per_second": self.expert_offload.as_ref().map(|(_, plan)| plan.tokens_per_second()),
            "one_more_gib_tokens_per_second": self.one_more.as_ref().map(Plan::tokens_per_second),
            "layers": layers,
        })
    }
}

fn side(place: Place) -> &'static str {
    match place {
        Place::Host => "cpu",
        Place::Card(_) => "gpu",
    }
}

fn layer_json(i: usize, layer: &PlannedLayer, experts: Value) -> Value {
    let (choice, t) = (&layer.choice, &layer.time);
    json!({
        "layer": i,
        "attention": side(if choice.attention { Place::Card(choice.card) } else { Place::Host }),
        "mask_on_gpu": choice.masks_all(layer.n_ff),
        "predictor_on_gpu": choice.groups.iter().any(|g| g.predictor),
        "n_ff": layer.n_ff,
        "experts": experts,
        "n_hot": choice.n_hot(),
        "firings_covered": layer.firings_covered,
        "mass_covered": layer.mass_covered,
        "attention_ms": 1e3 * t.attention,
        "gpu_ms": 1e3 * (t.before + t.gpu),
        "cpu_ms": 1e3 * t.cpu,
        "rendezvous_ms": 1e3 * t.rendezvous,
        "total_ms": 1e3 * t.total(),
        "bytes": layer.account.sum(),
    })
}
