//! The machine that is planned for: as a file describes it, or as measured, which is kept in the cache folder.

use super::self_test::choose_to_plan;
use super::terminal::tell;
use super::write_cached;
use anyhow::Result;
use powerinfer::cpu::Isa;
use powerinfer::cpu::cores::usable_cores;
use powerinfer::gpu::identity::is_installed;
use powerinfer::gpu::{Chosen, Device, DeviceChoice};
use powerinfer::measure::machine::{cpu_name, distinct, measure, shortened, types_of};
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::plan::Run;
use powerinfer::placement::workload::Workload;
use powerinfer::progress::{Interrupted, Progress};
use powerinfer::quant::GgmlType;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What this process has measured, which holds also where no file can be written: name of the file, and what it would say.
static MEASURED: Mutex<Vec<(String, Hardware)>> = Mutex::new(Vec::new());

/// The file that was given, or this machine with the card of `choice`: measured now, or before with the same processor,
/// threads, card and version.
pub fn hardware(
    given: Option<&Path>,
    choice: DeviceChoice,
    work: &Workload,
    run: &Run,
    threads: usize,
    isa: Isa,
    progress: &dyn Progress,
) -> Result<Hardware> {
    if let Some(path) = given {
        return Hardware::read(path);
    }
    let device = match choose_to_plan(choice)? {
        Chosen::Cuda(device) => Some(device),
        Chosen::Cpu { why } => {
            // Where there is no driver there is no card to be missed.
            why.iter().filter(|_| is_installed()).for_each(|why| tell!("note: planning for the CPU alone: {why}"));
            None
        }
    };
    let mut types = types_of(work, run.kv_type);
    let name = cache_name(threads, isa, device.as_ref());
    let path = super::cache_folder().map(|folder| folder.join(&name));
    let mut here = MEASURED.lock().unwrap_or_else(PoisonError::into_inner);
    let known = here.iter().rev().find(|(of, _)| *of == name).map(|(_, measured)| measured.clone());
    let known = known.or_else(|| path.as_deref().and_then(|p| Hardware::read(p).ok()));
    // An earlier version of this program measured no arithmetic.
    let is_enough = |h: &Hardware, dtype: &GgmlType| {
        let of_type = h.cpu.bandwidth.by_type.get(dtype.name());
        of_type.is_some_and(|b| run.room.n_sequences == 1 || b.several.is_finite())
    };
    if let Some(known) = known.as_ref().filter(|h| types.iter().all(|t| is_enough(h, t))) {
        return Ok(known.clone());
    }
    types.extend(known.iter().flat_map(|h| h.cpu.bandwidth.by_type.keys()).filter_map(|n| GgmlType::from_name(n)));
    let measured = measure(threads, isa, &distinct(types), device.as_ref(), progress)?;
    // A cache that cannot be written only costs the next run a few seconds.
    if let Some(path) = path.filter(|path| write_cached(path, measured.to_toml().as_bytes(), progress).is_ok()) {
        tell!("hardware: measured, kept in {}", path.display());
    }
    here.push((name, measured.clone()));
    Ok(measured)
}

/// The same for a plan that is only shown: where the card of `auto` fails, that is told, and the plan is for the CPU alone.
pub fn hardware_to_show(
    given: Option<&Path>,
    choice: DeviceChoice,
    work: &Workload,
    run: &Run,
    threads: usize,
    isa: Isa,
    progress: &dyn Progress,
) -> Result<Hardware> {
    match hardware(given, choice, work, run, threads, isa, progress) {
        Err(why) if choice == DeviceChoice::Auto && given.is_none() && !why.is::<Interrupted>() => {
            tell!("note: planning for the CPU alone: {why:#}");
            hardware(None, DeviceChoice::Cpu, work, run, threads, isa, progress)
        }
        found => found,
    }
}

fn cache_name(threads: usize, isa: Isa, device: Option<&Device>) -> String {
    let plain = |name: &str| -> String {
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
    };
    let name = plain(&cpu_name());
    let card = device.map_or_else(String::new, |d| format!("-{}-{}", plain(&shortened(d.name())), d.ordinal()));
    let (cores, version) = (usable_cores(), env!("CARGO_PKG_VERSION"));
    format!("hardware-{name}-{cores}c-t{threads}-{isa}{card}-v{version}.toml")
}
