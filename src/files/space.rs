//! How much room a disk has.

use std::path::Path;

/// Bytes that may still be written to the disk of `folder`, where the system tells.
pub fn free_space(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(folder).ok()?;
        disk.f_bavail.checked_mul(disk.f_frsize)
    }
    #[cfg(windows)]
    {
        super::windows::free_space(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_tells_its_free_space() {
        assert!(free_space(&std::env::temp_dir()).is_some());
        assert_eq!(free_space(Path::new("/no/such/folder")), None);
    }
}
