//! Dense linear algebra for fitting: products split over threads, Cholesky factors, symmetric eigenvectors.
//!
//! Work is divided into chunks of fixed size, and every number is computed by one chunk: results do not depend on
//! threads.
#![allow(unsafe_code, reason = "the products of `matrixmultiply` take raw pointers; they are called here only")]

use crate::parallel;
use anyhow::{Result, ensure};

/// Rows of a product that one chunk computes: a whole number of `matrixmultiply`'s blocks.
const CHUNK: usize = 128;
/// Columns of eigenvectors that one chunk rotates: they stay in cache meanwhile.
const TURNED: usize = 32;
/// The most steps of the eigenvalue iteration for one value; 3 are usual.
const MAX_STEPS: usize = 60;

/// A matrix somewhere in `data`: element `(i, j)` is `data[i * row_step + j * col_step]`.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    data: &'a [f32],
    n_rows: usize,
    n_cols: usize,
    row_step: usize,
    col_step: usize,
}

impl<'a> View<'a> {
    /// `[n_rows][n_cols]`, rows one after another.
    pub fn new(data: &'a [f32], n_rows: usize, n_cols: usize) -> Self {
        assert_eq!(data.len(), n_rows * n_cols, "not {n_rows} x {n_cols} values");
        Self { data, n_rows, n_cols, row_step: n_cols, col_step: 1 }
    }

    /// Its transpose.
    pub fn t(self) -> Self {
        let Self { data, n_rows, n_cols, row_step, col_step } = self;
        Self { data, n_rows: n_cols, n_cols: n_rows, row_step: col_step, col_step: row_step }
    }

    /// `n` rows from `first` on.
    fn rows(self, first: usize, n: usize) -> Self {
        assert!(first + n <= self.n_rows);
        Self { data: &self.data[(first * self.row_step).min(self.data.len())..], n_rows: n, ..self }
    }

    /// The first `n` columns.
    pub fn first_cols(self, n: usize) -> Self {
        assert!(n <= self.n_cols);
        Self { n_cols: n, ..self }
    }
}

/// `c = a * b`, or `c += a * b`, in one piece on this thread.
fn gemm_into(a: View, b: View, c: &mut [f32], c_step: usize, add: bool) {
    let (m, k, n) = (a.n_rows, a.n_cols, b.n_cols);
    assert_eq!(k, b.n_rows);
    if m == 0 || n == 0 {
        return;
    }
    let last = |v: &View| {
        if v.n_rows == 0 || v.n_cols == 0 { 0 } else { (v.n_rows - 1) * v.row_step + (v.n_cols - 1) * v.col_step + 1 }
    };
    assert!(last(&a) <= a.data.len() && last(&b) <= b.data.len());
    assert!(n <= c_step && (m - 1) * c_step + n <= c.len());
    let beta = if add { 1.0 } else { 0.0 };
    // SAFETY: the asserts above keep the last element of each matrix inside its slice, and `c` is borrowed exclusively,
    // with rows that do not overlap.
    unsafe {
        matrixmultiply::sgemm(
            m,
            k,
            n,
            1.0,
            a.data.as_ptr(),
            a.row_step as isize,
            a.col_step as isize,
            b.data.as_ptr(),
            b.row_step as isize,
            b.col_step as isize,
            beta,
            c.as_mut_ptr(),
            c_step as isize,
            1,
        );
    }
}

/// `c = a * b` on this thread.
pub(super) fn multiply_into(a: View, b: View, c: &mut [f32]) {
    assert_eq!(c.len(), a.n_rows * b.n_cols);
    gemm_into(a, b, c, b.n_cols, false);
}

/// `a * b`: `[a.n_rows][b.n_cols]`.
pub(super) fn product(a: View, b: View) -> Vec<f32> {
    let mut c = vec![0.0; a.n_rows * b.n_cols];
    add_product(a, b, &mut c);
    c
}

/// `c += a * b`.
pub(super) fn add_product(a: View, b: View, c: &mut [f32]) {
    let n = b.n_cols;
    assert_eq!(c.len(), a.n_rows * n);
    if n == 0 {
        return;
    }
    parallel::each(c.chunks_mut(CHUNK * n), |i, c| {
        gemm_into(a.rows(i * CHUNK, c.len() / n), b, c, n, true);
    });
}

