//! The model that the program carries: a small story-teller with ReGLU FFN, profiled and split by our own tools.

use crate::gguf::Source;

/// What messages call it.
pub const NAME: &str = "embedded tiny-stories";

/// Tensor data are aligned to 32 bytes within the file; cache lines want the file itself aligned too.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("../models/tiny-stories-q8_0-variant.gguf"));

/// The model's file, as part of the program.
pub fn source() -> Source {
    Source::from_static(NAME, &MODEL.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_model_is_aligned_and_small_enough_to_publish() {
        assert!(MODEL.0.as_ptr().addr().is_multiple_of(64));
        assert!(MODEL.0.len() <= 9_000_000, "{} bytes", MODEL.0.len());
    }
}
