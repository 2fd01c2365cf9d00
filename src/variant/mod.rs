//! Variants: GGUF files whose neurons lie hot first, with `ffn_down` transposed and an index of who lies where.

mod lossless;
mod pack;
mod plan;
mod quantize;
mod recipe;
mod write;

pub use pack::pack;
pub(crate) use plan::planned_hot;
pub use plan::{DownPlan, DownType, LayerPlan, Options, Plan};
pub use quantize::{Conversion, quantize};
pub(crate) use recipe::file_type;
pub use recipe::{Recipe, Shape};
pub(crate) use write::VERSION;
pub use write::write;
