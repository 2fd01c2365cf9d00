//! What a job has done so far, in a file from which it can resume.

use super::counter::{Counts, Gathered, MAX_MASS, sizes_computed_always};
use super::counts_file::{self, Packing};
use super::file::read_counts;
use super::fired_sets::token_bytes;
use super::header::{OPENED, ROUTERS};
use super::reuse::ReuseCounts;
use super::routers::RouterCounts;
use super::samples::{Samples, put_halves};
use super::sections::{self, Reader, Section, SectionFile, Sink, Tag, put_string};
use super::setup::{Setup, State};
use super::unions::{UNIONS, UnionCounts};
use super::{GroupCounts, MASS_ONE};
use crate::files::remove_leftovers;
use crate::progress::Silent;
use anyhow::{Context, Result, bail, ensure};
use half::f16;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) const MAGIC: &[u8; 8] = b"PWRPART\n";
const VERSION: u32 = 4;
const WHAT: &str = "a checkpoint of powerinfer-profile";
/// Checkpoints take at most one part in this many of the time; samples can make them a gigabyte each.
const RARELY: u32 = 20;

/// When and where a job is saved.
pub struct Checkpoint {
    path: PathBuf,
    every: Duration,
    last: Instant,
    pause: Duration,
    /// Whether windows have been finished since the last one.
    stale: bool,
}

impl Checkpoint {
    /// To the file at `path`, at most once per `every`; zero means after each window.
    pub fn new(path: &Path, every: Duration) -> Self {
        Self { path: path.to_owned(), every, last: Instant::now(), pause: every, stale: false }
    }

    /// Notes that a window was finished; writes the file if it is time.
    pub(super) fn finished(&mut self, setup: &Setup, state: &State) -> Result<()> {
        self.stale = true;
        if self.last.elapsed() >= self.pause { self.write(setup, state) } else { Ok(()) }
    }

    /// Writes the file if it would say anything new.
    pub(super) fn write(&mut self, setup: &Setup, state: &State) -> Result<()> {
        if !self.stale {
            return Ok(());
        }
        let begun = Instant::now();
        write(&self.path, setup, state)?;
        self.pause = if self.every.is_zero() { self.every } else { self.every.max(begun.elapsed() * RARELY) };
        self.last = Instant::now();
        self.stale = false;
        Ok(())
    }
}

fn write(path: &Path, setup: &Setup, state: &State) -> Result<()> {
    let State { gathered, done } = state;
    let mut about = Vec::new();
    about.extend((setup.about.len() as u32).to_le_bytes());
    setup.about.iter().flat_map(|(name, value)| [name, value]).for_each(|text| put_string(&mut about, text));
    let done_bytes = done.iter().map(|d| u8::from(*d)).collect();
    let counts = &gathered.counts;
    let (mut reuse, mut routers, mut unions) = (Vec::new(), Vec::new(), Vec::new());
    counts.unions.put(&mut unions);
    ReuseCounts::put(counts.reuse.iter(), &mut reuse);
    RouterCounts::put(&counts.routers, &mut routers);
    let (sets, samples) = (setup.filled(done, |m| &m.fired_sets), setup.filled(done, |m| &m.samples));
    let width = token_bytes(&sizes_computed_always(setup.model));
    let bits = sets.iter().flat_map(|i| &gathered.fired_sets.bits[i * width..(i + 1) * width]);
    let bits = bits.copied().collect();
    let parts: [(Tag, Vec<u8>); 6] = [
        (*b"JOBD", about),
        (*b"DONE", done_bytes),
        (ROUTERS, routers),
        (*b"LRUD", reuse),
        (*b"FSET", bits),
        (UNIONS, unions),
    ];
    let mut list: Vec<_> = parts.into_iter().map(|(tag, bytes)| Section::of_bytes(tag, bytes)).collect();
    list.push(counts_file::section(*b"FIRE", &counts.groups, |g| &g.fired, Packing::Fewest));
    list.push(counts_file::section(*b"MASS", &counts.groups, |g| &g.mass, Packing::Fewest));
    if setup.model.has_two_masks() {
        list.push(counts_file::section(OPENED, &counts.groups, |g| &g.opened, Packing::Fewest));
    }
    if let Some(held) = &gathered.samples {
        let emit = move |sink: &mut Sink| -> Result<()> {
            let n_embd = setup.model.config.n_embd;
            let rows = samples.iter().flat_map(|i| held.x.iter().map(move |x| &x[i * n_embd..(i + 1) * n_embd]));
            rows.into_iter().try_for_each(|row| put_halves(row, sink))
        };
        list.push(Section { tag: *b"SAMP", emit: Box::new(emit) });
    }
    sections::write(path, MAGIC, VERSION, &list, &Silent)
}

