//! The profile file. Laid out byte by byte in docs/formats.md.

use super::fingerprint::{Fingerprint, Kinship, hex};
use super::fired_sets::FiredSets;
use super::header::{GROUPS, Header, MAGIC, OPENED, VERSION, VERSIONS, WHAT, header, is_one_per_layer, lacks};
use super::reuse::ReuseCounts;
use super::samples::Samples;
use super::sections::{self, Reader, Section, SectionFile, put_string, put_u64s};
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
    /// How soon neurons fire again, by group; files of version 1 do not say.
    pub reuse: Option<Vec<ReuseCounts>>,
    /// Which neurons fired for some of the tokens; files of version 1 do not say.
    pub fired_sets: Option<FiredSets>,
    /// Below which activations neurons may be skipped, where that was searched for.
    pub thresholds: Option<Thresholds>,
}

impl Profile {
    /// Tokens counted over all texts.
    pub fn n_tokens(&self) -> u64 {
        self.texts.iter().map(|t| t.n_tokens).sum()
    }

    /// Firing rates of a group (0 to 1), by neuron.
    pub fn rates(&self, group: usize) -> Vec<f32> {
        let n = self.n_tokens().max(1) as f64;
        self.groups[group].fired.iter().map(|f| (*f as f64 / n) as f32).collect()
    }

    /// Whether `up` has a mask of its own, so that gates above zero were counted apart from neurons that fire.
    pub fn has_two_masks(&self) -> bool {
        self.groups.iter().any(|group| !group.opened.is_empty())
    }

    /// Shares of tokens for which the gates of a group were above zero, by neuron; `None` where these are the firing rates.
    pub fn open_rates(&self, group: usize) -> Option<Vec<f32>> {
        let n = self.n_tokens().max(1) as f64;
        let opened = Some(&self.groups[group].opened).filter(|opened| !opened.is_empty());
        opened.map(|opened| opened.iter().map(|n_open| (*n_open as f64 / n) as f32).collect())
    }

    /// Mean mass per token of a group, by neuron.
    pub fn mean_mass(&self, group: usize) -> Vec<f32> {
        let n = self.n_tokens().max(1) as f64 * MASS_ONE;
        self.groups[group].mass.iter().map(|m| (*m as f64 / n) as f32).collect()
    }

    /// Neurons of each group.
    pub fn n_ff(&self) -> Vec<usize> {
        self.groups.iter().map(|l| l.fired.len()).collect()
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
        let mut order: Vec<usize> = (0..counts.fired.len()).collect();
        order.sort_by_key(|i| (std::cmp::Reverse((counts.fired[*i], counts.mass[*i])), *i));
        order.into_iter().map(|i| NeuronId(i as u32)).collect()
    }

    /// By sampled token, how many neurons of `order[n_hot..]` fired; sorted. Empty where the profile has no fired sets.
    pub fn cold_histogram(&self, group: usize, order: &[NeuronId], n_hot: usize) -> Vec<u32> {
        let cold = order.get(n_hot..).unwrap_or_default();
        self.fired_sets.as_ref().map_or_else(Vec::new, |sets| sets.histogram(&self.n_ff(), group, cold))
    }

