//! Weights that travel in tiles give what they give when all of them are on the device.

use super::gemm::{Inputs, packed};
use super::operands::{Bench, Weights};
use powerinfer::gpu::ops::gemm::{Combine, Packed, Product, STEP, Tokens, gemm, gemm_t, pack};
use powerinfer::gpu::{FileRows, Ptr, Tiles};
use powerinfer::model::Activation;
use powerinfer::quant::GgmlType;
use powerinfer::units::Bytes;

fn in_file(w: &Weights) -> FileRows<'_> {
    FileRows { bytes: &w.bytes, dtype: w.matrix.dtype(), n_cols: w.matrix.n_cols() }
}

/// Bytes for tiles of `n` rows, with what rounding takes.
fn room_for(matrices: &[&Weights], n: usize) -> Bytes {
    Bytes(matrices.iter().map(|w| ((w.matrix.row_bytes() * n) as u64).next_multiple_of(256)).sum())
}

/// The gated FFN of the neurons from `first` on, by tiles or from matrices that are on the device, added to `y`.
struct Ffn {
    gate: Weights,
    up: Weights,
    down: Weights,
    x: Packed,
    n_tokens: usize,
    first: usize,
    h: Tokens,
    h_packed: Ptr,
    y: Tokens,
}

impl Ffn {
    fn new(bench: &mut Bench, types: [GgmlType; 3], n_ff: usize, first: usize, n_tokens: usize) -> Self {
        const N_EMBD: usize = 256;
        let [gate, up, down] = types.map(|t| bench.weights(t, n_ff, N_EMBD));
        let x = Inputs::new(bench, N_EMBD, n_tokens, 1.0);
        let x = packed(bench, x.tokens, N_EMBD, n_tokens);
        let h = Tokens { ptr: bench.room_for(n_ff * n_tokens), stride: n_ff };
        let h_packed = bench.room(Packed::bytes(n_ff, n_tokens));
        let y = Tokens { ptr: bench.room_for(N_EMBD * n_tokens), stride: N_EMBD };
        Self { gate, up, down, x, n_tokens, first, h, h_packed, y }
    }

    fn n_ff(&self) -> usize {
        self.gate.matrix.n_stored()
    }

    /// From matrices whose row 0 is neuron `begin`: the rows `first` to `first + n`.
    fn enqueue(
        &self,
        bench: &Bench,
        on_device: [&powerinfer::gpu::DeviceMatrix; 3],
        begin: usize,
        first: usize,
        n: usize,
    ) {
        let [gate, up, down] = on_device;
        let h = self.h.columns(begin + first);
        let rows = |matrix| Product { first, n_rows: n, ..Product::all(matrix, h) };
        let (kernels, stream) = (&bench.kernels, &bench.stream);
        gemm(kernels, stream, &rows(up), &self.x).unwrap();
        let act = Product { activation: Some(Activation::Relu), combine: Combine::Multiply(h), ..rows(gate) };
        gemm(kernels, stream, &act, &self.x).unwrap();
        let h = pack(kernels, stream, h, n, self.n_tokens, self.h_packed).unwrap();
        gemm_t(kernels, stream, down, first, &h, self.y).unwrap();
    }

    fn result(&self, bench: &Bench) -> Vec<f32> {
        bench.read(self.y.ptr, self.y.stride * self.n_tokens)
    }

    fn clear(&self, bench: &Bench) {
        bench.stream.fill(self.y.ptr, 0, (4 * self.y.stride * self.n_tokens) as u64).unwrap();
    }

    fn at_once(&self, bench: &Bench) -> Vec<f32> {
        self.clear(bench);
        let on_device = [&self.gate.matrix, &self.up.matrix, &self.down.matrix];
        self.enqueue(bench, on_device, 0, self.first, self.n_ff() - self.first);
        self.result(bench)
    }

    /// The result, and the first rows and sizes of the tiles.
    fn by_tiles(&self, bench: &Bench, tiles: &mut Tiles) -> (Vec<f32>, Vec<(usize, usize)>) {
        self.clear(bench);
        let matrices = [in_file(&self.gate), in_file(&self.up), in_file(&self.down)];
        let mut seen = Vec::new();
        let rows = self.first..self.n_ff();
        let sent = tiles.for_tiles(&bench.kernels, &bench.stream, &matrices, rows, |tile| {
            let [gate, up, down] = tile.matrices else { unreachable!() };
            self.enqueue(bench, [gate, up, down], tile.first, 0, tile.n_rows);
            seen.push((tile.first, tile.n_rows));
            Ok(())
        });
        sent.unwrap();
        (self.result(bench), seen)
    }
}

