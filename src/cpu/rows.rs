//! Which rows of a matrix a kernel is to work on, checked once for the whole call.

/// Some rows of a matrix, or the same piece of each of them. Every row lies inside the data: the constructors and the
/// methods see to it, and kernels rely on it.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    data: &'a [u8],
    stride: usize,
    offset: usize,
    bytes: usize,
    /// How many rows further on the one is that is worth fetching.
    ahead: usize,
    pick: Pick<'a>,
}

/// Rows between what is computed and what is fetched, for rows of `bytes`.
fn rows_ahead(bytes: usize) -> usize {
    /// Bytes between the two. Measured on two Sapphire Rapids cores, Q4_0 rows of 4096, one in ten: 27 GB/s, against 23
    /// to 26 with twice as many and 15 to 20 with an eighth to a half of them.
    const DISTANCE: usize = 8192;
    DISTANCE.div_ceil(bytes.max(1)).min(64)
}

#[derive(Clone, Copy)]
enum Pick<'a> {
    Range { first: usize, len: usize },
    List(&'a [u32]),
}

impl<'a> Rows<'a> {
    /// Rows `first` to `first + len` of a matrix whose rows are `stride` bytes long.
    ///
    /// # Panics
    /// When they are not all in `data`.
    pub fn range(data: &'a [u8], stride: usize, first: usize, len: usize) -> Self {
        let end = first.checked_add(len).and_then(|n| n.checked_mul(stride));
        assert!(end.is_some_and(|end| end <= data.len()), "rows {first} to {first} + {len} are not in the matrix");
        let (ahead, pick) = (rows_ahead(stride), Pick::Range { first, len });
        Self { data, stride, offset: 0, bytes: stride, ahead, pick }
    }

    /// The rows in `list`, in that order.
    ///
    /// # Panics
    /// When they are not all in `data`.
    pub fn list(data: &'a [u8], stride: usize, list: &'a [u32]) -> Self {
        let n_rows = data.len().checked_div(stride).unwrap_or(0);
        let last = list.iter().max().map_or(0, |last| *last as usize + 1);
        assert!(last <= n_rows, "row {last} of {n_rows}");
        Self { data, stride, offset: 0, bytes: stride, ahead: rows_ahead(stride), pick: Pick::List(list) }
    }

    /// Of every row only `bytes` bytes from `offset` on.
    ///
    /// # Panics
    /// When rows are shorter.
    pub fn piece(self, offset: usize, bytes: usize) -> Self {
        assert!(offset + bytes <= self.bytes, "{bytes} bytes at {offset} of a row of {}", self.bytes);
        Self { offset: self.offset + offset, bytes, ahead: rows_ahead(bytes), ..self }
    }

    /// Of the rows only `len` from number `start` on.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn part(self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.len(), "rows {start} to {start} + {len} of {}", self.len());
        let pick = match self.pick {
            Pick::Range { first, .. } => Pick::Range { first: first + start, len },
            Pick::List(list) => Pick::List(&list[start..start + len]),
        };
        Self { pick, ..self }
    }

    /// Number of rows.
    #[inline]
    pub fn len(&self) -> usize {
        match self.pick {
            Pick::Range { len, .. } => len,
            Pick::List(list) => list.len(),
        }
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
    #[inline]
    pub fn get(&self, i: usize) -> &'a [u8] {
        let row = match self.pick {
            Pick::Range { first, len } => {
                assert!(i < len, "row {i} of {len}");
                first + i
            }
            Pick::List(list) => list[i] as usize,
        };
        &self.data[row * self.stride + self.offset..][..self.bytes]
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
