//! A graphics card: choosing and opening it, and what it is.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use super::driver::{Api, Code, Context_};
use super::identity::{Found, find};
use super::loaded::Loaded;
use super::waiting::{self, Queue, Queues};
use crate::progress::Interrupted;
use crate::units::Bytes;
use anyhow::{Result, bail, ensure};
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use std::ffi::c_int;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// The oldest cards that the kernels support: Turing. Older ones lack half of the matrix instructions.
const NEEDED_CAPABILITY: (u32, u32) = (7, 5);

/// Where to compute, as the user says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// On the first card if there is one, else on the processor.
    #[default]
    Auto,
    /// On the processor.
    Cpu,
    /// On the card of this number, in the driver's order; an error if it cannot be used.
    Cuda(u32),
}

impl FromStr for DeviceChoice {
    type Err = anyhow::Error;

    /// Reads `auto`, `cpu`, `cuda` (the first card) or `cuda:1`; also llama.cpp's `none` and `CUDA1`.
    fn from_str(text: &str) -> Result<Self> {
        let shown: String = text.chars().take(40).collect();
        let lower = text.to_ascii_lowercase();
        Ok(match (lower.as_str(), lower.strip_prefix("cuda").map(|n| n.strip_prefix(':').unwrap_or(n))) {
            ("auto", _) => Self::Auto,
            ("cpu" | "none", _) => Self::Cpu,
            ("cuda", _) => Self::Cuda(0),
            (_, Some(n)) if n.len() <= 4 && n.bytes().all(|b| b.is_ascii_digit()) && !n.is_empty() => {
                Self::Cuda(n.parse()?)
            }
            _ => bail!("device \"{shown}\" is not known; cpu, cuda, cuda:N and auto are"),
        })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

/// Where to compute, once decided.
#[derive(Debug, Clone)]
pub enum Chosen {
    /// On the processor alone.
    Cpu {
        /// Why no card is used, in one line, if the user left the choice open.
        why: Option<String>,
    },
    /// On this card and the processor.
    Cuda(Device),
}

/// Opens what `choice` asks for.
///
/// # Errors
/// When a card was asked for by name and cannot be used: one line that says what is missing and what helps.
pub fn choose(choice: DeviceChoice) -> Result<Chosen> {
    Ok(match choice {
        DeviceChoice::Cpu => Chosen::Cpu { why: None },
        DeviceChoice::Cuda(ordinal) => match Device::open(ordinal) {
            Ok(device) => Chosen::Cuda(device),
            Err(why) => bail!("{why:#}; --device cpu computes without a card"),
        },
        DeviceChoice::Auto => match Device::open(0) {
            Ok(device) => Chosen::Cuda(device),
            Err(why) => Chosen::Cpu { why: Some(format!("{why:#}")) },
        },
    })
}

/// An open card. Clones share it; it is closed with the last of them.
#[derive(Clone)]
pub struct Device(Arc<Open>);

struct Open {
    api: &'static Api,
    ordinal: u32,
    device: c_int,
    context: Context_,
    name: String,
    capability: (u32, u32),
    n_sm: u32,
    queues: Queues,
    /// All kernels, once somebody has asked for them.
    kernels: Mutex<Option<Arc<Loaded>>>,
    /// Told when loading them takes long.
    slow_load: OnceLock<fn()>,
}

// SAFETY: a context may be current in several threads at once, and the driver's functions may be called from any.
unsafe impl Send for Open {}
// SAFETY: as above; what changes after opening has a lock.
unsafe impl Sync for Open {}

impl Device {
    /// Opens the card of this number. Where it is open already, that is a clone.
    ///
    /// # Errors
    /// One line that says what is missing (the driver, its version, the card, a capability) and what helps.
    pub fn open(ordinal: u32) -> Result<Self> {
        static OPEN: Mutex<Vec<(u32, Weak<Open>)>> = Mutex::new(Vec::new());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, card)| card.strong_count() > 0);
        let mut found = open.iter().filter(|(n, _)| *n == ordinal);
        if let Some(opened) = found.find_map(|(_, card)| card.upgrade()).map(Self) {
            opened.bind()?;
            return Ok(opened);
        }
        let opened = Self::open_anew(ordinal)?;
        open.push((ordinal, Arc::downgrade(&opened.0)));
        Ok(opened)
    }

