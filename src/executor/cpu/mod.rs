//! The processor: runs the steps of layers, and answers what another device asks of it in the middle of a pass.

mod active;
mod ahead;
mod attention;
mod audit;
mod buffers;
mod choice;
mod column_sum;
mod columns;
mod compute;
mod ffn;
mod followed;
mod latent;
mod matvec;
mod norm;
mod pass;
mod predict;
mod processor;
mod product;
mod recurrent;
mod recurrent_buffers;
mod request;
mod setup;
mod sum;
mod tiles;
mod worker;

pub(super) use attention::Rotation;
pub(super) use choice::Choice;
pub(super) use compute::How;
pub(super) use ffn::shard::Given;
pub(super) use processor::Cpu;
pub(super) use request::{Found, Input, Request};
pub use worker::Worker;
