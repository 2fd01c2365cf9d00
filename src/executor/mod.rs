//! Running a model: one forward pass, two entry points (prefill and decode), two shards per layer.

mod attention;
mod audit;
mod engine;
pub mod ffn;
pub mod forward;
pub mod kv_cache;
pub mod hybrid;
mod linear;
mod matvec;
mod norm;
mod pass;
mod predict;
pub mod stats;
mod sum;

pub use ffn::{MaskSource, Mode};
pub use forward::{Executor, ExecutorParams, Observer};
pub use hybrid::{CardTimes, check_card};
pub use kv_cache::{KvCache, KvType};
pub use stats::{FfnStats, Recall, dense_bytes};
