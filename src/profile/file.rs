//! The profile file. Laid out byte by byte in docs/formats.md.

use super::fingerprint::{Fingerprint, Kinship, hex};
use super::{LayerCounts, MASS_ONE};
use crate::files::write_whole;
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

const MAGIC: &[u8; 8] = b"PWRPROF\n";
const VERSION: u32 = 1;
const CHECKSUM_BYTES: usize = 32;

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
    /// The counts, by layer number.
    pub layers: Vec<LayerCounts>,
}

impl Profile {
    /// Tokens counted over all texts.
    pub fn n_tokens(&self) -> u64 {
        self.texts.iter().map(|t| t.n_tokens).sum()
    }

    /// Firing rates of a layer (0 to 1), by neuron.
    pub fn rates(&self, layer: usize) -> Vec<f32> {
        let n = self.n_tokens() as f64;
        self.layers[layer].fired.iter().map(|f| (*f as f64 / n) as f32).collect()
    }

    /// Mean mass per token of a layer, by neuron.
    pub fn mean_mass(&self, layer: usize) -> Vec<f32> {
        let n = self.n_tokens() as f64 * MASS_ONE;
        self.layers[layer].mass.iter().map(|m| (*m as f64 / n) as f32).collect()
    }

    /// SHA-256 of the file's bytes, in hex.
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(self.to_bytes()))
    }

    /// Adds the counts of `other`. The result does not depend on the order or grouping of merges.
    ///
    /// # Errors
    /// When it was made with other weights or another activation, or a count overflows.
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
        let shape = |p: &Self| p.layers.iter().map(|l| l.fired.len()).collect::<Vec<_>>();
        ensure!(shape(self) == shape(other), "has layers of other sizes");
        let total = self.n_tokens().checked_add(other.n_tokens());
        total.context("has more tokens than can be counted")?;
        for (a, b) in self.layers.iter_mut().zip(&other.layers) {
            for (a, b) in [(&mut a.fired, &b.fired), (&mut a.mass, &b.mass)] {
                for (a, b) in a.iter_mut().zip(b) {
                    *a = a.checked_add(*b).context("has more activity than can be counted")?;
                }
            }
        }
        self.texts.extend_from_slice(&other.texts);
        self.texts.sort();
        if other.name < self.name {
            self.name.clone_from(&other.name);
        }
        Ok(())
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_whole(path, &self.to_bytes())
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// One line that names the file and what is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        Self::from_bytes(&read_bytes(path).with_context(|| shown.clone())?).with_context(|| shown)
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut model = Vec::new();
        model.extend(self.fingerprint.family);
        model.extend((self.fingerprint.samples.len() as u32).to_le_bytes());
        self.fingerprint.samples.iter().for_each(|s| model.extend(s.to_le_bytes()));
        for text in [&self.arch, &self.name, &self.activation] {
            model.extend((text.len() as u32).to_le_bytes());
            model.extend(text.as_bytes());
        }
        model.extend((self.layers.len() as u32).to_le_bytes());
        self.layers.iter().for_each(|l| model.extend((l.fired.len() as u32).to_le_bytes()));

        let mut texts = Vec::new();
        texts.extend((self.texts.len() as u32).to_le_bytes());
        for text in &self.texts {
            texts.extend(text.sha256);
            texts.extend(text.n_tokens.to_le_bytes());
            texts.extend(text.n_ctx.to_le_bytes());
        }
        let counts = |of: fn(&LayerCounts) -> &Vec<u64>| -> Vec<u8> {
            self.layers.iter().flat_map(|l| of(l).iter().flat_map(|c| c.to_le_bytes())).collect()
        };
        let sections =
            [(*b"MODL", model), (*b"TEXT", texts), (*b"FIRE", counts(|l| &l.fired)), (*b"MASS", counts(|l| &l.mass))];
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend((sections.len() as u32).to_le_bytes());
        for (tag, payload) in sections {
            out.extend(tag);
            out.extend((payload.len() as u64).to_le_bytes());
            out.extend(payload);
        }
        let checksum = Sha256::digest(&out);
        out.extend(checksum);
        out
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// When they are no profile, cut short, damaged, or contradict themselves.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.starts_with(MAGIC), "is not an activation profile; powerinfer-profile writes them");
        let mut r = Reader { bytes: &bytes[MAGIC.len()..] };
        let version = r.u32()?;
        ensure!(version == VERSION, "is a profile of version {version}; this program reads version {VERSION}");
        let body = bytes.len().checked_sub(CHECKSUM_BYTES).context("is cut short")?;
        let (body, checksum) = bytes.split_at(body);
        ensure!(Sha256::digest(body).as_slice() == checksum, "is damaged or cut short: its checksum is wrong");
        r.bytes = &body[MAGIC.len() + 4..];

        let (mut model, mut texts, mut fired, mut mass) = (None, None, None, None);
        for _ in 0..r.u32()? {
            let tag = r.take(4)?;
            let len = r.u64()?;
            let payload = Reader { bytes: r.take(len)? };
            let place = match tag {
                b"MODL" => &mut model,
                b"TEXT" => &mut texts,
                b"FIRE" => &mut fired,
                b"MASS" => &mut mass,
                // Sections whose tag begins in lower case may be left out by who does not know them.
                [b'a'..=b'z', ..] => continue,
                _ => bail!("has a section \"{}\" that this program does not know", tag.escape_ascii()),
            };
            ensure!(place.replace(payload).is_none(), "has section \"{}\" twice", tag.escape_ascii());
        }
        let (Some(model), Some(texts), Some(fired), Some(mass)) = (model, texts, fired, mass) else {
            bail!("lacks one of the sections MODL, TEXT, FIRE, MASS");
        };
        read_sections(model, texts, fired, mass)
    }
}

