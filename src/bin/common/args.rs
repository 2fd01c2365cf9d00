//! Arguments that `run` and `bench` have in common.

use super::memory::Memory;
use super::self_test::choose;
use super::terminal::tell;
use super::told::first_told;
use anyhow::{Context, Result, ensure};
use clap::Args;
use powerinfer::cpu::Isa;
use powerinfer::gpu::identity::is_installed;
use powerinfer::gpu::waiting::{LIMIT, set_limit};
use powerinfer::gpu::{Chosen, DeviceChoice};
use powerinfer::model::Activation;
use powerinfer::placement::plan::Planner;
use powerinfer::units::Bytes;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The note that there is no card.
const NO_CARD: &str = "no-card";

/// How a model is read and computed.
#[derive(Args)]
pub struct Compute {
    /// Instruction set of the CPU kernels: plain, avx2, avxvnni or avx512 [default: the best that the processor has]
    #[arg(long, value_name = "NAME")]
    pub isa: Option<Isa>,
    /// Where to compute: cpu (also none), cuda (the first card), cuda:N, or auto (a card if there is one)
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Seconds that a card may take for a piece of work, milliseconds of which are usual, before it is given up
    #[arg(long, value_name = "SECONDS", default_value_t = LIMIT.as_secs(), value_parser = clap::value_parser!(u64).range(1..))]
    pub card_limit: u64,
    /// About so many layers go on the card (-ngl), as llama.cpp counts them: 0 means --device cpu, other numbers a share of what
    /// --vram-budget would bound, auto and all as much as pays
    #[arg(long, value_name = "N|auto|all", allow_negative_numbers = true)]
    pub n_gpu_layers: Option<GpuLayers>,
    /// Print the cards that --device can name, and exit
    #[arg(long)]
    pub list_devices: bool,
    /// Activation function of the FFN: silu, gelu, gelu_erf, gelu_quick, relu, relu2, drelu, or fatrelu:THRESHOLD [default: what the
    /// file says]
    #[arg(long, value_name = "NAME")]
    pub activation: Option<Activation>,
    #[command(flatten)]
    pub memory: Memory,
    /// Check the weights for NaN and infinity first
    #[arg(long)]
    pub check_tensors: bool,
}

/// How many layers go on a card, as llama.cpp counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuLayers {
    /// As many as there is room for.
    Auto,
    /// All of them.
    All,
    /// So many.
    Number(u64),
}

impl FromStr for GpuLayers {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "auto" | "-1" => Self::Auto,
            "all" | "-2" => Self::All,
            number => Self::Number(number.parse().ok().context("a number of layers, auto or all is wanted")?),
        })
    }
}

impl fmt::Display for GpuLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::All => f.write_str("all"),
            Self::Number(n) => n.fmt(f),
        }
    }
}

impl Compute {
    /// The budget of a plan that `-ngl` asks for, where it asks for less than everything; told in one line.
    pub fn layers_budget(&self, planner: &Planner) -> Option<Bytes> {
        let Some(GpuLayers::Number(n @ 1..)) = self.n_gpu_layers else { return None };
        let budget = planner.of_layers(n)?;
        tell!("note: -ngl {n}: of {} layers and the output, as with --vram-budget {budget}", planner.work.layers.len());
        Some(budget)
    }

    /// The instruction set to compute with.
    pub fn isa(&self) -> Isa {
        self.isa.unwrap_or_else(Isa::detect)
    }

    /// Opens the device that the flags ask for, and says in one line where it is computed when that needs saying.
    ///
    /// # Errors
    /// When a card was asked for by name and cannot be used.
    pub fn choose_device(&self) -> Result<Chosen> {
        set_limit(Duration::from_secs(self.card_limit));
        let chosen = choose(self.device_choice()?)?;
        if let (Some(layers @ GpuLayers::Number(1..)), Chosen::Cpu { .. }) = (self.n_gpu_layers, &chosen) {
            tell!("note: -ngl {layers}: there is no card for it; where there is one, --vram-budget says more exactly");
        }
        match &chosen {
            // What no start will change is told at the first.
            Chosen::Cpu { why: Some(why) } if is_installed() || first_told(NO_CARD, why) => {
                tell!("note: computing on the CPU: {why}");
            }
            Chosen::Cpu { .. } | Chosen::Cuda(_) => {}
        }
        Ok(chosen)
    }

    /// `--device` and `-ngl` together.
    ///
    /// # Errors
    /// When they contradict each other.
    pub fn device_choice(&self) -> Result<DeviceChoice> {
        if self.n_gpu_layers != Some(GpuLayers::Number(0)) {
            return Ok(self.device);
        }
        ensure!(!matches!(self.device, DeviceChoice::Cuda(_)), "-ngl 0 means the CPU, but --device is {}", self.device);
        Ok(DeviceChoice::Cpu)
    }
}
