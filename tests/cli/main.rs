//! The four commands, run as users run them.

mod activations;
mod architectures;
mod bench;
mod contradictions;
mod conversation_ends;
mod device;
mod doubt;
mod fallback;
mod first_start;
mod hostile_models;
mod hub;
mod inputs;
mod interrupt;
mod kernels;
mod keys;
mod layers;
mod names;
mod outputs;
mod parts;
mod pipeline;
mod plan;
mod predict;
mod profile;
mod pwri;
mod pwri_split;
mod quantize;
mod resume;
mod run;
mod self_test;
#[path = "../support/mod.rs"]
mod support;
mod synthetic;
mod templates;
mod terminal;
mod two_masks;
mod usage;
