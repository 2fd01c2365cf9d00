//! Plans on the command line: `--dry-run` of `split` and `run`, hardware files, and the cache of what was measured.

use super::terminal::{print, tell};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use powerinfer::cpu::cores::usable_cores;
use powerinfer::cpu::{Isa, Pool};
use powerinfer::executor::ExecutorParams;
use powerinfer::gpu::probe::{self as gpu_probe, Effort};
use powerinfer::gpu::{Chosen, Device, DeviceChoice, choose};
use powerinfer::model::{Model, NeuronId};
use powerinfer::placement::explain::Explained;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::plan::{Method, Plan, Planner, Prepared, Run};
use powerinfer::placement::probe;
use powerinfer::placement::workload::{NeuronRows, NeuronStats, Workload};
use powerinfer::predictor::Predictors;
use powerinfer::progress::Progress;
use powerinfer::quant::GgmlType;
use powerinfer::units::Bytes;
use powerinfer::variant::{self, DownPlan};
use std::path::{Path, PathBuf};

/// What a plan is made for.
#[derive(Args)]
pub struct PlanArgs {
    /// Print the plan (bytes, predicted tokens/s, its proof) and exit
    #[arg(long)]
    pub dry_run: bool,
    /// Description of the machine to plan for (TOML; see the folder `hardware`) [default: this machine, measured once]
    #[arg(long, value_name = "FILE")]
    pub hardware: Option<PathBuf>,
    #[command(flatten)]
    pub vram: Vram,
    /// With --dry-run: a line for every layer
    #[arg(long, requires = "dry_run")]
    pub explain: bool,
}

/// How much of a card a plan may take.
#[derive(Args)]
pub struct Vram {
    /// Device memory that a plan may take: a number with a unit, as 8GiB or 8GB [default: all but the driver's own]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub vram_budget: Option<Bytes>,
    /// The same with what the driver takes for itself, as measured: a limit for all that is seen of this program on the card
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
        ensure!(context < total, "--vram-total: {total} are less than the {context} that the driver takes for itself");
        Ok(Some(Bytes(total.0 - context.0)))
    }
}

/// What `split` would make of `model`: types and order of `plan`, with `predictors` packed in.
pub fn workload_of_split(model: &Model, plan: &variant::Plan, predictors: Option<&Predictors>) -> Workload {
    let mut work = Workload::with_types(model, &|name, source, n_cols| plan.matrix_type(name, source, n_cols));
    let n_embd = model.config.n_embd;
    for (layer, (planned, down)) in work.layers.iter_mut().zip(plan.layers.iter().zip(&plan.down)) {
        let order: &[NeuronId] = &planned.order;
        debug_assert_eq!(order.len(), layer.n_ff());
        layer.stats =
            NeuronStats { rates: planned.rates.clone(), mass: planned.mass.clone(), cold: planned.cold.clone() };
        let rows = |dtype: GgmlType| {
            let row_bytes = dtype.row_bytes(n_embd).map_or(layer.down.row_bytes, |n| n as u64);
            NeuronRows { row_bytes, dtype }
        };
        layer.down = match down {
            DownPlan::Rows(dtype) => rows(*dtype),
            // Quants of a row, and 16-bit scales of its elements for 32 neurons together.
            DownPlan::Lossless(dtype) => {
                let quants = if *dtype == GgmlType::Q4_0 { n_embd / 2 } else { n_embd };
                NeuronRows { row_bytes: (quants + n_embd / 16) as u64, dtype: *dtype }
            }
        };
        layer.down_by_columns = false;
        layer.divisible = matches!(down, DownPlan::Rows(_));
    }
    for (layer, (planned, fitted)) in
        work.layers.iter_mut().zip(plan.layers.iter().zip(predictors.map_or(&[][..], |p| &p.layers)))
    {
        layer.predictor = fitted.work(&planned.order);
    }
    work
}

/// Types that a model's matrices have: what is measured.
fn types(work: &Workload, kv_type: GgmlType) -> Vec<GgmlType> {
    let mut types = vec![kv_type, work.head.dtype];
    for layer in &work.layers {
        types.extend(layer.attention.iter().map(|b| b.dtype));
        types.extend([Some(layer.mask), layer.up, Some(layer.down)].into_iter().flatten().map(|r| r.dtype));
        // Signs are no numbers to multiply.
        types.extend(layer.predictor.map(|p| p.dtype).filter(|t| *t != GgmlType::I8));
    }
    types.sort_by_key(|t| t.id());
    types.dedup();
    types
}

