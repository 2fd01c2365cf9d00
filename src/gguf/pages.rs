//! Pages of memory on Windows: kept in memory.
#![allow(unsafe_code, reason = "functions of the system are called")]

use std::io;
use windows_sys::Win32::System::Memory::VirtualLock;
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessWorkingSetSize, SetProcessWorkingSetSize};

/// What locking takes beside the pages themselves.
const MARGIN: usize = 1 << 20;

/// Reads all of `bytes`, and keeps them in memory. The system lets a process keep as much as its working set has at the least, which
/// is raised by that.
pub(super) fn lock(bytes: &[u8]) -> io::Result<()> {
    let (mut least, mut most) = (0, 0);
    // SAFETY: the pointers are to numbers; `bytes` lie in memory of this process, to which nothing is done but that it is kept.
    unsafe {
        let this = GetCurrentProcess();
        let more = bytes.len().saturating_add(MARGIN);
        let raised = GetProcessWorkingSetSize(this, &mut least, &mut most) != 0
            && SetProcessWorkingSetSize(this, least.saturating_add(more), most.saturating_add(more)) != 0;
        if !raised || VirtualLock(bytes.as_ptr().cast(), bytes.len()) == 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_can_be_kept() {
        let bytes = vec![1u8; 4 << 20];
        lock(&bytes).unwrap();
    }
}