/// `c += a^T * a` on and below the diagonal (and some of it above); see [`mirror`].
pub(super) fn add_gram(a: View, c: &mut [f32]) {
    let (n, at) = (a.n_cols, a.t());
    assert_eq!(c.len(), n * n);
    if n == 0 {
        return;
    }
    // Starting with the last, which is the longest, so that no thread is left with it at the end.
    parallel::each(c.chunks_mut(CHUNK * n).enumerate().rev(), |_, (i, c)| {
        let end = i * CHUNK + c.len() / n;
        gemm_into(at.rows(i * CHUNK, c.len() / n), a.first_cols(end), c, n, true);
    });
}

/// Copies what is below the diagonal of `[n][n]` above it.
pub(super) fn mirror(c: &mut [f32], n: usize) {
    for i in 0..n {
        for j in 0..i {
            c[j * n + i] = c[i * n + j];
        }
    }
}

/// Lower factor `l` with `l * l^T = a` (`[n][n]`), or `None` if `a` is not positive definite.
fn cholesky(a: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        let (above, row) = l.split_at_mut(i * n);
        for j in 0..=i {
            let other = if j == i { None } else { Some(&above[j * n..j * n + j]) };
            let dot = other.map_or_else(|| dot(&row[..j], &row[..j]), |other| dot(&row[..j], other));
            let rest = a[i * n + j] - dot;
            if j < i {
                row[j] = rest / above[j * n + j];
            } else if rest > 0.0 && rest.is_finite() {
                row[j] = rest.sqrt();
            } else {
                return None;
            }
        }
    }
    Some(l)
}

/// In eight sums, which the processor can compute at once.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(s, (a, b))| *s += a * b);
    }
    sums.iter().sum::<f64>() + rest
}

/// `l^-1` of a lower factor: `[n][n]`, zero above the diagonal.
fn invert_lower(l: &[f64], n: usize) -> Vec<f64> {
    // Column j of the inverse is solved as row j of its transpose.
    let mut transposed = vec![0.0; n * n];
    parallel::each(transposed.chunks_mut(n.max(1)), |j, x| {
        for i in j..n {
            let unit = if i == j { 1.0 } else { 0.0 };
            x[i] = (unit - dot(&l[i * n + j..i * n + i], &x[j..i])) / l[i * n + i];
        }
    });
    let mut inverse = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            inverse[i * n + j] = transposed[j * n + i];
        }
    }
    inverse
}

/// `t` with `t * gram * t^T` near the identity (`[n][n]`, lower triangular), or as near as 32-bit floats allow if their
/// rounding loses some direction; and whether it lost none.
///
/// # Errors
/// When `gram` holds something that is no number.
pub(super) fn whitener(gram: &[f32], n: usize) -> Result<(Vec<f32>, bool)> {
    let mut a: Vec<f64> = gram.iter().map(|v| f64::from(*v)).collect();
    ensure!(a.iter().all(|v| v.is_finite()), "something computed is no finite number; are weights and samples whole?");
    let scales: Vec<f64> = (0..n).map(|i| 1.0 / a[i * n + i].max(f64::MIN_POSITIVE).sqrt()).collect();
    for i in 0..n {
        for j in 0..n {
            a[i * n + j] *= scales[i] * scales[j];
        }
    }
    let least = 1e-7 * n as f64;
    let mut shift = least;
    loop {
        for i in 0..n {
            a[i * n + i] = 1.0 + shift;
        }
        if let Some(l) = cholesky(&a, n) {
            let mut t = invert_lower(&l, n);
            for row in t.chunks_exact_mut(n) {
                row.iter_mut().zip(&scales).for_each(|(v, s)| *v *= s);
            }
            return Ok((t.into_iter().map(|v| v as f32).collect(), shift == least));
        }
        shift *= 10.0;
        ensure!(shift < 1e6, "a covariance cannot be factored");
    }
}

/// Inverse of a positive definite matrix (`[n][n]`), with a little added to its diagonal if necessary.
///
/// # Errors
/// As [`whitener`].
pub(super) fn inverse(a: &[f32], n: usize) -> Result<Vec<f32>> {
    let (t, _) = whitener(a, n)?;
    let t = View::new(&t, n, n);
    Ok(product(t.t(), t))
}

/// A rotation of rows `at` and `at + 1`.
#[derive(Clone, Copy)]
struct Turn {
    at: usize,
    cos: f64,
    sin: f64,
}

