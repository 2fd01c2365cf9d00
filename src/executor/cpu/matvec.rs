//! Vectors times rows of matrices, divided among the threads by rows: each row is read once, for all vectors.

use super::active::{Active, Wanted, WantedBy};
use super::compute::Compute;
use super::followed::{Followed, Kept, NEAR};
use crate::cpu::pool::{Region, Work};
use crate::cpu::several::{CHOICE, Vectors};
use crate::cpu::{Activations, Isa, Which};
use crate::model::{Activation, Matrix, Part};
use std::sync::Arc;

/// Products of one or a few vectors of activations with rows of matrices. What a vector gives does not depend on the
/// others.
#[derive(Default)]
pub(super) struct MatVec {
    region: Region<ProductWork>,
}

/// Rows of one matrix, and the vectors that meet them.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub matrix: &'a Matrix,
    /// Added before the activation, by row of the matrix.
    pub bias: Option<&'a Arc<[f32]>>,
    pub rows: WantedBy<'a>,
    /// Numbers of the vectors, rising; all that there are where there is no list.
    pub vectors: Option<&'a [u32]>,
    /// What will be read where a product, through the activation, is not zero.
    pub followed: Option<Followed<'a>>,
}

impl<'a> Piece<'a> {
    /// Rows of `part` with its bias, for these vectors.
    pub fn of(part: &'a Part, rows: WantedBy<'a>, vectors: &'a [u32]) -> Self {
        Self { matrix: part.matrix(), bias: part.bias.as_ref(), rows, vectors: Some(vectors), followed: None }
    }

    /// The `which` rows of `matrix`, for all vectors.
    fn plain(matrix: &'a Matrix, which: Which<'a>) -> Self {
        Self { matrix, bias: None, rows: WantedBy::All(which), vectors: None, followed: None }
    }

    /// How many products it gives with `n` vectors in all.
    pub fn n_products(&self, n: usize) -> usize {
        self.n_rows() * self.n_vectors(n)
    }

    fn n_rows(&self) -> usize {
        match self.rows {
            WantedBy::All(which) => which.len(),
            WantedBy::Each(active) => active.union().len(),
        }
    }

    fn n_vectors(&self, n: usize) -> usize {
        self.vectors.map_or(n, <[u32]>::len)
    }

    fn n_bytes(&self) -> usize {
        self.n_rows() * self.matrix.row_bytes()
    }
}

/// What products need; owned, because a thread that was held up may look at it after the others have gone on.
#[derive(Default)]
struct ProductWork {
    isa: Option<Isa>,
    x: Activations,
    /// Of which the first `n_pieces` are of this run; the others keep their memory.
    pieces: Vec<OwnedPiece>,
    n_pieces: usize,
    activation: Option<Activation>,
}

#[derive(Default)]
struct OwnedPiece {
    matrix: Option<Matrix>,
    bias: Option<Arc<[f32]>>,
    wanted: Wanted,
    vectors: Vec<u32>,
    followed: Option<Kept>,
    /// Where its products begin among all.
    start: usize,
}

/// Chunks per thread: enough that a thread that starts late or is slow takes fewer.
const CHUNKS_PER_THREAD: usize = 8;
/// Bytes of weights in a chunk at the least, so that claiming it costs little.
const CHUNK_BYTES: usize = 16 << 10;
/// Rows that meet all vectors before the next ones are read, at the most.
pub(super) const MOST_ROWS: usize = 64;
/// Bytes of them: they should stay in the first cache.
const BLOCK_BYTES: usize = 16 << 10;

/// Bytes of weights in a chunk, of so many in all.
pub(super) fn chunk_bytes(all: usize, n_threads: usize) -> usize {
    all.div_ceil(n_threads * CHUNKS_PER_THREAD).max(CHUNK_BYTES)
}

/// `n_rows` in chunks of about `bytes` and of like lengths, multiples of four but for the last.
pub(super) fn chunks(n_rows: usize, row_bytes: usize, bytes: usize) -> impl Iterator<Item = usize> + Clone {
    let most = bytes.div_ceil(row_bytes.max(1)).next_multiple_of(4);
    let chunk = n_rows.div_ceil(n_rows.div_ceil(most).max(1)).next_multiple_of(4).max(1);
    (0..n_rows).step_by(chunk).map(move |start| chunk.min(n_rows - start))
}

