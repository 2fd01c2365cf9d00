//! PowerInfer (arXiv 2312.12456) in Rust: language models with sparse activations, computing only the neurons that
//! fire.
//!
//! ```text
//! model.gguf -> Model (mmap) ------------------------------+
//!     text -> profile: run dense, count what fires         v
//!              -> profile file -> split -> Placement -> variant.gguf
//!   prompt -> Tokenizer -> Executor(Model, Placement) -> logits -> Sampler -> text
//! ```
//!
//! A model is parts, groups of neurons and steps, which one file per architecture lists (`model::arch`) and devices
//! interpret (`executor`). docs/a-token.md follows one token through all of it.
//!
//! The modules in reading order; each imports only from those above it:
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic"))]

// Elsewhere all of it would compile, and be wrong.
#[cfg(not(target_pointer_width = "64"))]
compile_error!("powerinfer needs a 64-bit target: a model is mapped into memory whole");
#[cfg(not(target_endian = "little"))]
compile_error!("powerinfer needs a little-endian target: weights are computed with as they lie in files");

pub mod units;
pub mod printable;
pub mod progress;
pub mod parallel;
pub mod files;
pub mod plot;
pub mod trace;
pub mod quant;
pub mod gguf;
pub mod embedded;
pub mod cpu;
pub mod model;
pub mod hub;
pub mod tokenizer;
pub mod grammar;
pub mod shapes;
pub mod placement;
pub mod gpu;
pub mod executor;
pub mod profile;
pub mod predictor;
pub mod variant;
pub mod html_report;
pub mod synthetic;
pub mod session;
pub mod sampler;
pub mod stop_strings;
pub mod context;
pub mod answer;
pub mod speculation;
pub mod generate;
pub mod several;
pub mod chat;
pub mod conversation;
pub mod measure;
