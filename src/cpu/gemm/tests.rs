//! Tests: every instruction set and type against sums in 64 bits and against the dot products.

use super::*;
use crate::cpu::testing::noise;
use crate::cpu::{ActKind, Activations, Pool};
use crate::quant::convert;

/// The instruction sets of this processor; prints which ones it lacks.
#[allow(clippy::print_stderr, reason = "what is skipped is said")]
fn isas() -> Vec<Isa> {
    let (have, lack): (Vec<_>, Vec<_>) = Isa::ALL.into_iter().partition(|i| i.is_available());
    if !lack.is_empty() {
        eprintln!("skipped: this processor has no {lack:?}");
    }
    have
}

fn types() -> impl Iterator<Item = GgmlType> {
    let names = [
        "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
        "IQ4_XS", "MXFP4",
    ];
    names.into_iter().map(|name| GgmlType::from_name(name).unwrap())
}

/// Random rows, with every pattern of quants whose values are finite and moderate, and those values.
fn random_rows(dtype: GgmlType, n_rows: usize, n: usize, seed: u32) -> (Vec<u8>, Vec<f32>) {
    let mut data = vec![0; dtype.row_bytes(n).unwrap() * n_rows];
    let mut values = vec![0.0; n * n_rows];
    let blocks = data.chunks_exact_mut(dtype.block_bytes()).zip(values.chunks_exact_mut(dtype.block_len()));
    for (i, (block, values)) in blocks.enumerate() {
        for attempt in 0.. {
            let bytes = noise(block.len(), seed + 1000 * i as u32 + attempt);
            block.iter_mut().zip(bytes).for_each(|(b, v)| *b = (v * 127.5 + 127.5) as u8);
            convert::dequantizer(dtype).unwrap()(block, values);
            if values.iter().all(|v| v.abs() < 1e4) {
                break;
            }
        }
    }
    (data, values)
}

struct Case {
    dtype: GgmlType,
    n_rows: usize,
    n_tokens: usize,
    n_cols: usize,
    data: Vec<u8>,
    w: Vec<f32>,
    acts: Activations,
}

impl Case {
    fn new(dtype: GgmlType, n_rows: usize, n_tokens: usize, n_cols: usize) -> Self {
        let (data, w) = random_rows(dtype, n_rows, n_cols, (n_rows + n_cols) as u32);
        let mut acts = Activations::default();
        let kind = if dtype.block_len() == 1 { ActKind::F32 } else { ActKind::Q8 };
        acts.load(&noise(n_tokens * n_cols, 17), n_cols, [kind]);
        Self { dtype, n_rows, n_tokens, n_cols, data, w, acts }
    }

    fn rows(&self) -> Rows<'_> {
        Rows::range(&self.data, self.dtype.row_bytes(self.n_cols).unwrap(), 0, self.n_rows)
    }

    fn seen(&self, t: usize) -> Vec<f32> {
        let x = self.acts.row(t);
        let bytes = |(i, q): (usize, &i8)| f32::from(*q) * x.d[i / 32];
        if self.dtype.block_len() == 1 { x.f32.to_vec() } else { x.q.iter().enumerate().map(bytes).collect() }
    }

    /// `[n_tokens][n_rows]`.
    fn product(&self, isa: Isa) -> Vec<f32> {
        let mut packed = Packed::default();
        packed.load(&self.acts, [(self.dtype, None)], &Pool::new(1).unwrap());
        let mut tiled = vec![f32::NAN; self.n_rows * self.n_tokens];
        rows_times(isa, self.dtype, self.rows(), packed.section(0), &mut tiled);
        let mut out = vec![f32::NAN; tiled.len()];
        untile(&tiled, self.n_rows, ROW_GRAIN, 0, &mut out);
        out
    }

    fn check(&self, isa: Isa) {
        let got = self.product(isa);
        for t in 0..self.n_tokens {
            let x = self.seen(t);
            for (r, w) in self.w.chunks_exact(self.n_cols).enumerate() {
                let exact: f64 = w.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                let size: f64 = w.iter().zip(&x).map(|(w, x)| (f64::from(*w) * f64::from(*x)).abs()).sum();
                let got = got[t * self.n_rows + r];
                let Self { dtype, n_rows, n_tokens, n_cols, .. } = self;
                assert!(
                    (f64::from(got) - exact).abs() <= 1e-5 * size,
                    "{isa} {dtype} {n_rows} x {n_cols} x {n_tokens}: row {r}, token {t}: {got} instead of {exact}"
                );
            }
        }
    }
}

