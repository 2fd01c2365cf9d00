//! The graphics card: its driver, memory, streams and kernels, and the mailbox between it and the processor.
//!
//! No part of CUDA is needed to build: the driver is looked for when a device is opened. Kernels are in `kernels/`, as
//! CUDA sources and as the PTX that the driver compiles for the card it finds.
//!
//! In code a [`Device`] is an open card; the card itself is called that in texts.

pub mod device;
mod driver;
pub mod entries;
pub mod event;
pub mod identity;
pub mod kernel_list;
mod loaded;
pub mod mailbox;
pub mod matrix;
pub mod memory;
pub mod meter;
pub mod module;
pub mod ops;
pub mod probe;
pub mod ptx;
pub mod reading;
pub mod self_test;
pub mod stream;
pub mod tiles;
pub mod upload;
pub mod vectors;
pub mod waiting;

pub use device::{Chosen, Device, DeviceChoice, choose};
pub use event::Event;
pub use identity::Identity;
pub use mailbox::Mailbox;
pub use matrix::DeviceMatrix;
pub use memory::{Arena, DeviceBuffer, Mapped, Pinned, Plain, Ptr};
pub use module::{Args, Kernels};
pub use stream::{Graph, Stream};
pub use tiles::{FileRows, Tile, Tiles};
pub use upload::Uploader;
