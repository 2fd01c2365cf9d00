//! Variants: GGUF files whose neurons lie hot first, with `ffn_down` transposed and an index of who lies where.

mod plan;
mod write;

pub(crate) use plan::planned_hot;
pub use plan::{DownType, LayerPlan, Options, Plan};
pub use write::write;
pub(crate) use write::{VERSION, file_type};
