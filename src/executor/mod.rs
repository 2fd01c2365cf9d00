//! Running a model: sequences and batches of tokens, devices that run the steps of its layers.

mod batch;
mod bytes;
mod cpu;
mod device;
#[allow(clippy::module_inception, reason = "the module is named after its main type")]
mod executor;
mod fallback;
mod gates;
mod hybrid;
mod journal;
mod kv_cache;
mod mask;
mod memory;
mod observer;
mod params;
mod program;
mod recurrent;
mod seat;
mod sequence;
mod stats;

pub use crate::model::KvType;
pub use batch::{Batch, Entry};
pub use bytes::{dense_bytes, dense_bytes_per_token};
pub use cpu::Worker;
pub use device::{CardReport, CardTimes};
pub use executor::{Executor, Put, Take};
pub use fallback::CardFailed;
pub use gates::Gates;
pub use hybrid::check_card;
pub use kv_cache::KvPages;
pub use mask::{Fired, MaskSource};
pub use memory::Memory;
pub use observer::{FfnAt, Observer};
pub use params::ExecutorParams;
pub use sequence::Sequence;
pub use stats::{FfnStats, Recall};

pub use crate::model::Mode;
