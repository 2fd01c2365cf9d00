//! What the kernel of macOS tells by name.
#![allow(unsafe_code, reason = "the system tells through a C function only")]

use std::ffi::CStr;
use std::ptr;

/// The number called `name`, of four or eight bytes.
pub fn number(name: &CStr) -> Option<u64> {
    let bytes = told(name)?;
    match bytes.len() {
        4 => Some(u32::from_le_bytes(bytes.try_into().ok()?).into()),
        8 => Some(u64::from_le_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

/// The text called `name`.
pub fn text(name: &CStr) -> Option<String> {
    let bytes = told(name)?;
    Some(String::from_utf8_lossy(bytes.split(|b| *b == 0).next()?).into_owned())
}

fn told(name: &CStr) -> Option<Vec<u8>> {
    let mut len = 0;
    // SAFETY: without room for an answer, only its length is written.
    let asked = unsafe { libc::sysctlbyname(name.as_ptr(), ptr::null_mut(), &mut len, ptr::null_mut(), 0) };
    let mut bytes = (asked == 0).then(|| vec![0_u8; len])?;
    // SAFETY: there is room for `len` bytes, and `len` becomes how many were written; nothing is set.
    let asked = unsafe { libc::sysctlbyname(name.as_ptr(), bytes.as_mut_ptr().cast(), &mut len, ptr::null_mut(), 0) };
    bytes.truncate(len);
    (asked == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_numbers_and_texts() {
        assert!(number(c"hw.memsize").is_some_and(|bytes| bytes >= 1 << 30));
        assert!(number(c"hw.ncpu").is_some_and(|n| n > 0));
        assert_eq!(text(c"kern.ostype").as_deref(), Some("Darwin"));
        assert_eq!(number(c"no.such.name"), None);
    }
}
