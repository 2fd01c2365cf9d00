//! Products for some tokens of a batch are, bit for bit, those of these tokens alone.

use super::gemm::{Inputs, packed, stored};
use super::operands::Bench;
use powerinfer::gpu::Ptr;
use powerinfer::gpu::ops::gemm::{Packed, Product, Tokens, Which, gemm, gemm_t, gemm_t_of, pack_of};
use powerinfer::quant::GgmlType;

const N_TOKENS: usize = 80;

fn rows(of: &[f32], n: usize, tokens: &[u32]) -> Vec<f32> {
    tokens.iter().flat_map(|token| &of[*token as usize * n..][..n]).copied().collect()
}

#[test]
fn products_of_chosen_tokens_are_those_of_these_tokens_alone() {
    let Some(mut bench) = Bench::new() else { return };
    let (n_cols, n_rows) = (256, 37);
    for (dtype, n) in [(GgmlType::F16, 1), (GgmlType::Q5_1, 33), (GgmlType::Q4_K, 65)] {
        let what = format!("{dtype}, {n} tokens");
        // In no order: every third, from the last one on.
        let tokens: Vec<u32> = (0..n).map(|i| ((N_TOKENS - 1 + 3 * i) % N_TOKENS) as u32).collect();
        let counts = bench.random.values(n);
        let w = bench.weights(dtype, n_rows, n_cols);
        let x = Inputs::new(&mut bench, n_cols, N_TOKENS, 1.0);
        let (list, weights) = (bench.words(&tokens), bench.floats(&counts));
        let which = Which { tokens: list, weights: Ptr::NULL, n };
        let room = bench.room(Packed::bytes(n_cols, n));
        let some = pack_of(&bench.kernels, &bench.stream, x.tokens, n_cols, &which, room).unwrap();
        let alone = bench.floats(&rows(&x.values, n_cols, &tokens));
        let alone = packed(&mut bench, Tokens { ptr: alone, stride: n_cols }, n_cols, n);
        let products = [some, alone].map(|x| {
            let y = super::gemm::room(&mut bench, n_rows, n);
            gemm(&bench.kernels, &bench.stream, &Product::all(&w.matrix, y), &x).unwrap();
            stored(&bench, y, n_rows, n)
        });
        assert_eq!(products[0], products[1], "{what}");
        // Back, each times what it counts, to the places where the tokens are.
        let (h, before) = (&products[0], bench.random.values(N_TOKENS * n_cols));
        let weighed: Vec<f32> =
            h.chunks_exact(n_rows).zip(&counts).flat_map(|(h, w)| h.iter().map(move |h| h * w)).collect();
        let (h, to) = (bench.floats(h), bench.floats(&before));
        let (h, which) = (Tokens { ptr: h, stride: n_rows }, Which { tokens: Ptr::NULL, weights, n });
        let room = bench.room(Packed::bytes(n_rows, n));
        let h = pack_of(&bench.kernels, &bench.stream, h, n_rows, &which, room).unwrap();
        let y = Tokens { ptr: to, stride: n_cols };
        gemm_t_of(&bench.kernels, &bench.stream, &w.matrix, 0, &h, y, list).unwrap();
        let got = bench.read(to, N_TOKENS * n_cols);
        let weighed = bench.floats(&weighed);
        let h = packed(&mut bench, Tokens { ptr: weighed, stride: n_rows }, n_rows, n);
        let there = bench.floats(&rows(&before, n_cols, &tokens));
        gemm_t(&bench.kernels, &bench.stream, &w.matrix, 0, &h, Tokens { ptr: there, stride: n_cols }).unwrap();
        assert_eq!(rows(&got, n_cols, &tokens), bench.read(there, n * n_cols), "{what}, back");
        for token in (0..N_TOKENS as u32).filter(|token| !tokens.contains(token)) {
            let same = |of: &[f32]| rows(of, n_cols, &[token]);
            assert_eq!(same(&got), same(&before), "{what}: token {token} changed");
        }
    }
}
