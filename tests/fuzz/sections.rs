//! A profile in sections, which are changed before checksums are made.

use super::bytes::{self, one_of};
use super::target::Form;
use crate::support::Random;
use sha2::{Digest, Sha256};

const MAGIC: &[u8] = b"PWRPROF\n";

#[derive(Clone)]
pub struct Sections {
    version: u32,
    list: Vec<([u8; 4], Vec<u8>)>,
}

impl Sections {
    /// Of a file of version 2.
    pub fn of(file: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(*file[at..].first_chunk().expect("four bytes"));
        let n = word(12) as usize;
        let mut at = 16 + 48 * n + 32;
        let list = (0..n).map(|i| {
            let entry = 16 + 48 * i;
            let (tag, len) = (*file[entry..].first_chunk().expect("a tag"), word(entry + 8) as usize);
            at += len;
            (tag, file[at - len..at].to_vec())
        });
        Self { version: word(8), list: list.collect() }
    }

    /// The same as version 1 had it.
    pub fn in_version_1(&self) -> Self {
        let old: [&[u8; 4]; 4] = [b"MODL", b"TEXT", b"FIRE", b"MASS"];
        Self { version: 1, list: self.list.iter().filter(|(tag, _)| old.contains(&tag)).cloned().collect() }
    }
}

impl Form for Sections {
    fn change(&mut self, other: &Self, words: &[&str], random: &mut Random) {
        let at = random.below(self.list.len().max(1));
        let theirs = one_of(&other.list, random).cloned();
        let Some((tag, section)) = self.list.get_mut(at) else { return };
        match (random.below(32), theirs) {
            (0, _) => drop(self.list.remove(at)),
            (1, Some(theirs)) => self.list.push(theirs),
            (2, Some(theirs)) => *section = theirs.1,
            (3, _) => tag[random.below(4)] = random.next() as u8,
            (4, _) => self.version = [0, 1, 2, 3, 4][random.below(5)],
            // Counts and lengths stand at the beginning, and all numbers at multiples of four bytes.
            (5..16, _) => {
                let end = if random.below(2) == 0 { section.len().min(64) } else { section.len() };
                let place = random.below(end / 4 + 1) * 4;
                let value = (bytes::number(random) as u32).to_le_bytes();
                if let Some(to) = section.get_mut(place..).and_then(|rest| rest.first_chunk_mut::<4>()) {
                    *to = value;
                }
            }
            (_, theirs) => {
                let theirs = theirs.map(|(_, section)| section).unwrap_or_default();
                bytes::change(section, &theirs, words, random);
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.list.len() as u32).to_le_bytes());
        for (tag, section) in &self.list {
            out.extend(tag);
            if self.version == 1 {
                out.extend((section.len() as u64).to_le_bytes());
                out.extend(section);
            } else {
                out.extend([0; 4]);
                out.extend((section.len() as u64).to_le_bytes());
                out.extend(Sha256::digest(section));
            }
        }
        let checksum = Sha256::digest(&out);
        out.extend(checksum);
        if self.version != 1 {
            self.list.iter().for_each(|(_, section)| out.extend(section));
        }
        out
    }
}
