//! Learned embeddings of positions.

/// Rows of `position_embd`, which are added to those of `token_embd`. No token has a position beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// How many positions have a row.
    pub n: usize,
    /// Number of the row of position 0.
    pub offset: usize,
}

/// Rows that OPT's own tables have before that of position 0. Some converters leave them out, and no key says so.
const BEFORE: usize = 2;

impl Positions {
    /// Of a table of so many rows, of a model whose file states a context of `n_ctx` tokens. Contexts are powers of two: a
    /// table with two rows more than one, or than the stated context, still has those before position 0.
    pub fn of_table(n_rows: usize, n_ctx: usize) -> Self {
        let n = n_rows.saturating_sub(BEFORE);
        match n.is_power_of_two() || n == n_ctx && n > 0 {
            true => Self { n, offset: BEFORE },
            false => Self { n: n_rows, offset: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_a_table_tell_where_positions_begin() {
        let of = |n_rows, n_ctx| {
            let Positions { n, offset } = Positions::of_table(n_rows, n_ctx);
            (n, offset)
        };
        // As converters write it, as it is, and as PowerInfer states it.
        assert_eq!(of(2048, 2048), (2048, 0));
        assert_eq!(of(2050, 2048), (2048, 2));
        assert_eq!(of(2050, 2050), (2048, 2));
        // Contexts that are no powers of two.
        assert_eq!(of(1000, 1000), (1000, 0));
        assert_eq!(of(1002, 1000), (1000, 2));
        assert_eq!([of(1, 1), of(2, 2), of(2, 0)], [(1, 0), (2, 0), (2, 0)]);
    }
}
