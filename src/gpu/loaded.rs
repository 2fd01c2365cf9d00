//! Modules of kernels in a card's context, unloaded with the last who uses them.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use super::driver::{Api, Context_, Function, Module};
use super::entries::Parameter;
use std::collections::BTreeMap;

/// A loaded kernel.
pub(super) struct Kernel {
    pub function: Function,
    pub parameters: Vec<Parameter>,
    pub max_threads: u64,
}

/// What is loaded. It does not keep the card open: who has it sees to that.
pub(super) struct Loaded {
    api: &'static Api,
    context: Context_,
    pub modules: Vec<Module>,
    pub kernels: BTreeMap<String, Kernel>,
}

// SAFETY: handles of the driver, whose functions may be called from any thread; they do not change after loading.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

impl Loaded {
    /// Nothing yet, in `context`.
    pub fn new((api, context): (&'static Api, Context_)) -> Self {
        Self { api, context, modules: Vec::new(), kernels: BTreeMap::new() }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if self.modules.is_empty() {
            return;
        }
        // SAFETY: the context is there: who has this keeps the card open, or is the card, which closes it afterwards.
        let bound = unsafe { (self.api.cuCtxSetCurrent)(self.context) };
        for module in self.modules.drain(..).filter(|_| bound == 0) {
            // SAFETY: loaded once, unloaded once.
            unsafe { (self.api.cuModuleUnload)(module) };
        }
    }
}
