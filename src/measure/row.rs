//! One measurement, as a row of a table: see [`super::export`].

use super::divergence::Divergence;
use super::machine::cpu_name;
use super::model_type::model_type;
use super::timing::Timing;
use crate::chat::utc_now;
use crate::executor::{ExecutorParams, FfnStats};
use crate::model::Model;
use crate::printable::printable;
use crate::quant::GgmlType;

/// One measurement. Each field has a line in `columns`; tests hold their names and values against those.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Row {
    /// Version of this program.
    pub build: String,
    /// Commit of its sources: eight hexadecimal digits, or a word where they are not known.
    pub build_commit: String,
    /// Commits that led to it; 0 where that is not known.
    pub build_number: u64,
    /// The processor.
    pub cpu_info: String,
    /// The card that had a part; empty where none had.
    pub gpu_info: String,
    /// File, or the name of the embedded model.
    pub model_filename: String,
    /// Architecture, size and type of file: see [`mod@super::model_type`].
    pub model_type: String,
    /// `general.name`.
    pub model_name: String,
    /// Bytes of all tensors.
    pub model_size: u64,
    /// Numbers in all tensors.
    pub model_n_params: u64,
    /// Whether the weights are random and fire as often as was asked for.
    pub synthetic: bool,
    /// Device that computed.
    pub backend: String,
    /// Upper limit of `n_ubatch`.
    pub n_batch: usize,
    /// Tokens that prefill computes at once.
    pub n_ubatch: usize,
    /// Threads.
    pub n_threads: usize,
    /// Type of the keys that are kept.
    pub type_k: String,
    /// Type of the values that are kept.
    pub type_v: String,
    /// As llama-bench counts layers on a card: 0 where the CPU computed alone, and -1 for as many as there is room for.
    pub n_gpu_layers: i64,
    /// Name of the card that had a part; `none` where none had.
    pub devices: String,
    /// Whether weights were read from a mapped file, or are part of the program.
    pub use_mmap: bool,
    /// How a file was loaded: `mmap`, or `none` where it was read into memory.
    pub load_mode: String,
    /// What was computed of the FFN: `dense`, `exact` or `predicted`.
    pub mode: String,
    /// Which neurons belong to the hot shard: `none`, `profile` (as planned) or `random` (as many).
    pub hot: String,
    /// What was fed: `real`, `random`, or a file.
    pub text: String,
    /// `pp512`, `tg128`, `tg128 @ d512`, `ppl`, `kl`.
    pub test: String,
    /// Tokens prefilled.
    pub n_prompt: usize,
    /// Tokens decoded.
    pub n_gen: usize,
    /// Tokens in the context before those that were timed.
    pub n_depth: usize,
    /// Length of the windows of `ppl` and `kl`.
    pub n_ctx: Option<usize>,
    /// When the test began: UTC, as in RFC 3339.
    pub test_time: String,
    /// How long it took.
    #[cfg_attr(test, serde(flatten))]
    pub timing: Timing,
    /// Instruction set of the CPU kernels.
    pub isa: String,
    /// Mean bytes of weights touched per token.
    pub bytes_per_token: Option<f64>,
    /// The same for those of the FFN, predictors among them, in modes that skip some.
    pub ffn_bytes_per_token: Option<f64>,
    /// Weights read per second while decoding, in 10^9 bytes.
    pub gb_per_s: Option<f64>,
    /// What this machine reads at best, in the same unit: see [`mod@super::roofline`].
    pub limit_gb_per_s: Option<f64>,
    /// Share of neurons that fired.
    pub ffn_density: Option<f64>,
    /// Share of neurons whose row of `up` was read, of models where `up` has a mask of its own; tables without such a row
    /// have no column for it.
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    pub ffn_up_density: Option<f64>,
    /// Perplexity of the text.
    pub perplexity: Option<f64>,
    /// Standard error of the perplexity.
    pub stderr: Option<f64>,
    /// What the predictors did, in mode `predicted`; tables without such a row have no columns for it.
    #[cfg_attr(test, serde(flatten))]
    pub predicted: Option<Predicted>,
    /// Sequences at once, where there are several; tables without such a row have no columns for it.
    #[cfg_attr(test, serde(flatten))]
    pub parallel: Option<Parallel>,
    /// What the card did, where one computed; tables without such a row have no columns for it.
    #[cfg_attr(test, serde(flatten))]
    pub card: Option<OnCard>,
    /// What a `kl` row says; tables without such a row have no columns for it.
    #[cfg_attr(test, serde(flatten))]
    pub kl: Option<Kl>,
}

/// What is to be measured, as all rows of it say.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The model.
    pub model: &'a Model,
    /// How it is run.
    pub params: &'a ExecutorParams,
    /// Upper limit of the batch that prefill computes at once, as the user gave it.
    pub n_batch: usize,
    /// The batch that prefill computes at once, likewise.
    pub n_ubatch: usize,
    /// Neurons of the hot shard.
    pub hot: &'a str,
    /// What is fed.
    pub text: &'a str,
}

