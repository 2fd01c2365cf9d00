//! The profile file. Laid out byte by byte in docs/formats.md.

use super::counts_file::{self, Packing};
use super::fingerprint::{Fingerprint, Kinship, hex};
use super::fired_sets::FiredSets;
use super::header::{
    GROUPS, Header, MAGIC, OPENED, ROUTERS, VERSION, VERSION_ROUTED, VERSIONS, WHAT, header, is_one_per_layer, lacks,
};
use super::reuse::ReuseCounts;
use super::routers::RouterCounts;
use super::samples::Samples;
use super::sections::{self, Reader, Section, SectionFile, Sink, Tag, put_string};
use super::tally::Tally;
use super::unions::{UNIONS, UnionCounts};
use super::{GroupCounts, MASS_ONE};
use crate::model::{NeuronId, Thresholds};
use crate::progress::{Progress, Silent};
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::path::Path;

/// A calibration text, or the part of it that was used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProfiledText {
    /// SHA-256 of the whole text.
    pub sha256: [u8; 32],
    /// Tokens that were counted.
    pub n_tokens: u64,
    /// Length of the windows it was cut into.
    pub n_ctx: u32,
}

/// Counts of one model over one or more texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The model they were made with.
    pub fingerprint: Fingerprint,
    /// `general.architecture` of the model.
    pub arch: String,
    /// `general.name` of the model.
    pub name: String,
    /// Activation that was applied.
    pub activation: String,
    /// The texts, sorted.
    pub texts: Vec<ProfiledText>,
    /// The counts, by number of the group of neurons.
    pub groups: Vec<GroupCounts>,
    /// Number of the layer that each group is in.
    pub layer_of: Vec<u32>,
    /// How soon neurons fire again, by group; files of version 1 do not say, and nothing is said of groups that a router
    /// chooses.
    pub reuse: Option<Vec<ReuseCounts>>,
    /// What routers chose, layer by layer, where there are any.
    pub routers: Vec<RouterCounts>,
    /// Which neurons fired for some of the tokens; files of version 1 do not say.
    pub fired_sets: Option<FiredSets>,
    /// How many neurons fire for any of a few consecutive tokens; files made before that was counted do not say.
    pub unions: Option<UnionCounts>,
    /// Below which activations neurons may be skipped, where that was searched for.
    pub thresholds: Option<Thresholds>,
}

impl Profile {
    /// Tokens counted over all texts.
    pub fn n_tokens(&self) -> u64 {
        self.texts.iter().map(|t| t.n_tokens).sum()
    }

    /// How many texts were counted, in words: `1 text`, `3 texts`.
    pub fn texts_in_words(&self) -> String {
        let n = self.texts.len();
        format!("{n} text{}", if n == 1 { "" } else { "s" })
    }

    /// The router that chooses a group, and its row there; `None` where it is computed for every token.
    pub fn router_of(&self, group: usize) -> Option<(&RouterCounts, usize)> {
        let router = self.routers.binary_search_by_key(&self.layer_of[group], |router| router.layer).ok()?;
        let router = &self.routers[router];
        Some((router, router.groups.binary_search(&(group as u32)).ok()?))
    }

    /// Tokens that a group was computed for: those for which its router chose it, or all.
    pub fn n_computed(&self, group: usize) -> u64 {
        self.router_of(group).map_or_else(
            || self.n_tokens(),
            |(router, row)| router.chosen.iter().fold(0, |sum, half| sum.saturating_add(half[row])),
        )
    }

    /// Number of neurons of each group, 0 for those that a router chooses.
    pub(super) fn sizes_computed_always(&self) -> Vec<usize> {
        let size =
            |(i, counts): (usize, &GroupCounts)| if self.router_of(i).is_some() { 0 } else { counts.fired.len() };
        self.groups.iter().enumerate().map(size).collect()
    }

    /// Firing rates of a group (0 to 1), by neuron: shares of all tokens, also where a router chooses the group for few of
    /// them.
    pub fn rates(&self, group: usize) -> Vec<f32> {
        let n = self.n_tokens().max(1) as f64;
        self.groups[group].fired.iter().map(|f| (f as f64 / n) as f32).collect()
    }

