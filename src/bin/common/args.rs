//! Arguments that `run` and `bench` have in common.

use clap::Args;
use powerinfer::cpu::Isa;
use powerinfer::executor::KvType;
use powerinfer::model::Activation;

/// How a model is read and computed.
#[derive(Args)]
pub struct Compute {
    /// Tokens that prefill computes at once (-ub): more is faster on long prompts, and takes about 0.4 MB of memory
    /// each for a 7B model
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub ubatch_size: usize,
    /// Taken for llama.cpp's sake: at most as many as -b are computed at once [default: -ub]
    #[arg(short, long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Instruction set of the CPU kernels: plain, avx2, avxvnni or avx512 [default: the best there is]
    #[arg(long, value_name = "NAME")]
    pub isa: Option<Isa>,
    /// Type of the KV cache: f16, q8_0 or f32
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
    /// The instruction set to compute with.
    pub fn isa(&self) -> Isa {
        self.isa.unwrap_or_else(Isa::detect)
    }

    /// Tokens that prefill computes at once.
    pub fn n_ubatch(&self) -> usize {
        self.batch_size.map_or(self.ubatch_size, |n| n.min(self.ubatch_size))
    }

    /// Says so where a flag asks for what this version does not do.
    pub fn tell_limits(&self) {
        if self.n_gpu_layers.is_some_and(|n| n != 0) {
            super::terminal::tell!("note: this version computes on the CPU; -ngl is ignored");
        }
    }
}