#[test]
fn products_agree_with_sums_in_64_bits() {
    for dtype in types() {
        let grain = dtype.block_len();
        for (n_rows, n_tokens, n_cols) in [(1, 1, 1), (16, 12, 3), (17, 5, 2), (37, 29, 5), (33, 16, 9)] {
            let case = Case::new(dtype, n_rows, n_tokens, n_cols * grain);
            isas().into_iter().for_each(|isa| case.check(isa));
        }
        for (n_rows, n_tokens, n_cols) in [(16, 13, if grain == 1 { 777 } else { 2304 }), (3, 2, 11008)] {
            let case = Case::new(dtype, n_rows, n_tokens, n_cols);
            isas().into_iter().for_each(|isa| case.check(isa));
        }
    }
}

#[test]
fn dividing_rows_and_tokens_changes_no_bit() {
    for dtype in types() {
        let grain = dtype.block_len();
        let n_cols = if grain == 256 { 1280 } else { 1056 + grain % 2 };
        let (n_rows, n_tokens) = (41, 27);
        let all = Case::new(dtype, n_rows, n_tokens, n_cols);
        for isa in isas() {
            let expected = all.product(isa);
            for (first, count) in [(0, 1), (3, 2), (5, 13), (26, 1)] {
                let mut packed = Packed::default();
                let mut acts = Activations::default();
                let x: Vec<f32> = (first..first + count).flat_map(|t| all.acts.row(t).f32.to_vec()).collect();
                acts.load(&x, n_cols, [if grain == 1 { ActKind::F32 } else { ActKind::Q8 }]);
                packed.load(&acts, [(dtype, None)], &Pool::new(2).unwrap());
                for (first_row, n) in [(0, 16), (16, 25), (32, 9), (7, 20)] {
                    let mut tiled = vec![0.0; n * count];
                    rows_times(isa, dtype, all.rows().part(first_row, n), packed.section(0), &mut tiled);
                    let mut out = vec![0.0; n * count];
                    untile(&tiled, n, ROW_GRAIN, 0, &mut out);
                    for (t, out) in out.chunks_exact(n).enumerate() {
                        let expected = &expected[(first + t) * n_rows + first_row..][..n];
                        assert_eq!(out, expected, "{isa} {dtype} token {} rows {first_row} + {n}", first + t);
                    }
                }
            }
        }
    }
}

#[test]
fn sections_of_some_vectors_give_the_bits_that_all_of_them_give() {
    let pool = Pool::new(3).unwrap();
    let lists: [Option<&[u32]>; 6] = [Some(&[1, 4, 16]), None, Some(&[0]), Some(&[]), Some(&[2, 3, 4, 5, 6]), None];
    let mut packed = Packed::default();
    for [one, other] in ["Q8_0", "Q4_K", "F16"].map(|name| [name, if name == "F16" { "F32" } else { "Q6_K" }]) {
        let cases = [one, other].map(|name| Case::new(GgmlType::from_name(name).unwrap(), 21, 17, 512));
        let isa = Isa::detect();
        // Twice each: matrices side by side that meet the same vectors share them.
        let sections = || lists.iter().flat_map(|list| [(0, *list), (0, *list), (1, *list)]);
        packed.load(&cases[0].acts, sections().map(|(i, list)| (cases[i].dtype, list)), &pool);
        assert!(packed.is_for(sections().map(|(i, _)| cases[i].dtype)) && !packed.is_for([cases[0].dtype].into_iter()));
        let expected = cases.each_ref().map(|case| case.product(isa));
        for (at, (i, list)) in sections().enumerate() {
            let (case, x) = (&cases[i], packed.section(at));
            let tokens: Vec<u32> = list.map_or((0..17).collect(), <[u32]>::to_vec);
            assert_eq!(x.n_tokens(), tokens.len());
            let mut tiled = vec![f32::NAN; case.n_rows * tokens.len()];
            rows_times(isa, case.dtype, case.rows(), x, &mut tiled);
            let mut out = vec![f32::NAN; tiled.len()];
            untile(&tiled, case.n_rows, ROW_GRAIN, 0, &mut out);
            for (out, token) in out.chunks_exact(case.n_rows).zip(tokens) {
                assert_eq!(out, &expected[i][token as usize * case.n_rows..][..case.n_rows], "{one}, section {at}");
            }
        }
    }
}