    /// Whether `up` has a mask of its own, so that gates above zero were counted apart from neurons that fire.
    pub fn has_two_masks(&self) -> bool {
        self.groups.iter().any(|group| !group.opened.is_empty())
    }

    /// Shares of tokens for which the gates of a group were above zero, by neuron; `None` where these are the firing rates.
    pub fn open_rates(&self, group: usize) -> Option<Vec<f32>> {
        let n = self.n_tokens().max(1) as f64;
        let opened = Some(&self.groups[group].opened).filter(|opened| !opened.is_empty());
        opened.map(|opened| opened.iter().map(|n_open| (n_open as f64 / n) as f32).collect())
    }

    /// Mean mass per token of a group, by neuron.
    pub fn mean_mass(&self, group: usize) -> Vec<f32> {
        let n = self.n_tokens().max(1) as f64 * MASS_ONE;
        self.groups[group].mass.iter().map(|m| (m as f64 / n) as f32).collect()
    }

    /// Neurons of each group.
    pub fn n_ff(&self) -> Vec<usize> {
        self.groups.iter().map(|l| l.fired.len()).collect()
    }

    /// For an error: how the neurons that it counts differ from those of groups of `n_ff`; nothing where they do not.
    pub fn unlike(&self, n_ff: &[usize]) -> String {
        let own = self.n_ff();
        if own == n_ff {
            return String::new();
        }
        let sizes = |n_ff: &[usize]| (n_ff.iter().sum::<usize>(), n_ff.len());
        let ((n, groups), (wanted, of)) = (sizes(&own), sizes(n_ff));
        format!(": it has {n} neurons in {groups} groups, such as experts, instead of {wanted} in {of}")
    }

    /// What tables call a group: the number of its layer, and where that has several, its number there.
    pub fn label(&self, group: usize) -> String {
        let layer = self.layer_of[group];
        let same = |of: &&u32| **of == layer;
        let before = self.layer_of[..group].iter().filter(same).count();
        match self.layer_of.iter().filter(same).count() {
            1 => layer.to_string(),
            _ => format!("{layer}.{before}"),
        }
    }

