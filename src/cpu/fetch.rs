//! Fetching into the caches what will be read, without waiting for it.
#![allow(unsafe_code, reason = "prefetching takes a raw pointer, and is an instruction of its own on AArch64")]

/// Bytes that are fetched together.
pub(super) const LINE: usize = 64;

/// Fetches all cache lines that `bytes` begin or continue in, into the second cache.
pub(super) fn all_of(bytes: &[u8]) {
    for line in bytes.chunks(LINE) {
        first_of(line);
    }
    // The bytes need not begin where a line does.
    if let Some(last) = bytes.len().checked_sub(1) {
        first_of(&bytes[last..]);
    }
}

/// Fetches the cache line in which `bytes` begin, into the second cache.
#[inline(always)]
pub(super) fn first_of(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 processor has SSE, and a prefetch may name any address: it never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(bytes.as_ptr().cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch may name any address: it never faults, and changes nothing but the caches.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{}]", in(reg) bytes.as_ptr(), options(readonly, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = bytes;
}

/// Fetches the cache line at `offset` of `ahead`, into the first cache.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn near(ahead: &[u8], offset: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let line = ahead.as_ptr().wrapping_add(offset);
    // SAFETY: as above.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}