#[test]
fn threads_divide_rows_and_columns_in_one_buffer() {
    let pool = Pool::new(2).unwrap();
    let case = Case::new(GgmlType::Q4_0, 90, 7, 1088);
    let (isa, dtype, n_tokens) = (Isa::detect(), case.dtype, case.n_tokens);
    let mut packed = Packed::default();
    packed.load(&case.acts, [(dtype, None)], &pool);
    let mut tiled = vec![0.0; case.n_rows * n_tokens];
    pool.fill(&mut tiled, ROW_GRAIN * n_tokens, |start, out| {
        let rows = case.rows().part(start / n_tokens, out.len() / n_tokens);
        rows_times(isa, dtype, rows, packed.section(0), out);
    });
    let mut out = vec![0.0; tiled.len()];
    pool.fill(&mut out, case.n_rows, |start, out| untile(&tiled, case.n_rows, ROW_GRAIN, start / case.n_rows, out));
    assert_eq!(out, case.product(isa));

    let h = factors(n_tokens, case.n_rows);
    let mut neurons = sparse::Factors::default();
    neurons.load(isa, &h, case.n_rows, true, &pool);
    let mut tiled = vec![0.0; n_tokens * case.n_cols];
    pool.fill(&mut tiled, sparse::COL_GRAIN * n_tokens, |start, out| {
        for (i, out) in out.chunks_mut(sparse::COL_GRAIN * n_tokens).enumerate() {
            let (at, n) = (start / n_tokens + i * sparse::COL_GRAIN, out.len() / n_tokens);
            let piece = case.rows().piece(bytes(dtype, at), bytes(dtype, n));
            sparse::add_rows(isa, dtype, piece, &neurons, out);
        }
    });
    let mut y = vec![0.0; tiled.len()];
    untile(&tiled, case.n_cols, sparse::COL_GRAIN, 0, &mut y);
    let mut expected = vec![0.0; y.len()];
    add_rows(isa, dtype, case.rows(), &h, true, &mut expected);
    assert_eq!(y, expected);
}

#[test]
fn products_agree_with_the_dot_products() {
    for isa in isas() {
        for dtype in types().filter(|dtype| crate::cpu::check_supported(*dtype).is_ok()) {
            let case = Case::new(dtype, 18, 2, if dtype.block_len() == 1 { 300 } else { 1280 });
            let kernels = isa.kernels(dtype);
            let mut acts = Activations::default();
            let x: Vec<f32> = (0..2).flat_map(|t| case.acts.row(t).f32.to_vec()).collect();
            acts.load(&x, case.n_cols, [kernels.act]);
            let got = case.product(isa);
            for t in 0..2 {
                let mut dots = vec![0.0; case.n_rows];
                (kernels.dot)(case.rows(), acts.row(t), &mut dots);
                let seen = case.seen(t);
                for (r, w) in case.w.chunks_exact(case.n_cols).enumerate() {
                    let size: f32 = w.iter().zip(&seen).map(|(w, x)| (w * x).abs()).sum();
                    let (got, dot) = (got[t * case.n_rows + r], dots[r]);
                    assert!((got - dot).abs() <= 1e-5 * size, "{isa} {dtype}: {got} instead of {dot}");
                }
            }
        }
    }
}

#[test]
fn something_infinite_among_the_activations_shows_in_its_token_only() {
    for isa in isas() {
        for dtype in types() {
            let (data, _) = random_rows(dtype, 3, 256, 5);
            let mut x = noise(256 * 3, 9);
            x[256 + 7] = f32::INFINITY;
            let mut acts = Activations::default();
            acts.load(&x, 256, [ActKind::F32, ActKind::Q8]);
            let mut packed = Packed::default();
            packed.load(&acts, [(dtype, None)], &Pool::new(1).unwrap());
            let mut out = vec![0.0; 9];
            rows_times(isa, dtype, Rows::range(&data, data.len() / 3, 0, 3), packed.section(0), &mut out);
            for (t, out) in out.chunks_exact(3).enumerate() {
                assert!(out.iter().all(|v| v.is_finite() == (t != 1)), "{isa} {dtype} token {t}: {out:?}");
            }
        }
    }
}

fn add_rows(isa: Isa, dtype: GgmlType, rows: Rows, h: &[f32], skip: bool, y: &mut [f32]) {
    let mut factors = sparse::Factors::default();
    factors.load(isa, h, rows.len(), skip, &Pool::new(2).unwrap());
    sparse::add_rows(isa, dtype, rows, &factors, y);
}

/// `[n_tokens][n_neurons]` factors, some of them zero, of either sign.
fn factors(n_tokens: usize, n_neurons: usize) -> Vec<f32> {
    let h = noise(n_tokens * n_neurons, 31);
    h.into_iter().map(|h| if h < 0.6 { h.signum() * 0.0 } else { h }).collect()
}

