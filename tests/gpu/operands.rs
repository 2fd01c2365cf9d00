//! Random operands for the kernels that read weights, here and on the device, and what plain Rust makes of them.

use super::support::Random;
use powerinfer::cpu::{Activations, Isa, Rows};
use powerinfer::gpu::matrix::{DeviceMatrix, takes_floats};
use powerinfer::gpu::ops::norm::{Acts, x8_bytes};
use powerinfer::gpu::upload::Uploader;
use powerinfer::gpu::{Device, DeviceBuffer, Kernels, Ptr, Stream};
use powerinfer::quant::{GgmlType, convert};
use powerinfer::units::Bytes;

/// Every type that has kernels.
pub const TYPES: [GgmlType; 7] =
    [GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0, GgmlType::Q4_0, GgmlType::Q4_K, GgmlType::Q6_K];

/// The device with what every test needs.
pub struct Bench {
    pub device: Device,
    pub stream: Stream,
    pub kernels: Kernels,
    pub random: Random,
    buffers: Vec<DeviceBuffer>,
}

impl Bench {
    /// Nothing where there is no device.
    pub fn new() -> Option<Self> {
        let device = super::gpu()?;
        let stream = Stream::new(&device).unwrap();
        let kernels = Kernels::load(&device).unwrap();
        Some(Self { device, stream, kernels, random: Random::anew(), buffers: Vec::new() })
    }

    /// Begins another case: frees all that was handed out. However little is asked for, the driver takes a large piece.
    pub fn clear(&mut self) {
        self.stream.synchronize().unwrap();
        self.buffers.clear();
    }

    /// Memory for `bytes`, exactly; it holds values that are not numbers.
    pub fn room(&mut self, bytes: u64) -> Ptr {
        let buffer = DeviceBuffer::exact(&self.device, bytes, "test").unwrap();
        self.stream.fill(buffer.ptr(), 0xff, bytes).unwrap();
        self.buffers.push(buffer);
        self.buffers.last().unwrap().ptr()
    }

    /// Room for `n` floats.
    pub fn room_for(&mut self, n: usize) -> Ptr {
        self.room(4 * n as u64)
    }

    pub fn floats(&mut self, values: &[f32]) -> Ptr {
        self.buffers.push(DeviceBuffer::with(&self.stream, values, "test").unwrap());
        self.buffers.last().unwrap().ptr()
    }

    pub fn words(&mut self, values: &[u32]) -> Ptr {
        self.buffers.push(DeviceBuffer::with(&self.stream, values, "test").unwrap());
        self.buffers.last().unwrap().ptr()
    }

    /// `n` floats from the device, after all that is enqueued.
    pub fn read(&self, ptr: Ptr, n: usize) -> Vec<f32> {
        self.stream.read_vec(ptr, n).unwrap()
    }

    /// Random weights, here and on the device.
    pub fn weights(&mut self, dtype: GgmlType, n_rows: usize, n_cols: usize) -> Weights {
        let values = self.random.values(n_rows * n_cols);
        self.weights_of(dtype, n_rows, n_cols, &values)
    }

    /// These values as weights of `dtype`, uploaded in pieces of an odd number of blocks.
    pub fn weights_of(&mut self, dtype: GgmlType, n_rows: usize, n_cols: usize, values: &[f32]) -> Weights {
        let mut bytes = vec![0; n_rows * dtype.row_bytes(n_cols).unwrap()];
        convert::quantizer(dtype).unwrap()(values, &mut bytes);
        let ptr = self.room(DeviceMatrix::bytes(dtype, n_rows, n_cols).unwrap());
        let matrix = DeviceMatrix::at(ptr, dtype, n_rows, n_cols).unwrap();
        let mut uploader = Uploader::new(&self.device, Bytes(37 * dtype.block_bytes().max(32) as u64 + 1)).unwrap();
        let middle = n_rows / 2;
        let (first, second) = bytes.split_at(middle * matrix.row_bytes());
        uploader.rows(&self.kernels, &self.stream, &matrix, middle, second).unwrap();
        uploader.rows(&self.kernels, &self.stream, &matrix, 0, first).unwrap();
        self.stream.synchronize().unwrap();
        Weights { matrix, bytes }
    }

    /// Activations, here and on the device, in the form for `dtype` only, so that reading another is seen.
    pub fn acts(&mut self, dtype: GgmlType, x: &[f32]) -> (Activations, Acts) {
        let mut acts = Activations::default();
        acts.load(x, x.len(), [Isa::Plain.kernels(dtype).act]);
        let mut on_device = Acts::default();
        if takes_floats(dtype) {
            on_device.f32 = self.floats(x);
        } else {
            let row = acts.row(0);
            let scales = row.d.iter().chain(row.ds).flat_map(|d| d.to_ne_bytes());
            let bytes: Vec<u8> = row.q.iter().map(|q| *q as u8).chain(scales).collect();
            assert_eq!(bytes.len() as u64, x8_bytes(x.len()));
            self.buffers.push(DeviceBuffer::with(&self.stream, &bytes, "test").unwrap());
            on_device.x8 = self.buffers.last().unwrap().ptr();
        }
        (acts, on_device)
    }
}

/// A matrix here and on the device.
pub struct Weights {
    pub matrix: DeviceMatrix,
    pub bytes: Vec<u8>,
}

impl Weights {
    fn row_bytes(&self) -> usize {
        self.matrix.row_bytes()
    }

    /// The row as floats.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let mut values = vec![0.0; self.matrix.n_cols()];
        let bytes = &self.bytes[row * self.row_bytes()..][..self.row_bytes()];
        convert::dequantizer(self.matrix.dtype()).unwrap()(bytes, &mut values);
        values
    }

    /// What plain Rust gives for the row.
    pub fn dot(&self, row: usize, x: &Activations) -> f32 {
        let mut out = [0.0];
        let rows = Rows::range(&self.bytes, self.row_bytes(), row, 1);
        (Isa::Plain.kernels(self.matrix.dtype()).dot)(rows, x.row(0), &mut out);
        out[0]
    }

    /// The sum of the sizes of the products of the row: what rounding is relative to. Minima count by themselves, as they
    /// are added by themselves.
    pub fn dot_size(&self, row: usize, x: &[f32]) -> f32 {
        let row = self.row(row);
        let largest = row.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        x.iter().map(|x| largest * x.abs()).sum()
    }

    /// `sum of h[i] * row[rows[i]]` by plain Rust.
    pub fn sum(&self, rows: &[u32], h: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; self.matrix.n_cols()];
        (Isa::Plain.kernels(self.matrix.dtype()).add_scaled)(
            Rows::list(&self.bytes, self.row_bytes(), rows),
            h,
            &mut y,
        );
        y
    }
}

/// Fails unless `got` is `expected` within `tolerance` times `size(i)`; what is not a number must be so on both sides.
pub fn assert_close(what: &str, got: &[f32], expected: &[f32], tolerance: f32, size: impl Fn(usize) -> f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let close =
            (got - expected).abs() <= tolerance * size(i) || got == expected || got.is_nan() && expected.is_nan();
        assert!(close, "{what}: {i}: {got} instead of {expected}, {:e} of its size", (got - expected).abs() / size(i));
    }
}
