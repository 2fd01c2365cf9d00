//! What the system has counted of this process: waits for pages of mapped files, memory.
#![allow(unsafe_code, reason = "the system's count is had from a C function only")]

/// Pages that this process found in no memory and waited for, since it began. Always 0 where the system does not tell.
pub fn waits_for_pages() -> u64 {
    #[cfg(unix)]
    {
        usage().and_then(|usage| u64::try_from(usage.ru_majflt).ok()).unwrap_or(0)
    }
    #[cfg(not(unix))]
    0
}

/// The most memory that this process has had at a time, in bytes.
#[cfg(any(target_os = "macos", all(test, unix)))]
pub(crate) fn most_memory() -> Option<u64> {
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    usage().and_then(|usage| u64::try_from(usage.ru_maxrss).ok()?.checked_mul(unit))
}

#[cfg(unix)]
fn usage() -> Option<libc::rusage> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is to room for the structure, which the function fills in when it returns 0.
    unsafe { (libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) == 0).then(|| usage.assume_init()) }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_filled_counts() {
        const FILLED: u64 = 64 << 20;
        let filled = vec![1_u8; FILLED as usize];
        assert_eq!(std::hint::black_box(&filled)[7], 1);
        // In bytes: a unit too large would make terabytes of it.
        assert!((FILLED..1 << 40).contains(&most_memory().unwrap()));
    }
}