#[test]
fn an_ffn_by_tiles_is_bit_for_bit_the_ffn_at_once() {
    let Some(mut bench) = Bench::new() else { return };
    for types in [
        [GgmlType::Q4_0, GgmlType::Q4_0, GgmlType::Q8_0],
        [GgmlType::F16, GgmlType::F16, GgmlType::F16],
        [GgmlType::Q4_K, GgmlType::Q6_K, GgmlType::BF16],
        [GgmlType::F32, GgmlType::Q8_0, GgmlType::Q6_K],
    ] {
        let (n_ff, first) = (179, 7);
        let ffn = Ffn::new(&mut bench, types, n_ff, first, 5);
        let once = ffn.at_once(&bench);
        assert!(once.iter().all(|v| v.is_finite()) && once.iter().any(|v| *v != 0.0));
        let bytes = room_for(&[&ffn.gate, &ffn.up, &ffn.down], STEP);
        let mut tiles = Tiles::new(&bench.device, bytes).unwrap();
        // Twice, because buffers are used again.
        for _ in 0..2 {
            let (streamed, seen) = ffn.by_tiles(&bench, &mut tiles);
            let expected: Vec<_> = (0..6).map(|i| (first + i * STEP, STEP.min(n_ff - first - i * STEP))).collect();
            assert_eq!(seen, expected);
            assert_eq!(streamed, once, "{types:?}");
        }
        let bytes = room_for(&[&ffn.gate, &ffn.up, &ffn.down], n_ff);
        let (streamed, seen) = ffn.by_tiles(&bench, &mut Tiles::new(&bench.device, bytes).unwrap());
        assert_eq!(seen, [(first, n_ff - first)]);
        assert_eq!(streamed, once, "{types:?}, in one tile");
    }
}

#[test]
fn what_cannot_be_streamed_is_refused() {
    let Some(mut bench) = Bench::new() else { return };
    let w = bench.weights(GgmlType::Q4_0, 100, 64);
    let mut tiles = Tiles::new(&bench.device, room_for(&[&w], STEP)).unwrap();
    let mut small = Tiles::new(&bench.device, Bytes(room_for(&[&w], STEP).0 - 256)).unwrap();
    let (kernels, stream) = (&bench.kernels, &bench.stream);
    let mut n = 0;
    let mut count = |_: &powerinfer::gpu::Tile| {
        n += 1;
        Ok(())
    };
    assert!(tiles.for_tiles(kernels, stream, &[in_file(&w)], 0..101, &mut count).is_err());
    let error = small.for_tiles(kernels, stream, &[in_file(&w)], 0..100, &mut count).unwrap_err().to_string();
    assert!(error.contains("32 rows"), "{error}");
    let unknown = FileRows { dtype: GgmlType::Q3_K, n_cols: 256, ..in_file(&w) };
    assert!(tiles.for_tiles(kernels, stream, &[unknown], 0..1, &mut count).is_err());
    tiles.for_tiles(kernels, stream, &[in_file(&w)], 50..50, &mut count).unwrap();
    assert_eq!(n, 0);
    let stop = tiles.for_tiles(kernels, stream, &[in_file(&w)], 0..100, |tile| {
        anyhow::ensure!(tile.first < 32, "enough");
        Ok(())
    });
    assert_eq!(stop.unwrap_err().to_string(), "enough");
}

#[test]
fn nothing_is_computed_with_a_tile_that_is_still_on_its_way() {
    let Some(mut bench) = Bench::new() else { return };
    // Copies take long and what is computed takes no time, so that only waiting puts them in order.
    let (n_rows, n_cols) = (64, 1 << 15);
    let w = bench.weights(GgmlType::F16, n_rows, n_cols);
    let mut tiles = Tiles::new(&bench.device, room_for(&[&w], 1)).unwrap();
    let row_bytes = w.matrix.row_bytes();
    let out = bench.room(row_bytes as u64);
    for row in 0..n_rows {
        let sent = tiles.for_tiles(&bench.kernels, &bench.stream, &[in_file(&w)], row..row + 1, |tile| {
            bench.stream.copy(out, tile.matrices[0].ptr(), row_bytes as u64)
        });
        sent.unwrap();
        let got: Vec<u8> = bench.stream.read_vec(out, row_bytes).unwrap();
        assert!(got == w.bytes[row * row_bytes..][..row_bytes], "row {row}");
    }
}