/// The file that was given, or this machine with the card of `choice`: measured now, or before with the same processor,
/// threads, card and version.
pub fn hardware(
    given: Option<&Path>,
    choice: DeviceChoice,
    work: &Workload,
    run: &Run,
    threads: usize,
    isa: Isa,
    progress: &dyn Progress,
) -> Result<Hardware> {
    if let Some(path) = given {
        return Hardware::read(path);
    }
    let device = match choose(choice)? {
        Chosen::Cuda(device) => Some(device),
        Chosen::Cpu { .. } => None,
    };
    let wanted = types(work, run.kv_type);
    let folder = super::cache_folder();
    let path = folder.as_ref().map(|f| f.join(cache_name(threads, isa, device.as_ref())));
    let known = path.as_deref().and_then(|p| Hardware::read(p).ok());
    if let Some(known) =
        known.as_ref().filter(|h| wanted.iter().all(|t| h.cpu.bandwidth.by_type.contains_key(t.name())))
    {
        return Ok(known.clone());
    }
    let mut types: Vec<GgmlType> = wanted;
    types.extend(known.iter().flat_map(|h| h.cpu.bandwidth.by_type.keys()).filter_map(|n| GgmlType::from_name(n)));
    types.sort_by_key(|t| t.id());
    types.dedup();
    let measured = measure(threads, isa, &types, device.as_ref(), progress)?;
    if let (Some(folder), Some(path)) = (folder, path) {
        // A cache that cannot be written only costs the next run a few seconds.
        if std::fs::create_dir_all(&folder).is_ok() && measured.write(&path).is_ok() {
            tell!("hardware: measured, kept in {}", path.display());
        }
    }
    Ok(measured)
}

/// This machine, measured now, with `device` where one is given.
pub fn measure(
    threads: usize,
    isa: Isa,
    types: &[GgmlType],
    device: Option<&Device>,
    progress: &dyn Progress,
) -> Result<Hardware> {
    let pool = Pool::new(threads)?;
    let cpu = probe::measure(&pool, isa, types, progress)?;
    let mut name = format!("{}, {threads} threads, {isa}", cpu_name());
    let card = device.map(|d| gpu_probe::measure(d, types, &Effort::default(), progress).context("measuring the card"));
    if let Some(device) = device {
        name.push_str(&format!(", {}", shortened(device.name())));
    }
    Ok(Hardware { name, cpu, device: card.transpose()? })
}

/// What the system calls the processor.
fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':').map(|(_, n)| n.trim()));
    shortened(name.unwrap_or(std::env::consts::ARCH))
}

/// The part of a name that a line has room for.
fn shortened(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(60).collect()
}

fn cache_name(threads: usize, isa: Isa, device: Option<&Device>) -> String {
    let plain = |name: &str| -> String {
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
    };
    let name = plain(&cpu_name());
    let card = device.map_or_else(String::new, |d| format!("-{}-{}", plain(&shortened(d.name())), d.ordinal()));
    let (cores, version) = (usable_cores(), env!("CARGO_PKG_VERSION"));
    format!("hardware-{name}-{cores}c-t{threads}-{isa}{card}-v{version}.toml")
}

/// What is planned for a run with `params`, timed when `n_past` tokens are in the context.
pub fn run_of(params: &ExecutorParams, n_past: usize) -> Result<Run> {
    let method = method(params.mode.name())?;
    Ok(Run { n_ctx: params.n_ctx, n_past, kv_type: params.kv_type.dtype(), n_ubatch: params.n_ubatch, method })
}

/// Makes ready for plans.
fn prepare<'a>(hardware: &'a Hardware, work: &'a Workload, run: &'a Run) -> Prepared<'a> {
    Planner { hardware, work, run }.prepare()
}

/// Makes the plan that the flags ask for.
pub fn plan(args: &PlanArgs, hardware: &Hardware, work: &Workload, run: &Run) -> Result<Plan> {
    prepare(hardware, work, run).plan(args.vram.budget(hardware)?)
}

/// `--dry-run`: prints the plan.
pub fn show(args: &PlanArgs, json: bool, hardware: &Hardware, work: &Workload, run: &Run) -> Result<()> {
    let prepared = prepare(hardware, work, run);
    let plan = prepared.plan(args.vram.budget(hardware)?)?;
    let explained = Explained::new(&prepared, &plan);
    if json {
        return print(serde_json::to_string_pretty(&explained.json())? + "\n");
    }
    print(explained.table(args.explain))
}

/// Reads `dense`, `exact` or `predicted`.
pub fn method(name: &str) -> Result<Method> {
    let all = [Method::Dense, Method::Exact, Method::Predicted];
    match all.into_iter().find(|m| m.name() == name) {
        Some(method) => Ok(method),
        None => bail!("mode \"{name}\" is not known; dense, exact and predicted are"),
    }
}

/// Measures this machine and says how fast `model` should be, for comparing with how fast it is.
pub fn predict(model: &Model, params: &ExecutorParams, n_past: usize, hardware: &Hardware) -> Result<f64> {
    let work = Workload::of(model);
    let run = run_of(params, n_past)?;
    Ok(Planner { hardware, work: &work, run: &run }.cpu_only(None).tokens_per_second())
}

/// Types that `model` has, and the KV cache.
pub fn types_of(model: &Model, kv_type: GgmlType) -> Vec<GgmlType> {
    types(&Workload::of(model), kv_type)
}
