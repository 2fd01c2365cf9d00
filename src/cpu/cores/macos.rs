//! Kinds of cores as macOS tells of them: levels, of which the first is the fastest.
#![allow(unsafe_code, reason = "the class of a thread is set by a function of the system")]

use crate::files::sysctl;
use std::ffi::{CStr, CString};

/// What the system calls cores that threads without haste are put on.
const SMALL: &str = "Efficiency";

/// Numbers from 0, as many as there are cores that are not of the small kind; `None` where all are alike, as on Intel. The system
/// binds no thread to a core, so that the numbers mean nothing.
pub(super) fn performance_cores() -> Option<Vec<usize>> {
    let n_levels = sysctl::number(c"hw.nperflevels")?;
    let level = |level: u64, what: &str| CString::new(format!("hw.perflevel{level}.{what}")).ok();
    let is_small = |l: &u64| level(*l, "name").and_then(|name| sysctl::text(&name)).is_some_and(|name| name == SMALL);
    let n_cores = |l: u64| level(l, "physicalcpu").and_then(|name: CString| sysctl::number(CStr::as_ref(&name)));
    let fast: Option<Vec<u64>> = (0..n_levels).filter(|l| !is_small(l)).map(n_cores).collect();
    let (n, all) = (usize::try_from(fast?.iter().sum::<u64>()).ok()?, super::usable_cores());
    (1..all).contains(&n).then(|| (0..n).collect())
}

/// Has the system put this thread on a performance core as long as one is free: what the user waits for. Best effort.
pub(super) fn prefer() {
    // SAFETY: takes two numbers, and is about the thread that calls it.
    unsafe { libc::pthread_set_qos_class_self_np(libc::qos_class_t::QOS_CLASS_USER_INITIATED, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_fewer_performance_cores_than_cores() {
        assert!(performance_cores().is_none_or(|fast| (1..super::super::usable_cores()).contains(&fast.len())));
        prefer();
    }
}