#[test]
fn added_rows_agree_with_sums_in_64_bits_whether_zeros_are_skipped_or_not() {
    for dtype in types() {
        let grain = dtype.block_len();
        for (n_neurons, n_tokens, n_cols) in [(1, 1, grain), (65, 3, 3 * grain), (1130, 4, 768), (64, 2, 7 * grain)] {
            let (data, w) = random_rows(dtype, n_neurons, n_cols, 3);
            let rows = Rows::range(&data, data.len() / n_neurons, 0, n_neurons);
            let (h, start) = (factors(n_tokens, n_neurons), noise(n_tokens * n_cols, 8));
            for isa in isas() {
                let mut y = start.clone();
                add_rows(isa, dtype, rows, &h, true, &mut y);
                for (i, got) in y.iter().enumerate() {
                    let h = &h[i / n_cols * n_neurons..][..n_neurons];
                    let product = |(n, h): (usize, &f32)| f64::from(*h) * f64::from(w[n * n_cols + i % n_cols]);
                    let exact = f64::from(start[i]) + h.iter().enumerate().map(product).sum::<f64>();
                    let size = f64::from(start[i].abs()) + h.iter().enumerate().map(|p| product(p).abs()).sum::<f64>();
                    assert!(
                        (f64::from(*got) - exact).abs() <= 1e-5 * size,
                        "{isa} {dtype} {n_neurons}: {got}, {exact}"
                    );
                }
                let mut dense = start.clone();
                add_rows(isa, dtype, rows, &h, false, &mut dense);
                assert!(bits(&y).eq(bits(&dense)), "{isa} {dtype}: skipping changes bits");
            }
        }
    }
}

fn bits(values: &[f32]) -> impl Iterator<Item = u32> + '_ {
    values.iter().map(|v| v.to_bits())
}

#[test]
fn dividing_columns_and_tokens_of_added_rows_changes_no_bit() {
    for dtype in types() {
        let (n_neurons, n_tokens, n_cols, n_left) = (100, 5, 768, 256);
        let (data, _) = random_rows(dtype, n_neurons, n_cols, 3);
        let rows = Rows::range(&data, data.len() / n_neurons, 0, n_neurons);
        let (h, start) = (factors(n_tokens, n_neurons), noise(n_tokens * n_cols, 8));
        for isa in isas() {
            let mut expected = start.clone();
            add_rows(isa, dtype, rows, &h, true, &mut expected);
            for (at, n) in [(0, n_left), (n_left, n_cols - n_left)] {
                for t in 0..n_tokens {
                    let mut y = start[t * n_cols + at..][..n].to_vec();
                    let piece = rows.piece(bytes(dtype, at), bytes(dtype, n));
                    add_rows(isa, dtype, piece, &h[t * n_neurons..][..n_neurons], true, &mut y);
                    assert!(bits(&y).eq(bits(&expected[t * n_cols + at..][..n])), "{isa} {dtype} {t} {at}");
                }
            }
        }
    }
}

#[test]
fn weights_that_are_no_numbers_touch_only_tokens_for_which_their_neuron_has_fired() {
    let w = [f32::INFINITY, f32::NAN, -1.0, f32::MAX];
    let data: Vec<u8> = w.iter().flat_map(|w| w.to_le_bytes()).collect();
    for isa in isas() {
        for skip in [true, false] {
            let mut y = [-0.0, 0.0, -3.5, 7.0, 1.0, 1.0, 1.0, 1.0, -0.0, 0.0, -3.5, 7.0];
            let rows = Rows::range(&data, data.len(), 0, 1);
            add_rows(isa, GgmlType::F32, rows, &[0.0, 1.0, -0.0], skip, &mut y);
            assert!(bits(&y[..4]).eq(bits(&[-0.0, 0.0, -3.5, 7.0])), "{isa} {skip}: {y:?}");
            assert!(bits(&y[8..]).eq(bits(&[-0.0, 0.0, -3.5, 7.0])), "{isa} {skip}: {y:?}");
            assert!(y[4].is_infinite() && y[5].is_nan() && y[6] == 0.0, "{isa} {skip}: {y:?}");
        }
    }
}

#[test]
fn nothing_to_do_is_done() {
    let mut packed = Packed::default();
    let mut acts = Activations::default();
    acts.load(&[], 64, [ActKind::Q8]);
    packed.load(&acts, [(GgmlType::Q8_0, None)], &Pool::new(1).unwrap());
    rows_times(Isa::Plain, GgmlType::Q8_0, Rows::range(&[], 68, 0, 0), packed.section(0), &mut []);
    sparse::add_rows(Isa::Plain, GgmlType::Q8_0, Rows::range(&[], 68, 0, 0), &sparse::Factors::default(), &mut []);
}
