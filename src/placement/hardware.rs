//! What a machine can do, as a planner sees it: bandwidths and fixed costs, read from TOML.

use crate::files::{read_regular, write_whole};
use crate::progress::Progress;
use crate::quant::GgmlType;
use crate::units::Bytes;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of weights per second, by what is done with them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandwidth {
    /// Dot products with all rows.
    pub stream: f64,
    /// Dot products with the rows of a list, about a tenth of all.
    pub gather: f64,
    /// Adding up all rows, each times a number.
    pub add_stream: f64,
    /// Adding up the rows of a list.
    pub add_gather: f64,
    /// Bytes times vectors per second, where rows meet several vectors at once and reading them takes no time: what arithmetic
    /// allows. Infinite where that is not known, or never the limit.
    pub several: f64,
}

/// Bandwidths by type of the weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Bandwidths {
    /// Of types that are not in `by_type`.
    pub other: Bandwidth,
    /// By name of the type.
    pub by_type: BTreeMap<&'static str, Bandwidth>,
}

impl Bandwidths {
    /// The same for all types and ways of reading.
    pub fn uniform(bandwidth: f64) -> Self {
        let (stream, gather, add_stream, add_gather) = (bandwidth, bandwidth, bandwidth, bandwidth);
        let several = f64::INFINITY;
        Self { other: Bandwidth { stream, gather, add_stream, add_gather, several }, by_type: BTreeMap::new() }
    }

    /// Those of rows of `dtype`.
    pub fn of(&self, dtype: GgmlType) -> Bandwidth {
        self.by_type.get(dtype.name()).copied().unwrap_or(self.other)
    }
}

/// The processor with its memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Cpu {
    /// Threads that the numbers are for.
    pub threads: usize,
    /// Of reading weights with all of them.
    pub bandwidth: Bandwidths,
    /// Seconds for handing out a piece of work to all threads and getting it back, beside the work.
    pub region: f64,
    /// Seconds per number of what one thread does between the products: norms, quantizing, copies, which neurons fire.
    pub value: f64,
}

/// The graphics card with its memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Gpu {
    /// Memory that it has.
    pub vram: Bytes,
    /// What the driver takes of it for itself, at a guess: what is left is the budget where none is given.
    pub context: Bytes,
    /// Of reading weights.
    pub bandwidth: Bandwidths,
    /// Seconds per kernel, beside reading.
    pub kernel: f64,
    /// Bytes per second that its data sheet promises, where that is known. Nothing is planned with it: achieved
    /// bandwidths are shown as shares of it.
    pub data_sheet: Option<f64>,
}

/// What lies between processor and graphics card.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bus {
    /// Bytes per second.
    pub bandwidth: f64,
    /// Seconds for posting a piece of work to the other side and seeing its answer, beside the work.
    pub rendezvous: f64,
}

/// A graphics card and how it is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// The card.
    pub gpu: Gpu,
    /// The way there.
    pub bus: Bus,
}

