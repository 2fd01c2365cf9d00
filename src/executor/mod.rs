//! Running a model: one forward pass, two entry points (prefill and decode), two shards per layer.

mod attention;
pub mod ffn;
pub mod forward;
pub mod kv_cache;
mod linear;
mod matvec;
mod norm;
pub mod stats;
mod sum;

pub use ffn::{MaskSource, Mode};
pub use forward::{Executor, ExecutorParams, Observer};
pub use kv_cache::{KvCache, KvType};
pub use stats::{FfnStats, dense_bytes};