/// The file's bytes, or just the first of them where they are not those of a profile: a model may be given by mistake.
fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut bytes)?;
    if bytes == MAGIC {
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn read_sections(mut model: Reader, mut texts: Reader, mut fired: Reader, mut mass: Reader) -> Result<Profile> {
    let mut family = [0; 32];
    family.copy_from_slice(model.take(32)?);
    let n_samples = model.u32()?;
    let samples = model.take(u64::from(n_samples) * 4)?.chunks_exact(4);
    let samples = samples.map(|s| f32::from_le_bytes([s[0], s[1], s[2], s[3]])).collect();
    let (arch, name, activation) = (model.string()?, model.string()?, model.string()?);
    let n_layer = model.u32()?;
    let n_ff = (0..n_layer).map(|_| model.u32()).collect::<Result<Vec<_>>>()?;
    let mut list = Vec::new();
    for _ in 0..texts.u32()? {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(texts.take(32)?);
        list.push(ProfiledText { sha256, n_tokens: texts.u64()?, n_ctx: texts.u32()? });
    }
    ensure!(list.is_sorted(), "its texts are not sorted");
    let n_tokens = list.iter().try_fold(0u64, |n, t| n.checked_add(t.n_tokens));
    let n_tokens = n_tokens.filter(|n| *n > 0).context("counts no tokens, or too many")?;
    let mut layers = Vec::new();
    for n in n_ff {
        layers.push(LayerCounts { fired: fired.counts(n)?, mass: mass.counts(n)? });
    }
    let possible = layers.iter().all(|l: &LayerCounts| l.fired.iter().all(|f| *f <= n_tokens));
    ensure!(possible, "a neuron fired more often than there are tokens");
    for (rest, what) in [(&model, "MODL"), (&texts, "TEXT"), (&fired, "FIRE"), (&mass, "MASS")] {
        ensure!(rest.bytes.is_empty(), "section {what} is longer than its contents");
    }
    let fingerprint = Fingerprint { family, samples };
    Ok(Profile { fingerprint, arch, name, activation, texts: list, layers })
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let n = usize::try_from(n).ok().filter(|n| *n <= self.bytes.len()).context("is cut short")?;
        let (taken, rest) = self.bytes.split_at(n);
        self.bytes = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32> {
        let mut buf = [0; 4];
        buf.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(buf))
    }

    fn u64(&mut self) -> Result<u64> {
        let mut buf = [0; 8];
        buf.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(buf))
    }

    fn string(&mut self) -> Result<String> {
        let n = self.u32()?;
        Ok(String::from_utf8(self.take(u64::from(n))?.to_vec())?)
    }

    fn counts(&mut self, n: u32) -> Result<Vec<u64>> {
        let mut words = Reader { bytes: self.take(u64::from(n) * 8)? };
        (0..n).map(|_| words.u64()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(seed: u64) -> Profile {
        let layer = |n: u64| LayerCounts {
            fired: (0..n).map(|i| (i * seed) % 10).collect(),
            mass: (0..n).map(|i| i * seed * 1000).collect(),
        };
        Profile {
            fingerprint: Fingerprint { family: [7; 32], samples: vec![1.0, -2.0] },
            arch: "llama".to_owned(),
            name: format!("name {seed}"),
            activation: "relu".to_owned(),
            texts: vec![ProfiledText { sha256: [seed as u8; 32], n_tokens: 10 + seed, n_ctx: 512 }],
            layers: vec![layer(4), layer(6)],
        }
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
            let mut bytes = profile(1).to_bytes();
            bytes.truncate(bytes.len() - CHECKSUM_BYTES);
            bytes[12] += 1;
            bytes.extend(tag);
            bytes.extend(3u64.to_le_bytes());
            bytes.extend([1, 2, 3]);
            let checksum = Sha256::digest(&bytes);
            bytes.extend(checksum);
            Profile::from_bytes(&bytes)
        };
        assert_eq!(with_section(b"hist").unwrap(), profile(1));
        assert!(with_section(b"HIST").unwrap_err().to_string().contains("HIST"));
    }
}