    /// The neurons of a group by falling firing count; ties by falling mass, then by rising id.
    pub fn order(&self, group: usize) -> Vec<NeuronId> {
        let counts = &self.groups[group];
        let keys = counts.fired.iter().zip(counts.mass.iter()).zip(0u32..);
        let mut order: Vec<_> = keys.map(|(count, id)| (std::cmp::Reverse(count), id)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, id)| NeuronId(id)).collect()
    }

    /// By sampled token, how many neurons of `order[n_hot..]` fired; sorted. Empty where the profile has no fired sets, and
    /// for groups that a router chooses.
    pub fn cold_histogram(&self, group: usize, order: &[NeuronId], n_hot: usize) -> Vec<u32> {
        let cold = order.get(n_hot..).unwrap_or_default();
        let sets = self.fired_sets.as_ref().filter(|_| self.router_of(group).is_none());
        sets.map_or_else(Vec::new, |sets| sets.histogram(&self.sizes_computed_always(), group, cold))
    }

    /// SHA-256 of the file's bytes without samples, in hex.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        self.emit(&mut |bytes| {
            hash.update(bytes);
            Ok(())
        });
        hex(&hash.finalize())
    }

    /// Adds the counts of `other`. The result does not depend on the order or grouping of merges.
    ///
    /// # Errors
    /// When it was made with other weights, another activation or another seed, or a count overflows.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        match self.fingerprint.kinship(&other.fingerprint) {
            Kinship::Same => {}
            Kinship::Sibling => bail!("was made with another quantization of the model; profile with one file"),
            Kinship::OtherWeights => bail!("was made with a model of other weights ({})", other.name),
            Kinship::OtherFamily => {
                bail!("was made with another model ({}, {}){}", other.name, other.arch, other.unlike(&self.n_ff()))
            }
        }
        ensure!(
            self.activation == other.activation,
            "was made with activation {}, the others with {}",
            other.activation,
            self.activation
        );
        ensure!(self.n_ff() == other.n_ff(), "has layers of other sizes");
        ensure!(self.layer_of == other.layer_of, "has its groups of neurons in other layers");
        ensure!(self.has_two_masks() == other.has_two_masks(), "counts gates where the others do not, or the reverse");
        let chooses = |profile: &Self| profile.routers.iter().map(|r| r.groups.clone()).collect::<Vec<_>>();
        ensure!(chooses(self) == chooses(other), "has routers in other layers, or of other experts");
        let total = self.n_tokens().checked_add(other.n_tokens());
        total.context("has more tokens than can be counted")?;
        for (a, b) in self.groups.iter_mut().zip(&other.groups) {
            a.add(b).context("has more activity than can be counted")?;
        }
        for (a, b) in self.routers.iter_mut().zip(&other.routers) {
            a.merge(b)?;
        }
        match (&mut self.reuse, &other.reuse) {
            (Some(ours), Some(theirs)) => ours.iter_mut().zip(theirs).try_for_each(|(a, b)| a.merge(b))?,
            // Of a part of the tokens only they would contradict the counts.
            _ => self.reuse = None,
        }
        let sizes = self.sizes_computed_always();
        match (&mut self.fired_sets, &other.fired_sets) {
            (Some(ours), Some(theirs)) => ours.merge(theirs, &sizes)?,
            _ => self.fired_sets = None,
        }
        match (&mut self.unions, &other.unions) {
            (Some(ours), Some(theirs)) => ours.merge(theirs)?,
            _ => self.unions = None,
        }
        match (&self.thresholds, &other.thresholds) {
            (Some(ours), Some(theirs)) => ensure!(ours == theirs, "has thresholds of another search"),
            (None, theirs) => self.thresholds.clone_from(theirs),
            (Some(_), None) => {}
        }
        self.texts.extend_from_slice(&other.texts);
        self.texts = coalesced(std::mem::take(&mut self.texts));
        if other.name < self.name {
            self.name.clone_from(&other.name);
        }
        Ok(())
    }

    /// Writes the file, whole or not at all, without samples.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        self.write_with(path, None, &Silent)
    }

    /// [`Profile::write`] with `samples`, where there are some.
    ///
    /// # Errors
    /// When it cannot be written, or the user stops waiting for the reader of a FIFO.
    pub fn write_with(&self, path: &Path, samples: Option<&Samples>, progress: &dyn Progress) -> Result<()> {
        sections::write(path, MAGIC, self.version(), &self.sections(samples), progress)
    }

    fn version(&self) -> u32 {
        if self.routers.is_empty() { VERSION } else { VERSION_ROUTED }
    }

    /// Reads and checks a file. Samples in it are left alone; [`Samples::read`] reads them.
    ///
    /// # Errors
    /// One line that names the file and what is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let read = || Self::from_sections(&mut SectionFile::open(path, MAGIC, &VERSIONS, WHAT)?);
        read().with_context(|| path.display().to_string())
    }

    /// The file's bytes, without samples.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.emit(&mut |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        });
        out
    }

    /// Passes the file without samples to what takes everything.
    fn emit(&self, sink: &mut Sink) {
        let told = sections::emit(MAGIC, self.version(), &self.sections(None), sink);
        debug_assert!(told.is_ok(), "memory takes everything");
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// When they are no profile, cut short, damaged, or contradict themselves.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::from_sections(&mut SectionFile::from_bytes(bytes, MAGIC, &VERSIONS, WHAT)?)
    }

    fn sections<'a>(&'a self, samples: Option<&'a Samples>) -> Vec<Section<'a>> {
        let mut model = Vec::new();
        model.extend(self.fingerprint.family);
        model.extend((self.fingerprint.samples.len() as u32).to_le_bytes());
        self.fingerprint.samples.iter().for_each(|s| model.extend(s.to_le_bytes()));
        for text in [&self.arch, &self.name, &self.activation] {
            put_string(&mut model, text);
        }
        model.extend((self.groups.len() as u32).to_le_bytes());
        self.groups.iter().for_each(|l| model.extend((l.fired.len() as u32).to_le_bytes()));

        let mut texts = Vec::new();
        texts.extend((self.texts.len() as u32).to_le_bytes());
        for text in &self.texts {
            texts.extend(text.sha256);
            texts.extend(text.n_tokens.to_le_bytes());
            texts.extend(text.n_ctx.to_le_bytes());
        }
        let packing = if self.routers.is_empty() { Packing::Words } else { Packing::Fewest };
        let mut first: Vec<_> = [(*b"MODL", model), (*b"TEXT", texts)].into_iter().collect();
        if !self.routers.is_empty() {
            let mut bytes = Vec::new();
            RouterCounts::put(&self.routers, &mut bytes);
            first.push((ROUTERS, bytes));
        }
        let mut counts = vec![
            counts_file::section(*b"FIRE", &self.groups, |g| &g.fired, packing),
            counts_file::section(*b"MASS", &self.groups, |g| &g.mass, packing),
        ];
        if self.has_two_masks() {
            counts.push(counts_file::section(OPENED, &self.groups, |g| &g.opened, packing));
        }
        let mut sections = Vec::new();
        if let Some(reuse) = &self.reuse {
            let mut bytes = Vec::new();
            let always = reuse.iter().enumerate().filter(|(i, _)| self.router_of(*i).is_none());
            ReuseCounts::put(always.map(|(_, counts)| counts), &mut bytes);
            sections.push((*b"LRUD", bytes));
        }
        if let Some(sets) = &self.fired_sets {
            let mut bytes = Vec::new();
            sets.put(&mut bytes);
            sections.push((*b"FSET", bytes));
        }
        if let Some(unions) = &self.unions {
            let mut bytes = Vec::new();
            unions.put(&mut bytes);
            sections.push((UNIONS, bytes));
        }
        if let Some(thresholds) = &self.thresholds {
            sections.push((*b"THRS", thresholds.by_group().iter().flat_map(|t| t.to_le_bytes()).collect()));
        }
        if !is_one_per_layer(&self.layer_of) {
            sections.push((GROUPS, self.layer_of.iter().flat_map(|layer| layer.to_le_bytes()).collect()));
        }
        let of_bytes = |(tag, bytes)| Section::of_bytes(tag, bytes);
        let first = first.into_iter().map(of_bytes);
        first.chain(counts).chain(sections.into_iter().map(of_bytes)).chain(samples.map(Samples::section)).collect()
    }

    fn from_sections(file: &mut SectionFile) -> Result<Self> {
        file.refuse_unknown(&[
            b"MODL", b"TEXT", b"FIRE", b"MASS", b"LRUD", b"FSET", b"THRS", &GROUPS, &OPENED, &ROUTERS,
        ])?;
        let Header { fingerprint, arch, name, activation, n_ff, layer_of } = header(file)?;
        let texts = read_texts(&file.section(b"TEXT")?.with_context(|| lacks(b"TEXT"))?)?;
        let routers = file.section(&ROUTERS)?;
        let routed = file.version == VERSION_ROUTED;
        ensure!(routers.is_some() == routed, "version {VERSION_ROUTED} and section ROUT belong together");
        let routers = routers.map_or_else(|| Ok(Vec::new()), |bytes| RouterCounts::read(&bytes, &layer_of))?;
        let groups = read_counts(file, &n_ff, if routers.is_empty() { Packing::Words } else { Packing::Fewest })?;
        let n_tokens = texts.iter().try_fold(0u64, |n, t| n.checked_add(t.n_tokens));
        n_tokens.filter(|n| *n > 0).context("counts no tokens, or too many")?;
        let (reuse, fired_sets, unions, thresholds) = (None, None, None, None);
        let mut profile = Self {
            fingerprint,
            arch,
            name,
            activation,
            texts,
            groups,
            layer_of,
            reuse,
            routers,
            fired_sets,
            unions,
            thresholds,
        };
        profile.check_counts()?;
        let always: Vec<usize> = (0..n_ff.len()).filter(|group| profile.router_of(*group).is_none()).collect();
        if let Some(bytes) = file.section(b"LRUD")? {
            let mut all = vec![ReuseCounts::default(); n_ff.len()];
            for (group, reuse) in always.iter().zip(ReuseCounts::read(&bytes, always.len())?) {
                let (fired, total) = (profile.groups[*group].fired.sum(), reuse.total());
                ensure!(total == fired, "group {group} of neurons fired {fired} times, but reuse is of {total}");
                all[*group] = reuse;
            }
            profile.reuse = Some(all);
        }
        let sizes = profile.sizes_computed_always();
        profile.fired_sets = file.section(b"FSET")?.map(|bytes| FiredSets::read(&bytes, &sizes)).transpose()?;
        profile.unions = file.section(&UNIONS)?.map(|bytes| profile.read_unions(&bytes)).transpose()?;
        profile.thresholds = file.section(b"THRS")?.map(|bytes| read_thresholds(&bytes, n_ff.len())).transpose()?;
        Ok(profile)
    }

    fn read_unions(&self, bytes: &[u8]) -> Result<UnionCounts> {
        let unions = UnionCounts::read(bytes, self.groups.len(), self.routers.len())?;
        let fired: Vec<_> = self.groups.iter().map(|group| (group.fired.len(), group.fired.sum())).collect();
        let chosen: Vec<_> = self.routers.iter().map(|router| (router.groups.len(), router.total())).collect();
        unions.check(self.n_tokens(), &fired, &chosen)?;
        Ok(unions)
    }

    /// Refuses counts that contradict each other.
    fn check_counts(&self) -> Result<()> {
        let n_tokens = self.n_tokens();
        for (i, group) in self.groups.iter().enumerate() {
            let n = self.n_computed(i);
            ensure!(n <= n_tokens, "group {i} of neurons was chosen more often than there are tokens");
            let possible = group.fired.iter().all(|fired| fired <= n);
            ensure!(possible, "a neuron fired more often than there are tokens");
            let mut gates = group.opened.iter().zip(group.fired.iter());
            ensure!(
                gates.all(|(opened, fired)| fired <= opened && opened <= n),
                "a neuron fired more often than its gate was above zero, or that more often than there are tokens"
            );
        }
        Ok(())
    }
}