    /// SHA-256 of the file's bytes without samples, in hex.
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(self.to_bytes()))
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
            Kinship::OtherFamily => bail!("was made with another model ({}, {})", other.name, other.arch),
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
        let total = self.n_tokens().checked_add(other.n_tokens());
        total.context("has more tokens than can be counted")?;
        for (a, b) in self.groups.iter_mut().zip(&other.groups) {
            for (a, b) in [(&mut a.fired, &b.fired), (&mut a.mass, &b.mass), (&mut a.opened, &b.opened)] {
                for (a, b) in a.iter_mut().zip(b) {
                    *a = a.checked_add(*b).context("has more activity than can be counted")?;
                }
            }
        }
        match (&mut self.reuse, &other.reuse) {
            (Some(ours), Some(theirs)) => ours.iter_mut().zip(theirs).try_for_each(|(a, b)| a.merge(b))?,
            // Of a part of the tokens only they would contradict the counts.
            _ => self.reuse = None,
        }
        let n_ff = self.n_ff();
        match (&mut self.fired_sets, &other.fired_sets) {
            (Some(ours), Some(theirs)) => ours.merge(theirs, &n_ff)?,
            _ => self.fired_sets = None,
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
        sections::write(path, MAGIC, VERSION, &self.sections(samples), progress)
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
        let mut append = |bytes: &[u8]| {
            out.extend_from_slice(bytes);
            Ok(())
        };
        let told = sections::emit(MAGIC, VERSION, &self.sections(None), &mut append);
        debug_assert!(told.is_ok(), "memory takes everything");
        out
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
        let [fired, mass, opened] = put_counts(&self.groups);
        let mut sections = vec![(*b"MODL", model), (*b"TEXT", texts), (*b"FIRE", fired), (*b"MASS", mass)];
        if self.has_two_masks() {
            sections.push((OPENED, opened));
        }
        if let Some(reuse) = &self.reuse {
            let mut bytes = Vec::new();
            ReuseCounts::put(reuse, &mut bytes);
            sections.push((*b"LRUD", bytes));
        }
        if let Some(sets) = &self.fired_sets {
            let mut bytes = Vec::new();
            sets.put(&mut bytes);
            sections.push((*b"FSET", bytes));
        }
        if let Some(thresholds) = &self.thresholds {
            sections.push((*b"THRS", thresholds.by_group().iter().flat_map(|t| t.to_le_bytes()).collect()));
        }
        if !is_one_per_layer(&self.layer_of) {
            sections.push((GROUPS, self.layer_of.iter().flat_map(|layer| layer.to_le_bytes()).collect()));
        }
        let sections = sections.into_iter().map(|(tag, bytes)| Section::of_bytes(tag, bytes));
        sections.chain(samples.map(Samples::section)).collect()
    }

    fn from_sections(file: &mut SectionFile) -> Result<Self> {
        file.refuse_unknown(&[b"MODL", b"TEXT", b"FIRE", b"MASS", b"LRUD", b"FSET", b"THRS", &GROUPS, &OPENED])?;
        let Header { fingerprint, arch, name, activation, n_ff, layer_of } = header(file)?;
        let mut required = |tag| file.section(tag)?.with_context(|| lacks(tag));
        let (texts, fired, mass) = (required(b"TEXT")?, required(b"FIRE")?, required(b"MASS")?);
        let texts = read_texts(&texts)?;
        let opened = file.section(&OPENED)?;
        let groups = read_counts(&fired, &mass, opened.as_deref(), &n_ff)?;
        let n_tokens = texts.iter().try_fold(0u64, |n, t| n.checked_add(t.n_tokens));
        let n_tokens = n_tokens.filter(|n| *n > 0).context("counts no tokens, or too many")?;
        let possible = groups.iter().all(|g: &GroupCounts| g.fired.iter().all(|f| *f <= n_tokens));
        ensure!(possible, "a neuron fired more often than there are tokens");
        for group in &groups {
            let mut gates = group.opened.iter().zip(&group.fired);
            let possible = gates.all(|(opened, fired)| fired <= opened && *opened <= n_tokens);
            ensure!(
                possible,
                "a neuron fired more often than its gate was above zero, or that more often than there are tokens"
            );
        }
        let reuse = file.section(b"LRUD")?.map(|bytes| ReuseCounts::read(&bytes, n_ff.len())).transpose()?;
        for (group, (reuse, counts)) in reuse.iter().flatten().zip(&groups).enumerate() {
            let fired = counts.fired.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
            ensure!(
                reuse.total() == fired,
                "group {group} of neurons fired {fired} times, but reuse is of {}",
                reuse.total()
            );
        }
        let fired_sets = file.section(b"FSET")?.map(|bytes| FiredSets::read(&bytes, &n_ff)).transpose()?;
        let thresholds = file.section(b"THRS")?.map(|bytes| read_thresholds(&bytes, n_ff.len())).transpose()?;
        Ok(Self { fingerprint, arch, name, activation, texts, groups, layer_of, reuse, fired_sets, thresholds })
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

/// Sections `FIRE`, `MASS` and `OPEN`.
pub(super) fn put_counts(groups: &[GroupCounts]) -> [Vec<u8>; 3] {
    let mut out = [Vec::new(), Vec::new(), Vec::new()];
    for group in groups {
        put_u64s(&mut out[2], &group.opened);
        put_u64s(&mut out[0], &group.fired);
        put_u64s(&mut out[1], &group.mass);
    }
    out
}

/// Their counts again; without `OPEN` where `up` has no mask of its own.
pub(super) fn read_counts(
    fired: &[u8],
    mass: &[u8],
    opened: Option<&[u8]>,
    n_ff: &[usize],
) -> Result<Vec<GroupCounts>> {
    let (mut fired, mut mass) = (Reader { bytes: fired }, Reader { bytes: mass });
    let mut opened = opened.map(|bytes| Reader { bytes });
    let layers = n_ff.iter().map(|n| {
        let opened = opened.as_mut().map_or_else(|| Ok(Vec::new()), |opened| opened.u64s(*n))?;
        Ok(GroupCounts { fired: fired.u64s(*n)?, mass: mass.u64s(*n)?, opened })
    });
    let layers = layers.collect::<Result<Vec<_>>>()?;
    opened.map_or(Ok(()), |opened| opened.end("OPEN"))?;
    fired.end("FIRE")?;
    mass.end("MASS")?;
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::super::samples::SampleKey;
    use super::*;

    fn profile(seed: u64) -> Profile {
        let layer = |n: u64| GroupCounts {
            fired: (0..n).map(|i| (i * seed) % 10).collect(),
            mass: (0..n).map(|i| i * seed * 1000).collect(),
            opened: Vec::new(),
        };
        Profile {
            fingerprint: Fingerprint { family: [7; 32], samples: vec![1.0, -2.0] },
            arch: "llama".to_owned(),
            name: format!("name {seed}"),
            activation: "relu".to_owned(),
            texts: vec![ProfiledText { sha256: [seed as u8; 32], n_tokens: 10 + seed, n_ctx: 512 }],
            groups: vec![layer(4), layer(6)],
            layer_of: vec![0, 1],
            reuse: Some(vec![reuse(seed, 4), reuse(seed, 6)]),
            fired_sets: Some(fired_sets(seed)),
            thresholds: None,
        }
    }

    fn reuse(seed: u64, n_ff: u64) -> ReuseCounts {
        let fired: u64 = (0..n_ff).map(|i| (i * seed) % 10).sum();
        let mut counts = ReuseCounts { first: fired / 3, ..Default::default() };
        counts.buckets[seed as usize] = fired - fired / 3;
        counts
    }

    fn fired_sets(seed: u64) -> FiredSets {
        let mut keys: Vec<_> = (0..4).map(|t| SampleKey::new(1, [seed as u8; 32], t)).collect();
        keys.sort();
        FiredSets { seed: 1, capacity: 8, keys, bits: (0..8).map(|i| 1 << (i * seed % 4)).collect() }
    }

    /// The file of `p` as the first version of this program wrote it.
    fn version_1(p: &Profile, optional: Option<&[u8; 4]>) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(1u32.to_le_bytes());
        let of_v2 = p.to_bytes();
        let mut file = SectionFile::from_bytes(&of_v2, MAGIC, &VERSIONS, WHAT).unwrap();
        let mut sections: Vec<_> =
            [b"MODL", b"TEXT", b"FIRE", b"MASS"].map(|tag| (tag, file.section(tag).unwrap().unwrap())).into();
        sections.extend(optional.map(|tag| (tag, vec![1, 2, 3])));
        bytes.extend((sections.len() as u32).to_le_bytes());
        for (tag, payload) in sections {
            bytes.extend(tag);
            bytes.extend((payload.len() as u64).to_le_bytes());
            bytes.extend(payload);
        }
        let checksum = Sha256::digest(&bytes);
        bytes.extend(checksum);
        bytes
    }

    fn merged(order: &[u64]) -> Vec<u8> {
        let mut all = profile(order[0]);
        order[1..].iter().for_each(|s| all.merge(&profile(*s)).unwrap());
        all.to_bytes()
    }

    #[test]
    fn a_profile_survives_the_file() {
        let p = profile(3);
        assert_eq!(Profile::from_bytes(&p.to_bytes()).unwrap(), p);
    }

    /// With counts of gates, too.
    fn of_two_masks(seed: u64) -> Profile {
        let mut p = Profile { activation: "drelu".to_owned(), ..profile(seed) };
        p.groups.iter_mut().for_each(|group| group.opened = group.fired.iter().map(|n| n + seed).collect());
        p
    }

    #[test]
    fn gates_are_counted_where_up_has_a_mask_of_its_own() {
        let (a, b) = (of_two_masks(1), of_two_masks(2));
        assert_eq!(Profile::from_bytes(&a.to_bytes()).unwrap(), a);
        assert!(a.has_two_masks() && !profile(1).has_two_masks() && profile(1).open_rates(0).is_none());
        assert_eq!(a.open_rates(0).unwrap()[3], 4.0 / 11.0);
        let mut merged = a.clone();
        merged.merge(&b).unwrap();
        assert_eq!(merged.groups[0].opened, [3, 6, 9, 12]);
        let mut other_way = b;
        other_way.merge(&a).unwrap();
        assert_eq!(other_way.to_bytes(), merged.to_bytes());
        let mut less = a.clone();
        less.groups[0].opened[3] = 2;
        assert!(Profile::from_bytes(&less.to_bytes()).unwrap_err().to_string().contains("above zero"));
        let mut more = a;
        more.groups[1].opened[0] = 12;
        assert!(Profile::from_bytes(&more.to_bytes()).is_err());
    }

    #[test]
    fn merging_gives_the_same_bytes_in_any_order_and_grouping() {
        let expected = merged(&[1, 2, 3]);
        for order in [[1, 3, 2], [2, 1, 3], [3, 2, 1]] {
            assert_eq!(merged(&order), expected);
        }
        let mut right = profile(2);
        right.merge(&profile(3)).unwrap();
        let mut grouped = profile(1);
        grouped.merge(&right).unwrap();
        assert_eq!(grouped.to_bytes(), expected);
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_refused() {
        let bytes = profile(5).to_bytes();
        for n in 0..bytes.len() {
            assert!(Profile::from_bytes(&bytes[..n]).is_err(), "cut at {n}");
            let mut flipped = bytes.clone();
            flipped[n] ^= 0x10;
            assert!(Profile::from_bytes(&flipped).is_err(), "flipped at {n}");
        }
    }

    #[test]
    fn a_profile_of_another_model_is_not_merged() {
        let mut other = profile(2);
        other.fingerprint.family = [8; 32];
        assert!(profile(1).merge(&other).unwrap_err().to_string().contains("another model"));
        let mut other = profile(2);
        other.activation = "silu".to_owned();
        assert!(profile(1).merge(&other).unwrap_err().to_string().contains("activation silu"));
    }

    #[test]
    fn sections_in_lower_case_are_skipped_and_others_refused() {
        let with_section = |tag: &[u8; 4]| {
            let p = profile(1);
            let mut list = p.sections(None);
            list.insert(1, Section::of_bytes(*tag, vec![1, 2, 3]));
            let mut bytes = Vec::new();
            let mut append = |b: &[u8]| {
                bytes.extend_from_slice(b);
                Ok(())
            };
            sections::emit(MAGIC, VERSION, &list, &mut append).unwrap();
            Profile::from_bytes(&bytes)
        };
        assert_eq!(with_section(b"hist").unwrap(), profile(1));
        assert!(with_section(b"HIST").unwrap_err().to_string().contains("HIST"));
        assert!(with_section(b"TEXT").unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn version_1_is_read_and_every_damage_to_it_refused() {
        let without = Profile { reuse: None, fired_sets: None, ..profile(3) };
        let bytes = version_1(&profile(3), Some(b"hist"));
        assert_eq!(Profile::from_bytes(&bytes).unwrap(), without);
        assert!(Profile::from_bytes(&version_1(&profile(3), Some(b"HIST"))).is_err());
        for n in 0..bytes.len() {
            assert!(Profile::from_bytes(&bytes[..n]).is_err(), "cut at {n}");
            let mut flipped = bytes.clone();
            flipped[n] ^= 0x10;
            assert!(Profile::from_bytes(&flipped).is_err(), "flipped at {n}");
        }
        let mut merged = without;
        merged.merge(&profile(4)).unwrap();
        assert_eq!((merged.reuse, merged.fired_sets), (None, None));
        let mut newer = bytes;
        newer[8] = 3;
        let error = Profile::from_bytes(&newer).unwrap_err().to_string();
        assert!(error.contains("of version 3") && error.contains("1 and 2"), "{error}");
    }

    #[test]
    fn samples_are_read_by_who_asks_only() {
        let mut keys: Vec<_> = (0..3).map(|t| SampleKey::new(1, [0; 32], t)).collect();
        keys.sort();
        let x = vec![vec![half::f16::ONE; 6]; 2];
        let samples = Samples { seed: 1, capacity: 5, keys, x };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        profile(3).write_with(&path, Some(&samples), &Silent).unwrap();
        assert_eq!(Profile::read(&path).unwrap(), profile(3));
        assert_eq!(Samples::read(&path).unwrap(), samples);
        let bytes = std::fs::read(&path).unwrap();
        let start = bytes.len() - samples.len() * 48 - 24;
        for n in [start, start + 30, bytes.len() - 1] {
            let mut flipped = bytes.clone();
            flipped[n] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            assert_eq!(Profile::read(&path).unwrap(), profile(3), "samples are not looked at");
            let error = format!("{:#}", Samples::read(&path).unwrap_err());
            assert!(error.contains("samp") || error.contains("sampled"), "{error}");
        }
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(Profile::read(&path).is_err() && Samples::read(&path).is_err());
        profile(3).write(&path).unwrap();
        assert!(format!("{:#}", Samples::read(&path).unwrap_err()).contains("--samples"));
    }

    #[test]
    fn parts_of_a_text_are_one_text() {
        let mut whole = profile(3);
        whole.merge(&profile(3)).unwrap();
        assert_eq!(whole.texts, [ProfiledText { sha256: [3; 32], n_tokens: 26, n_ctx: 512 }]);
    }

    #[test]
    fn cold_neurons_that_fired_are_counted_by_token() {
        let p = profile(1);
        let order = p.order(1);
        assert_eq!(order[0], NeuronId(5));
        let all = p.cold_histogram(1, &order, 0);
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|n| *n == 1) && p.cold_histogram(1, &order, 6) == [0; 4]);
        assert!(p.cold_histogram(1, &order, 7).is_empty() || p.cold_histogram(1, &order, 7) == [0; 4]);
        assert!(Profile { fired_sets: None, ..p }.cold_histogram(1, &order, 0).is_empty());
    }
}
