//! What a process allows itself, and the time that it has used.

#[cfg(windows)]
mod windows;

use std::time::Duration;

/// Limits the memory of this process to what it has and `more` bytes, and forbids core files. What the system refuses is
/// left as it is.
#[cfg(unix)]
pub(super) fn set(more: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let lower = |resource, bytes: u64| {
        let old = getrlimit(resource);
        let bytes = old.maximum.map_or(bytes, |most| most.min(bytes));
        let _ = setrlimit(resource, Rlimit { current: Some(bytes), maximum: Some(bytes) });
    };
    lower(Resource::Core, 0);
    // Should the watch fail.
    lower(Resource::Cpu, 60);
    if let Some(now) = mapped_bytes() {
        lower(Resource::As, now + more);
    }
}

#[cfg(windows)]
pub(super) fn set(more: u64) {
    windows::set(more);
}

/// Whether this process has had more than `most` bytes of memory, where the system itself sets no bound: as on macOS, which
/// takes the limit of [`set`] and does not keep it.
pub(super) fn exceeded(most: u64) -> bool {
    #[cfg(target_os = "macos")]
    {
        crate::files::most_memory().is_some_and(|had| had > most)
    }
    #[cfg(not(target_os = "macos"))]
    {
        let _ = most;
        false
    }
}

/// The size of the address space; not known where there is no Linux.
#[cfg(unix)]
fn mapped_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Time of the processor that this process has used.
#[cfg(unix)]
pub(super) fn time_used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(windows)]
pub(super) fn time_used() -> Duration {
    windows::time_used()
}