/// Eigenvalues, in descending order, and eigenvectors, as the rows of `[n][n]`, of the symmetric matrix `a`:
/// Householder's tridiagonal form and the implicit QL iteration (Golub and Van Loan, Matrix Computations, 8.3).
///
/// # Errors
/// When `a` holds something that is no number.
pub(super) fn eigen(a: &[f32], n: usize) -> Result<(Vec<f64>, Vec<f32>)> {
    let mut a: Vec<f64> = a.iter().map(|v| f64::from(*v)).collect();
    ensure!(a.iter().all(|v| v.is_finite()), "something computed is no finite number; are weights and samples whole?");
    let (mut d, mut e, reflectors) = tridiagonal(&mut a, n);
    let turns = implicit_ql(&mut d, &mut e)?;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| d[*b].total_cmp(&d[*a]).then(a.cmp(b)));
    // Columns of the vectors are independent: each chunk builds its own from the identity.
    let columns: Vec<usize> = (0..n).step_by(TURNED).collect();
    let chunks = parallel::map(columns.iter(), |_, first| {
        let width = TURNED.min(n - first);
        // `[n][width]`: columns of Q^T, where Q has the eigenvectors as columns.
        let mut q = vec![0.0; n * width];
        (0..width).for_each(|c| q[(first + c) * width + c] = 1.0);
        for (k, v) in reflectors.iter().enumerate() {
            reflect(&mut q[(k + 1) * width..], v, width);
        }
        for Turn { at, cos, sin } in &turns {
            let (low, high) = q[at * width..(at + 2) * width].split_at_mut(width);
            for (x, y) in low.iter_mut().zip(high) {
                (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
            }
        }
        q
    });
    let mut vectors = vec![0.0; n * n];
    for (out, from) in vectors.chunks_exact_mut(n.max(1)).zip(&order) {
        for (first, q) in columns.iter().zip(&chunks) {
            let width = q.len() / n;
            let row = &q[from * width..][..width];
            out[*first..][..width].iter_mut().zip(row).for_each(|(o, v)| *o = *v as f32);
        }
    }
    Ok((order.iter().map(|i| d[*i]).collect(), vectors))
}

/// `q -= v (v^T q)` over the rows of `q`, where `v^T v` is 2 or 0.
fn reflect(q: &mut [f64], v: &[f64], width: usize) {
    let mut dots = [0.0; TURNED];
    for (row, v) in q.chunks_exact(width).zip(v) {
        dots.iter_mut().zip(row).for_each(|(d, q)| *d += v * q);
    }
    for (row, v) in q.chunks_exact_mut(width).zip(v) {
        row.iter_mut().zip(&dots).for_each(|(q, d)| *q -= v * d);
    }
}

/// Diagonal, subdiagonal, and the reflectors: the `k`th, over elements from `k + 1` on, has square 2 (or 0).
fn tridiagonal(a: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>, Vec<Vec<f64>>) {
    let (mut d, mut e, mut reflectors) = (vec![0.0; n], vec![0.0; n], Vec::new());
    for k in 0..n {
        d[k] = a[k * n + k];
        if k + 1 == n {
            break;
        }
        let m = n - k - 1;
        let mut v: Vec<f64> = a[k * n + k + 1..(k + 1) * n].to_vec();
        let norm = dot(&v, &v).sqrt();
        let alpha = if v[0] > 0.0 { -norm } else { norm };
        e[k] = alpha;
        v[0] -= alpha;
        let square = dot(&v, &v);
        let scale = if square > 0.0 { (2.0 / square).sqrt() } else { 0.0 };
        v.iter_mut().for_each(|x| *x *= scale);
        let p: Vec<f64> = (0..m).map(|i| dot(&a[(k + 1 + i) * n + k + 1..][..m], &v)).collect();
        let half = dot(&p, &v) / 2.0;
        let w: Vec<f64> = p.iter().zip(&v).map(|(p, v)| p - half * v).collect();
        for i in 0..m {
            let start = (k + 1 + i) * n + k + 1;
            let (vi, wi) = (v[i], w[i]);
            a[start..start + m].iter_mut().zip(v.iter().zip(&w)).for_each(|(a, (v, w))| *a -= vi * w + wi * v);
        }
        reflectors.push(v);
    }
    (d, e, reflectors)
}

