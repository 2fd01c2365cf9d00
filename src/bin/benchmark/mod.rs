//! The parts of `powerinfer-bench`.

pub mod against;
pub mod compare;
pub mod meter;
pub mod output;
pub mod speed_args;
pub mod texts;
pub mod work;
