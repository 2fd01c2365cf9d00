//! A GGUF file in parts, which are changed before they are put together.

use super::bytes::{self, FLOATS, number, one_of};
use super::target::Form;
use crate::support::Random;
use powerinfer::gguf::Gguf;

const STRING: u32 = 8;
const ARRAY: u32 = 9;
const ALIGNMENT: usize = 32;

#[derive(Clone)]
struct Key {
    name: Vec<u8>,
    kind: u32,
    /// As in version 3.
    value: Vec<u8>,
}

#[derive(Clone)]
struct Tensor {
    name: Vec<u8>,
    dims: Vec<u64>,
    kind: u32,
    data: Vec<u8>,
    /// Another offset than where its data are.
    offset: Option<u64>,
}

/// What a file is made of. It need not fit together.
#[derive(Clone)]
pub struct Parts {
    magic: &'static [u8; 4],
    version: u32,
    /// Counts that are none.
    n_keys: Option<u64>,
    n_tensors: Option<u64>,
    keys: Vec<Key>,
    tensors: Vec<Tensor>,
}

impl Parts {
    pub fn of(gguf: &Gguf) -> Self {
        let metadata = gguf.metadata();
        let keys = metadata.entries().iter().map(|entry| Key {
            name: entry.key.clone().into_bytes(),
            kind: entry.value_type as u32,
            value: metadata.raw_value(entry).to_vec(),
        });
        let tensors = gguf.tensors().iter().map(|tensor| Tensor {
            name: tensor.name.clone().into_bytes(),
            dims: tensor.dims.iter().map(|d| *d as u64).collect(),
            kind: tensor.dtype.id(),
            data: gguf.data(tensor).to_vec(),
            offset: None,
        });
        let magic = if gguf.is_pwri() { b"PWRI" } else { b"GGUF" };
        Self { magic, version: 3, n_keys: None, n_tensors: None, keys: keys.collect(), tensors: tensors.collect() }
    }

    /// Takes out the keys that begin so: what a reader passes over costs time.
    pub fn without(mut self, prefix: &str) -> Self {
        self.keys.retain(|key| !key.name.starts_with(prefix.as_bytes()));
        self
    }

    fn change_key(&mut self, other: &Self, words: &[&str], random: &mut Random) {
        let theirs = one_of(&other.keys, random).cloned();
        let at = random.below(self.keys.len().max(1));
        if random.below(8) == 0 {
            return match (theirs, random.below(3)) {
                (Some(theirs), 0) => self.keys.insert(at.min(self.keys.len()), theirs),
                (Some(theirs), 1) if at < self.keys.len() => self.keys[at] = theirs,
                _ if at < self.keys.len() => drop(self.keys.swap_remove(at)),
                _ => {}
            };
        }
        let Some(key) = self.keys.get_mut(at) else { return };
        match random.below(8) {
            0 => rename(&mut key.name, theirs.map(|key| key.name), words, random),
            1 => key.kind = number(random) as u32,
            2 => key.value = theirs.map_or_else(Vec::new, |key| key.value),
            3 => bytes::change(&mut key.value, &[], words, random),
            _ if key.kind == ARRAY => change_array(&mut key.value, words, random),
            _ if key.kind == STRING => change_string(&mut key.value, words, random),
            4 => {
                // The same number with another type, or another number.
                let (kind, width) = [(0, 1), (2, 2), (4, 4), (5, 4), (10, 8), (11, 8)][random.below(6)];
                let mut wide = [0; 8];
                let n = key.value.len().min(8);
                wide[..n].copy_from_slice(&key.value[..n]);
                (key.kind, key.value) = (kind, wide[..width].to_vec());
            }
            5 => (key.kind, key.value) = (6, FLOATS[random.below(FLOATS.len())].to_le_bytes().to_vec()),
            6 => (key.kind, key.value) = (7, vec![random.below(3) as u8]),
            _ => {
                let n = number(random).to_le_bytes();
                let len = key.value.len();
                key.value.iter_mut().zip(n.iter().cycle()).take(len).for_each(|(to, from)| *to = *from);
            }
        }
    }

