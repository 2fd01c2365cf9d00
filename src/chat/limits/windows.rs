//! Limits of a process on Windows are those of a job that it belongs to.
#![allow(unsafe_code, reason = "functions of the system are called")]

use std::ptr;
use std::time::Duration;
use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::System::Diagnostics::Debug::{SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SetErrorMode};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION,
    JOB_OBJECT_LIMIT_PROCESS_MEMORY, JOB_OBJECT_LIMIT_PROCESS_TIME, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
    JobObjectExtendedLimitInformation, SetInformationJobObject,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessTimes};

/// Should the watch fail.
const MOST_TIME: Duration = Duration::from_secs(60);
/// The system counts in these.
const UNIT: Duration = Duration::from_nanos(100);

/// What this process commits at most: `more` bytes, of which its program takes few; and no window that says how it ended.
pub(super) fn set(more: u64) {
    let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
    limits.BasicLimitInformation.LimitFlags =
        JOB_OBJECT_LIMIT_PROCESS_MEMORY | JOB_OBJECT_LIMIT_PROCESS_TIME | JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION;
    limits.BasicLimitInformation.PerProcessUserTimeLimit = (MOST_TIME.as_nanos() / UNIT.as_nanos()) as i64;
    limits.ProcessMemoryLimit = more as usize;
    // SAFETY: the structure is of the size that is said. The job's handle is never closed: the job lasts as long as the process.
    unsafe {
        SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX);
        let job = CreateJobObjectW(ptr::null(), ptr::null());
        let (limits, size) = ((&raw const limits).cast(), size_of_val(&limits) as u32);
        if !job.is_null() && SetInformationJobObject(job, JobObjectExtendedLimitInformation, limits, size) != 0 {
            AssignProcessToJobObject(job, GetCurrentProcess());
        }
    }
}

/// Time of the processor that this process has used, in the system and out of it.
pub(super) fn time_used() -> Duration {
    let [mut begun, mut ended, mut system, mut user] = [FILETIME::default(); 4];
    // SAFETY: the pointers are to room for the times.
    let told = unsafe { GetProcessTimes(GetCurrentProcess(), &mut begun, &mut ended, &mut system, &mut user) } != 0;
    let units = |time: FILETIME| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
    let nanoseconds = (units(system) + units(user)).saturating_mul(UNIT.as_nanos() as u64);
    if told { Duration::from_nanos(nanoseconds) } else { Duration::ZERO }
}
