//! Kinds of cores as Linux tells of them on ARM: by what a core computes compared with the fastest.

use std::fs;
use std::path::Path;

/// The cores that are not of the slowest kind, by number, where that kind is of the small cores of big.LITTLE: it computes
/// less than two thirds of what the fastest does. (Half of it are those of an RK3588; the middle ones of three kinds, which
/// may be at four fifths, compute as well.) `cpus` is the system's folder of processors.
pub(super) fn performance_cores(cpus: &Path) -> Option<Vec<usize>> {
    let capacities = ["cpu_capacity", "cpufreq/cpuinfo_max_freq"].iter().find_map(|name| told(cpus, name))?;
    let all = || capacities.iter().map(|(_, capacity)| *capacity);
    let (least, most) = (all().min()?, all().max()?);
    if least.saturating_mul(3) >= most.saturating_mul(2) {
        return None;
    }
    let mut fast: Vec<usize> = capacities.iter().filter(|(_, c)| *c > least).map(|(core, _)| *core).collect();
    fast.sort_unstable();
    Some(fast)
}

/// What the file `name` says of each core; `None` where it is missing of one.
fn told(cpus: &Path, name: &str) -> Option<Vec<(usize, u64)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(cpus).ok()?.flatten() {
        let folder = entry.file_name();
        let Some(core) = folder.to_str().and_then(|folder| folder.strip_prefix("cpu")?.parse().ok()) else { continue };
        // What is switched off has none, and computes nothing.
        if fs::read_to_string(entry.path().join("online")).is_ok_and(|on| on.trim() == "0") {
            continue;
        }
        all.push((core, fs::read_to_string(entry.path().join(name)).ok()?.trim().parse().ok()?));
    }
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of processors whose file `name` has these numbers.
    fn cpus(name: &str, capacities: &[u64]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for other in ["cpuidle", "cpufreq", "cpu0x"] {
            fs::create_dir(folder.path().join(other)).unwrap();
        }
        for (core, capacity) in capacities.iter().enumerate() {
            let path = folder.path().join(format!("cpu{core}")).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{capacity}\n")).unwrap();
        }
        folder
    }

    #[test]
    fn small_cores_are_left_out_and_those_of_one_kind_or_of_near_ones_are_not() {
        let of = |capacities: &[u64]| performance_cores(cpus("cpu_capacity", capacities).path());
        assert_eq!(of(&[530, 530, 530, 530, 1024, 1024, 1010, 1010]), Some(vec![4, 5, 6, 7]), "RK3588");
        assert_eq!(of(&[1024, 1024, 446, 446]), Some(vec![0, 1]), "Juno");
        assert_eq!(of(&[124, 124, 124, 124, 427, 427, 1024, 1024]), Some(vec![4, 5, 6, 7]), "three kinds");
        assert_eq!(of(&[1024; 4]), None);
        assert_eq!(of(&[820, 820, 820, 1024]), None, "both kinds are large");
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn frequencies_tell_where_there_are_no_capacities_and_cores_that_are_off_count_for_nothing() {
        let folder = cpus("cpufreq/cpuinfo_max_freq", &[1_800_000, 1_800_000, 2_400_000, 800_000]);
        assert_eq!(performance_cores(folder.path()), Some(vec![0, 1, 2]));
        fs::write(folder.path().join("cpu3/online"), "0\n").unwrap();
        assert_eq!(performance_cores(folder.path()), None);
        fs::remove_file(folder.path().join("cpu2/cpufreq/cpuinfo_max_freq")).unwrap();
        assert_eq!(performance_cores(folder.path()), None, "not all are known");
    }
}