    fn change_tensor(&mut self, other: &Self, words: &[&str], random: &mut Random) {
        let theirs = one_of(&other.tensors, random).cloned();
        let at = random.below(self.tensors.len().max(1));
        if random.below(8) == 0 {
            return match (theirs, random.below(3)) {
                (Some(theirs), 0) => self.tensors.insert(at.min(self.tensors.len()), theirs),
                (Some(theirs), 1) if at < self.tensors.len() => self.tensors[at] = theirs,
                _ if at < self.tensors.len() => drop(self.tensors.remove(at)),
                _ => {}
            };
        }
        let names: Vec<_> = self.tensors.iter().map(|t| t.name.clone()).collect();
        let Some(tensor) = self.tensors.get_mut(at) else { return };
        let dim = random.below(tensor.dims.len().max(1));
        match random.below(12) {
            0 => rename(&mut tensor.name, one_of(&names, random).cloned(), words, random),
            1 => rename(&mut tensor.name, theirs.map(|tensor| tensor.name), words, random),
            2 => tensor.kind = random.below(44) as u32,
            3 => tensor.offset = Some(number(random) & !(ALIGNMENT as u64 - 1)),
            4 => tensor.offset = Some(number(random)),
            5 if dim < tensor.dims.len() => tensor.dims[dim] = number(random),
            6 if dim < tensor.dims.len() => {
                // Rows more or fewer, with their data.
                let old = tensor.dims[dim].max(1);
                let new = old.saturating_add(random.below(4) as u64).saturating_sub(2);
                tensor.dims[dim] = new;
                let len = (tensor.data.len() as u64).wrapping_mul(new) / old;
                tensor.data.resize((len as usize).min(bytes::MOST_BYTES), 0);
            }
            7 => match random.below(3) {
                0 => tensor.dims.push(number(random) % 3),
                1 => drop(tensor.dims.pop()),
                _ => tensor.dims.reverse(),
            },
            8 => tensor.data.truncate(random.below(tensor.data.len() + 1)),
            _ => change_elements(&mut tensor.data, random),
        }
    }
}

/// Numbers among others: floats that are none, neurons that are not there.
fn change_elements(data: &mut [u8], random: &mut Random) {
    let at = random.below(data.len() / 4 + 1) * 4;
    let there = data.get(random.below(data.len() / 4 + 1) * 4..).and_then(|rest| rest.first_chunk::<4>().copied());
    let value = match (there, random.below(3)) {
        (Some(there), 0) => there,
        (_, 1) => (number(random) as u32).to_le_bytes(),
        _ => FLOATS[random.below(FLOATS.len())].to_le_bytes(),
    };
    if let Some(place) = data.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *place = value;
    }
}

fn rename(name: &mut Vec<u8>, other: Option<Vec<u8>>, words: &[&str], random: &mut Random) {
    match (other, random.below(3)) {
        (Some(other), 0) => *name = other,
        (_, 1) => {
            if let Some(word) = one_of(words, random) {
                *name = word.as_bytes().to_vec();
            }
        }
        _ => bytes::change(name, &[], &[], random),
    }
}

/// The length stays what it is.
fn change_string(value: &mut Vec<u8>, words: &[&str], random: &mut Random) {
    let mut text = value.split_off(value.len().min(8));
    match one_of(words, random) {
        Some(word) if random.below(2) == 0 => text = word.as_bytes().to_vec(),
        _ => bytes::change(&mut text, &[], words, random),
    }
    *value = (text.len() as u64).to_le_bytes().to_vec();
    value.extend(text);
}

/// `value` is the type of the elements, their number, and they themselves.
fn change_array(value: &mut Vec<u8>, words: &[&str], random: &mut Random) {
    let Some((head, elements)) = value.split_first_chunk::<12>() else {
        return bytes::change(value, &[], words, random);
    };
    let kind = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let n = u64::from_le_bytes(*head.last_chunk().expect("eight bytes"));
    let mut elements = elements.to_vec();
    let width = if n == 0 { 1 } else { elements.len() / n as usize };
    let (mut new_kind, mut new_n) = (kind, n);
    match random.below(6) {
        0 => new_kind = random.below(14) as u32,
        1 => new_n = number(random),
        2 if kind != STRING => {
            new_n = n.saturating_add(random.below(3) as u64).saturating_sub(1);
            elements.resize(new_n as usize * width, 0);
        }
        3 => change_elements(&mut elements, random),
        4 if kind == STRING => change_element(&mut elements, n, words, random),
        _ => bytes::change(&mut elements, &[], words, random),
    }
    *value = [&new_kind.to_le_bytes()[..], &new_n.to_le_bytes(), &elements].concat();
}

