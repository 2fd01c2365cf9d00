//! Variants: GGUF files whose neurons lie hot first, with `ffn_down` transposed and an index of which neuron lies where.

mod carried;
mod counted;
mod draft;
mod gpu_index;
mod lossless;
mod pack;
mod quantize;
mod recipe;
mod rows;
mod transpose;
mod workload;
mod write;

pub(crate) use counted::planned_hot;
pub use counted::{GroupDraft, Order};
pub use draft::{DownLayout, DownType, Draft, Options};
pub use gpu_index::GpuIndex;
pub use pack::pack;
pub use quantize::{Conversion, quantize};
pub(crate) use recipe::file_type;
pub use recipe::{Outline, Recipe};
pub use workload::workload;
pub use write::write;
pub(crate) use write::{VERSION, VERSION_GROUPS};