/// Rows that meet all vectors before the next ones are read.
pub(super) fn block_rows(row_bytes: usize) -> usize {
    (BLOCK_BYTES / row_bytes.max(1)).next_multiple_of(4).clamp(4, MOST_ROWS)
}

impl MatVec {
    /// All rows of `parts`, which have the same number of columns, one part after another, with every vector:
    /// `[n_rows][n_tokens]`.
    pub fn all(&mut self, cx: Compute, x: &Activations, parts: &[&Matrix]) -> &[f32] {
        self.of(cx, x, parts.iter().map(|matrix| Piece::plain(matrix, Which::from(0..matrix.n_rows))), None)
    }

    /// Rows of one matrix with every vector: `[rows][n_tokens]`.
    pub fn rows(&mut self, cx: Compute, x: &Activations, matrix: &Matrix, which: Which) -> &[f32] {
        self.of(cx, x, std::iter::once(Piece::plain(matrix, which)), None)
    }

    /// Rows of one part with every vector and its bias, where there is one; `activation` is applied to each product where
    /// there is one: `[rows][n_tokens]`.
    pub fn some(
        &mut self,
        cx: Compute,
        x: &Activations,
        part: &Part,
        which: Which,
        activation: Option<Activation>,
    ) -> &[f32] {
        let piece = Piece { bias: part.bias.as_ref(), ..Piece::plain(part.matrix(), which) };
        self.of(cx, x, std::iter::once(piece), activation)
    }

    /// Of every piece `[rows][vectors]`, one piece behind the other, as one piece of work. Where vectors want rows of
    /// their own, the rows are the union, and what a vector does not want has no meaning.
    pub fn of<'a>(
        &mut self,
        cx: Compute,
        x: &Activations,
        pieces: impl Iterator<Item = Piece<'a>> + Clone,
        activation: Option<Activation>,
    ) -> &[f32] {
        let n = x.n_tokens();
        let all = pieces.clone().map(|piece| piece.n_bytes()).sum();
        let bytes = chunk_bytes(all, cx.pool.n_threads());
        let cut = pieces.clone().flat_map(|piece| {
            chunks(piece.n_rows(), piece.matrix.row_bytes(), bytes).map(move |rows| rows * piece.n_vectors(n))
        });
        cx.pool.run_cut(&mut self.region, cut, |work: &mut ProductWork| {
            work.isa = Some(cx.isa);
            work.x.copy_from(x);
            work.activation = activation;
            work.take(pieces, n, all <= NEAR);
        })
    }
}

impl ProductWork {
    fn take<'a>(&mut self, pieces: impl Iterator<Item = Piece<'a>>, n: usize, near: bool) {
        let mut start = 0;
        self.n_pieces = 0;
        for piece in pieces {
            if self.pieces.len() == self.n_pieces {
                self.pieces.push(OwnedPiece::default());
            }
            let own = &mut self.pieces[self.n_pieces];
            own.take(&piece, n);
            own.followed = piece.followed.filter(|_| near).map(|followed| followed.keep());
            own.start = start;
            start += piece.n_products(n);
            self.n_pieces += 1;
        }
    }

    /// `which` rows of `matrix` with every vector.
    fn times(&self, isa: Isa, piece: &OwnedPiece, matrix: &Matrix, which: Which, out: &mut [f32]) {
        let (vectors, kernels) = (&piece.vectors, isa.kernels(matrix.dtype()));
        let rows = matrix.which(which);
        if let [vector] = vectors[..] {
            return (kernels.dot)(rows, self.x.row(vector as usize), out);
        }
        let n = vectors.len();
        let block = block_rows(matrix.row_bytes());
        for (first, vectors) in choices(vectors) {
            let x = self.vectors(vectors);
            for (i, out) in out.chunks_mut(block * n).enumerate() {
                let range = i * block..i * block + out.len() / n;
                kernels.dots(rows, range, &x, &mut out[first..], n);
            }
        }
    }

    /// The rows of `union` with those vectors that want them.
    fn times_each(
        &self,
        isa: Isa,
        piece: &OwnedPiece,
        matrix: &Matrix,
        (each, union): (&Active, &[u32]),
        out: &mut [f32],
    ) {
        let (vectors, kernels) = (&piece.vectors, isa.kernels(matrix.dtype()));
        let (n, rows) = (vectors.len(), matrix.which(Which::List(union)));
        out.fill(0.0);
        for (first, vectors) in choices(vectors) {
            let x = self.vectors(vectors);
            for (i, (block, out)) in union.chunks(MOST_ROWS).zip(out.chunks_mut(MOST_ROWS * n)).enumerate() {
                let range = i * MOST_ROWS..i * MOST_ROWS + block.len();
                let mut wanted = [0; MOST_ROWS];
                for token in 0..vectors.len() {
                    each.mark(first + token, block, |row| wanted[row] |= 1 << token);
                }
                let put = |row: usize, token: usize, product| out[row * n + first + token] = product;
                kernels.wanted_dots(rows, range, &x, &wanted[..block.len()], put);
            }
        }
    }

    fn vectors(&self, numbers: &[u32]) -> Vectors<'_> {
        Vectors::of(numbers.len(), |i| self.x.row(numbers[i] as usize))
    }
}

