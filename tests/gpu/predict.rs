//! Predictors.

use super::card::Card;
use super::support::Random;
use powerinfer::cpu::signs;
use powerinfer::gpu::Ptr;
use powerinfer::gpu::ops::norm::x8_bytes;
use powerinfer::gpu::ops::predict::{hidden, sign_scores};

#[test]
fn scores_of_signs_are_those_of_the_processor() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for (n_embd, n_rows) in [(32, 1), (96, 70), (128, 257), (4096, 333), (4128, 9), (16384, 3)] {
        let mut x = random.values(n_embd);
        (x[0], x[1], x[2]) = (-0.0, f32::NAN, 0.0);
        let rows: Vec<u8> = (0..n_rows * n_embd / 8).map(|_| random.next() as u8).collect();
        let (rows_on_card, x_on_card, scores) = (card.put(&rows), card.put(&x), card.room::<f32>(n_rows));
        let (kernels, stream) = (card.kernels, &card.stream);
        sign_scores(kernels, stream, rows_on_card.ptr(), x_on_card.ptr(), n_embd, n_rows, scores.ptr()).unwrap();
        let (mut bits, mut expected) = (Vec::new(), vec![0.0; n_rows]);
        signs::pack(&x, &mut bits);
        signs::agreement(&rows, signs::sign_bytes(n_embd), &bits, &mut expected);
        assert_eq!(card.get::<f32>(scores.ptr(), n_rows), expected, "{n_embd}");
    }
}

#[test]
fn hidden_values_get_their_bias_and_lose_what_is_negative() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for n in [1, 30, 32, 96, 1024, 1056] {
        for with_bias in [false, true] {
            let (mut h, bias) = (random.values(n), random.values(n));
            h[n / 2] = f32::NAN;
            let expected: Vec<f32> = match with_bias {
                true => h.iter().zip(&bias).map(|(h, b)| (h + b).max(0.0)).collect(),
                false => h.clone(),
            };
            let (h_on_card, bias_on_card) = (card.put(&h), card.put(&bias));
            let x8 = card.room::<u8>(if n.is_multiple_of(32) { x8_bytes(n) as usize } else { 0 });
            let bias = if with_bias { bias_on_card.ptr() } else { Ptr::NULL };
            hidden(card.kernels, &card.stream, h_on_card.ptr(), bias, n, x8.ptr()).unwrap();
            let got = card.get::<f32>(h_on_card.ptr(), n);
            for (got, expected) in got.iter().zip(&expected) {
                assert!(got == expected || got.is_nan() && expected.is_nan(), "{n}: {got} instead of {expected}");
            }
            if !x8.is_empty() {
                card.assert_quantized(x8.ptr(), &expected, n);
            }
        }
    }
}
