//! What profiles and their samples have in common: the head of the file, and which model it is of.

use super::fingerprint::Fingerprint;
use super::sections::{Reader, SectionFile, Tag};
use anyhow::{Context, Result, ensure};

pub(super) const MAGIC: &[u8; 8] = b"PWRPROF\n";
pub(super) const VERSION: u32 = 2;
/// Where routers choose groups of neurons: counts are packed.
pub(super) const VERSION_ROUTED: u32 = 3;
pub(super) const VERSIONS: [u32; 3] = [1, VERSION, VERSION_ROUTED];
/// In messages.
pub(super) const WHAT: &str = "an activation profile";

/// Section with the number of the layer of each group, where a layer has several or none.
pub(super) const GROUPS: Tag = *b"GRPS";

/// Section with what routers chose.
pub(super) const ROUTERS: Tag = *b"ROUT";

/// Section with how often each gate was above zero, where `up` has a mask of its own.
pub(super) const OPENED: Tag = *b"OPEN";

pub(super) fn is_one_per_layer(layer_of: &[u32]) -> bool {
    layer_of.iter().zip(0..).all(|(layer, i)| *layer == i)
}

fn read_layers(file: &mut SectionFile, n_groups: usize) -> Result<Vec<u32>> {
    let Some(bytes) = file.section(&GROUPS)? else { return Ok((0..n_groups as u32).collect()) };
    let layers: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    let fits = bytes.len() == 4 * n_groups && layers.is_sorted() && layers.iter().all(|layer| *layer < 1024);
    ensure!(fits, "section GRPS: wants {n_groups} numbers of layers below 1024 that never fall");
    Ok(layers)
}

pub(super) fn lacks(tag: &[u8; 4]) -> String {
    format!("lacks section {}", tag.escape_ascii())
}

/// Section `MODL`.
pub(super) struct Header {
    pub(super) fingerprint: Fingerprint,
    pub(super) arch: String,
    pub(super) name: String,
    pub(super) activation: String,
    pub(super) n_ff: Vec<usize>,
    pub(super) layer_of: Vec<u32>,
}

/// Which model a profile is of.
pub(super) fn header(file: &mut SectionFile) -> Result<Header> {
    let bytes = file.section(b"MODL")?.with_context(|| lacks(b"MODL"))?;
    let mut r = Reader { bytes: &bytes };
    let family = r.array()?;
    let n_samples = r.u32()?;
    let samples = r.take(u64::from(n_samples) * 4)?.as_chunks::<4>().0;
    let samples = samples.iter().map(|s| f32::from_le_bytes(*s)).collect();
    let (arch, name, activation) = (r.string()?, r.string()?, r.string()?);
    let n_groups = r.u32()?;
    let n_ff = (0..n_groups).map(|_| Ok(r.u32()? as usize)).collect::<Result<Vec<_>>>()?;
    r.end("MODL")?;
    let layer_of = read_layers(file, n_ff.len())?;
    Ok(Header { fingerprint: Fingerprint { family, samples }, arch, name, activation, n_ff, layer_of })
}