/// Changes one of `n` strings, each behind its length.
fn change_element(elements: &mut Vec<u8>, n: u64, words: &[&str], random: &mut Random) {
    let wanted = random.below(n.clamp(1, 1 << 16) as usize);
    let mut at = 0;
    for i in 0..=wanted {
        let Some(len) = elements.get(at..).and_then(|rest| rest.first_chunk::<8>()) else { return };
        let Ok(len) = usize::try_from(u64::from_le_bytes(*len)) else { return };
        let Some(end) = at.checked_add(8).and_then(|start| start.checked_add(len)).filter(|e| *e <= elements.len())
        else {
            return;
        };
        if i == wanted {
            let mut element = elements[at..end].to_vec();
            change_string(&mut element, words, random);
            elements.splice(at..end, element);
            return;
        }
        at = end;
    }
}

impl Form for Parts {
    fn change(&mut self, other: &Self, words: &[&str], random: &mut Random) {
        match random.below(64) {
            0 => self.version = [1, 2, 3, 4, 3 << 24][random.below(5)],
            1 => self.n_keys = Some(number(random)),
            2 => self.n_tensors = Some(number(random)),
            3 => {
                let value = (1u32 << random.below(24)).to_le_bytes().to_vec();
                self.keys.push(Key { name: b"general.alignment".to_vec(), kind: 4, value });
            }
            n if n % 2 == 0 => self.change_key(other, words, random),
            _ => self.change_tensor(other, words, random),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        let length = |out: &mut Vec<u8>, n: u64| match self.version {
            1 => out.extend((n as u32).to_le_bytes()),
            _ => out.extend(n.to_le_bytes()),
        };
        let string = |out: &mut Vec<u8>, text: &[u8]| {
            length(out, text.len() as u64);
            out.extend(text);
        };
        out.extend(self.version.to_le_bytes());
        length(&mut out, self.n_tensors.unwrap_or(self.tensors.len() as u64));
        length(&mut out, self.n_keys.unwrap_or(self.keys.len() as u64));
        for key in &self.keys {
            string(&mut out, &key.name);
            out.extend(key.kind.to_le_bytes());
            match self.version {
                1 => out.extend(narrowed(key.kind, &key.value)),
                _ => out.extend(&key.value),
            }
        }
        let mut end = 0usize;
        for tensor in &self.tensors {
            string(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|d| length(&mut out, *d));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(end as u64).to_le_bytes());
            end += tensor.data.len().next_multiple_of(ALIGNMENT);
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
            out.extend(&tensor.data);
        }
        out
    }
}

/// A value as version 1 has it: with lengths of 32 bits.
fn narrowed(kind: u32, value: &[u8]) -> Vec<u8> {
    let narrow = |at: usize, out: &mut Vec<u8>| out.extend(value.get(at..at + 4).unwrap_or_default());
    let mut out = Vec::new();
    match (kind, value.first_chunk::<4>().map(|kind| u32::from_le_bytes(*kind))) {
        (STRING, _) => {
            narrow(0, &mut out);
            out.extend(value.get(8..).unwrap_or_default());
        }
        (ARRAY, Some(element)) => {
            out.extend(element.to_le_bytes());
            narrow(4, &mut out);
            let mut at = 12;
            while element == STRING && at + 8 <= value.len() {
                narrow(at, &mut out);
                let len = value[at..].first_chunk::<8>().map_or(0, |len| u64::from_le_bytes(*len)) as usize;
                let end = at.saturating_add(8).saturating_add(len).min(value.len());
                out.extend(&value[at + 8..end]);
                at = end;
            }
            out.extend(value.get(at..).unwrap_or_default());
        }
        _ => out.extend(value),
    }
    out
}
