//! Which cores are available for computing.
#![allow(unsafe_code, reason = "the standard library cannot bind threads to cores")]

#[cfg(any(target_os = "linux", test))]
mod capacity;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(windows)]
mod windows;

use std::num::NonZero;

/// How many threads can run at once: the cores, less what affinity and quotas take away.
pub fn usable_cores() -> usize {
    #[cfg(windows)]
    if let Some(cores) = windows::usable_cores() {
        return cores;
    }
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// The performance cores that this thread may use, where the system has several kinds (Intel hybrids on Linux and Windows,
/// big.LITTLE on Linux, Apple silicon): the system's numbers of them, or on macOS as many numbers as there are such cores.
pub fn performance_cores() -> Option<Vec<usize>> {
    #[cfg(target_os = "linux")]
    {
        let cores = match std::fs::read_to_string("/sys/devices/cpu_core/cpus") {
            Ok(list) => parse_cores(&list)?,
            Err(_) if cfg!(target_arch = "aarch64") => capacity::performance_cores("/sys/devices/system/cpu".as_ref())?,
            Err(_) => return None,
        };
        Some(allowed(cores)).filter(|cores| !cores.is_empty())
    }
    #[cfg(target_os = "macos")]
    {
        macos::performance_cores()
    }
    #[cfg(windows)]
    {
        windows::performance_cores()
    }
    #[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
    None
}

/// Reads the kernel's lists of cores: `0-7,16`.
#[cfg(any(target_os = "linux", test))]
fn parse_cores(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        if first > last || last >= MAX_CORES {
            return None;
        }
        cores.extend(first..=last);
    }
    (!cores.is_empty()).then_some(cores)
}

#[cfg(target_os = "linux")]
const MAX_CORES: usize = libc::CPU_SETSIZE as usize;
#[cfg(all(not(target_os = "linux"), test))]
const MAX_CORES: usize = 1024;

/// Those of `cores` that this thread may use.
#[cfg(target_os = "linux")]
fn allowed(mut cores: Vec<usize>) -> Vec<usize> {
    // SAFETY: cpu_set_t is an array of integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is writable and as large as said; 0 is this thread.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } != 0 {
        return Vec::new();
    }
    // SAFETY: below CPU_SETSIZE, the number of bits in `set`.
    cores.retain(|core| *core < MAX_CORES && unsafe { libc::CPU_ISSET(*core, &set) });
    cores
}

/// Keeps this thread to `cores`, as returned by `performance_cores`; macOS is only told which kind it is for. Best effort: if
/// the system refuses, nothing changes.
#[cfg(target_os = "linux")]
pub(super) fn keep_to(cores: &[usize]) {
    // SAFETY: cpu_set_t is an array of integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for core in cores.iter().filter(|core| **core < MAX_CORES) {
        // SAFETY: below CPU_SETSIZE, the number of bits in `set`.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    // SAFETY: `set` is readable and as large as said; 0 is this thread.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
}

#[cfg(target_os = "macos")]
pub(super) fn keep_to(_: &[usize]) {
    macos::prefer();
}

#[cfg(windows)]
pub(super) fn keep_to(cores: &[usize]) {
    windows::keep_to(cores);
}

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
pub(super) fn keep_to(_: &[usize]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_cores("0-3,16\n"), Some(vec![0, 1, 2, 3, 16]));
        assert_eq!(parse_cores("5"), Some(vec![5]));
        assert_eq!(parse_cores("0-1,4-5"), Some(vec![0, 1, 4, 5]));
        for bad in ["", "\n", "a", "3-1", "0-", "-1", "0-99999999999", "0-4000000000"] {
            assert_eq!(parse_cores(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn there_is_a_core() {
        assert!(usable_cores() > 0);
        assert!(performance_cores().is_none_or(|cores| !cores.is_empty()));
    }
}
