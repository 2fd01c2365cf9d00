//! How much each column of a matrix counts: the mean square of what it is multiplied with, measured or estimated.

use crate::files::open_regular;
use crate::gguf::{Gguf, TensorInfo};
use crate::profile::Profile;
use crate::profile::samples::Samples;
use crate::quant::{GgmlType, convert};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;

/// Columns of neurons that never fired count so much of the mean: other texts may make them fire.
const FLOOR: f32 = 0.01;
/// Ends of the names in an importance matrix of llama.cpp's.
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// How much columns count, by name of the matrix.
#[derive(Debug, Clone)]
pub struct Importance {
    /// The file it came from.
    name: String,
    /// `[n_cols]`, for all matrices of a stack alike, or `[n_matrices][n_cols]`.
    columns: HashMap<String, Vec<f32>>,
}

impl Importance {
    /// Reads a profile, or an importance matrix that llama-imatrix wrote as GGUF.
    ///
    /// # Errors
    /// When it is neither, or holds what cannot be.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let mut magic = Vec::new();
        let file = open_regular(path).with_context(|| name.clone())?;
        file.take(4).read_to_end(&mut magic).with_context(|| name.clone())?;
        let columns = if magic == b"GGUF" {
            of_llama_cpp(&Gguf::open(path)?)
        } else {
            of_profile(&Profile::read(path)?, Samples::read_if_any(path)?.as_ref())
        };
        Ok(Self { columns: columns.with_context(|| name.clone())?, name })
    }

    /// The file's name.
    pub fn file(&self) -> &str {
        &self.name
    }

    /// Number of matrices of which something is known.
    pub fn n_matrices(&self) -> usize {
        self.columns.len()
    }

    /// How much the columns of `tensor` count: `[n_cols]`, or that for each matrix of a stack.
    ///
    /// # Errors
    /// When what is known is of a matrix of another size.
    pub(super) fn of(&self, tensor: &TensorInfo) -> Result<Option<&[f32]>> {
        let Some(columns) = self.columns.get(&tensor.name) else { return Ok(None) };
        let n_cols = tensor.n_cols();
        let n_matrices: usize = tensor.dims.iter().skip(2).product();
        ensure!(
            [n_cols, n_cols * n_matrices].contains(&columns.len()),
            "{}: {} is of a matrix of {} columns; here it has {n_matrices} times {n_cols}",
            self.name,
            tensor.name,
            columns.len()
        );
        Ok(Some(columns))
    }
}

/// Sums of squares over counts, as llama.cpp's `llama-imatrix` writes them.
fn of_llama_cpp(gguf: &Gguf) -> Result<HashMap<String, Vec<f32>>> {
    let kind = gguf.metadata().str("general.type")?;
    ensure!(kind == Some("imatrix"), "is a GGUF file, but no importance matrix, whose general.type is \"imatrix\"");
    let mut columns = HashMap::new();
    for sums in gguf.tensors() {
        let Some(name) = sums.name.strip_suffix(SUMS) else { continue };
        let counts = gguf.tensor(&format!("{name}{COUNTS}")).with_context(|| format!("{name}: {COUNTS} is missing"))?;
        let (mut values, counts) = (floats(gguf, sums)?, floats(gguf, counts)?);
        let n_cols = sums.n_cols();
        ensure!(values.len() == n_cols * counts.len(), "{name}: there are not as many counts as matrices");
        for (values, count) in values.chunks_exact_mut(n_cols).zip(counts) {
            // A matrix that was never used: all columns count alike.
            values.iter_mut().for_each(|v| *v = if count > 0.0 { *v / count } else { 1.0 });
        }
        let bad = values.iter().position(|v| !(v.is_finite() && *v >= 0.0));
        if let Some(i) = bad {
            bail!("{name}: column {} counts {}", i % n_cols, values[i]);
        }
        columns.insert(name.to_owned(), values);
    }
    ensure!(!columns.is_empty(), "holds no {SUMS}");
    Ok(columns)
}

fn floats(gguf: &Gguf, tensor: &TensorInfo) -> Result<Vec<f32>> {
    ensure!(tensor.dtype == GgmlType::F32, "{}: is {}, not F32", tensor.name, tensor.dtype);
    let mut values = vec![0.0; tensor.n_rows() * tensor.n_cols()];
    convert::from_f32(gguf.data(tensor), &mut values);
    Ok(values)
}

/// What a profile tells. Of `ffn_down`, whose columns neurons are multiplied with: a neuron that fires for a share `r` of tokens and has
/// a mean magnitude `m` over all has a mean square of `m^2 / r`, times a factor that is the same for all whose magnitudes are distributed
/// alike. Of `ffn_gate` and `ffn_up`: the mean square of their inputs over sampled tokens, if there are any. Of others nothing.
fn of_profile(profile: &Profile, samples: Option<&Samples>) -> Result<HashMap<String, Vec<f32>>> {
    let mut columns: HashMap<String, Vec<f32>> = HashMap::new();
    let routed: HashSet<u32> = profile.routers.iter().map(|router| router.layer).collect();
    for (group, layer) in profile.layer_of.iter().enumerate() {
        if profile.router_of(group).is_some() {
            continue;
        }
        let part = if routed.contains(layer) { "ffn_down_shexp" } else { "ffn_down" };
        columns.insert(format!("blk.{layer}.{part}.weight"), mean_squares(profile, group));
    }
    for router in &profile.routers {
        let experts = router.groups.iter().flat_map(|group| mean_squares(profile, *group as usize)).collect();
        columns.insert(format!("blk.{}.ffn_down_exps.weight", router.layer), experts);
    }
    for layer in 0..samples.map_or(0, |samples| samples.x.len()) {
        let Some(samples) = samples else { continue };
        let n_embd = samples.n_embd();
        let mut squares = vec![0.0f32; n_embd];
        for token in samples.layer(layer).chunks_exact(n_embd.max(1)) {
            squares.iter_mut().zip(token).for_each(|(sum, x)| *sum += x * x);
        }
        let squares = scaled(squares);
        if squares.iter().any(|v| *v > 0.0) {
            for part in ["ffn_gate", "ffn_up", "ffn_gate_exps", "ffn_up_exps", "ffn_gate_shexp", "ffn_up_shexp"] {
                columns.insert(format!("blk.{layer}.{part}.weight"), squares.clone());
            }
        }
    }
    ensure!(!columns.is_empty(), "counts no neurons");
    Ok(columns)
}

fn mean_squares(profile: &Profile, group: usize) -> Vec<f32> {
    let squares = profile.mean_mass(group).into_iter().zip(profile.rates(group));
    scaled(squares.map(|(mass, rate)| if rate > 0.0 { mass * mass / rate } else { 0.0 }).collect())
}

/// Divided by their mean, and no less than [`FLOOR`] of it; only what columns of a matrix have in proportion to each other matters.
fn scaled(mut values: Vec<f32>) -> Vec<f32> {
    let mean = values.iter().sum::<f32>() / values.len().max(1) as f32;
    if mean > 0.0 && mean.is_finite() {
        values.iter_mut().for_each(|v| *v = (*v / mean).max(FLOOR));
    }
    values
}
