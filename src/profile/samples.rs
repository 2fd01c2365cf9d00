//! Inputs of the FFN at sampled tokens: what predictors are fitted to.
//!
//! Tokens are chosen by the smallest hash of `(seed, text, position)`, so samples of the parts of a corpus merge to
//! those of the whole, in any order and grouping.

use super::choice::Union;
use super::header::{MAGIC, VERSIONS, WHAT, header};
use super::sections::{Reader, Section, SectionFile, Sink, Tag};
use anyhow::{Context, Result, ensure};
use half::f16;
use std::path::Path;

pub use super::choice::SampleKey;

pub(super) const TAG: Tag = *b"samp";
/// Bytes of a [`SampleKey`] in a file.
const KEY_BYTES: usize = 48;
/// Values converted to bytes at a time.
const PIECE: usize = 1 << 16;

/// The normalised FFN inputs of all layers at sampled tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Seed that chose the tokens.
    pub seed: u64,
    /// The most tokens kept.
    pub capacity: usize,
    /// The tokens, sorted.
    pub keys: Vec<SampleKey>,
    /// By layer: `[keys][n_embd]`.
    pub x: Vec<Vec<f16>>,
}

impl Samples {
    /// Number of sampled tokens.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing was sampled.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Inputs of one layer as floats: `[keys][n_embd]`.
    pub fn layer(&self, layer: usize) -> Vec<f32> {
        self.x[layer].iter().map(|x| x.to_f32()).collect()
    }

    /// Bytes of one token's samples, in memory and in a file.
    pub fn token_bytes(n_layer: usize, n_embd: usize) -> u64 {
        (n_layer * n_embd * size_of::<f16>() + KEY_BYTES) as u64
    }

    /// Values per token and layer.
    pub fn n_embd(&self) -> usize {
        self.x.first().map_or(0, |x| x.len() / self.keys.len().max(1))
    }

    /// Reads the samples of a profile.
    ///
    /// # Errors
    /// One line that names the file and what is wrong; also if the profile has none.
    pub fn read(path: &Path) -> Result<Self> {
        let samples = Self::read_if_any(path)?;
        samples.with_context(|| format!("{}: has no samples; make it with --samples", path.display()))
    }

    /// Reads the samples of a profile, if it has any.
    ///
    /// # Errors
    /// One line that names the file and what is wrong.
    pub fn read_if_any(path: &Path) -> Result<Option<Self>> {
        let open = || Self::from_sections(&mut SectionFile::open(path, MAGIC, &VERSIONS, WHAT)?);
        open().with_context(|| path.display().to_string())
    }

    /// Reads the samples in a profile's bytes, if there are any.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Option<Self>> {
        Self::from_sections(&mut SectionFile::from_bytes(bytes, MAGIC, &VERSIONS, WHAT)?)
    }

    pub(super) fn from_sections(file: &mut SectionFile) -> Result<Option<Self>> {
        let n_layer = header(file)?.layer_of.last().map_or(0, |last| *last as usize + 1);
        let Some(len) = file.len(&TAG) else { return Ok(None) };
        // Straight to F16: as bytes they would be in memory twice.
        let mut parser = Parser { n_layer, len, head: Vec::new(), samples: None, layer: 0, half: None };
        file.stream(&TAG, &mut |bytes| parser.push(bytes))?;
        parser.samples.context(IMPOSSIBLE).map(Some)
    }

    /// Adds the samples of `other` and keeps those with the smallest hashes, as many as the smaller capacity of the
    /// two.
    ///
    /// # Errors
    /// When they were chosen by another seed or differ in size.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        ensure!(
            self.seed == other.seed,
            "has samples chosen by --seed {}, the others by --seed {}; profile with one seed",
            other.seed,
            self.seed
        );
        let n_embd = self.n_embd();
        let same = self.x.len() == other.x.len() && n_embd == other.n_embd();
        ensure!(same, "has samples of a different size from the others");
        let row = |x: &[f16], i: usize| x[i * n_embd..(i + 1) * n_embd].iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let less = |i, j| {
            let layers = self.x.iter().zip(&other.x);
            layers.map(|(a, b)| row(b, j).cmp(&row(a, i))).find(|o| o.is_ne()).is_some_and(std::cmp::Ordering::is_lt)
        };
        let union = Union::new(&self.keys, &other.keys, self.capacity.min(other.capacity), less);
        for (a, b) in self.x.iter_mut().zip(&other.x) {
            *a = union.rows(a, b, n_embd);
        }
        self.capacity = self.capacity.min(other.capacity);
        self.keys = union.keys;
        Ok(())
    }

    pub(super) fn section(&self) -> Section<'_> {
        Section { tag: TAG, emit: Box::new(|sink| self.emit(sink)) }
    }

    fn emit(&self, sink: &mut Sink) -> Result<()> {
        let mut head = Vec::new();
        head.extend(self.seed.to_le_bytes());
        head.extend((self.capacity as u64).to_le_bytes());
        for n in [self.keys.len(), self.x.len(), self.n_embd()] {
            head.extend((n as u32).to_le_bytes());
        }
        SampleKey::put(&self.keys, &mut head);
        sink(&head)?;
        self.x.iter().try_for_each(|x| put_halves(x, sink))
    }
}

