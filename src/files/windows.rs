//! What Windows tells of files, disks and memory beyond the standard library.
#![allow(unsafe_code, reason = "functions of the system are called")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::AsRawHandle;
use std::path::{Component, Path, PathBuf, Prefix, absolute};
use windows_sys::Win32::Foundation::LocalFree;
use windows_sys::Win32::Security::Authorization::{
    ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
};
use windows_sys::Win32::Security::{DACL_SECURITY_INFORMATION, SetFileSecurityW};
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, FILE_FLAG_BACKUP_SEMANTICS, FILE_TYPE_CHAR, FILE_TYPE_DISK, FILE_TYPE_PIPE,
    GetDiskFreeSpaceExW, GetFileInformationByHandle, GetFileType,
};
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};

const DEVICE: &str = "a device";
const PIPE: &str = "a pipe";
/// What no name of a file has; `/` and `\` part names.
const NO_NAME: [char; 7] = ['<', '>', ':', '"', '|', '?', '*'];

/// What `path` names where that is a device, as `NUL` does in every folder, or a named pipe.
pub(super) fn device(path: &Path) -> Option<&'static str> {
    match absolute(path).ok()?.components().next()? {
        Component::Prefix(prefix) => match prefix.kind() {
            Prefix::DeviceNS(name) if name.eq_ignore_ascii_case("pipe") => Some(PIPE),
            Prefix::DeviceNS(_) => Some(DEVICE),
            _ => None,
        },
        _ => None,
    }
}

/// What an open file is, where it is not on a disk.
pub(super) fn special(file: &File) -> Option<&'static str> {
    // SAFETY: the handle is open as long as `file` lives.
    match unsafe { GetFileType(file.as_raw_handle()) } {
        FILE_TYPE_DISK => None,
        FILE_TYPE_CHAR => Some(DEVICE),
        FILE_TYPE_PIPE => Some(PIPE),
        _ => Some("no regular file"),
    }
}

/// `path` as the system understands it: whole, without dots and blanks at the end of its name.
pub(super) fn normal(path: &Path) -> PathBuf {
    absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Whether a file can have this name: else it would be a stream within another file, or nothing.
pub(super) fn is_name(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().chars().all(|c| !c.is_control() && !NO_NAME.contains(&c))
}

/// The path without links; as it is where a file system does not tell, as those of some disks in memory.
pub(super) fn canonical(path: &Path) -> io::Result<PathBuf> {
    path.canonicalize().or_else(|error| if path.exists() { absolute(path) } else { Err(error) })
}

/// What no other file or folder has: the number of its disk and its own.
pub(super) fn identity(path: &Path) -> Option<(u32, u32, u32)> {
    // Nothing is read, so that nobody can forbid it, and folders can be opened.
    identity_open(&OpenOptions::new().access_mode(0).custom_flags(FILE_FLAG_BACKUP_SEMANTICS).open(path).ok()?)
}

/// The same of a file that is open.
pub(super) fn identity_open(file: &File) -> Option<(u32, u32, u32)> {
    if special(file).is_some() {
        return None;
    }
    let mut found = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open, and the pointer is to room for what is told.
    let told = unsafe { GetFileInformationByHandle(file.as_raw_handle(), &mut found) } != 0;
    told.then_some((found.dwVolumeSerialNumber, found.nFileIndexHigh, found.nFileIndexLow))
}

/// Has only the file's owner, the system and administrators open it.
pub(super) fn keep_private(path: &Path) -> io::Result<()> {
    // Not what the folder says of its files (P), but full access (FA) for each of the three.
    let list: Vec<u16> = "D:P(A;;FA;;;OW)(A;;FA;;;SY)(A;;FA;;;BA)".encode_utf16().chain([0]).collect();
    let path: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
    let mut descriptor = std::ptr::null_mut();
    // SAFETY: both texts end in 0; the descriptor is what the first function allocates, which is freed once it is applied.
    unsafe {
        let read = ConvertStringSecurityDescriptorToSecurityDescriptorW(
            list.as_ptr(),
            SDDL_REVISION_1,
            &mut descriptor,
            std::ptr::null_mut(),
        );
        if read == 0 {
            return Err(io::Error::last_os_error());
        }
        let done = SetFileSecurityW(path.as_ptr(), DACL_SECURITY_INFORMATION, descriptor);
        let result = if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        LocalFree(descriptor);
        result
    }
}

/// Bytes that this user may still write to the disk of `folder`.
pub(super) fn free_space(folder: &Path) -> Option<u64> {
    // A path that ends in a name could be that of a disk's folder, and as it is given it may be too long.
    let folder = canonical(folder).ok()?;
    let mut wide: Vec<u16> = folder.as_os_str().encode_wide().collect();
    // What another machine shares is to end like this.
    if wide.last() != Some(&u16::from(b'\\')) {
        wide.push(b'\\'.into());
    }
    wide.push(0);
    let mut free = 0;
    // SAFETY: the path ends in 0; the pointer is to a number, and others may be null.
    let told =
        unsafe { GetDiskFreeSpaceExW(wide.as_ptr(), &mut free, std::ptr::null_mut(), std::ptr::null_mut()) } != 0;
    told.then_some(free)
}

/// Bytes of memory that are not in use, or fewer where the system does not promise more.
pub(super) fn free_memory() -> Option<u64> {
    let mut status = MEMORYSTATUSEX { dwLength: size_of::<MEMORYSTATUSEX>() as u32, ..MEMORYSTATUSEX::default() };
    // SAFETY: the pointer is to a structure that says how large it is.
    let told = unsafe { GlobalMemoryStatusEx(&mut status) } != 0;
    told.then_some(status.ullAvailPhys.min(status.ullAvailPageFile))
}
