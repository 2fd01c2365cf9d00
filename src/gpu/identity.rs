//! Cards as they are told from each other before they are opened.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use super::driver::{Api, driver};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, c_char, c_int};

pub use super::driver::{is_installed, version};

/// What a card's sums depend on: which card it is, and the driver that compiles the kernels for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What the driver calls it.
    pub name: String,
    /// Its number.
    pub ordinal: u32,
    /// The version of the driver.
    pub driver: String,
}

impl Identity {
    /// The card of this number. Does not open it.
    ///
    /// # Errors
    /// One line that says what is missing (the driver, its version, the card) and what helps.
    pub fn of(ordinal: u32) -> Result<Self> {
        Ok(Self { name: find(ordinal)?.name, ordinal, driver: version()? })
    }
}

/// A card that is there.
pub(super) struct Found {
    pub api: &'static Api,
    pub device: c_int,
    pub name: String,
}

/// The card of this number.
pub(super) fn find(ordinal: u32) -> Result<Found> {
    let api = driver()?;
    let mut count = 0;
    // SAFETY: here and below, every pointer is to a local variable of the type that the function stores.
    api.check(unsafe { (api.cuDeviceGetCount)(&mut count) }, || "counting the cards".to_owned())?;
    ensure!(count > 0, "the NVIDIA driver finds no card (CUDA_VISIBLE_DEVICES may hide it)");
    let in_range = c_int::try_from(ordinal).is_ok_and(|n| n < count);
    ensure!(in_range, "no device {ordinal}; {count} present, counted from 0");
    let mut device = 0;
    // SAFETY: see above.
    api.check(unsafe { (api.cuDeviceGet)(&mut device, ordinal as c_int) }, || format!("device {ordinal}"))?;
    Ok(Found { api, device, name: name_of(api, device)? })
}

fn name_of(api: &Api, device: c_int) -> Result<String> {
    const LEN: usize = 256;
    let mut name = [0 as c_char; LEN];
    // SAFETY: the buffer has the length that is passed with it.
    let code = unsafe { (api.cuDeviceGetName)(name.as_mut_ptr(), LEN as c_int, device) };
    api.check(code, || "asking for a card's name".to_owned())?;
    name[LEN - 1] = 0;
    // SAFETY: ends in 0, at the latest where one was just written.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy();
    Ok(name.chars().filter(|c| !c.is_control()).collect())
}
