//! `--synthetic`: a model of a known shape, written once and kept in a cache.

use crate::common::cache_folder;
use crate::common::terminal::{Again, press_again, tell};
use anyhow::{Context, Result, bail};
use clap::Args;
use powerinfer::executor::FfnStats;
use powerinfer::files::{free_space, remove_leftovers};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::progress::Progress;
use powerinfer::shapes;
use powerinfer::synthetic::{Layout, Spec, n_bytes, write};
use powerinfer::units::Bytes;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Relative error of the last layer's density that is worth a line.
const STRAYS: f64 = 0.3;
/// Header and padding, with room to spare.
const BESIDE_TENSORS: u64 = 16 << 20;

/// Of `--synthetic`.
fn help() -> String {
    let known = shapes::known(Spec::is_possible);
    format!(
        "Measure a model of this shape with random weights instead of a file: {known}. LAYERS changes the number of layers, TYPE \
         is that of the weights [q4_0], DENSITY the share of FFN neurons that fire, of those of chosen experts [0.1], and \
         POPULARITY says how unequally experts are chosen: as often as their rank to the power of minus POPULARITY [0.5]"
    )
}

/// Which synthetic model to measure, and where it is kept.
#[derive(Args)]
pub struct Synthetic {
    #[arg(long, value_name = "NAME[-LAYERS][:TYPE[:DENSITY[:POPULARITY]]]", conflicts_with_all = ["model", "hf_repo"], help = help())]
    synthetic: Option<Spec>,
    /// The same weights as a plain file, which llama.cpp opens too (but runs with SiLU what has architecture llama)
    #[arg(long, requires = "synthetic")]
    synthetic_plain: bool,
    /// Number of layers of the synthetic model [default: that of the shape]
    #[arg(long, value_name = "N", requires = "synthetic", value_parser = clap::value_parser!(u32).range(1..))]
    synthetic_layers: Option<u32>,
    /// Seed of the synthetic model's weights
    #[arg(long, value_name = "N", requires = "synthetic", default_value_t = 0)]
    synthetic_seed: u64,
    /// Folder where synthetic models are kept [default: powerinfer in the user's cache folder]
    #[arg(long, value_name = "DIR", requires = "synthetic")]
    cache_dir: Option<PathBuf>,
}

impl Synthetic {
    /// Whether there is to be a synthetic model.
    pub fn asked(&self) -> bool {
        self.synthetic.is_some()
    }

    /// The synthetic model's file, written now if it is not in the cache; `None` where none was asked for.
    pub fn file(&self, progress: &dyn Progress) -> Result<Option<PathBuf>> {
        let Some(spec) = self.synthetic else { return Ok(None) };
        let spec = Spec { seed: self.synthetic_seed, ..spec };
        let spec =
            self.synthetic_layers.map_or(Ok(spec), |n| spec.with_layers(n as usize)).context("--synthetic-layers")?;
        let layout = if self.synthetic_plain { Layout::Plain } else { Layout::Variant };
        let folder = self.cache_dir.clone().or_else(cache_folder);
        let folder = folder.context("there is no cache folder for this user; give one with --cache-dir")?;
        let path = folder.join(spec.file_name(layout));
        // Once the file is there, nobody else comes to do it.
        remove_leftovers(&path);
        if path.is_file() {
            let kept = Gguf::open(&path)?;
            if kept.metadata().str("general.name")? != Some(&spec.name()) {
                bail!("{}: is not the synthetic model that its name promises; remove it", path.display());
            }
            tell!("synthetic: {}: {} written earlier", path.display(), spec.name());
            return Ok(Some(path));
        }
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let size = n_bytes(&spec, layout)?;
        check_space(&folder, size + BESIDE_TENSORS)?;
        tell!("synthetic: {}: writing {} of {}", path.display(), Bytes(size), spec.name());
        let start = Instant::now();
        press_again(Again::Waits);
        write(&spec, layout, &path, progress)?;
        press_again(Again::Exits);
        tell!("synthetic: {}: written in {:.1} s", path.display(), start.elapsed().as_secs_f64());
        Ok(Some(path))
    }

    /// Says so where the last layer that has neurons does not fire as often as was asked for.
    pub fn tell_density(&self, stats: &FfnStats, model: &Model) {
        let Some(spec) = self.synthetic else { return };
        let Some(layer) = model.weights.layers.iter().rfind(|layer| !layer.groups.is_empty()) else { return };
        let groups = layer.first_group..layer.first_group + layer.groups.len();
        let Some(density) = stats.density_where_computed(groups) else { return };
        if (density / spec.density() - 1.0).abs() > STRAYS {
            let (is, asked) = (100.0 * density, 100.0 * spec.density());
            tell!("note: {is:.2} % of the last layer's neurons fired; {asked:.2} % were asked for");
        }
    }
}

fn check_space(folder: &Path, wanted: u64) -> Result<()> {
    let Some(free) = free_space(folder).filter(|free| *free < wanted) else { return Ok(()) };
    bail!(
        "{}: {} needed, but only {} free ({} short); choose a folder on another disk with --cache-dir",
        folder.display(),
        Bytes(wanted),
        Bytes(free),
        Bytes(wanted - free)
    )
}
