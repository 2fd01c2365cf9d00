//! Variants: GGUF files whose neurons lie hot first, with `ffn_down` transposed and an index of which neuron lies where.

mod carried;
mod choices;
mod counted;
mod draft;
mod gpu_index;
mod importance;
mod lossless;
mod mixture;
mod outline;
mod pack;
mod quantize;
mod recipe;
mod rows;
mod transpose;
mod workload;
mod write;

pub use choices::{Choices, TensorType, writable};
pub(crate) use counted::planned_hot;
pub use counted::{GroupDraft, Order};
pub use draft::{DownLayout, DownType, Draft, Options};
pub use gpu_index::GpuIndex;
pub use importance::Importance;
pub use outline::Outline;
pub use pack::pack;
pub use quantize::{Conversion, quantize};
pub use recipe::Recipe;
pub(crate) use recipe::file_type;
pub use workload::workload;
pub use write::write;
pub(crate) use write::{VERSION, VERSION_GROUPS};
