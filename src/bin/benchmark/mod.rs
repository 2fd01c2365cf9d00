//! The parts of `powerinfer-bench`.

pub mod against;
pub mod batched;
mod cache_types;
pub mod compare;
pub mod drafts;
pub mod meter;
pub mod output;
pub mod speed_args;
pub mod texts;
pub mod work;
