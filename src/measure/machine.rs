//! Measuring this machine in the planner's terms.

use crate::cpu::brand::brand;
use crate::cpu::{Isa, Pool};
use crate::gpu::Device;
use crate::gpu::meter::Effort;
use crate::gpu::probe as gpu_probe;
use crate::model::KvType;
use crate::placement::hardware::Hardware;
use crate::placement::probe;
use crate::placement::workload::Workload;
use crate::progress::Progress;
use crate::quant::GgmlType;
use anyhow::{Context, Result};

/// Types that planning `work` with a KV cache of `kv_type` needs bandwidths of.
pub fn types_of(work: &Workload, kv_type: KvType) -> Vec<GgmlType> {
    let mut types = vec![kv_type.k, kv_type.v, work.head.dtype];
    types.extend(work.layers.iter().flat_map(|layer| &layer.blocks).map(|(_, block)| block.dtype));
    for group in work.groups() {
        types.extend([Some(group.mask), group.up, Some(group.down)].into_iter().flatten().map(|r| r.dtype));
        // Signs are no numbers to multiply.
        types.extend(group.predictor.map(|p| p.dtype).filter(|t| *t != GgmlType::I8));
    }
    distinct(types)
}

/// Each of `types` once, by number.
pub fn distinct(mut types: Vec<GgmlType>) -> Vec<GgmlType> {
    types.sort_by_key(|t| t.id());
    types.dedup();
    types
}

/// This machine, measured now on weights of `types`, with `device` where one is given: some seconds.
///
/// # Errors
/// When threads cannot be started, the card fails, or the user stops it.
pub fn measure(
    threads: usize,
    isa: Isa,
    types: &[GgmlType],
    device: Option<&Device>,
    progress: &dyn Progress,
) -> Result<Hardware> {
    let pool = Pool::new(threads)?;
    let cpu = probe::measure(&pool, isa, types, progress)?;
    let mut name = format!("{}, {threads} threads, {isa}", cpu_name());
    let card = device.map(|d| gpu_probe::measure(d, types, &Effort::of(d), progress).context("measuring the card"));
    if let Some(device) = device {
        name.push_str(&format!(", {}", shortened(device.name())));
    }
    Ok(Hardware { name, cpu, device: card.transpose()? })
}

/// What the system calls the processor.
pub fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':').map(|(_, n)| n.trim()));
    let name = name.map(str::to_owned).or_else(brand).or_else(board);
    shortened(name.as_deref().unwrap_or(ARCHITECTURE))
}

/// The name of a Mac's processor, or of the board where Linux tells none of the processor, as on ARM.
fn board() -> Option<String> {
    #[cfg(target_os = "macos")]
    {
        crate::files::sysctl::text(c"machdep.cpu.brand_string")
    }
    #[cfg(not(target_os = "macos"))]
    {
        let model = std::fs::read_to_string("/sys/firmware/devicetree/base/model").ok()?;
        Some(model.trim_matches(['\0', '\n', ' ']).to_owned()).filter(|model| !model.is_empty())
    }
}

/// In place of a name where the system tells none.
const ARCHITECTURE: &str = match () {
    () if cfg!(target_arch = "x86_64") => "x86_64",
    () if cfg!(target_arch = "aarch64") => "aarch64",
    () => "processor",
};

/// The part of a name that a line has room for.
pub fn shortened(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(60).collect()
}
