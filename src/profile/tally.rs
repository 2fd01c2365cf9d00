//! Counts of many neurons, in no more bytes than they need: a model has up to fifty million of them.

use anyhow::{Context, Result, bail, ensure};

/// Counts that only grow. Each takes as many bytes as the greatest of them has needed so far.
#[derive(Debug, Clone)]
pub struct Tally(Values);

#[derive(Debug, Clone)]
enum Values {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
}

impl Tally {
    /// `n` zeros.
    pub fn new(n: usize) -> Self {
        Self(Values::U8(vec![0; n]))
    }

    /// Number of counts.
    pub fn len(&self) -> usize {
        match &self.0 {
            Values::U8(v) => v.len(),
            Values::U16(v) => v.len(),
            Values::U32(v) => v.len(),
            Values::U64(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Count number `i`.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn get(&self, i: usize) -> u64 {
        match &self.0 {
            Values::U8(v) => v[i].into(),
            Values::U16(v) => v[i].into(),
            Values::U32(v) => v[i].into(),
            Values::U64(v) => v[i],
        }
    }

    /// All counts.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u64> + Clone + '_ {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Their sum, or the largest number where it is larger than that.
    pub fn sum(&self) -> u64 {
        self.iter().fold(0, u64::saturating_add)
    }

    /// Adds `more(i)` to each count `i`.
    ///
    /// # Errors
    /// When a count does not fit in 64 bits; those before it are added then.
    pub fn add(&mut self, more: impl Fn(usize) -> u64) -> Result<()> {
        let mut next = 0;
        loop {
            let stopped = match &mut self.0 {
                Values::U8(v) => add_from(v, next, &more),
                Values::U16(v) => add_from(v, next, &more),
                Values::U32(v) => add_from(v, next, &more),
                Values::U64(v) => add_from(v, next, &more),
            };
            let Some(at) = stopped else { return Ok(()) };
            next = at;
            self.widen().context("more activity than can be counted")?;
        }
    }

    /// Sets all to zero.
    pub(super) fn clear(&mut self) {
        match &mut self.0 {
            Values::U8(v) => v.fill(0),
            Values::U16(v) => v.fill(0),
            Values::U32(v) => v.fill(0),
            Values::U64(v) => v.fill(0),
        }
    }

    fn widen(&mut self) -> Option<()> {
        self.0 = match &self.0 {
            Values::U8(v) => Values::U16(v.iter().map(|n| (*n).into()).collect()),
            Values::U16(v) => Values::U32(v.iter().map(|n| (*n).into()).collect()),
            Values::U32(v) => Values::U64(v.iter().map(|n| (*n).into()).collect()),
            Values::U64(_) => return None,
        };
        Some(())
    }

    /// Bytes that each count needs: 1, 2, 4 or 8.
    pub(super) fn width(&self) -> usize {
        width_of(self.iter().fold(0, |most, n| most | n))
    }

    /// The counts, `width` bytes each.
    pub(super) fn put(&self, width: usize, out: &mut Vec<u8>) {
        self.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()[..width]));
    }

    /// Counts of `width` bytes each.
    ///
    /// # Errors
    /// When there is no such width.
    pub(super) fn read(bytes: &[u8], width: usize) -> Result<Self> {
        let values = match width {
            1 => Values::U8(bytes.to_vec()),
            2 => Values::U16(bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect()),
            4 => Values::U32(bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect()),
            8 => Values::U64(bytes.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect()),
            _ => bail!("has counts of {width} bytes each; 1, 2, 4 and 8 are possible"),
        };
        ensure!(bytes.len().is_multiple_of(width), "is cut short");
        Ok(Self(values))
    }
}

fn width_of(most: u64) -> usize {
    match most {
        0..=0xFF => 1,
        0x100..=0xFFFF => 2,
        0x1_0000..=0xFFFF_FFFF => 4,
        _ => 8,
    }
}

/// Adds from `next` on, up to a count that does not fit.
fn add_from<T: Copy + Into<u64> + TryFrom<u64>>(
    values: &mut [T],
    next: usize,
    more: &impl Fn(usize) -> u64,
) -> Option<usize> {
    for (i, value) in values.iter_mut().enumerate().skip(next) {
        let sum = Into::<u64>::into(*value).checked_add(more(i));
        match sum.and_then(|sum| T::try_from(sum).ok()) {
            Some(sum) => *value = sum,
            None => return Some(i),
        }
    }
    None
}

/// As narrow as they can be.
impl From<Vec<u64>> for Tally {
    fn from(values: Vec<u64>) -> Self {
        Self(match width_of(values.iter().fold(0, |most, n| most | n)) {
            1 => Values::U8(values.iter().map(|n| *n as u8).collect()),
            2 => Values::U16(values.iter().map(|n| *n as u16).collect()),
            4 => Values::U32(values.iter().map(|n| *n as u32).collect()),
            _ => Values::U64(values),
        })
    }
}

impl FromIterator<u64> for Tally {
    fn from_iter<I: IntoIterator<Item = u64>>(values: I) -> Self {
        values.into_iter().collect::<Vec<_>>().into()
    }
}

/// By what is counted, not by how it is stored.
impl PartialEq for Tally {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Tally {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_grow_through_all_widths() {
        let mut tally = Tally::new(3);
        let mut plain = [0u64; 3];
        for step in [1, 200, 255, 60_000, 0xFFFF, 0xFFFF_FFFF, 1 << 40, u64::MAX / 2] {
            tally.add(|i| if i == 1 { step } else { i as u64 }).unwrap();
            (plain[1], plain[2]) = (plain[1] + step, plain[2] + 2);
            assert_eq!(tally, Tally::from(plain.to_vec()));
            assert_eq!(tally.iter().collect::<Vec<_>>(), plain);
        }
        assert!(tally.add(|_| u64::MAX / 2).is_err());
    }

    #[test]
    fn counts_survive_in_the_fewest_bytes_that_hold_them() {
        for (values, width) in [
            (vec![0, 255], 1),
            (vec![256, 0], 2),
            (vec![0xFFFF], 2),
            (vec![0x1_0000, 3], 4),
            (vec![1 << 32], 8),
            (vec![], 1),
        ] {
            let mut wide = Tally::from(vec![u64::MAX; values.len()]);
            wide.clear();
            wide.add(|i| values[i]).unwrap();
            for tally in [wide, Tally::from(values.clone())] {
                assert_eq!(tally.width(), width);
                let mut bytes = Vec::new();
                tally.put(width, &mut bytes);
                assert_eq!(bytes.len(), width * values.len());
                assert_eq!(Tally::read(&bytes, width).unwrap(), tally);
            }
        }
        assert!(Tally::read(&[0; 9], 3).is_err() && Tally::read(&[0; 9], 2).is_err());
        assert_eq!(Tally::from(vec![u64::MAX, 5]).sum(), u64::MAX);
    }
}
