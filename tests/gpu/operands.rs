//! Random operands for the kernels that read weights, here and on the device, and what plain Rust makes of them.

use super::support::Random;
use powerinfer::cpu::{Activations, Isa};
use powerinfer::gpu::matrix::{DeviceMatrix, takes_floats};
use powerinfer::gpu::ops::norm::{Acts, x8_bytes};
use powerinfer::gpu::upload::Uploader;
use powerinfer::gpu::{Device, DeviceBuffer, Kernels, Ptr, Stream};
use powerinfer::quant::{GgmlType, convert};
use powerinfer::units::Bytes;

pub use powerinfer::gpu::self_test::weights::{TYPES, Weights};

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
        // Nobody writes IQ4_NL here: its blocks are Q4_0's with other levels.
        let written = if dtype == GgmlType::IQ4_NL { GgmlType::Q4_0 } else { dtype };
        convert::quantizer(written).unwrap()(values, &mut bytes);
        let ptr = self.room(DeviceMatrix::bytes(dtype, n_rows, n_cols).unwrap());
        let matrix = DeviceMatrix::at(ptr, dtype, n_rows, n_cols).unwrap();
        let mut uploader = Uploader::new(&self.device, Bytes(37 * dtype.block_bytes().max(32) as u64 + 1)).unwrap();
        let middle = n_rows / 2;
        let (first, second) = bytes.split_at(middle * matrix.row_bytes());
        uploader.rows(&self.kernels, &self.stream, &matrix, middle, second).unwrap();
        uploader.rows(&self.kernels, &self.stream, &matrix, 0, first).unwrap();
        self.stream.synchronize().unwrap();
        Weights::new(matrix, bytes).unwrap()
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

/// Fails unless `got` is `expected` within `tolerance` times `size(i)`; what is not a number must be so on both sides.
pub fn assert_close(what: &str, got: &[f32], expected: &[f32], tolerance: f32, size: impl Fn(usize) -> f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let close =
            (got - expected).abs() <= tolerance * size(i) || got == expected || got.is_nan() && expected.is_nan();
        assert!(close, "{what}: {i}: {got} instead of {expected}, {:e} of its size", (got - expected).abs() / size(i));
    }
}
