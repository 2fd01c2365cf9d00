//! `--kernels`: how long each kernel of a token takes on the card, at the shapes of a model.

use crate::common::self_test::choose;
use crate::common::terminal::tell;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use powerinfer::gpu::kernel_list::{Cases, measure_model, token_of};
use powerinfer::gpu::matrix::planes;
use powerinfer::gpu::meter::{Effort, Meter};
use powerinfer::gpu::{Chosen, Device, DeviceChoice};
use powerinfer::measure::kernels::{About, KernelRow, rows};
use powerinfer::measure::model_type::model_type;
use powerinfer::model::Model;
use powerinfer::printable::printable;
use powerinfer::progress::Progress;
use powerinfer::quant::GgmlType;

/// Whether and how to measure kernels.
#[derive(Args)]
pub struct KernelsArgs {
    /// Measure each kernel that decoding a token runs on the card, at the shapes of the model, and exit
    #[arg(long, conflicts_with_all = ["measure_hardware", "hardware", "perplexity", "kl", "predict", "n_prompt", "n_gen", "pg", "n_depth", "text"])]
    pub kernels: bool,
    /// Measure weights of these types instead of the model's own: f32, f16, bf16, q8_0, q4_0, q4_k, q6_k
    #[arg(long, value_name = "TYPE,TYPE", value_delimiter = ',', requires = "kernels", value_parser = weights)]
    types: Vec<GgmlType>,
}

/// A type of weights that has kernels for the card.
fn weights(name: &str) -> Result<GgmlType> {
    let dtype = GgmlType::from_name(name);
    let dtype = dtype.context("is not known; f32, f16, bf16, q8_0, q4_0, q4_k and q6_k are measured")?;
    planes(dtype)?;
    Ok(dtype)
}

/// The card to measure.
///
/// # Errors
/// When there is none: why, and what helps.
pub fn card(choice: DeviceChoice) -> Result<Device> {
    const HELP: &str = "run it on a machine with one, or leave out --kernels to measure the CPU";
    match choose(choice) {
        Ok(Chosen::Cuda(device)) => Ok(device),
        Ok(Chosen::Cpu { why: Some(why) }) => bail!("--kernels measures a graphics card: {why}; {HELP}"),
        Ok(Chosen::Cpu { why: None }) => {
            bail!("--kernels measures a graphics card, and --device cpu leaves it out; give --device cuda")
        }
        Err(why) => bail!("--kernels measures a graphics card: {why:#}; {HELP}"),
    }
}

impl KernelsArgs {
    /// Measures the kernels of `model` on `device`, with keys and values of `kv_type`: the rows, and how it ended.
    pub fn measure(
        &self,
        device: &Device,
        model: &Model,
        kv_type: GgmlType,
        progress: &dyn Progress,
    ) -> Result<(Vec<KernelRow>, Result<()>)> {
        let cases = Cases::of(model, &self.types);
        for (dtype, why) in &cases.left_out {
            tell!("note: {dtype} is left out: {why}");
        }
        ensure!(!cases.cases.is_empty(), "no weights of it can be on the card; choose others with --types");
        let data_sheet = device.data_sheet();
        let sheet = data_sheet.map_or("unknown".to_owned(), |b| format!("{:.0} GB/s", b / 1e9));
        tell!("{}: data sheet {sheet}; attention over {} positions", device.name(), token_of(model, kv_type).n_past);
        if device.is_emulated() {
            tell!("warning: {}: an emulated card, on which all figures are meaningless", device.name());
        }
        let meter = Meter::new(device, Effort::of(device))?;
        let (card, ended) = measure_model(&meter, model, &cases, kv_type, progress)?;
        let about = About {
            build: env!("CARGO_PKG_VERSION").to_owned(),
            model_filename: printable(model.gguf.source().name()).into_owned(),
            model_type: model_type(model),
            device: device.name().to_owned(),
            emulated: device.is_emulated(),
            sheet_gb_per_s: data_sheet.map(|b| b / 1e9),
        };
        Ok((rows(&about, &card), ended))
    }
}
