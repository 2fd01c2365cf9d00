//! The inner loops for AVX-512 with VNNI.
//!
//! Every function here has `#[target_feature]`; [`super::rows_times`], the only way in, has asserted that the
//! processor has these features.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::packed::TokenPiece;
use super::tile::{Bytes, Floats, Form, TILE_ROWS, Tile, WORD};
use crate::quant::blocks::QK;
use std::arch::x86_64::*;

type Sums = [f32; TILE_ROWS];

/// As `plain::times`.
pub(super) fn times(tile: &Tile, x: &TokenPiece, sums: &mut [Sums]) {
    // SAFETY: the processor has the features, see the head of the file.
    unsafe {
        match x.width {
            4 => of_width::<4>(tile, x, sums),
            8 => of_width::<8>(tile, x, sums),
            _ => of_width::<12>(tile, x, sums),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn of_width<const N: usize>(tile: &Tile, x: &TokenPiece, sums: &mut [Sums]) {
    assert!(sums.len() == N && x.width == N);
    let Some(sums) = sums.first_chunk_mut() else { return };
    match tile.form {
        Form::Float(..) => floats::<N>(tile.floats(), x, sums),
        Form::Blocks(format) => {
            let (bytes, scales) = (tile.bytes(), tile.scales(format));
            match (format.sub_len, format.has_min) {
                (16, false) => blocks::<N, 4, false>(bytes, scales, &[], x, sums),
                (16, true) => blocks::<N, 4, true>(bytes, scales, tile.mins(format), x, sums),
                (_, false) => blocks::<N, 8, false>(bytes, scales, &[], x, sums),
                (_, true) => blocks::<N, 8, true>(bytes, scales, tile.mins(format), x, sums),
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn line(floats: &Floats) -> __m512 {
    // SAFETY: a line of 16 floats, aligned as such.
    unsafe { _mm512_load_ps(floats.0.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn load<const N: usize>(sums: &[Sums; N]) -> [__m512; N] {
    // SAFETY: 16 floats each.
    std::array::from_fn(|t| unsafe { _mm512_loadu_ps(sums[t].as_ptr()) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn store<const N: usize>(values: [__m512; N], sums: &mut [Sums; N]) {
    for (sums, value) in sums.iter_mut().zip(values) {
        // SAFETY: 16 floats each.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), value) };
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn floats<const N: usize>(w: &[Floats], x: &TokenPiece, sums: &mut [Sums; N]) {
    let (x, rest) = x.words.as_chunks::<N>();
    assert!(x.len() == w.len() && rest.is_empty());
    let mut piece = [_mm512_setzero_ps(); N];
    for (w, x) in w.iter().zip(x) {
        let w = line(w);
        for t in 0..N {
            piece[t] = _mm512_fmadd_ps(w, _mm512_set1_ps(f32::from_bits(x[t])), piece[t]);
        }
    }
    let mut all = load(sums);
    for t in 0..N {
        all[t] = _mm512_add_ps(all[t], piece[t]);
    }
    store(all, sums);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn blocks<const N: usize, const WORDS: usize, const MIN: bool>(
    bytes: &[Bytes],
    scales: &[Floats],
    mins: &[Floats],
    x: &TokenPiece,
    sums: &mut [Sums; N],
) {
    let (bytes, words) = (bytes.as_chunks::<WORDS>().0, x.words.as_chunks::<N>().0.as_chunks::<WORDS>().0);
    let (d, start, ds) = (x.d.as_chunks::<N>().0, x.start.as_chunks::<N>().0, x.ds.as_chunks::<N>().0);
    let n_sub = scales.len();
    let subs_of_d = QK / (WORDS * WORD);
    assert!(bytes.len() == n_sub && words.len() == n_sub && start.len() == n_sub && ds.len() == n_sub);
    assert!(d.len() * subs_of_d == n_sub && (!MIN || mins.len() == n_sub));
    let mut all = load(sums);
    for i in 0..n_sub {
        let mut products = [_mm512_setzero_si512(); N];
        if !MIN {
            for t in 0..N {
                products[t] = _mm512_set1_epi32(start[i][t]);
            }
        }
        for (w, x) in bytes[i].iter().zip(&words[i]) {
            // SAFETY: a line of 64 bytes, aligned as such.
            let w = unsafe { _mm512_load_si512(w.0.as_ptr().cast()) };
            for t in 0..N {
                products[t] = _mm512_dpbusd_epi32(products[t], w, _mm512_set1_epi32(x[t] as i32));
            }
        }
        let scale = line(&scales[i]);
        for t in 0..N {
            let scale = _mm512_mul_ps(scale, _mm512_set1_ps(d[i / subs_of_d][t]));
            all[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[t]), scale, all[t]);
        }
        if MIN {
            let min = line(&mins[i]);
            for t in 0..N {
                all[t] = _mm512_fnmadd_ps(min, _mm512_set1_ps(ds[i][t]), all[t]);
            }
        }
    }
    store(all, sums);
}