/// `vectors` in pieces that rows meet at once, each with the place at which it begins.
fn choices(vectors: &[u32]) -> impl Iterator<Item = (usize, &[u32])> {
    vectors.chunks(CHOICE).enumerate().map(|(i, vectors)| (i * CHOICE, vectors))
}

impl OwnedPiece {
    fn take(&mut self, piece: &Piece, n: usize) {
        self.matrix = Some(piece.matrix.clone());
        self.bias = piece.bias.cloned();
        self.vectors.clear();
        match piece.vectors {
            Some(vectors) => self.vectors.extend_from_slice(vectors),
            None => self.vectors.extend(0..n as u32),
        }
        match piece.rows {
            WantedBy::All(which) => self.wanted.all(which),
            WantedBy::Each(active) if active.n_tokens() == 1 => self.wanted.all(Which::List(active.rows())),
            WantedBy::Each(active) => self.wanted.each(active),
        }
    }
}

impl Work for ProductWork {
    fn compute(&self, start: usize, out: &mut [f32]) {
        // A chunk is of one piece.
        let pieces = &self.pieces[..self.n_pieces];
        let at = pieces.partition_point(|piece| piece.start <= start);
        let (Some(isa), Some(piece)) = (self.isa, pieces[..at].last()) else { return };
        let Some(matrix) = &piece.matrix else { return };
        let n = piece.vectors.len();
        let (first, n_rows) = ((start - piece.start) / n, out.len() / n);
        let numbers = match piece.wanted.get() {
            WantedBy::Each(each) => {
                let union = &each.union()[first..first + n_rows];
                self.times_each(isa, piece, matrix, (each, union), out);
                Which::List(union)
            }
            WantedBy::All(which) => {
                let which = which.part(first, n_rows);
                self.times(isa, piece, matrix, which, out);
                which
            }
        };
        if let Some(bias) = &piece.bias {
            for (out, row) in out.chunks_exact_mut(n).zip(numbers.iter()) {
                out.iter_mut().for_each(|o| *o += bias[row]);
            }
        }
        if let Some(activation) = self.activation {
            out.iter_mut().for_each(|o| *o = activation.apply(*o));
        }
        if let Some(followed) = &piece.followed {
            followed.fetch(numbers, out, n);
        }
    }
}

/// Calls `f` with each of `values` and what `products` (`[n_rows][n_tokens]`) has of its row and `token`.
pub(super) fn of_token(products: &[f32], token: usize, n_tokens: usize, values: &mut [f32], f: impl Fn(&mut f32, f32)) {
    if n_tokens == 1 {
        return values.iter_mut().zip(products).for_each(|(value, product)| f(value, *product));
    }
    let products = products.iter().skip(token).step_by(n_tokens);
    values.iter_mut().zip(products).for_each(|(value, product)| f(value, *product));
}

/// `to` becomes `[n_tokens][n_rows]` of what is `[n_rows][n_tokens]`.
pub(super) fn untangle(products: &[f32], n_tokens: usize, to: &mut Vec<f32>) {
    to.clear();
    if n_tokens == 1 {
        return to.extend_from_slice(products);
    }
    for token in 0..n_tokens {
        to.extend(products.iter().skip(token).step_by(n_tokens));
    }
}
