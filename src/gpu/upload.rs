//! Weights on their way to the card.

use super::device::Device;
use super::matrix::DeviceMatrix;
use super::memory::{DeviceBuffer, Pinned};
use super::module::Kernels;
use super::ops::repack::repack;
use super::stream::Stream;
use crate::parallel;
use crate::units::Bytes;
use anyhow::{Context, Result, ensure};

/// Staging memory through which rows go to the card: two parts on the processor, so that one is filled while the other
/// is copied, and one on the card for types that are separated into planes there.
pub struct Uploader {
    parts: [Pinned; 2],
    next: usize,
    packed: DeviceBuffer,
}

impl Uploader {
    /// Memory for pieces of at most `bytes`: that much on the card, and twice as much, pinned, on the processor.
    ///
    /// # Errors
    /// When there is not enough.
    pub fn new(device: &Device, bytes: Bytes) -> Result<Self> {
        let len = usize::try_from(bytes.0).with_context(|| format!("staging memory of {bytes}"))?;
        let part = || Pinned::new(device, len, "staging memory");
        Ok(Self { parts: [part()?, part()?], next: 0, packed: DeviceBuffer::new(device, bytes.0, "staging memory")? })
    }

    /// Enqueues storing `bytes`, rows as they are in the file, as the rows of `matrix` from `first` on. `bytes` have
    /// been read when it returns; the rows are there once the stream has got that far.
    ///
    /// # Errors
    /// When these are not whole rows inside the matrix, when a single block is larger than the staging memory, and when
    /// the card has failed.
    pub fn rows(
        &mut self,
        kernels: &Kernels,
        stream: &Stream,
        matrix: &DeviceMatrix,
        first: usize,
        bytes: &[u8],
    ) -> Result<()> {
        let row_bytes = matrix.row_bytes();
        let n_rows = bytes.len() / row_bytes;
        let inside = first.checked_add(n_rows).is_some_and(|end| end <= matrix.n_stored());
        ensure!(
            bytes.len().is_multiple_of(row_bytes) && inside,
            "{} bytes as rows of {row_bytes} from {first} on, of {}",
            bytes.len(),
            matrix.n_stored()
        );
        let block_bytes = matrix.dtype().block_bytes();
        let piece = self.parts[0].len() / block_bytes * block_bytes;
        ensure!(piece > 0, "staging memory of {} bytes for blocks of {block_bytes}", self.parts[0].len());
        let (mut quants, mut scales) = matrix.places(first);
        for bytes in bytes.chunks(piece) {
            let part = &mut self.parts[self.next];
            self.next = 1 - self.next;
            copy(bytes, &mut part.values_mut::<u8>()?[..bytes.len()]);
            let n_blocks = bytes.len() / block_bytes;
            if matrix.planes().scales == 0 {
                stream.copy_in(quants, part, 0..bytes.len())?;
            } else {
                stream.copy_in(self.packed.ptr(), part, 0..bytes.len())?;
                repack(kernels, stream, matrix.dtype(), quants, scales, self.packed.ptr(), n_blocks)?;
            }
            quants = quants.offset((n_blocks * matrix.planes().quants) as u64);
            scales = scales.offset((n_blocks * matrix.planes().scales) as u64);
        }
        Ok(())
    }
}

/// Copies with several threads: one alone is slower than the bus, and waits for each page that is not yet in memory.
fn copy(from: &[u8], to: &mut [u8]) {
    const CHUNK: usize = 1 << 20;
    parallel::each(to.chunks_mut(CHUNK).zip(from.chunks(CHUNK)), |_, (to, from)| to.copy_from_slice(from));
}