    fn open_anew(ordinal: u32) -> Result<Self> {
        let Found { api, device, name } = find(ordinal)?;
        let attribute = |which: Attribute| -> Result<u32> {
            let mut value = 0;
            // SAFETY: the pointer is to a local variable of the type that the function stores.
            let code = unsafe { (api.cuDeviceGetAttribute)(&mut value, which as u32, device) };
            api.check(code, || format!("{name}: asking what it can"))?;
            Ok(value.max(0) as u32)
        };
        let capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        check_capability(&name, capability)?;
        let maps = attribute(Attribute::CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY)?;
        ensure!(maps != 0, "{name}: cannot reach the memory of the processor");
        let n_sm = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1);
        let mut context = std::ptr::null_mut();
        // SAFETY: as above.
        let code = unsafe { (api.cuDevicePrimaryCtxRetain)(&mut context, device) };
        api.check(code, || format!("{name}: opening it"))?;
        let (queues, kernels, slow_load) = (Queues::default(), Mutex::default(), OnceLock::new());
        let opened =
            Self(Arc::new(Open { api, ordinal, device, context, name, capability, n_sm, queues, kernels, slow_load }));
        opened.bind()?;
        Ok(opened)
    }

    /// What the driver calls it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its number.
    pub fn ordinal(&self) -> u32 {
        self.0.ordinal
    }

    /// Major and minor compute capability.
    pub fn compute_capability(&self) -> (u32, u32) {
        self.0.capability
    }

    /// Streaming multiprocessors: what grids are sized by.
    pub fn n_sm(&self) -> u32 {
        self.0.n_sm
    }

    /// Bytes per second between it and its memory as data sheets count them: two transfers per cycle of the memory's
    /// clock over the whole width of its bus. `None` where the driver does not tell.
    pub fn data_sheet(&self) -> Option<f64> {
        let attribute = |which: Attribute| -> Option<f64> {
            let mut value = 0;
            // SAFETY: the pointer is to a local variable.
            let code = unsafe { (self.0.api.cuDeviceGetAttribute)(&mut value, which as u32, self.0.device) };
            (code == 0 && value > 0).then(|| f64::from(value))
        };
        let khz = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?;
        let bits = attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?;
        Some(2.0 * 1e3 * khz * bits / 8.0)
    }

    /// Whether it is the stand-in that tests have for a card: what is measured on it means nothing.
    pub fn is_emulated(&self) -> bool {
        self.0.name == "Emulated GPU"
    }

    /// Memory that is free now, and all the memory it has. Other programs use it, too.
    ///
    /// # Errors
    /// When the card has failed.
    pub fn memory(&self) -> Result<(Bytes, Bytes)> {
        let (mut free, mut total) = (0, 0);
        self.call("asking for free memory", |api| {
            // SAFETY: the pointers are to local variables of the right type.
            unsafe { (api.cuMemGetInfo_v2)(&mut free, &mut total) }
        })?;
        Ok((Bytes(free as u64), Bytes(total as u64)))
    }

    /// Waits until everything enqueued on its streams is done.
    ///
    /// # Errors
    /// What went wrong in it; when it takes longer than [`waiting::limit`].
    pub fn synchronize(&self) -> Result<()> {
        self.bind()?;
        let state = self.0.queues.wait(self.0.api, self.name())?;
        if state == 0 { Ok(()) } else { Err(self.failure("work on the card", state)) }
    }

    /// Remembers a stream, until it is destroyed.
    pub(super) fn add_queue(&self, queue: &Arc<Queue>) {
        self.0.queues.add(queue);
    }

    /// Forgets a stream.
    pub(super) fn remove_queue(&self, queue: &Arc<Queue>) {
        self.0.queues.remove(queue);
    }

    /// Gives something back with `f`, once nothing runs: also after an error, which has ended whatever ran. Where that does
    /// not come to pass, the card is given up, and what was to be given back is leaked.
    pub(super) fn give_back(&self, f: impl FnOnce(&'static Api) -> Code) {
        let stopped = self.synchronize().is_err_and(|why| why.is::<Interrupted>());
        if stopped {
            waiting::give_up();
        }
        drop(self.call_code(f));
    }

    /// From now on `tell` is called where loading the kernels takes more than half a second: the driver then compiles
    /// them. Only the first call counts.
    pub fn on_slow_load(&self, tell: fn()) {
        // Another has come first.
        let _ = self.0.slow_load.set(tell);
    }

    /// What [`Device::on_slow_load`] was given.
    pub(super) fn slow_load(&self) -> Option<fn()> {
        self.0.slow_load.get().copied()
    }

    /// The kernels that are loaded for it, by `load` where they are not yet. They stay loaded until it is closed.
    ///
    /// # Errors
    /// Those of `load`.
    pub(super) fn kernels(&self, load: impl FnOnce() -> Result<Loaded>) -> Result<Arc<Loaded>> {
        // Who panicked here has left nothing half done.
        let mut kernels = self.0.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = &*kernels {
            return Ok(Arc::clone(loaded));
        }
        let loaded = Arc::new(load()?);
        *kernels = Some(Arc::clone(&loaded));
        Ok(loaded)
    }

    /// Handles of the driver that what is loaded needs to unload itself.
    pub(super) fn handles(&self) -> (&'static Api, Context_) {
        (self.0.api, self.0.context)
    }

    /// Makes this the card that the calling thread talks to.
    pub(super) fn bind(&self) -> Result<()> {
        ensure!(!waiting::hangs(), "{}: it hangs, and is not used any more", self.0.name);
        // SAFETY: the context is ours and lives as long as `self`.
        let code = unsafe { (self.0.api.cuCtxSetCurrent)(self.0.context) };
        self.0.api.check(code, || format!("{}: using it", self.0.name))
    }

    /// Calls the driver with this card current; a failure names the card and `what` was attempted.
    pub(super) fn call(&self, what: &str, f: impl FnOnce(&'static Api) -> Code) -> Result<()> {
        self.bind()?;
        self.0.api.check(f(self.0.api), || format!("{}: {what}", self.0.name))
    }

    /// Calls the driver where a failure can no longer be reported, or is reported in another way.
    pub(super) fn call_code(&self, f: impl FnOnce(&'static Api) -> Code) -> Result<Code> {
        self.bind()?;
        Ok(f(self.0.api))
    }

    /// What `code` means, in one line after `what`.
    pub(super) fn failure(&self, what: &str, code: Code) -> anyhow::Error {
        anyhow::anyhow!("{}: {what}: {}", self.0.name, self.0.api.text(code))
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuda:{} ({})", self.0.ordinal, self.0.name)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let kernels = self.kernels.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if waiting::hangs() {
            std::mem::forget(kernels);
            return;
        }
        // They are unloaded while there is a context. Who uses them holds a clone of the card.
        drop(kernels);
        // SAFETY: retained once, when it was opened. Everything on the card holds a clone, so nothing is left.
        unsafe { (self.api.cuDevicePrimaryCtxRelease_v2)(self.device) };
    }
}

fn check_capability(name: &str, (major, minor): (u32, u32)) -> Result<()> {
    let (least, least_minor) = NEEDED_CAPABILITY;
    ensure!(
        (major, minor) >= NEEDED_CAPABILITY,
        "{name}: has compute capability {major}.{minor}, {least}.{least_minor} is needed (Turing, 2018, or newer)"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_survives_being_written() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:12", DeviceChoice::Cuda(12)),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
            assert_eq!(choice.to_string(), text);
        }
        for also in ["CUDA", "CUDA0"] {
            assert_eq!(also.parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        }
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:99999", "cuda0x", "vulkan"] {
            let error = wrong.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.contains("cuda:N"), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_processor_needs_no_reason() {
        assert!(matches!(choose(DeviceChoice::Cpu).unwrap(), Chosen::Cpu { why: None }));
    }

    #[test]
    fn an_old_card_is_named() {
        assert!(check_capability("A", (7, 5)).is_ok() && check_capability("A", (12, 0)).is_ok());
        let error = check_capability("Tesla P100", (6, 0)).unwrap_err().to_string();
        assert_eq!(error, "Tesla P100: has compute capability 6.0, 7.5 is needed (Turing, 2018, or newer)");
    }
}
