//! Files: those that are written appear whole or not at all; those that are read are of the right kind and not endless.

mod atomic;
mod faults;
mod input;
mod kind;
mod leftovers;
pub mod mapped;
mod memory;
mod replace;
pub mod signals;
mod space;
mod special;
#[cfg(target_os = "macos")]
pub(crate) mod sysctl;
mod target;
mod temporary;
#[cfg(windows)]
mod windows;

pub use atomic::{AtomicFile, check_new, check_writable, write_whole};
#[cfg(target_os = "macos")]
pub(crate) use faults::most_memory;
pub use faults::waits_for_pages;
pub use input::{MOST_PROMPT, MOST_TEXT, open_regular, read_regular, read_standard_input, read_text, utf8};
pub(crate) use kind::has_name;
pub use kind::is_same;
pub use leftovers::remove_leftovers;
pub use memory::free_memory;
pub(crate) use replace::replace;
pub use space::free_space;
pub use target::is_one_target;