/// Passes F16 values on as bytes, in pieces.
pub(super) fn put_halves(values: &[f16], sink: &mut Sink) -> Result<()> {
    for piece in values.chunks(PIECE) {
        let bytes: Vec<u8> = piece.iter().flat_map(|v| v.to_le_bytes()).collect();
        sink(&bytes)?;
    }
    Ok(())
}

/// Assembles samples from pieces of any length.
struct Parser {
    n_layer: usize,
    /// Bytes of the section.
    len: u64,
    /// What has arrived of the head, until it is complete.
    head: Vec<u8>,
    samples: Option<Samples>,
    /// The layer being filled.
    layer: usize,
    /// The first byte of a value whose second has not arrived.
    half: Option<u8>,
}

const HEAD_BYTES: usize = 8 + 8 + 3 * 4;

impl Parser {
    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if self.samples.is_some() {
            return self.values(bytes);
        }
        self.head.extend_from_slice(bytes);
        if self.head.len() < HEAD_BYTES {
            return Ok(());
        }
        let head = std::mem::take(&mut self.head);
        let mut r = Reader { bytes: &head };
        let (seed, capacity) = (r.u64()?, usize::try_from(r.u64()?)?);
        let (n, n_layer, n_embd) = (r.u32()?, r.u32()?, r.u32()?);
        // Layers behind the last neurons have none to count.
        ensure!(n_layer as usize >= self.n_layer, "has samples of {n_layer} layers, but counts of {}", self.n_layer);
        // The section's length bounds this allocation by what the file holds.
        let values = u128::from(n) * u128::from(n_embd) * u128::from(n_layer);
        let len = HEAD_BYTES as u128 + u128::from(n) * KEY_BYTES as u128 + 2 * values;
        let n = n as usize;
        ensure!(len == u128::from(self.len) && (1..=capacity).contains(&n) && n_embd > 0, "{IMPOSSIBLE}");
        if r.bytes.len() < n * KEY_BYTES {
            self.head = head;
            return Ok(());
        }
        let keys = SampleKey::read(&mut r, n, seed)?;
        let x = (0..n_layer).map(|_| Vec::with_capacity(n * n_embd as usize)).collect();
        self.samples = Some(Samples { seed, capacity, keys, x });
        self.values(r.bytes)
    }

    fn values(&mut self, mut bytes: &[u8]) -> Result<()> {
        if let (Some(first), Some((second, others))) = (self.half, bytes.split_first()) {
            self.half = None;
            bytes = others;
            self.put(&[[first, *second]])?;
        }
        let (pairs, rest) = bytes.as_chunks::<2>();
        self.half = self.half.or(rest.first().copied());
        self.put(pairs)
    }

    fn put(&mut self, mut pairs: &[[u8; 2]]) -> Result<()> {
        while !pairs.is_empty() {
            let x = self.samples.as_mut().and_then(|s| s.x.get_mut(self.layer)).context(IMPOSSIBLE)?;
            let (now, later) = pairs.split_at(pairs.len().min(x.capacity() - x.len()));
            x.extend(now.iter().map(|pair| f16::from_le_bytes(*pair)));
            self.layer += usize::from(x.len() == x.capacity());
            pairs = later;
        }
        Ok(())
    }
}

