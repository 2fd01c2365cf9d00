//! Strips against attention in 64 bits, and every query in company against itself alone.

use super::super::scratch::Scratch;
use super::super::testing::{CASE, Case, Made, bits};
use super::*;
use crate::cpu::Isa;
use crate::cpu::check_supported;
use crate::executor::kv_cache::testing::OneHead;
use crate::quant::GgmlType;
use crate::quant::convert::quantizer;

/// `[tokens][group][value_dim]`.
fn strips(made: &Made, isa: Isa, tokens: Range<usize>) -> Vec<f32> {
    let Case { dtype, head_dim, value_dim, group, cap, .. } = made.case;
    let mut scratch = Scratch::default();
    let n = tokens.len() * group;
    scratch.take(n.div_ceil(LANES), (head_dim, value_dim));
    for row in 0..n {
        let (token, head) = (tokens.start + row / group, row % group);
        let q = &made.q[(token * group + head) * head_dim..][..head_dim];
        scratch.strips[row / LANES].push(q, made.scale(), made.seen(token), made.sink(head));
    }
    let row_bytes = |width: usize| dtype.row_bytes(width).unwrap();
    let held = OneHead::of(&made.keys.0, &made.values.0, row_bytes(head_dim), row_bytes(value_dim));
    scratch.attend(
        Kernels::of(isa),
        &held.head(),
        [Kernels::of(isa).reader(dtype).unwrap(); 2],
        cap,
        (head_dim, value_dim),
    );
    let mut out = vec![f32::NAN; n * value_dim];
    for (strip, out) in scratch.strips.iter().zip(out.chunks_mut(LANES * value_dim)) {
        strip.finish(out);
    }
    out
}

fn holds(case: Case) {
    let made = Made::new(case);
    let naive = made.naive();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let whole = strips(&made, isa, 0..case.n);
        for (i, (got, exact)) in whole.iter().zip(&naive).enumerate() {
            assert!((f64::from(*got) - exact).abs() < 1e-5, "{isa}, {case:?}: {i} is {got}, not {exact}");
        }
        for len in [1, 33] {
            let pieces = (0..case.n).step_by(len).map(|start| start..case.n.min(start + len));
            let pieces: Vec<f32> = pieces.flat_map(|tokens| strips(&made, isa, tokens)).collect();
            assert!(bits(&whole) == bits(&pieces), "{isa}, {case:?}: {len} at once give other bits");
        }
    }
}

#[test]
fn caches_of_every_type_that_can_be_written() {
    let all = [GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0, GgmlType::Q4_0, GgmlType::Q5_1];
    for dtype in all.into_iter().chain([GgmlType::IQ4_NL]).filter(|dtype| quantizer(*dtype).is_ok()) {
        check_supported(dtype).unwrap();
        holds(Case { dtype, ..CASE });
    }
}

#[test]
fn heads_in_groups_of_any_size_and_of_any_width() {
    for (group, n) in [(1, 131), (2, 65), (3, 70), (7, 40), (16, 10), (71, 3), (130, 2)] {
        holds(Case { group, n, past: 37, ..CASE });
    }
    for (head_dim, value_dim) in [(64, 32), (32, 64), (96, 160), (32, 128)] {
        holds(Case { head_dim, value_dim, dtype: GgmlType::Q8_0, n: 70, ..CASE });
    }
    for (head_dim, value_dim) in [(1, 1), (5, 7), (24, 16), (80, 40)] {
        holds(Case { head_dim, value_dim, n: 70, past: 3, ..CASE });
    }
}

#[test]
fn windows_caps_and_sinks_and_prompts_that_go_on_anywhere() {
    for past in [0, 63, 65, 200] {
        for window in [1, 2, 64, 65, 100, usize::MAX] {
            let sinks = past % 2 == 1;
            holds(Case { past, window, sinks, n: 37, cap: (window % 2 == 0).then_some(1.5), group: 2, ..CASE });
        }
    }
}

#[test]
fn rows_that_were_given_to_later_positions() {
    for (window, n) in [(1, 40), (30, 33), (64, 70), (65, 9)] {
        // As many rows as a window and what is computed at once need.
        holds(Case { past: 300, window, n, n_rows: window - 1 + n, ..CASE });
    }
}

#[test]
fn what_is_not_seen_counts_nothing_be_it_infinite() {
    let case = Case { dtype: GgmlType::F32, n: 80, ..CASE };
    let clean = Made::new(case);
    for poison in [f32::INFINITY, f32::NAN] {
        let mut made = Made::new(case);
        let row = 50 * case.value_dim * 4;
        made.values.0[row..row + 4].copy_from_slice(&poison.to_le_bytes());
        made.keys.0[row..row + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let width = case.group * case.value_dim;
            let (before, got) = (strips(&clean, isa, 0..case.n), strips(&made, isa, 0..case.n));
            assert!(bits(&before[..50 * width]) == bits(&got[..50 * width]), "{isa}: {poison} reaches earlier tokens");
            assert!(!got[50 * width].is_finite(), "{isa}: {poison} is lost");
            let alone = strips(&made, isa, 20..50);
            assert!(bits(&alone) == bits(&got[20 * width..50 * width]), "{isa}: other bits beside {poison}");
        }
    }
}
