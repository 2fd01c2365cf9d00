//! Tests that several vectors at once give each the bits that it gets alone, in every type and on every instruction set.

use super::super::plain;
use super::super::testing::{noise, random_rows, stored};
use super::super::{Activations, Isa, Rows};
use super::*;
use crate::quant::GgmlType;

fn every() -> impl Iterator<Item = (Isa, GgmlType)> {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    isas.flat_map(|isa| plain::TABLE.iter().map(move |k| (isa, k.dtype)))
}

/// Of a row: whole steps of every kernel, and what is left over behind them.
fn lengths(dtype: GgmlType) -> &'static [usize] {
    match dtype.block_len() {
        1 => &[1, 63, 100, 320],
        32 => &[32, 96, 160, 352],
        _ => &[256, 768],
    }
}

/// Bits, with all that is no number alike: which of two it is, is not said.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() }).collect()
}

/// `[n_rows][n]`, one vector after the other.
fn alone(isa: Isa, dtype: GgmlType, rows: Rows, acts: &Activations) -> Vec<f32> {
    let (n, mut column) = (acts.n_tokens(), vec![0.0; rows.len()]);
    let mut all = vec![0.0; n * rows.len()];
    for v in 0..n {
        (isa.kernels(dtype).dot)(rows, acts.row(v), &mut column);
        column.iter().enumerate().for_each(|(row, product)| all[row * n + v] = *product);
    }
    all
}

/// All vectors at once, of all rows but the first and in two parts; then for each row some of them, none at times.
fn compare(isa: Isa, dtype: GgmlType, rows: Rows, x: &[f32], n: usize, seed: u32) {
    let kernels = isa.kernels(dtype);
    let mut acts = Activations::default();
    let len = x.len() / n;
    acts.load(x, len, [kernels.act]);
    let (expected, n_rows) = (alone(isa, dtype, rows, &acts), rows.len());
    let mut got = vec![7.0; (n_rows - 1) * n];
    let (first, last) = got.split_at_mut(n_rows / 2 * n);
    let x = Vectors::of(n, |v| acts.row(v));
    kernels.dots(rows, 1..1 + n_rows / 2, &x, first, n);
    kernels.dots(rows, 1 + n_rows / 2..n_rows, &x, last, n);
    assert_eq!(bits(&got), bits(&expected[n..]), "{isa} {dtype}, {n} vectors of {len}");

    let all = u16::MAX >> (CHOICE - n);
    let wanted: Vec<u16> = noise(n_rows, seed).iter().map(|v| (v.to_bits() >> 3) as u16 & all).collect();
    let wanted: Vec<u16> =
        wanted.iter().enumerate().map(|(i, w)| if i % 3 == 2 { wanted[i - 1] } else { *w }).collect();
    let mut got = vec![0.0; n_rows * n];
    let put = |row: usize, v: usize, product| got[row * n + v] = product;
    kernels.wanted_dots(rows, 0..n_rows, &x, &wanted, put);
    let is_wanted = |i: usize| wanted[i / n] >> (i % n) & 1 == 1;
    let expected: Vec<f32> = expected.iter().enumerate().map(|(i, v)| if is_wanted(i) { *v } else { 0.0 }).collect();
    assert_eq!(bits(&got), bits(&expected), "{isa} {dtype}, some of {n} vectors of {len}");
}

#[test]
fn each_vector_gets_the_bits_that_it_gets_alone() {
    for (isa, dtype) in every() {
        for (seed, &len) in lengths(dtype).iter().enumerate() {
            let n_rows = 3 + 2 * seed;
            let (data, _) = stored(dtype, &noise(n_rows * len, seed as u32));
            let rows = Rows::range(&data, data.len() / n_rows, 0, n_rows);
            for n in 1..=CHOICE {
                compare(isa, dtype, rows, &noise(n * len, 31 * n as u32 + 1), n, n as u32);
            }
        }
    }
}

#[test]
fn vectors_beside_those_that_are_not_finite_or_tiny_keep_their_bits() {
    for (isa, dtype) in every() {
        let (len, n_rows) = (lengths(dtype)[1], 5);
        // Whatever bytes may hold: scales that are infinite or no numbers among them.
        let wild: Vec<u8> = noise(4 * n_rows * len, 17).iter().map(|v| (v.to_bits() >> 5) as u8).collect();
        let row_bytes = dtype.row_bytes(len).unwrap();
        for data in [random_rows(dtype, len, n_rows, 3), wild[..n_rows * row_bytes].to_vec()] {
            let rows = Rows::range(&data, row_bytes, 0, n_rows);
            for n in [2, 3, 7] {
                let mut x = noise(n * len, 5);
                for (i, x) in x.chunks_exact_mut(len).enumerate() {
                    match i {
                        0 => x[len / 2] = f32::INFINITY,
                        1 => x[len - 1] = f32::NAN,
                        2 => x.fill(0.0),
                        3 => x.iter_mut().for_each(|x| *x *= 1e-40),
                        4 => x.iter_mut().for_each(|x| *x *= 1e37),
                        5 => x[len / 3] = f32::NEG_INFINITY,
                        _ => {}
                    }
                }
                compare(isa, dtype, rows, &x, n, 11);
            }
        }
    }
}

#[test]
fn rows_that_choose_alike_are_many_and_none_is_lost() {
    let (data, _) = stored(GgmlType::Q4_0, &noise(50 * 64, 1));
    let rows = Rows::range(&data, data.len() / 50, 0, 50);
    let mut acts = Activations::default();
    let kernels = Isa::detect().kernels(GgmlType::Q4_0);
    acts.load(&noise(5 * 64, 2), 64, [kernels.act]);
    let expected = alone(Isa::detect(), GgmlType::Q4_0, rows, &acts);
    let mut n_put = 0;
    kernels.wanted_dots(rows, 0..50, &Vectors::of(5, |v| acts.row(v)), &[0b11111; 50], |row, v, product| {
        assert_eq!(product.to_bits(), expected[row * 5 + v].to_bits());
        n_put += 1;
    });
    assert_eq!(n_put, 250);
}
