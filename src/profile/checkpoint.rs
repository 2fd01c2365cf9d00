//! What a job has done so far, in a file from which it can go on.

use super::collect::{State, Task};
use super::counter::{Counts, Gathered, MAX_MASS};
use super::file::{put_counts, read_counts};
use super::fired_sets::token_bytes;
use super::reuse::ReuseCounts;
use super::samples::{Samples, put_halves};
use super::sections::{self, Reader, Section, SectionFile, Sink, Tag, put_string};
use super::{LayerCounts, MASS_ONE};
use crate::files::remove_leftovers;
use anyhow::{Context, Result, bail, ensure};
use half::f16;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MAGIC: &[u8; 8] = b"PWRPART\n";
const VERSION: u32 = 2;
const WHAT: &str = "a checkpoint of powerinfer-profile";
/// Of the time, a checkpoint takes at most one part in so many; samples can make it a gigabyte.
const RARELY: u32 = 20;

/// When and where a job is written down.
pub struct Checkpoint {
    path: PathBuf,
    every: Duration,
    last: Instant,
    pause: Duration,
    /// Whether windows were finished since the last one.
    stale: bool,
}

impl Checkpoint {
    /// Into the file at `path`, at most as often as `every`; zero for after every window.
    pub fn new(path: &Path, every: Duration) -> Self {
        Self { path: path.to_owned(), every, last: Instant::now(), pause: every, stale: false }
    }

    /// A window was finished; writes the file if it is time.
    pub(super) fn finished(&mut self, task: &Task, state: &State) -> Result<()> {
        self.stale = true;
        if self.last.elapsed() >= self.pause { self.write(task, state) } else { Ok(()) }
    }

    /// Writes the file, if it would say anything new.
    pub(super) fn write(&mut self, task: &Task, state: &State) -> Result<()> {
        if !self.stale {
            return Ok(());
        }
        let begun = Instant::now();
        write(&self.path, task, state)?;
        self.pause = if self.every.is_zero() { self.every } else { self.every.max(begun.elapsed() * RARELY) };
        self.last = Instant::now();
        self.stale = false;
        Ok(())
    }
}

fn write(path: &Path, task: &Task, state: &State) -> Result<()> {
    let State { gathered, done } = state;
    let mut about = Vec::new();
    about.extend((task.about.len() as u32).to_le_bytes());
    task.about.iter().flat_map(|(name, value)| [name, value]).for_each(|text| put_string(&mut about, text));
    let done_bytes = done.iter().map(|d| u8::from(*d)).collect();
    let counts = &gathered.counts;
    let [fired, mass] = put_counts(&counts.layers);
    let mut reuse = Vec::new();
    ReuseCounts::put(&counts.reuse, &mut reuse);
    let signs = [counts.n_values, counts.n_negative].iter().flat_map(|n| n.to_le_bytes()).collect();
    let (sets, samples) = (task.filled(done, |m| &m.fired_sets), task.filled(done, |m| &m.samples));
    let width = token_bytes(&task.model.config.n_ff);
    let bits = sets.iter().flat_map(|i| &gathered.fired_sets.bits[i * width..(i + 1) * width]);
    let bits = bits.copied().collect();
    let parts: [(Tag, Vec<u8>); 7] = [
        (*b"JOBD", about),
        (*b"DONE", done_bytes),
        (*b"FIRE", fired),
        (*b"MASS", mass),
        (*b"LRUD", reuse),
        (*b"SIGN", signs),
        (*b"FSET", bits),
    ];
    let mut list: Vec<_> = parts.into_iter().map(|(tag, bytes)| Section::of_bytes(tag, bytes)).collect();
    if let Some(held) = &gathered.samples {
        let emit = move |sink: &mut Sink| -> Result<()> {
            let n_embd = task.model.config.n_embd;
            let rows = samples.iter().flat_map(|i| held.x.iter().map(move |x| &x[i * n_embd..(i + 1) * n_embd]));
            rows.into_iter().try_for_each(|row| put_halves(row, sink))
        };
        list.push(Section { tag: *b"SAMP", emit: Box::new(emit) });
    }
    sections::write(path, MAGIC, VERSION, &list)
}

/// Takes up what the file at `path` says of this job: which windows are done, and what they gave. `None` where there
/// is no file.
pub(super) fn read(path: &Path, task: &Task, gathered: &mut Gathered) -> Result<Option<Vec<bool>>> {
    // A run that was killed while it wrote leaves these.
    remove_leftovers(path);
    if !path.exists() {
        return Ok(None);
    }
    let shown = path.display();
    let file = SectionFile::open(path, MAGIC, &[VERSION], WHAT);
    let mut file = file.with_context(|| format!("{shown}: cannot be resumed; delete it to start over"))?;
    same_job(&mut file, task).with_context(|| shown.to_string())?;
    let done = read_into(&mut file, task, gathered);
    done.map(Some).with_context(|| format!("{shown}: cannot be resumed; delete it to start over"))
}