/// A machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Hardware {
    /// What people call it.
    pub name: String,
    /// Its processor.
    pub cpu: Cpu,
    /// Its graphics card, where it has one.
    pub device: Option<Device>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHardware {
    name: String,
    cpu: RawCpu,
    gpu: Option<RawGpu>,
    bus: Option<RawBus>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCpu {
    threads: i64,
    region_us: f64,
    value_ns: f64,
    bandwidth: RawBandwidth,
    #[serde(default)]
    types: BTreeMap<String, RawBandwidth>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGpu {
    vram: String,
    context: String,
    kernel_us: f64,
    data_sheet_gb_s: Option<f64>,
    bandwidth: RawBandwidth,
    #[serde(default)]
    types: BTreeMap<String, RawBandwidth>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBus {
    gb_s: f64,
    rendezvous_us: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBandwidth {
    stream_gb_s: f64,
    gather_gb_s: f64,
    add_stream_gb_s: Option<f64>,
    add_gather_gb_s: Option<f64>,
    several_gb_s: Option<f64>,
}

/// A file of this size is no description of a machine.
const MOST: Bytes = Bytes(1 << 20);
/// Slowest and fastest memory that is believed, in GB/s.
const BELIEVED_GB_S: (f64, f64) = (1e-3, 1e6);
/// Bytes per second of the slowest memory that a description may have.
pub const SLOWEST: f64 = 1e9 * BELIEVED_GB_S.0;

fn between(key: &str, value: f64, low: f64, high: f64) -> Result<f64> {
    let believed = (low..=high).contains(&value);
    ensure!(believed, "{key} = {value}: must be a number from {low} to {high}");
    Ok(value)
}

impl RawBandwidth {
    fn check(&self, key: &str) -> Result<Bandwidth> {
        let (low, high) = BELIEVED_GB_S;
        let rate = |name: &str, value: f64| between(&format!("{key}.{name}"), value, low, high).map(|gb| 1e9 * gb);
        let (stream, gather) = (rate("stream_gb_s", self.stream_gb_s)?, rate("gather_gb_s", self.gather_gb_s)?);
        let optional = |name: &str, value: Option<f64>, or: f64| value.map_or(Ok(or), |v| rate(name, v));
        Ok(Bandwidth {
            stream,
            gather,
            add_stream: optional("add_stream_gb_s", self.add_stream_gb_s, stream)?,
            add_gather: optional("add_gather_gb_s", self.add_gather_gb_s, gather)?,
            several: optional("several_gb_s", self.several_gb_s, f64::INFINITY)?,
        })
    }
}

fn bandwidths(key: &str, other: &RawBandwidth, types: &BTreeMap<String, RawBandwidth>) -> Result<Bandwidths> {
    let mut by_type = BTreeMap::new();
    for (name, raw) in types {
        let shown: String = name.chars().take(40).collect();
        let key = format!("{key}.types.{shown}");
        let dtype = GgmlType::from_name(name).with_context(|| format!("{key}: type \"{shown}\" is not known"))?;
        ensure!(by_type.insert(dtype.name(), raw.check(&key)?).is_none(), "{key}: is there twice");
    }
    Ok(Bandwidths { other: other.check(&format!("{key}.bandwidth"))?, by_type })
}

fn size(key: &str, text: &str) -> Result<Bytes> {
    text.parse().with_context(|| key.to_owned())
}

impl Hardware {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// One line that names the file, the key or line, and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let text = read_regular(path, MOST).with_context(|| shown.clone())?;
        Self::parse(&text).with_context(|| shown)
    }

    /// Reads and checks the text of a file.
    ///
    /// # Errors
    /// One line that names the key or line and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self> {
        let raw: RawHardware = toml::from_str(text).map_err(|e| {
            let line = e.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let line = line.map_or_else(String::new, |line| format!("line {line}: "));
            anyhow::anyhow!("{line}{}", e.message().replace('\n', " "))
        })?;
        ensure!(!raw.name.trim().is_empty(), "name: is empty");
        ensure!(raw.name.chars().count() <= 200 && !raw.name.contains('\n'), "name: is longer than a line");
        let cpu = &raw.cpu;
        let threads = usize::try_from(cpu.threads).ok().filter(|n| (1..=1024).contains(n));
        let cpu = Cpu {
            threads: threads.with_context(|| format!("cpu.threads = {}: 1 to 1024 are possible", cpu.threads))?,
            bandwidth: bandwidths("cpu", &cpu.bandwidth, &cpu.types)?,
            region: 1e-6 * between("cpu.region_us", cpu.region_us, 0.0, 1e5)?,
            value: 1e-9 * between("cpu.value_ns", cpu.value_ns, 0.0, 1e5)?,
        };
        let device = match (&raw.gpu, &raw.bus) {
            (None, None) => None,
            (Some(_), None) => bail!("bus: is missing, and there is a gpu"),
            (None, Some(_)) => bail!("gpu: is missing, and there is a bus"),
            (Some(gpu), Some(bus)) => {
                let (vram, context) = (size("gpu.vram", &gpu.vram)?, size("gpu.context", &gpu.context)?);
                ensure!(context < vram, "gpu.context: {context} is all of the {vram} that the card has");
                let bandwidth = bandwidths("gpu", &gpu.bandwidth, &gpu.types)?;
                let kernel = 1e-6 * between("gpu.kernel_us", gpu.kernel_us, 0.0, 1e5)?;
                let (low, high) = BELIEVED_GB_S;
                let believed = |gb_s: f64| between("gpu.data_sheet_gb_s", gb_s, low, high);
                let data_sheet = gpu.data_sheet_gb_s.map(believed).transpose()?.map(|gb_s| 1e9 * gb_s);
                let bus = Bus {
                    bandwidth: 1e9 * between("bus.gb_s", bus.gb_s, low, high)?,
                    rendezvous: 1e-6 * between("bus.rendezvous_us", bus.rendezvous_us, 0.0, 1e6)?,
                };
                Some(Device { gpu: Gpu { vram, context, bandwidth, kernel, data_sheet }, bus })
            }
        };
        Ok(Self { name: raw.name, cpu, device })
    }

    /// The text of a file that [`Hardware::parse`] reads back as the same machine, up to the last digits shown.
    pub fn to_toml(&self) -> String {
        let mut out = format!("name = {}\n\n[cpu]\n", quoted(&self.name));
        let cpu = &self.cpu;
        out.push_str(&format!("threads = {}\n", cpu.threads));
        out.push_str(&format!("region_us = {:.3}\nvalue_ns = {:.4}\n", 1e6 * cpu.region, 1e9 * cpu.value));
        write_bandwidths(&mut out, "cpu", &cpu.bandwidth);
        if let Some(Device { gpu, bus }) = &self.device {
            out.push_str(&format!("\n[gpu]\nvram = \"{}B\"\ncontext = \"{}B\"\n", gpu.vram.0, gpu.context.0));
            out.push_str(&format!("kernel_us = {:.3}\n", 1e6 * gpu.kernel));
            if let Some(data_sheet) = gpu.data_sheet {
                out.push_str(&format!("data_sheet_gb_s = {:.3}\n", data_sheet / 1e9));
            }
            write_bandwidths(&mut out, "gpu", &gpu.bandwidth);
            out.push_str(&format!("\n[bus]\ngb_s = {:.3}\n", bus.bandwidth / 1e9));
            out.push_str(&format!("rendezvous_us = {:.3}\n", 1e6 * bus.rendezvous));
        }
        out
    }

    /// Writes [`Hardware::to_toml`], whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written, or the user stops waiting for the reader of a FIFO.
    pub fn write(&self, path: &Path, progress: &dyn Progress) -> Result<()> {
        write_whole(path, self.to_toml().as_bytes(), progress)
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

fn write_bandwidths(out: &mut String, key: &str, bandwidths: &Bandwidths) {
    let mut write = |section: String, b: &Bandwidth| {
        out.push_str(&format!("\n[{section}]\n"));
        let rates = [("", b.stream, b.gather), ("add_", b.add_stream, b.add_gather)];
        for (prefix, stream, gather) in rates {
            out.push_str(&format!(
                "{prefix}stream_gb_s = {:.3}\n{prefix}gather_gb_s = {:.3}\n",
                stream / 1e9,
                gather / 1e9
            ));
        }
        if b.several.is_finite() {
            out.push_str(&format!("several_gb_s = {:.3}\n", b.several / 1e9));
        }
    };
    write(format!("{key}.bandwidth"), &bandwidths.other);
    bandwidths.by_type.iter().for_each(|(name, b)| write(format!("{key}.types.{name}"), b));
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "\
name = \"a machine\"
[cpu]
threads = 8
region_us = 3.0
value_ns = 0.5
[cpu.bandwidth]
stream_gb_s = 70.0
gather_gb_s = 50
[cpu.types.q4_0]
stream_gb_s = 60.0
gather_gb_s = 40.0
add_gather_gb_s = 30.0
several_gb_s = 180.0
[gpu]
vram = \"24GB\"
context = \"400 MiB\"
kernel_us = 2.0
[gpu.bandwidth]
stream_gb_s = 850.0
gather_gb_s = 600.0
[bus]
gb_s = 25.0
rendezvous_us = 10.0
";

    #[test]
    fn a_description_survives_the_file() {
        let hardware = Hardware::parse(WHOLE).unwrap();
        assert_eq!(hardware.cpu.bandwidth.of(GgmlType::Q4_0).add_gather, 30e9);
        assert_eq!(hardware.cpu.bandwidth.of(GgmlType::Q4_0).add_stream, 60e9);
        assert_eq!(hardware.cpu.bandwidth.of(GgmlType::F16).gather, 50e9);
        let several = [GgmlType::Q4_0, GgmlType::F16].map(|dtype| hardware.cpu.bandwidth.of(dtype).several);
        assert_eq!(several, [180e9, f64::INFINITY]);
        assert_eq!(hardware.device.as_ref().unwrap().gpu.vram, Bytes(24_000_000_000));
        assert_eq!(Hardware::parse(&hardware.to_toml()).unwrap(), hardware);
        assert_eq!(hardware.device.as_ref().unwrap().gpu.data_sheet, None);
        let with = Hardware::parse(&WHOLE.replacen("kernel_us", "data_sheet_gb_s = 1008\nkernel_us", 1)).unwrap();
        assert_eq!(with.device.as_ref().unwrap().gpu.data_sheet, Some(1008e9));
        assert_eq!(Hardware::parse(&with.to_toml()).unwrap(), with);
        for name in
            ["quote \" and \\ and é", "no width \u{200b} and \t, \u{1b}[31m, \u{7f}, \u{85}, \u{feff}, \u{10ffff}"]
        {
            let odd = Hardware { name: name.to_owned(), device: None, ..hardware.clone() };
            assert_eq!(Hardware::parse(&odd.to_toml()).unwrap(), odd);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_key() {
        for (from, to, says) in [
            ("threads = 8", "threads = 0", "cpu.threads"),
            ("threads = 8", "threads = -3", "cpu.threads"),
            ("threads = 8", "threads = 8.5", "line 3"),
            ("threads = 8\n", "", "threads"),
            ("gather_gb_s = 50", "gather_gb_s = nan", "cpu.bandwidth.gather_gb_s"),
            ("gather_gb_s = 50", "gather_gb_s = inf", "cpu.bandwidth.gather_gb_s"),
            ("gather_gb_s = 50", "gather_gb_s = 0", "cpu.bandwidth.gather_gb_s"),
            ("stream_gb_s = 60.0", "stream_gb_s = -1", "cpu.types.q4_0.stream_gb_s"),
            ("several_gb_s = 180.0", "several_gb_s = 0", "cpu.types.q4_0.several_gb_s"),
            ("cpu.types.q4_0", "cpu.types.q4_9", "\"q4_9\" is not known"),
            ("24GB", "24G", "gpu.vram"),
            ("24GB", "0GB", "gpu.vram"),
            ("400 MiB", "25GB", "gpu.context"),
            ("region_us = 3.0", "region_us = -3.0", "cpu.region_us"),
            ("[bus]\ngb_s = 25.0\nrendezvous_us = 10.0\n", "", "bus: is missing"),
            ("kernel_us = 2.0", "kernel_us = 2.0\nkernels = 3", "kernels"),
            ("kernel_us = 2.0", "kernel_us = 2.0\ndata_sheet_gb_s = 0", "gpu.data_sheet_gb_s"),
            ("kernel_us = 2.0", "kernel_us = 2.0\ndata_sheet_gb_s = nan", "gpu.data_sheet_gb_s"),
            ("name = \"a machine\"", "name = \"\"", "name"),
            ("[gpu]", "[gpu", "line 14"),
        ] {
            assert!(WHOLE.contains(from));
            let error = format!("{:#}", Hardware::parse(&WHOLE.replacen(from, to, 1)).unwrap_err());
            assert!(error.contains(says) && !error.contains('\n'), "{to}: {error}");
        }
    }

    #[test]
    fn an_error_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bad.toml");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(Hardware::read(&path).unwrap_err().to_string().contains("bad.toml"));
        std::fs::write(&path, "name = 3").unwrap();
        assert!(format!("{:#}", Hardware::read(&path).unwrap_err()).contains("bad.toml: line 1"));
        assert!(format!("{:#}", Hardware::read(&dir.path().join("none")).unwrap_err()).contains("none"));
    }

    #[test]
    fn the_files_that_come_with_the_program_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("hardware");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
        assert_eq!(files.len(), 4);
        for file in files {
            let hardware = Hardware::read(&file).unwrap();
            let gpu = &hardware.device.as_ref().unwrap().gpu;
            let share = gpu.bandwidth.other.stream / gpu.data_sheet.unwrap();
            assert!((0.8..0.9).contains(&share), "{}: {share}", file.display());
        }
    }
}
