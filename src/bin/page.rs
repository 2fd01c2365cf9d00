//! `--report`: a page about a profile, with the plan that follows from it.

use crate::common::hardware::hardware_to_show;
use crate::common::models::{self, keep_inputs};
use crate::common::plan::Vram;
use crate::common::terminal::Bar;
use anyhow::{Context, Result, ensure};
use clap::Args;
use powerinfer::cpu::Isa;
use powerinfer::executor::KvType;
use powerinfer::files::{check_writable, write_whole};
use powerinfer::gguf::Gguf;
use powerinfer::gpu::DeviceChoice;
use powerinfer::html_report::Report;
use powerinfer::model::{Mode, Model};
use powerinfer::placement::explain::Explained;
use powerinfer::placement::plan::{Planner, Room, Run};
use powerinfer::placement::workload::Workload;
use powerinfer::profile::Profile;
use powerinfer::variant::{self, Draft, Options};
use std::path::{Path, PathBuf};

/// Tokens of a context and of a batch that are planned for; fewer where the model was trained on fewer.
const N_CTX: usize = 4096;
const N_UBATCH: usize = 512;

/// What the page is to hold, and where it is written.
#[derive(Args)]
#[command(next_help_heading = "Report")]
pub struct PageArgs {
    /// Write a page with pictures, tables and a plan: one HTML file, without scripts and without anything from elsewhere
    #[arg(long, value_name = "HTML", conflicts_with_all = ["compare", "predictor"])]
    pub report: Option<PathBuf>,
    /// With --report: the model that the plan is for [default: the one that is profiled]
    #[arg(long, value_name = "MODEL", requires = "report")]
    plan_model: Option<PathBuf>,
    /// With --report: description of the machine that the plan is for (TOML; see the folder `hardware`) [default: this machine,
    /// measured once]
    #[arg(long, value_name = "FILE", requires = "report")]
    hardware: Option<PathBuf>,
    #[command(flatten)]
    vram: Vram,
}

impl PageArgs {
    /// The page.
    pub fn path(&self) -> Option<&Path> {
        self.report.as_deref()
    }

    /// Finds out before long work whether the page can be written, and that it is none of `inputs`.
    pub fn check<'a>(&'a self, inputs: impl IntoIterator<Item = &'a Path>) -> Result<()> {
        ensure!(self.report.is_some() || !self.vram.is_given(), "--vram-budget, --vram-total: belong to --report here");
        let Some(path) = &self.report else { return Ok(()) };
        let own = [&self.plan_model, &self.hardware].into_iter().flatten().map(PathBuf::as_path);
        keep_inputs(path, inputs.into_iter().chain(own))?;
        check_writable(path)
    }

    /// Writes the page. `made_of` is the model that was profiled just now: `Some(None)` is the embedded one.
    pub fn write(&self, profile: &Profile, made_of: Option<Option<&Path>>, n_threads: usize) -> Result<()> {
        let Some(path) = &self.report else { return Ok(()) };
        let given = self.plan_model.as_deref().map(Some);
        let page = match given.or(made_of) {
            Some(model) => self.with_plan(profile, models::open_file(model)?, n_threads)?,
            None => {
                let why = "There is no plan: --plan-model MODEL says which model it is for.";
                Report { profile, plan: Err(why.to_owned()) }.html()?
            }
        };
        write_whole(path, page.as_bytes(), &Bar::new())
    }

    fn with_plan(&self, profile: &Profile, file: Gguf, n_threads: usize) -> Result<String> {
        let bar = Bar::new();
        let model = models::open(file, None, None)?;
        let name = || model.gguf.source().name().to_owned();
        let work = workload(&model, profile).with_context(name)?;
        let n_ctx = model.config.n_ctx_train.min(N_CTX);
        let run = Run {
            n_ctx,
            n_past: n_ctx,
            kv_type: KvType::F16,
            n_ubatch: N_UBATCH,
            mode: Mode::Exact,
            room: Room::default(),
        };
        let given = self.hardware.as_deref();
        let hardware = hardware_to_show(given, DeviceChoice::Auto, &work, &run, n_threads, Isa::detect(), &bar)?;
        let prepared = Planner { hardware: &hardware, work: &work, run: &run }.prepare();
        let plan = prepared.plan(self.vram.budget(&hardware)?)?;
        let explained = Explained::new(&prepared, &plan);
        Report { profile, plan: Ok(&explained) }.html().with_context(name)
    }
}

/// What a token will need of the variant that `powerinfer-split` makes by the profile, or of the one that is there.
fn workload(model: &Model, profile: &Profile) -> Result<Workload> {
    if model.is_variant() {
        return Ok(Workload::of(model));
    }
    let draft = Draft::new(model, profile, Options { recipe: None, down: None })?;
    Ok(variant::workload(model, &draft, None))
}
