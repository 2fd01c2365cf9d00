//! Which rows of a matrix a kernel is to work on, checked once for the whole call.

use std::ops::Range;

/// Consecutive numbers, or some in rising order: of rows, neurons, or slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// `len` from `first` on.
    Range {
        /// The first one.
        first: usize,
        /// How many.
        len: usize,
    },
    /// These, in rising order.
    List(&'a [u32]),
}

impl From<Range<usize>> for Which<'_> {
    fn from(range: Range<usize>) -> Self {
        Self::Range { first: range.start, len: range.len() }
    }
}

impl<'a> Which<'a> {
    /// None at all.
    pub const NONE: Self = Self::Range { first: 0, len: 0 };

    /// How many there are.
    #[inline]
    pub fn len(self) -> usize {
        match self {
            Self::Range { len, .. } => len,
            Self::List(list) => list.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Number `i` of them.
    #[inline(always)]
    pub fn get(self, i: usize) -> usize {
        match self {
            Self::Range { first, len } => {
                assert!(i < len, "row {i} of {len}");
                first + i
            }
            Self::List(list) => list[i] as usize,
        }
    }

    /// Whether `number` is one of them.
    pub fn contains(self, number: u32) -> bool {
        match self {
            Self::Range { first, len } => (first..first + len).contains(&(number as usize)),
            Self::List(list) => list.binary_search(&number).is_ok(),
        }
    }

    /// `len` of them, from number `start` on.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn part(self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.len(), "rows {start} to {start} + {len} of {}", self.len());
        match self {
            Self::Range { first, .. } => Self::Range { first: first + start, len },
            Self::List(list) => Self::List(&list[start..start + len]),
        }
    }

    /// All of them, in order.
    pub fn iter(self) -> impl Iterator<Item = usize> + 'a {
        (0..self.len()).map(move |i| self.get(i))
    }
}

/// Some rows of a matrix, or the same piece of each of them. Every row lies inside the data: the constructors and
/// methods ensure it, and kernels rely on it.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    data: &'a [u8],
    stride: usize,
    offset: usize,
    bytes: usize,
    /// How many rows ahead to fetch.
    ahead: usize,
    which: Which<'a>,
}

/// Rows between the one computed and the one fetched, for rows of `bytes`.
fn rows_ahead(bytes: usize) -> usize {
    /// Bytes between the two. Measured on two Sapphire Rapids cores, Q4_0 rows of 4096, one in ten: 27 GB/s, against 23
    /// to 26 with twice as many and 15 to 20 with an eighth to a half of them.
    const DISTANCE: usize = 8192;
    DISTANCE.div_ceil(bytes.max(1)).min(64)
}

impl<'a> Rows<'a> {
    /// Rows `first` to `first + len` of a matrix whose rows are `stride` bytes long.
    ///
    /// # Panics
    /// When they are not all in `data`.
    pub fn range(data: &'a [u8], stride: usize, first: usize, len: usize) -> Self {
        let end = first.checked_add(len).and_then(|n| n.checked_mul(stride));
        assert!(end.is_some_and(|end| end <= data.len()), "rows {first} to {first} + {len} are not in the matrix");
        let (ahead, which) = (rows_ahead(stride), Which::Range { first, len });
        Self { data, stride, offset: 0, bytes: stride, ahead, which }
    }

    /// The rows in `list`, in that order.
    ///
    /// # Panics
    /// When they are not all in `data`.
    pub fn list(data: &'a [u8], stride: usize, list: &'a [u32]) -> Self {
        let n_rows = data.len().checked_div(stride).unwrap_or(0);
        let last = list.iter().max().map_or(0, |last| *last as usize + 1);
        assert!(last <= n_rows, "row {last} of {n_rows}");
        Self { data, stride, offset: 0, bytes: stride, ahead: rows_ahead(stride), which: Which::List(list) }
    }

    /// Those of a matrix that `which` names.
    ///
    /// # Panics
    /// When they are not all in `data`.
    pub fn of(data: &'a [u8], stride: usize, which: Which<'a>) -> Self {
        match which {
            Which::Range { first, len } => Self::range(data, stride, first, len),
            Which::List(list) => Self::list(data, stride, list),
        }
    }

    /// Only `bytes` bytes of every row, from `offset` on.
    ///
    /// # Panics
    /// When rows are shorter.
    pub fn piece(self, offset: usize, bytes: usize) -> Self {
        assert!(offset + bytes <= self.bytes, "{bytes} bytes at {offset} of a row of {}", self.bytes);
        Self { offset: self.offset + offset, bytes, ahead: rows_ahead(bytes), ..self }
    }

    /// Only `len` of the rows, from number `start` on.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn part(self, start: usize, len: usize) -> Self {
        Self { which: self.which.part(start, len), ..self }
    }

    /// Number of rows.
    #[inline]
    pub fn len(&self) -> usize {
        self.which.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of each row.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Row `i` of those picked.
    // Called twice for each row that is computed: rows of small models are short.
    #[inline(always)]
    pub fn get(&self, i: usize) -> &'a [u8] {
        let row = self.which.get(i);
        &self.data[row * self.stride + self.offset..][..self.bytes]
    }

    /// Has the processor fetch row `i` into its caches, without waiting.
    pub fn fetch(&self, i: usize) {
        super::fetch::all_of(self.get(i));
    }

    /// The row to fetch while row `i` is computed: one that is far enough ahead to be there in time, or the last.
    #[inline]
    pub fn ahead(&self, i: usize) -> &'a [u8] {
        self.get((i + self.ahead).min(self.len() - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_asked_for() {
        let data: Vec<u8> = (0..40).collect();
        let rows = Rows::range(&data, 10, 1, 3);
        assert_eq!((rows.len(), rows.get(2)[0], rows.piece(4, 2).get(0)), (3, 30, &[14u8, 15][..]));
        let rows = Rows::list(&data, 10, &[3, 0]);
        assert_eq!((rows.get(0)[0], rows.get(1)[0], rows.part(1, 1).get(0)[0]), (30, 0, 0));
    }

    #[test]
    #[should_panic(expected = "row 5 of 4")]
    fn a_row_beyond_the_matrix_is_refused() {
        Rows::list(&[0; 40], 10, &[0, 4]);
    }

    #[test]
    #[should_panic(expected = "not in the matrix")]
    fn a_range_beyond_the_matrix_is_refused() {
        Rows::range(&[0; 40], 10, 2, 3);
    }
}