/// Replaces the tridiagonal matrix (`d`, and `e[i]` between `i` and `i + 1`) by its eigenvalues in `d`.
fn implicit_ql(d: &mut [f64], e: &mut [f64]) -> Result<Vec<Turn>> {
    let n = d.len();
    let mut turns = Vec::new();
    let scale = d.iter().chain(&*e).fold(0.0f64, |m, v| m.max(v.abs()));
    for l in 0..n {
        for step in 0.. {
            let small = |i: usize| e[i].abs() <= f64::EPSILON * (d[i].abs() + d[i + 1].abs()).max(f64::EPSILON * scale);
            let m = (l..n - 1).find(|i| small(*i)).unwrap_or(n - 1);
            if m == l {
                break;
            }
            ensure!(step < MAX_STEPS, "the eigenvalues of a covariance cannot be found");
            let g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let r = g.hypot(1.0);
            let mut g = d[m] - d[l] + e[l] / (g + r.copysign(g));
            let (mut sin, mut cos, mut p) = (1.0, 1.0, 0.0);
            let mut whole = true;
            for i in (l..m).rev() {
                let (f, b) = (sin * e[i], cos * e[i]);
                let r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    whole = false;
                    break;
                }
                (sin, cos) = (f / r, g / r);
                g = d[i + 1] - p;
                let r = (d[i] - g) * sin + 2.0 * cos * b;
                p = sin * r;
                d[i + 1] = g + p;
                g = cos * r - b;
                turns.push(Turn { at: i, cos, sin });
            }
            if whole {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f32 / (1u64 << 31) as f32 - 0.5
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn products_are_those_of_the_textbook() {
        let (m, k, n) = (301, 77, 45);
        let (a, b) = (random(m * k, 1), random(k * n, 2));
        let c = product(View::new(&a, m, k), View::new(&b, k, n));
        for (i, j) in [(0, 0), (129, 44), (300, 7)] {
            let expected: f32 = (0..k).map(|x| a[i * k + x] * b[x * n + j]).sum();
            assert!((c[i * n + j] - expected).abs() < 1e-4);
        }
        let mut alone = vec![f32::NAN; m * n];
        multiply_into(View::new(&a, m, k), View::new(&b, k, n), &mut alone);
        assert!(alone.iter().zip(&c).all(|(a, b)| (a - b).abs() < 1e-4));
        let mut gram = vec![0.0; k * k];
        add_gram(View::new(&a, m, k), &mut gram);
        mirror(&mut gram, k);
        let whole = product(View::new(&a, m, k).t(), View::new(&a, m, k));
        assert!(gram.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn a_whitened_covariance_is_the_identity() {
        let (m, n) = (200, 60);
        let a = random(m * n, 3);
        let gram = product(View::new(&a, m, n).t(), View::new(&a, m, n));
        let (t, _) = whitener(&gram, n).unwrap();
        let t = View::new(&t, n, n);
        let left = product(t, View::new(&gram, n, n));
        let identity = product(View::new(&left, n, n), t.t());
        for (i, v) in identity.iter().enumerate() {
            let expected = if i % (n + 1) == 0 { 1.0 } else { 0.0 };
            assert!((v - expected).abs() < 1e-3, "{i}: {v}");
        }
        assert!(whitener(&[f32::NAN], 1).is_err());
        assert!(whitener(&[0.0; 9], 3).is_ok());
    }

    #[test]
    fn eigenvectors_give_the_matrix_back() {
        for n in [1, 2, 5, 40, 97] {
            let b = random(n * n, 4);
            let a: Vec<f32> = (0..n * n).map(|i| b[i] + b[i % n * n + i / n]).collect();
            let (values, vectors) = eigen(&a, n).unwrap();
            assert!(values.is_sorted_by(|a, b| a >= b));
            for (value, vector) in values.iter().zip(vectors.chunks_exact(n)) {
                let image = product(View::new(&a, n, n), View::new(vector, n, 1));
                for (i, v) in image.iter().zip(vector) {
                    assert!((f64::from(*i) - value * f64::from(*v)).abs() < 1e-4, "{n}: {i} is not {value} * {v}");
                }
            }
        }
        let (values, vectors) = eigen(&[2.0, 0.0, 0.0, 2.0], 2).unwrap();
        assert_eq!((values[0], vectors.len()), (2.0, 4));
    }
}
