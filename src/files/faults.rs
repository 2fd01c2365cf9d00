//! How often this process had to wait for pages of mapped files.
#![allow(unsafe_code, reason = "the system's count is had from a C function only")]

/// Pages that this process found in no memory and waited for, since it began. Always 0 where the system does not tell.
pub fn waits_for_pages() -> u64 {
    #[cfg(unix)]
    {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
        // SAFETY: the pointer is to room for the structure, which the function fills in when it returns 0.
        let usage = unsafe {
            match libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) {
                0 => usage.assume_init(),
                _ => return 0,
            }
        };
        u64::try_from(usage.ru_majflt).unwrap_or(0)
    }
    #[cfg(not(unix))]
    0
}
