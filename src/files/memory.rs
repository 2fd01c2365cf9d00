//! How much memory there is room for.

#[cfg(any(not(any(windows, target_os = "macos")), test))]
use std::{fs::read_to_string, path::Path};

/// Bytes that this process may still take without anything being swapped out, where the system tells: what the machine has
/// available, or less where its group of processes has a limit.
pub fn free_memory() -> Option<u64> {
    #[cfg(target_os = "macos")]
    {
        // The share of all memory that the system counts as available, as its command memory_pressure shows it.
        let percent = super::sysctl::number(c"kern.memorystatus_level")?.min(100);
        Some(super::sysctl::number(c"hw.memsize")? / 100 * percent)
    }
    #[cfg(windows)]
    {
        super::windows::free_memory()
    }
    #[cfg(not(any(windows, target_os = "macos")))]
    free_memory_of(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
}

/// The same with the folders where Linux tells it.
#[cfg(any(not(any(windows, target_os = "macos")), test))]
fn free_memory_of(proc: &Path, groups: &Path) -> Option<u64> {
    let available = field(&read_to_string(proc.join("meminfo")).ok()?, "MemAvailable:")?.checked_mul(1024)?;
    Some(left_to_group(proc, groups).map_or(available, |left| available.min(left)))
}

/// What the limits of this process's control group, and of those around it, leave.
#[cfg(any(not(any(windows, target_os = "macos")), test))]
fn left_to_group(proc: &Path, groups: &Path) -> Option<u64> {
    let own = read_to_string(proc.join("self/cgroup")).ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let left = |group: &Path| -> Option<u64> {
        let folder = groups.join(group);
        let number = |name: &str| read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        // Without a limit it says "max".
        let (limit, taken) = (number("memory.max")?, number("memory.current")?);
        // Pages of files are given up where memory is short.
        let files = read_to_string(folder.join("memory.stat")).ok().and_then(|all| field(&all, "file "));
        Some(limit.saturating_sub(taken.saturating_sub(files.unwrap_or(0))))
    };
    Path::new(own).ancestors().filter_map(left).min()
}

/// The number behind `name` at the beginning of a line.
#[cfg(any(not(any(windows, target_os = "macos")), test))]
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    #[cfg(any(windows, target_os = "linux"))]
    #[test]
    fn the_system_tells_how_much_is_free() {
        assert!(free_memory().is_some_and(|free| free > 1 << 20));
    }

    #[test]
    fn the_least_of_machine_and_groups_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let (proc, groups) = (folder.path().join("proc"), folder.path().join("groups"));
        let free = || free_memory_of(&proc, &groups);
        assert_eq!(free(), None);
        create_dir_all(proc.join("self")).unwrap();
        create_dir_all(groups.join("a/b")).unwrap();
        write(proc.join("meminfo"), "MemTotal: 9 kB\nMemAvailable:       8 kB\n").unwrap();
        assert_eq!(free(), Some(8192));
        write(proc.join("self/cgroup"), "1:name=systemd:/x\n0::/a/b\n").unwrap();
        assert_eq!(free(), Some(8192));
        let limit = |group: &str, max: &str, current: &str| {
            write(groups.join(group).join("memory.max"), max).unwrap();
            write(groups.join(group).join("memory.current"), current).unwrap();
        };
        limit("a/b", "max\n", "7000\n");
        assert_eq!(free(), Some(8192));
        limit("a", "9000\n", "7000\n");
        assert_eq!(free(), Some(2000));
        write(groups.join("a/memory.stat"), "anon 1\nfile_mapped 5\nfile 3000\n").unwrap();
        assert_eq!(free(), Some(5000));
        limit("a/b", "100\n", "700\n");
        assert_eq!(free(), Some(0));
    }
}