/// Sorted, and entries of the same text and windows added up: so the parts of a run make the whole one's list.
pub(super) fn coalesced(mut texts: Vec<ProfiledText>) -> Vec<ProfiledText> {
    texts.sort_by_key(|t| (t.sha256, t.n_ctx));
    texts.dedup_by(|later, kept| {
        let same = (later.sha256, later.n_ctx) == (kept.sha256, kept.n_ctx);
        if same {
            // The sum of all texts has been checked, or comes from tokens in memory.
            kept.n_tokens = kept.n_tokens.saturating_add(later.n_tokens);
        }
        same
    });
    texts.sort();
    texts
}

fn read_texts(bytes: &[u8]) -> Result<Vec<ProfiledText>> {
    let mut r = Reader { bytes };
    let mut texts = Vec::new();
    for _ in 0..r.u32()? {
        texts.push(ProfiledText { sha256: r.array()?, n_tokens: r.u64()?, n_ctx: r.u32()? });
    }
    ensure!(texts.is_sorted(), "its texts are not sorted");
    r.end("TEXT")?;
    Ok(texts)
}

fn read_thresholds(bytes: &[u8], n_groups: usize) -> Result<Thresholds> {
    let (values, rest) = bytes.as_chunks::<4>();
    ensure!(rest.is_empty(), "section THRS: is cut short");
    Thresholds::new(values.iter().map(|b| f32::from_le_bytes(*b)).collect(), n_groups).context("section THRS")
}

/// Sections `FIRE`, `MASS` and, where `up` has a mask of its own, `OPEN`.
pub(super) fn read_counts(file: &mut SectionFile, n_ff: &[usize], packing: Packing) -> Result<Vec<GroupCounts>> {
    let mut required = |tag: &Tag| counts_file::read(file, tag, n_ff, packing)?.with_context(|| lacks(tag));
    let (fired, mass) = (required(b"FIRE")?, required(b"MASS")?);
    let opened = counts_file::read(file, &OPENED, n_ff, packing)?;
    let opened = opened.into_iter().flatten().chain(std::iter::repeat_with(|| Tally::new(0)));
    let all = fired.into_iter().zip(mass).zip(opened);
    Ok(all.map(|((fired, mass), opened)| GroupCounts { fired, mass, opened }).collect())
}

#[cfg(test)]
mod tests;
