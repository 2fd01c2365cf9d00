//! The inner loops for AVX2 with FMA, with and without AVX-VNNI: half a tile (8 rows) and 4 tokens at a time.
//!
//! Every function here has `#[target_feature]`; [`super::rows_times`], the only way in, has asserted that the
//! processor has these features.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::packed::TokenPiece;
use super::tile::{Bytes, Floats, Form, TILE_ROWS, Tile, WORD};
use crate::quant::blocks::QK;
use crate::quant::decoded::BlockFormat;
use std::arch::x86_64::*;

type Sums = [f32; TILE_ROWS];

/// Tokens whose sums the registers hold.
const TOKENS: usize = 4;
/// Rows of a vector.
const LANES: usize = 8;

/// As `plain::times`.
pub(super) fn times(tile: &Tile, x: &TokenPiece, sums: &mut [Sums], vnni: bool) {
    assert!(sums.len() == x.width);
    for (quad, sums) in sums.as_chunks_mut::<TOKENS>().0.iter_mut().enumerate() {
        for half in 0..TILE_ROWS / LANES {
            let at = At { token: quad * TOKENS, lane: half * LANES };
            match (tile.form, vnni) {
                // SAFETY: the processor has the features, see the head of the file.
                (Form::Float(..), _) => unsafe { floats(tile.floats(), x, at, sums) },
                // SAFETY: as above.
                (Form::Blocks(format), true) => unsafe { with_vnni(format, tile, x, at, sums) },
                // SAFETY: as above.
                (Form::Blocks(format), false) if format.offset == 128 => unsafe { signed(format, tile, x, at, sums) },
                // SAFETY: as above.
                (Form::Blocks(format), false) => unsafe { small(format, tile, x, at, sums) },
            }
        }
    }
}

/// First token and first row of what is computed.
#[derive(Clone, Copy)]
struct At {
    token: usize,
    lane: usize,
}

impl At {
    #[inline(always)]
    fn lanes(self, line: &[f32; TILE_ROWS]) -> &[f32; LANES] {
        &line.as_chunks().0[self.lane / LANES]
    }