/// Reads what the file at `path` says about this job: which windows are done, and their results. `None` if there is no
/// file.
pub(super) fn read(path: &Path, setup: &Setup, gathered: &mut Gathered) -> Result<Option<Vec<bool>>> {
    // Left behind by a run that was killed while writing.
    remove_leftovers(path);
    if !path.exists() {
        return Ok(None);
    }
    let shown = path.display();
    let file = SectionFile::open(path, MAGIC, &[VERSION], WHAT);
    let mut file = file.with_context(|| format!("{shown}: cannot be resumed; delete it to start over"))?;
    same_job(&mut file, setup).with_context(|| shown.to_string())?;
    let done = read_into(&mut file, setup, gathered);
    done.map(Some).with_context(|| format!("{shown}: cannot be resumed; delete it to start over"))
}

fn required(file: &mut SectionFile, tag: &Tag) -> Result<Vec<u8>> {
    file.section(tag)?.with_context(|| format!("lacks section {}", tag.escape_ascii()))
}

fn same_job(file: &mut SectionFile, setup: &Setup) -> Result<()> {
    const HELP: &str = "give the arguments it was made with to resume, or delete it to start over";
    let bytes = required(file, b"JOBD")?;
    let mut r = Reader { bytes: &bytes };
    let mut theirs = Vec::new();
    for _ in 0..r.u32()? {
        theirs.push((r.string()?, r.string()?));
    }
    for ((name, ours), other) in setup.about.iter().zip(theirs.iter().map(Some).chain(std::iter::repeat(None))) {
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

fn read_into(file: &mut SectionFile, setup: &Setup, gathered: &mut Gathered) -> Result<Vec<bool>> {
    let n_ff = &*setup.model.weights.group_sizes();
    let done = required(file, b"DONE")?;
    ensure!(
        done.len() == setup.windows.len() && done.iter().all(|d| *d < 2),
        "its list of windows is not that of this run"
    );
    let done: Vec<bool> = done.iter().map(|d| *d == 1).collect();
    let groups = read_counts(file, n_ff, Packing::Fewest)?;
    let gates = groups.iter().any(|g| !g.opened.is_empty());
    ensure!(gates == setup.model.has_two_masks() || n_ff.is_empty(), "it counts gates, or does not, unlike this run");
    let layer_of: Vec<u32> = setup.model.weights.groups().map(|(layer, _)| layer as u32).collect();
    let routers = RouterCounts::read(&required(file, &ROUTERS)?, &layer_of)?;
    let chooses = |all: &[RouterCounts]| all.iter().map(|r| r.groups.clone()).collect::<Vec<_>>();
    ensure!(chooses(&routers) == chooses(&gathered.counts.routers), "its routers are not those of this run");
    let reuse = ReuseCounts::read(&required(file, b"LRUD")?, n_ff.len())?;
    let unions = UnionCounts::read(&required(file, &UNIONS)?, n_ff.len(), routers.len())?;
    let n_tokens: u64 = setup.windows.iter().zip(&done).filter(|(_, d)| **d).map(|(w, _)| w.n_counted()).sum();
    let most = (MAX_MASS * MASS_ONE) as u64;
    // Sums that continue from these then stay within their type.
    let possible = |l: &GroupCounts| {
        let mut pairs = l.fired.iter().zip(l.mass.iter());
        let mut gates = l.opened.iter().zip(l.fired.iter());
        pairs.all(|(fired, mass)| fired <= n_tokens && mass <= fired.saturating_mul(most))
            && gates.all(|(opened, fired)| fired <= opened && opened <= n_tokens)
    };
    let always = sizes_computed_always(setup.model);
    let mut sums = groups.iter().zip(&reuse).zip(&always).filter(|(_, n)| **n > 0);
    let sums = sums.all(|((l, r), _)| l.fired.sum() == r.total())
        && routers.iter().all(|r| r.n_chosen().iter().all(|n| *n <= n_tokens));
    ensure!(groups.iter().all(possible) && sums, "its counts are impossible");
    let fired: Vec<_> = groups.iter().map(|group| (group.fired.len(), group.fired.sum())).collect();
    let chosen: Vec<_> = routers.iter().map(|router| (router.groups.len(), router.total())).collect();
    unions.check(n_tokens, &fired, &chosen)?;
    let width = token_bytes(&always);
    let mut bits = required(file, b"FSET")?;
    let sets = setup.filled(&done, |m| &m.fired_sets);
    ensure!(bits.len() == sets.len() * width, "its fired sets are not those of this run");
    for place in sets.into_iter().rev() {
        let row = bits.split_off(bits.len() - width);
        gathered.fired_sets.bits[place * width..(place + 1) * width].copy_from_slice(&row);
    }
    if let Some(samples) = &mut gathered.samples {
        read_samples(file, &setup.filled(&done, |m| &m.samples), setup.model.config.n_embd, samples)?;
    }
    gathered.counts = Counts { groups, reuse, routers, unions };
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
