//! Arguments that `run` and `bench` have in common.

use clap::Args;
use powerinfer::executor::KvType;
use powerinfer::model::Activation;

/// How a model is read and computed.
#[derive(Args)]
pub struct Compute {
    /// Tokens that prefill computes at once (-ub)
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub ubatch_size: usize,
    /// Type of the KV cache: f16 or f32
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    pub cache_type: KvType,
    /// Taken for llama.cpp's sake: this version computes on the CPU (-ngl)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub n_gpu_layers: Option<i64>,
    /// Activation function of the FFN: silu, relu or relu2 [default: what the file says]
    #[arg(long, value_name = "NAME")]
    pub activation: Option<Activation>,
    /// Look for NaN and infinity in the weights first
    #[arg(long)]
    pub check_tensors: bool,
}

impl Compute {
    /// Says so where a flag asks for what this version does not do.
    pub fn tell_limits(&self) {
        if self.n_gpu_layers.is_some_and(|n| n != 0) {
            super::terminal::tell!("note: this version computes on the CPU; -ngl is ignored");
        }
    }
}