    /// These tokens' part of `values`, which has one per token of a group.
    #[inline(always)]
    fn tokens<T>(self, values: &[T]) -> &[T; TOKENS] {
        &values[self.token..].as_chunks().0[0]
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read(floats: &[f32; LANES]) -> __m256 {
    // SAFETY: eight floats.
    unsafe { _mm256_loadu_ps(floats.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load(sums: &[Sums; TOKENS], at: At) -> [__m256; TOKENS] {
    std::array::from_fn(|t| read(at.lanes(&sums[t])))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store(values: [__m256; TOKENS], sums: &mut [Sums; TOKENS], at: At) {
    for (sums, value) in sums.iter_mut().zip(values) {
        let lanes = &mut sums[at.lane..at.lane + LANES];
        // SAFETY: eight floats.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), value) };
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn floats(w: &[Floats], x: &TokenPiece, at: At, sums: &mut [Sums; TOKENS]) {
    let mut piece = [_mm256_setzero_ps(); TOKENS];
    for (w, x) in w.iter().zip(x.words.chunks_exact(x.width)) {
        let (w, x) = (read(at.lanes(&w.0)), at.tokens(x));
        for t in 0..TOKENS {
            piece[t] = _mm256_fmadd_ps(w, _mm256_set1_ps(f32::from_bits(x[t])), piece[t]);
        }
    }
    let mut all = load(sums, at);
    for t in 0..TOKENS {
        all[t] = _mm256_add_ps(all[t], piece[t]);
    }
    store(all, sums, at);
}

/// Products of blocks; `$products` gives the integers of a sub-block from its lines, its words and where they start.
macro_rules! blocks {
    ($name:ident, $features:literal, $products:path) => {
        #[target_feature(enable = $features)]
        fn $name(format: &BlockFormat, tile: &Tile, x: &TokenPiece, at: At, sums: &mut [Sums; TOKENS]) {
            let (words, width) = (format.sub_len / WORD, x.width);
            let subs_of_d = QK / format.sub_len;
            let mut all = load(sums, at);
            let subs = tile.bytes().chunks_exact(words).zip(x.words.chunks_exact(words * width));
            for (i, ((bytes, words), scales)) in subs.zip(tile.scales(format)).enumerate() {
                let products = $products(bytes, words, width, at.tokens(&x.start[i * width..][..width]), at);
                let scale = read(at.lanes(&scales.0));
                let d = at.tokens(&x.d[i / subs_of_d * width..][..width]);
                for t in 0..TOKENS {
                    let scale = _mm256_mul_ps(scale, _mm256_set1_ps(d[t]));
                    all[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products[t]), scale, all[t]);
                }
                if format.has_min {
                    let min = read(at.lanes(&tile.mins(format)[i].0));
                    let ds = at.tokens(&x.ds[i * width..][..width]);
                    for t in 0..TOKENS {
                        all[t] = _mm256_fnmadd_ps(min, _mm256_set1_ps(ds[t]), all[t]);
                    }
                }
            }
            store(all, sums, at);
        }
    };
}

blocks!(with_vnni, "avx2,fma,f16c,avxvnni", products_with_vnni);
blocks!(small, "avx2,fma,f16c", products_of_small);
blocks!(signed, "avx2,fma,f16c", products_of_signed);

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn read_bytes(bytes: &Bytes, at: At) -> __m256i {
    let lanes = &bytes.0[at.lane * WORD..][..LANES * WORD];
    // SAFETY: 32 bytes.
    unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
}

type Products = [__m256i; TOKENS];

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn products_with_vnni(bytes: &[Bytes], x: &[u32], width: usize, start: &[i32; TOKENS], at: At) -> Products {
    let mut products = [_mm256_setzero_si256(); TOKENS];
    for t in 0..TOKENS {
        products[t] = _mm256_set1_epi32(start[t]);
    }
    for (w, x) in bytes.iter().zip(x.chunks_exact(width)) {
        let (w, x) = (read_bytes(w, at), at.tokens(x));
        for t in 0..TOKENS {
            products[t] = _mm256_dpbusd_avx_epi32(products[t], w, _mm256_set1_epi32(x[t] as i32));
        }
    }
    products
}

/// For bytes up to 63: the sum of four products with activations, 4 * 63 * 127, fits in 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn products_of_small(bytes: &[Bytes], x: &[u32], width: usize, start: &[i32; TOKENS], at: At) -> Products {
    let ones = _mm256_set1_epi16(1);
    let mut products = [_mm256_setzero_si256(); TOKENS];
    for t in 0..TOKENS {
        products[t] = _mm256_set1_epi32(start[t]);
    }
    for ([w0, w1], x) in bytes.as_chunks().0.iter().zip(x.chunks_exact(2 * width)) {
        let (w0, w1) = (read_bytes(w0, at), read_bytes(w1, at));
        let (x0, x1) = (at.tokens(x), at.tokens(&x[width..]));
        for t in 0..TOKENS {
            let first = _mm256_maddubs_epi16(w0, _mm256_set1_epi32(x0[t] as i32));
            let second = _mm256_maddubs_epi16(w1, _mm256_set1_epi32(x1[t] as i32));
            let both = _mm256_madd_epi16(_mm256_add_epi16(first, second), ones);
            products[t] = _mm256_add_epi32(products[t], both);
        }
    }
    products
}

/// For bytes offset by 128, which are made signed again; their signs then go to the activations, which are never -128.
/// The sum of two products, 2 * 128 * 127, fits in 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn products_of_signed(bytes: &[Bytes], x: &[u32], width: usize, _: &[i32; TOKENS], at: At) -> Products {
    let ones = _mm256_set1_epi16(1);
    let mut products = [_mm256_setzero_si256(); TOKENS];
    for (w, x) in bytes.iter().zip(x.chunks_exact(width)) {
        let w = _mm256_xor_si256(read_bytes(w, at), _mm256_set1_epi8(-128));
        let size = _mm256_abs_epi8(w);
        let x = at.tokens(x);
        for t in 0..TOKENS {
            let x = _mm256_sign_epi8(_mm256_set1_epi32(x[t] as i32), w);
            let both = _mm256_madd_epi16(_mm256_maddubs_epi16(size, x), ones);
            products[t] = _mm256_add_epi32(products[t], both);
        }
    }
    products
}
