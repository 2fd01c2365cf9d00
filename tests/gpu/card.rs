//! What the tests of kernels share: a card with its kernels, memory in and out.

use super::gpu;
use powerinfer::cpu::{ActKind, Activations};
use powerinfer::gpu::{Device, DeviceBuffer, Kernels, Mapped, Plain, Ptr, Stream};
use std::sync::OnceLock;

/// A card, all kernels, and a stream.
pub struct Card {
    pub stream: Stream,
    pub kernels: &'static Kernels,
}

impl Card {
    /// Or nothing where there is no card.
    pub fn open() -> Option<Self> {
        static LOADED: OnceLock<Option<(Device, Kernels)>> = OnceLock::new();
        let load = || gpu().map(|device| (device.clone(), Kernels::load(&device).unwrap()));
        let Some((device, kernels)) = LOADED.get_or_init(load) else {
            gpu();
            return None;
        };
        Some(Self { stream: Stream::new(device).unwrap(), kernels })
    }

    pub fn device(&self) -> &Device {
        self.stream.device()
    }

    pub fn put<T: Plain>(&self, values: &[T]) -> DeviceBuffer {
        DeviceBuffer::with(&self.stream, values, "a test").unwrap()
    }

    /// Room for `n` values, whose bytes are all `0xff`.
    pub fn room<T: Plain>(&self, n: usize) -> DeviceBuffer {
        self.put(&vec![0xffu8; n * size_of::<T>()])
    }

    pub fn zeros(&self, bytes: u64) -> DeviceBuffer {
        self.put(&vec![0u8; bytes as usize])
    }

    pub fn get<T: Plain>(&self, from: Ptr, n: usize) -> Vec<T> {
        self.stream.read_vec(from, n).unwrap()
    }

    /// Values in memory that both sides see.
    pub fn peek<T: Plain>(&self, from: Ptr, n: usize) -> Vec<T> {
        let copy = self.room::<T>(n);
        self.stream.copy(copy.ptr(), from, copy.len()).unwrap();
        self.get(copy.ptr(), n)
    }

    /// Stores values in memory that both sides see.
    pub fn poke<T: Plain>(&self, to: Ptr, values: &[T]) {
        let copy = self.put(values);
        self.stream.copy(to, copy.ptr(), copy.len()).unwrap();
        self.stream.synchronize().unwrap();
    }

    pub fn mapped(&self, bytes: usize) -> Mapped {
        Mapped::new(self.device(), bytes, "a test").unwrap()
    }

    /// Fails where an x8 of `[n_tokens][n]` on the card is not what the processor makes of `x`, bit for bit.
    pub fn assert_quantized(&self, x8: Ptr, x: &[f32], n: usize) {
        let mut acts = Activations::default();
        acts.load(x, n, [ActKind::Q8]);
        for token in 0..x.len() / n {
            let at = x8.offset((token * (n + n / 4)) as u64);
            let (row, scales) = (acts.row(token), self.get::<f32>(at.offset(n as u64), n / 16));
            assert_eq!(self.get::<i8>(at, n), row.q, "token {token}");
            for (i, (got, expected)) in scales.iter().zip(row.d.iter().chain(row.ds)).enumerate() {
                let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
                assert!(same, "token {token}: scale {i}: {got} instead of {expected}");
            }
        }
    }
}

/// Fails where `got` is further from `expected` than `tolerance`, or only one of them is a number.
pub fn assert_close(got: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let near = (f64::from(*g) - e).abs() <= tolerance || g.is_nan() && e.is_nan();
        assert!(near, "{what}: {i}: {g} instead of {e}, tolerance {tolerance:e}");
    }
}