impl Row {
    /// A row of a test that begins now, on the CPU, with nothing measured.
    pub fn new(setting: Setting, test: String) -> Self {
        let Setting { model, params, n_batch, n_ubatch, hot, text } = setting;
        let name = |dtype: GgmlType| dtype.name().to_ascii_lowercase();
        Self {
            build: env!("CARGO_PKG_VERSION").to_owned(),
            build_commit: env!("POWERINFER_COMMIT").to_owned(),
            build_number: env!("POWERINFER_BUILD_NUMBER").parse().unwrap_or(0),
            cpu_info: cpu_name(),
            gpu_info: String::new(),
            model_filename: printable(model.gguf.source().name()).into_owned(),
            model_type: model_type(model),
            model_name: model.config.name.clone(),
            model_size: model.n_bytes(),
            model_n_params: model.n_params(),
            synthetic: model.is_synthetic(),
            backend: "CPU".to_owned(),
            n_batch,
            n_ubatch,
            n_threads: params.n_threads,
            type_k: name(params.kv_type.k),
            type_v: name(params.kv_type.v),
            n_gpu_layers: 0,
            devices: "none".to_owned(),
            use_mmap: !model.gguf.is_copied(),
            load_mode: if model.gguf.is_copied() { "none" } else { "mmap" }.to_owned(),
            mode: params.mode.name().to_owned(),
            hot: hot.to_owned(),
            text: text.to_owned(),
            test,
            n_prompt: 0,
            n_gen: 0,
            n_depth: 0,
            n_ctx: None,
            test_time: utc_now(),
            timing: Timing::default(),
            isa: params.isa.name().to_owned(),
            bytes_per_token: None,
            ffn_bytes_per_token: None,
            gb_per_s: None,
            limit_gb_per_s: None,
            ffn_density: None,
            ffn_up_density: None,
            perplexity: None,
            stderr: None,
            predicted: None,
            parallel: None,
            card: None,
            kl: None,
        }
    }

    /// The same, with what a card did, where one had a part.
    #[must_use]
    pub fn on(self, card: Option<OnCard>) -> Self {
        let Some(card) = card else { return self };
        Self {
            backend: "CUDA".to_owned(),
            gpu_info: card.device.clone(),
            devices: format!("CUDA{}", card.ordinal),
            n_gpu_layers: -1,
            card: Some(card),
            ..self
        }
    }
}

/// The columns of rows of several sequences.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Parallel {
    /// Sequences at once. Tokens, bytes and speeds of the row are those of all of them.
    pub n_parallel: usize,
    /// Share of neurons that fired for any token of a pass, where somebody looked.
    pub union_density: Option<f64>,
    /// The same as the file predicts it of tokens that have nothing to do with each other, where a profile has counted.
    pub union_predicted: Option<f64>,
}

/// The columns of rows in mode `predicted`.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Predicted {
    /// Share of neurons that were named.
    pub ffn_named: f64,
    /// Mean bytes of predictors touched per token.
    pub predictor_bytes_per_token: f64,
    /// Share of the decoding time that they took.
    pub predictor_time: f64,
    /// Share of the activation mass that they found, in `kl` rows: finding it out takes time.
    pub predictor_recall: Option<f64>,
}

impl Predicted {
    /// What was counted while decoding so many tokens per second.
    pub fn of(stats: &FfnStats, tokens_per_second: f64) -> Self {
        Self {
            ffn_named: stats.masked().unwrap_or(0.0),
            predictor_bytes_per_token: stats.predictor_bytes_per_token(),
            predictor_time: stats.predictor_time_per_token().as_secs_f64() * tokens_per_second,
            predictor_recall: stats.recall().map(|recall| recall.by_mass()),
        }
    }
}

/// The columns of rows that a card had a part in.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct OnCard {
    /// The card.
    pub device: String,
    /// Its number.
    #[cfg_attr(test, serde(skip))]
    pub ordinal: u32,
    /// Bytes that it might take.
    pub vram_budget: u64,
    /// Bytes that the plan accounts.
    pub vram_accounted: u64,
    /// Bytes that were allocated.
    pub vram_allocated: u64,
    /// Bytes of the card that are gone since it was opened, by its own count; includes modules and the context's growth.
    pub vram_used: u64,
    /// Share of neurons that are hot.
    pub hot_share: f64,
    /// Share of the time in which the CPU computed.
    pub cpu_busy: f64,
    /// Share of the time in which the card waited for the CPU.
    pub card_waits: f64,
    /// Pieces that the card handed to the CPU, per token.
    pub tasks_per_token: f64,
    /// Tokens per second that the plan expects.
    pub planned_ts: f64,
    /// Tokens per second if both memories were read at their full speed all the time, and the card's kernels followed
    /// each other without waiting.
    pub limit_ts: f64,
    /// Tokens per second if what the card reads came as fast as its data sheet promises, where that is known.
    pub sheet_ts: Option<f64>,
}

/// The columns of `kl` rows.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Kl {
    /// File whose dense predictions are the reference.
    pub kl_base: String,
    /// The model's predictions against those.
    #[cfg_attr(test, serde(flatten))]
    pub divergence: Divergence,
}
