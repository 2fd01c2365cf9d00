//! The four commands, run as users run them.

mod bench;
mod device;
mod hostile_models;
mod interrupt;
mod layers;
mod pipeline;
mod plan;
mod predict;
mod profile;
mod quantize;
mod resume;
mod run;
#[path = "../support/mod.rs"]
mod support;
mod synthetic;
mod terminal;
mod usage;
