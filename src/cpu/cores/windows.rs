//! Cores as Windows tells of them.
#![allow(unsafe_code, reason = "functions of the system are called")]

use windows_sys::Win32::System::SystemInformation::{
    CpuSetInformation, GetSystemCpuSetInformation, SYSTEM_CPU_SET_INFORMATION,
};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetCurrentThread, GetProcessAffinityMask, GetProcessGroupAffinity, SetThreadSelectedCpuSets,
};

/// The cores of this process's group of processors that it may use, where it is kept to some.
pub(super) fn usable_cores() -> Option<usize> {
    affinity().map(|own| own.mask.count_ones() as usize)
}

/// Cores of a group of processors.
#[derive(Clone, Copy)]
struct Affinity {
    group: u16,
    /// A bit for each.
    mask: usize,
}

/// Those of this process; none where it runs in several groups.
fn affinity() -> Option<Affinity> {
    let (mut mask, mut all, mut group, mut n) = (0, 0, 0, 1);
    // SAFETY: the pointers are to numbers, and there is room for one group.
    let told = unsafe {
        GetProcessAffinityMask(GetCurrentProcess(), &mut mask, &mut all) != 0
            && GetProcessGroupAffinity(GetCurrentProcess(), &mut n, &mut group) != 0
    };
    (told && mask != 0).then_some(Affinity { group, mask })
}

/// A core as the scheduler has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Core {
    /// What [`keep_to`] takes.
    id: u32,
    /// Of the processors, as is its number in that.
    group: u16,
    index: u8,
    /// The larger, the faster, and the more it takes.
    class: u8,
}

/// Those of the fastest class, where there are several classes.
pub(super) fn performance_cores() -> Option<Vec<usize>> {
    fastest(&cores()?, affinity())
}

fn fastest(cores: &[Core], affinity: Option<Affinity>) -> Option<Vec<usize>> {
    let most = cores.iter().map(|core| core.class).max()?;
    if cores.iter().all(|core| core.class == most) {
        return None;
    }
    let may = |core: &&Core| affinity.is_none_or(|own| core.group != own.group || own.mask >> core.index & 1 == 1);
    let fast: Vec<usize> = cores.iter().filter(|c| c.class == most).filter(may).map(|c| c.id as usize).collect();
    Some(fast).filter(|fast| !fast.is_empty())
}

/// All cores; `None` where the system does not tell.
fn cores() -> Option<Vec<Core>> {
    let mut len = 0;
    // SAFETY: asks for the length only.
    unsafe { GetSystemCpuSetInformation(std::ptr::null_mut(), 0, &mut len, GetCurrentProcess(), 0) };
    // Of words, so that entries are aligned.
    let mut room = vec![0u64; (len as usize).div_ceil(size_of::<u64>())];
    let at: *mut SYSTEM_CPU_SET_INFORMATION = room.as_mut_ptr().cast();
    // SAFETY: there is room for `len` bytes.
    let told = unsafe { GetSystemCpuSetInformation(at, len, &mut len, GetCurrentProcess(), 0) } != 0;
    let bytes = (len as usize).min(size_of_val(&room[..]));
    let (mut cores, mut offset) = (Vec::new(), 0);
    while told && offset + size_of::<SYSTEM_CPU_SET_INFORMATION>() <= bytes {
        // SAFETY: it is within what was written; entries are as long as they say, a multiple of their alignment.
        let entry = unsafe { at.byte_add(offset).read_unaligned() };
        if entry.Type == CpuSetInformation {
            // SAFETY: what the type says.
            let set = unsafe { entry.Anonymous.CpuSet };
            let (id, index) = (set.Id, set.LogicalProcessorIndex);
            cores.push(Core { id, group: set.Group, index, class: set.EfficiencyClass });
        }
        if entry.Size == 0 {
            break;
        }
        offset += entry.Size as usize;
    }
    Some(cores).filter(|cores| !cores.is_empty())
}

/// Keeps this thread to cores of these numbers. Best effort: if the system refuses, nothing changes.
pub(super) fn keep_to(cores: &[usize]) {
    let ids: Vec<u32> = cores.iter().filter_map(|core| u32::try_from(*core).ok()).collect();
    // SAFETY: the pointer is to as many numbers as is said.
    unsafe { SetThreadSelectedCpuSets(GetCurrentThread(), ids.as_ptr(), ids.len() as u32) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_are_chosen_that_this_process_may_use() {
        let of = |group, mask| Some(Affinity { group, mask });
        let core = |index: u8, class| Core { id: 256 + u32::from(index), group: 0, index, class };
        let alike: Vec<Core> = (0..4).map(|i| core(i, 1)).collect();
        assert_eq!(fastest(&alike, None), None);
        let mixed: Vec<Core> = (0..6).map(|i| core(i, u8::from(i < 4))).collect();
        assert_eq!(fastest(&mixed, None), Some(vec![256, 257, 258, 259]));
        assert_eq!(fastest(&mixed, of(0, 0b11_1010)), Some(vec![257, 259]));
        assert_eq!(fastest(&mixed, of(0, 0b11_0000)), None);
        assert_eq!(fastest(&mixed, of(1, 0b1)), Some(vec![256, 257, 258, 259]));
        assert_eq!(fastest(&[], None), None);
    }

    #[test]
    fn what_the_system_tells_agrees_with_the_standard_library() {
        let most = std::thread::available_parallelism().unwrap().get();
        assert!(usable_cores().is_none_or(|n| (1..=most).contains(&n)), "{:?} of {most}", usable_cores());
        if let Some(cores) = cores() {
            assert!(cores.len() >= most, "{cores:?}");
            keep_to(&cores.iter().map(|core| core.id as usize).collect::<Vec<_>>());
        }
    }
}
