//! Variants: GGUF files whose neurons lie hot first, with `ffn_down` transposed and an index of which neuron lies where.

mod lossless;
mod pack;
mod draft;
mod quantize;
mod recipe;
mod rows;
mod workload;
mod write;

pub(crate) use draft::planned_hot;
pub use draft::{DownLayout, DownType, Draft, GroupDraft, Options};
pub use pack::pack;
pub use quantize::{Conversion, quantize};
pub(crate) use recipe::file_type;
pub use recipe::{Outline, Recipe};
pub use workload::workload;
pub(crate) use write::VERSION;
pub use write::write;
