//! Changes of bytes, of whatever format.

use crate::support::Random;

/// Longer inputs are cut.
pub const MOST_BYTES: usize = 1 << 16;

/// Numbers at which something may change: ends of types, limits of files.
pub const NUMBERS: [u64; 28] = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    9,
    15,
    16,
    31,
    32,
    33,
    63,
    64,
    127,
    128,
    255,
    256,
    1 << 16,
    (1 << 20) + 1,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 62,
    u64::MAX,
];

/// Floats likewise.
pub const FLOATS: [f32; 12] =
    [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, f32::MIN_POSITIVE, 1e30, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];

pub fn one_of<'a, T>(items: &'a [T], random: &mut Random) -> Option<&'a T> {
    (!items.is_empty()).then(|| &items[random.below(items.len())])
}

/// A number at which something may change, or one of any size.
pub fn number(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => random.next() >> random.below(64),
        1 => NUMBERS[random.below(NUMBERS.len())].wrapping_sub(1),
        _ => NUMBERS[random.below(NUMBERS.len())],
    }
}

/// A length that is small more often than not.
pub fn short(random: &mut Random) -> usize {
    let bits = random.below(8);
    random.below(1 << bits)
}

fn put(input: &mut [u8], at: usize, bytes: &[u8]) {
    let n = bytes.len().min(input.len() - at);
    input[at..at + n].copy_from_slice(&bytes[..n]);
}

/// Changes `input` in one place: with bits, numbers, a piece of itself or of `other`, or one of `words`.
pub fn change(input: &mut Vec<u8>, other: &[u8], words: &[&str], random: &mut Random) {
    let len = input.len();
    let at = random.below(len + 1);
    let piece = |of: &[u8], random: &mut Random| {
        let start = random.below(of.len() + 1);
        let end = of.len().min(start + 1 + short(random));
        of[start..end].to_vec()
    };
    let insert = |input: &mut Vec<u8>, bytes: Vec<u8>| drop(input.splice(at..at, bytes));
    match random.below(14) {
        0 if at < len => input[at] ^= 1 << random.below(8),
        1 if at < len => input[at] = random.next() as u8,
        2 => put(input, at, &[number(random) as u8]),
        3 => put(input, at, &(number(random) as u16).to_le_bytes()),
        4 => put(input, at, &(number(random) as u32).to_le_bytes()),
        5 => put(input, at, &number(random).to_le_bytes()),
        6 => put(input, at, &FLOATS[random.below(FLOATS.len())].to_le_bytes()),
        7 if at + 4 <= len => {
            let by = random.below(9) as u32;
            let (word, _) = input[at..].split_first_chunk::<4>().expect("four bytes");
            let word = u32::from_le_bytes(*word).wrapping_add(by).wrapping_sub(4);
            put(input, at, &word.to_le_bytes());
        }
        8 => {
            let end = len.min(at + 1 + short(random));
            input.drain(at..end);
        }
        9 => {
            let again = piece(input, random);
            insert(input, again);
        }
        10 => insert(input, piece(other, random)),
        11 => put(input, at, &piece(other, random)),
        12 if random.below(8) == 0 => input.truncate(at),
        _ => match one_of(words, random) {
            Some(word) => insert(input, word.as_bytes().to_vec()),
            None => insert(input, vec![random.next() as u8]),
        },
    }
    input.truncate(MOST_BYTES);
}