const IMPOSSIBLE: &str = "has samples whose sizes are impossible";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::sections;

    fn samples(tokens: std::ops::Range<u64>, capacity: usize) -> Samples {
        let mut keys: Vec<_> = tokens.map(|t| SampleKey::new(4, [5; 32], t)).collect();
        keys.sort();
        keys.truncate(capacity);
        let value = |k: &SampleKey, i: usize| f16::from_f32(k.position as f32 + i as f32 / 8.0);
        let x = (0..2).map(|layer| keys.iter().flat_map(|k| [value(k, layer), value(k, layer + 5)]).collect());
        Samples { seed: 4, capacity, x: x.collect(), keys }
    }

    fn parsed(bytes: &[u8], piece: usize) -> Result<Samples> {
        let len = bytes.len() as u64;
        let mut parser = Parser { n_layer: 2, len, head: Vec::new(), samples: None, layer: 0, half: None };
        bytes.chunks(piece).try_for_each(|b| parser.push(b))?;
        parser.samples.context(IMPOSSIBLE)
    }

    fn bytes(samples: &Samples) -> Vec<u8> {
        let mut out = Vec::new();
        samples
            .emit(&mut |b| {
                out.extend_from_slice(b);
                Ok(())
            })
            .unwrap();
        out
    }

    #[test]
    fn samples_survive_in_pieces_of_any_length() {
        let samples = samples(0..30, 20);
        let bytes = bytes(&samples);
        for piece in [1, 3, 7, 64, 1001, 1 << 20] {
            assert_eq!(parsed(&bytes, piece).unwrap(), samples, "{piece}");
        }
        for n in 0..bytes.len() {
            assert!(parsed(&bytes[..n], 64).is_err(), "cut at {n}");
        }
    }

    #[test]
    fn merged_parts_are_the_whole_in_any_order() {
        let whole = samples(0..40, 10);
        for (a, b) in [(0..20, 20..40), (0..30, 10..40)] {
            for (a, b) in [(a.clone(), b.clone()), (b, a)] {
                let mut merged = samples(a, 10);
                merged.merge(&samples(b, 12)).unwrap();
                assert_eq!(merged, whole);
            }
        }
    }

    #[test]
    fn of_two_samples_of_one_token_the_same_is_kept_in_either_order() {
        let (a, mut b) = (samples(0..4, 10), samples(0..4, 10));
        b.x[1][3] = f16::from_f32(-1.0);
        b.x[1][4] = f16::from_f32(0.0);
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.merge(&b).unwrap();
        ba.merge(&a).unwrap();
        assert_eq!(ab, ba);
    }

    #[test]
    fn samples_by_other_seeds_or_of_other_sizes_are_refused() {
        let mut other = samples(0..4, 10);
        other.seed = 9;
        assert!(samples(0..4, 10).merge(&other).unwrap_err().to_string().contains("--seed 9"));
        let mut other = samples(0..4, 10);
        other.x.pop();
        assert!(samples(0..4, 10).merge(&other).unwrap_err().to_string().contains("size"));
    }

    #[test]
    fn samples_of_other_layers_than_the_counts_are_refused() {
        let bytes = bytes(&samples(0..4, 10));
        let section = sections::Section::of_bytes(TAG, bytes.clone());
        assert_eq!(section.tag, *b"samp");
        let mut wrong = bytes;
        // The last layers may have no neurons, and no counts; fewer than the counts there are not.
        wrong[20] = 1;
        assert!(parsed(&wrong, 64).unwrap_err().to_string().contains("1 layers"));
    }
}
