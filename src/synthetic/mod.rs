//! Models of known shapes with random weights, whose FFNs fire as sparsely as requested: for speed, not for text.
//!
//! The residual stream holds a constant beside the data (see `weights`): a gate's weight on it is a bias, so how often
//! a neuron fires is known before anything runs, and how often an expert is chosen. All values are functions of seed, tensor and row, whatever the
//! threads.

mod header;
mod kind;
mod neurons;
mod norms;
mod pool;
mod popularity;
mod random;
mod rates;
mod recurrent;
mod spec;
mod tensors;
mod types;
mod weights;
mod write;

pub use spec::{Layout, Spec};
pub use write::{n_bytes, write};