fn required(file: &mut SectionFile, tag: &Tag) -> Result<Vec<u8>> {
    file.section(tag)?.with_context(|| format!("lacks section {}", tag.escape_ascii()))
}

fn same_job(file: &mut SectionFile, task: &Task) -> Result<()> {
    const HELP: &str = "give the arguments it was made with to resume, or delete it to start over";
    let bytes = required(file, b"JOBD")?;
    let mut r = Reader { bytes: &bytes };
    let mut theirs = Vec::new();
    for _ in 0..r.u32()? {
        theirs.push((r.string()?, r.string()?));
    }
    for ((name, ours), other) in task.about.iter().zip(theirs.iter().map(Some).chain(std::iter::repeat(None))) {
        match other {
            Some((n, value)) if n == name && value == ours => {}
            Some((n, value)) if n == name && name.starts_with('-') => {
                bail!("is the checkpoint of a different run ({name} {value}, here {ours}); {HELP}")
            }
            _ => bail!("is the checkpoint of a different run (its {name} differs); {HELP}"),
        }
    }
    r.end("JOBD")
}

fn read_into(file: &mut SectionFile, task: &Task, gathered: &mut Gathered) -> Result<Vec<bool>> {
    let n_ff = &task.model.config.n_ff;
    let done = required(file, b"DONE")?;
    ensure!(
        done.len() == task.windows.len() && done.iter().all(|d| *d < 2),
        "its list of windows is not that of this run"
    );
    let done: Vec<bool> = done.iter().map(|d| *d == 1).collect();
    let layers = read_counts(&required(file, b"FIRE")?, &required(file, b"MASS")?, n_ff)?;
    let reuse = ReuseCounts::read(&required(file, b"LRUD")?, n_ff.len())?;
    let signs = required(file, b"SIGN")?;
    let mut r = Reader { bytes: &signs };
    let (n_values, n_negative) = (r.u64()?, r.u64()?);
    r.end("SIGN")?;
    let n_tokens: u64 = task.windows.iter().zip(&done).filter(|(_, d)| **d).map(|(w, _)| w.n_counted()).sum();
    let most = (MAX_MASS * MASS_ONE) as u64;
    // Sums that go on from these then stay in their type.
    let possible = |l: &LayerCounts| {
        let pairs = l.fired.iter().zip(&l.mass);
        pairs.into_iter().all(|(fired, mass)| *fired <= n_tokens && *mass <= fired.saturating_mul(most))
    };
    let sums = layers.iter().zip(&reuse).all(|(l, r)| l.fired.iter().sum::<u64>() == r.total());
    let values = n_ff.iter().fold(0u64, |sum, n| sum.saturating_add(n_tokens.saturating_mul(*n as u64)));
    ensure!(layers.iter().all(possible) && sums, "its counts are impossible");
    ensure!(n_values == values && n_negative <= n_values, "its counts are impossible");
    let width = token_bytes(n_ff);
    let mut bits = required(file, b"FSET")?;
    let sets = task.filled(&done, |m| &m.fired_sets);
    ensure!(bits.len() == sets.len() * width, "its fired sets are not those of this run");
    for place in sets.into_iter().rev() {
        let row = bits.split_off(bits.len() - width);
        gathered.fired_sets.bits[place * width..(place + 1) * width].copy_from_slice(&row);
    }
    if let Some(samples) = &mut gathered.samples {
        read_samples(file, &task.filled(&done, |m| &m.samples), task.model.config.n_embd, samples)?;
    }
    gathered.counts = Counts { layers, reuse, n_values, n_negative };
    Ok(done)
}

/// Section `SAMP`: by token, by layer, a row. Read in pieces, since it can be as large as the samples.
fn read_samples(file: &mut SectionFile, places: &[usize], n_embd: usize, samples: &mut Samples) -> Result<()> {
    let n_layer = samples.x.len();
    let (mut pending, mut row) = (Vec::new(), 0);
    let there = file.stream(b"SAMP", &mut |bytes| {
        pending.extend_from_slice(bytes);
        let whole = pending.len() / (2 * n_embd);
        for (i, values) in pending.chunks_exact(2 * n_embd).enumerate() {
            let place = places.get((row + i) / n_layer).context("it has too many samples")?;
            let to = &mut samples.x[(row + i) % n_layer][place * n_embd..(place + 1) * n_embd];
            to.iter_mut().zip(values.as_chunks::<2>().0).for_each(|(to, pair)| *to = f16::from_le_bytes(*pair));
        }
        row += whole;
        pending.drain(..whole * 2 * n_embd);
        Ok(())
    })?;
    ensure!(there && pending.is_empty() && row == places.len() * n_layer, "its samples are not those of this run");
    Ok(())
}
