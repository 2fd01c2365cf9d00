//! Events: points in a stream's work that can be waited for and measured between.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use super::device::Device;
use super::driver::{NOT_READY, RawEvent};
use super::waiting::wait_until;
use anyhow::Result;
use cudarc::driver::sys;
use std::ptr::null_mut;

/// A moment in the work of a stream.
pub struct Event {
    device: Device,
    pub(super) raw: RawEvent,
}

// SAFETY: the driver's functions may be called from any thread.
unsafe impl Send for Event {}

impl Event {
    /// An event that records the time.
    ///
    /// # Errors
    /// When the card has failed.
    pub fn new(device: &Device) -> Result<Self> {
        Self::with(device, sys::CUevent_flags::CU_EVENT_DEFAULT)
    }

    /// An event without a time, which costs less.
    pub(super) fn untimed(device: &Device) -> Result<Self> {
        Self::with(device, sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    fn with(device: &Device, flags: sys::CUevent_flags) -> Result<Self> {
        let mut raw = null_mut();
        // SAFETY: the pointer is to a local variable.
        device.call("making an event", |api| unsafe { (api.cuEventCreate)(&mut raw, flags as u32) })?;
        Ok(Self { device: device.clone(), raw })
    }

    /// Waits until it has happened; returns at once if it was never recorded.
    ///
    /// # Errors
    /// What went wrong until then; when it takes longer than [`limit`](super::waiting::limit).
    pub fn wait(&self) -> Result<()> {
        wait_until(self.device.name(), "work on the card", || self.has_come())
    }

    /// Whether it has happened.
    ///
    /// # Errors
    /// What went wrong until then.
    pub fn has_come(&self) -> Result<bool> {
        // SAFETY: the event is ours.
        match self.device.call_code(|api| unsafe { (api.cuEventQuery)(self.raw) })? {
            0 => Ok(true),
            NOT_READY => Ok(false),
            code => Err(self.device.failure("work on the card", code)),
        }
    }

    /// Milliseconds from this one to `later`. Both must have happened, and record the time.
    ///
    /// # Errors
    /// When they have not.
    pub fn elapsed_ms(&self, later: &Self) -> Result<f32> {
        let mut ms = 0.0;
        self.device.call("asking for the time between events", |api| {
            // SAFETY: both are ours; the pointer is to a local variable.
            unsafe { (api.cuEventElapsedTime)(&mut ms, self.raw, later.raw) }
        })?;
        Ok(ms)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours, and dropped once.
        drop(self.device.call_code(|api| unsafe { (api.cuEventDestroy_v2)(self.raw) }));
    }
}
