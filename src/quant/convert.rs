//! Converts rows between their stored bytes and 32-bit floats, for every supported type.

use super::blocks::{self, Q4_0_BYTES, Q8_0_BYTES, QK};
use super::decoded::dequantize;
use super::types::GgmlType;
use super::{iq4, k_quantize, k_quants, legacy, mxfp4};
use anyhow::{Result, bail};
#[cfg(not(target_arch = "aarch64"))]
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Turns stored bytes into floats. The lengths must match: whole blocks, one float per element.
pub type Dequantize = fn(&[u8], &mut [f32]);
/// Turns floats into stored bytes. The lengths must match as in [`Dequantize`].
pub type Quantize = fn(&[f32], &mut [u8]);

const READABLE: &str =
    "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS and MXFP4";
const WRITABLE: &str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL and IQ4_XS";

/// How to read rows of `dtype`.
///
/// # Errors
/// When only the name and size of the type are known.
pub fn dequantizer(dtype: GgmlType) -> Result<Dequantize> {
    Ok(match dtype {
        GgmlType::F32 => from_f32,
        GgmlType::F16 => from_f16,
        GgmlType::BF16 => from_bf16,
        GgmlType::Q8_0 => from_q8_0,
        GgmlType::Q4_0 => from_q4_0,
        GgmlType::Q4_1 => |row, out| dequantize(&legacy::Q4_1, row, out),
        GgmlType::Q5_0 => |row, out| dequantize(&legacy::Q5_0, row, out),
        GgmlType::Q5_1 => |row, out| dequantize(&legacy::Q5_1, row, out),
        GgmlType::Q2_K => |row, out| dequantize(&k_quants::Q2_K, row, out),
        GgmlType::Q3_K => |row, out| dequantize(&k_quants::Q3_K, row, out),
        GgmlType::Q4_K => |row, out| dequantize(&k_quants::Q4_K, row, out),
        GgmlType::Q5_K => |row, out| dequantize(&k_quants::Q5_K, row, out),
        GgmlType::Q6_K => |row, out| dequantize(&k_quants::Q6_K, row, out),
        GgmlType::IQ4_NL => |row, out| dequantize(&iq4::IQ4_NL, row, out),
        GgmlType::IQ4_XS => |row, out| dequantize(&iq4::IQ4_XS, row, out),
        GgmlType::MXFP4 => |row, out| dequantize(&mxfp4::MXFP4, row, out),
        other => bail!("type {other} is not supported yet; {READABLE} are"),
    })
}

/// How to write rows of `dtype`.
///
/// # Errors
/// When the type cannot be written.
pub fn quantizer(dtype: GgmlType) -> Result<Quantize> {
    Ok(match dtype {
        GgmlType::F32 => to_f32,
        GgmlType::F16 => to_f16,
        GgmlType::BF16 => to_bf16,
        GgmlType::Q8_0 => quantize_q8_0_rows,
        GgmlType::Q4_0 => to_q4_0,
        GgmlType::Q4_1 => |x, out| by_block(x, GgmlType::Q4_1, out, legacy::quantize_q4_1),
        GgmlType::Q5_0 => |x, out| by_block(x, GgmlType::Q5_0, out, legacy::quantize_q5_0),
        GgmlType::Q5_1 => |x, out| by_block(x, GgmlType::Q5_1, out, legacy::quantize_q5_1),
        GgmlType::Q2_K => |x, out| k_quantize::quantize_q2_k(x, None, out),
        GgmlType::Q3_K => |x, out| k_quantize::quantize_q3_k(x, None, out),
        GgmlType::IQ4_NL => |x, out| k_quantize::quantize_iq4_nl(x, None, out),
        GgmlType::IQ4_XS => |x, out| k_quantize::quantize_iq4_xs(x, None, out),
        GgmlType::Q4_K => |x, out| k_quantize::quantize_q4_k(x, None, out),
        GgmlType::Q5_K => |x, out| k_quantize::quantize_q5_k(x, None, out),
        GgmlType::Q6_K => |x, out| k_quantize::quantize_q6_k(x, None, out),
        other => bail!("type {other} cannot be written; {WRITABLE} can"),
    })
}

/// Turns floats into stored bytes, given how much the error of each counts: 0 or more.
pub type QuantizeWeighted = fn(&[f32], &[f32], &mut [u8]);

/// How to write rows of `dtype` where columns count more and less; `None` for types that cannot make use of it.
pub fn weighted_quantizer(dtype: GgmlType) -> Option<QuantizeWeighted> {
    Some(match dtype {
        GgmlType::Q4_0 => |x, w, out| k_quantize::quantize_q4_0(x, Some(w), out),
        GgmlType::Q5_0 => |x, w, out| k_quantize::quantize_q5_0(x, Some(w), out),
        GgmlType::Q2_K => |x, w, out| k_quantize::quantize_q2_k(x, Some(w), out),
        GgmlType::Q3_K => |x, w, out| k_quantize::quantize_q3_k(x, Some(w), out),
        GgmlType::Q4_K => |x, w, out| k_quantize::quantize_q4_k(x, Some(w), out),
        GgmlType::Q5_K => |x, w, out| k_quantize::quantize_q5_k(x, Some(w), out),
        GgmlType::Q6_K => |x, w, out| k_quantize::quantize_q6_k(x, Some(w), out),
        GgmlType::IQ4_NL => |x, w, out| k_quantize::quantize_iq4_nl(x, Some(w), out),
        GgmlType::IQ4_XS => |x, w, out| k_quantize::quantize_iq4_xs(x, Some(w), out),
        _ => return None,
    })
}

/// Reads a row of this type; see [`Dequantize`].
pub fn from_f32(row: &[u8], out: &mut [f32]) {
    for (o, b) in out.iter_mut().zip(row.chunks_exact(4)) {
        *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    }
}

fn to_f32(x: &[f32], out: &mut [u8]) {
    for (o, v) in out.chunks_exact_mut(4).zip(x) {
        o.copy_from_slice(&v.to_le_bytes());
    }
}

#[cfg(not(target_arch = "aarch64"))]
/// Elements converted at a time: `half` converts slices eight at a time if the processor can.
const STEP: usize = 64;

/// Reads a row of this type; see [`Dequantize`].
pub fn from_f16(row: &[u8], out: &mut [f32]) {
    #[cfg(target_arch = "aarch64")]
    return super::halves::to_floats(row, out);
    #[cfg(not(target_arch = "aarch64"))]
    by_steps(row, out);
}

#[cfg(not(target_arch = "aarch64"))]
fn by_steps(row: &[u8], out: &mut [f32]) {
    let mut halves = [f16::ZERO; STEP];
    for (o, b) in out.chunks_mut(STEP).zip(row.chunks(2 * STEP)) {
        for (h, b) in halves.iter_mut().zip(b.chunks_exact(2)) {
            *h = f16::from_le_bytes([b[0], b[1]]);
        }
        halves[..o.len()].convert_to_f32_slice(o);
    }
}

fn to_f16(x: &[f32], out: &mut [u8]) {
    for (o, v) in out.chunks_exact_mut(2).zip(x) {
        o.copy_from_slice(&f16::from_f32(*v).to_le_bytes());
    }
}

/// Reads a row of this type; see [`Dequantize`].
pub fn from_bf16(row: &[u8], out: &mut [f32]) {
    for (o, b) in out.iter_mut().zip(row.chunks_exact(2)) {
        *o = bf16::from_le_bytes([b[0], b[1]]).to_f32();
    }
}

fn to_bf16(x: &[f32], out: &mut [u8]) {
    for (o, v) in out.chunks_exact_mut(2).zip(x) {
        o.copy_from_slice(&bf16::from_f32(*v).to_le_bytes());
    }
}

/// Reads a row of this type; see [`Dequantize`].
pub fn from_q8_0(row: &[u8], out: &mut [f32]) {
    let mut q = [0; QK];
    for (o, block) in out.chunks_exact_mut(QK).zip(row.chunks_exact(Q8_0_BYTES)) {
        blocks::q8_0_values(block, &mut q);
        scale_into(blocks::scale(block), &q, o);
    }
}

/// Quantizes whole rows to `Q8_0`.
pub fn quantize_q8_0_rows(x: &[f32], out: &mut [u8]) {
    for (o, v) in out.chunks_exact_mut(Q8_0_BYTES).zip(x.chunks_exact(QK)) {
        blocks::quantize_q8_0(v, o);
    }
}

/// Reads a row of this type; see [`Dequantize`].
pub fn from_q4_0(row: &[u8], out: &mut [f32]) {
    let mut q = [0; QK];
    for (o, block) in out.chunks_exact_mut(QK).zip(row.chunks_exact(Q4_0_BYTES)) {
        blocks::q4_0_values(block, &mut q);
        scale_into(blocks::scale(block), &q, o);
    }
}

fn to_q4_0(x: &[f32], out: &mut [u8]) {
    for (o, v) in out.chunks_exact_mut(Q4_0_BYTES).zip(x.chunks_exact(QK)) {
        blocks::quantize_q4_0(v, o);
    }
}

fn by_block(x: &[f32], dtype: GgmlType, out: &mut [u8], quantize: fn(&[f32], &mut [u8])) {
    for (o, v) in out.chunks_exact_mut(dtype.block_bytes()).zip(x.chunks_exact(dtype.block_len())) {
        quantize(v, o);
    }
}

fn scale_into(d: f32, q: &[i8; QK], out: &mut [f32]) {
    for (o, q) in out.iter_mut().zip(q) {
        *o = f32::from(*q) * d;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(dtype: GgmlType, x: &[f32]) -> Vec<f32> {
        let mut bytes = vec![0; dtype.row_bytes(x.len()).unwrap()];
        quantizer(dtype).unwrap()(x, &mut bytes);
        let mut back = vec![0.0; x.len()];
        dequantizer(dtype).unwrap()(&bytes, &mut back);
        back
    }

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37).sin() * 3.0).collect()
    }

    #[test]
    fn round_trips_stay_within_half_a_step() {
        let x = wave(256);
        for (dtype, step) in [
            (GgmlType::F32, 0.0),
            (GgmlType::F16, 2e-3),
            (GgmlType::BF16, 2e-2),
            (GgmlType::Q8_0, 3.0 / 127.0),
            (GgmlType::Q4_0, 3.0 / 7.0),
        ] {
            for (a, b) in x.iter().zip(round_trip(dtype, &x)) {
                assert!((a - b).abs() <= step, "{dtype}: {a} became {b}");
            }
        }
    }

    #[test]
    fn quantized_bytes_are_those_of_the_gguf_package() {
        // numpy: 64 normal values, the second block scaled by 0.03; gguf.quants.quantize(x, Q8_0) and (x, Q4_0).
        let bits: [u32; 64] = [
            0xbf4d4b61, 0xbfa98498, 0xbe7e5282, 0x3ed74499, 0x3f9169f9, 0x00000000, 0xbf0d7a4b, 0xbf48e75e, 0x3f3fadce,
            0x3fd14092, 0x3e8ba859, 0xbf9dddb7, 0xbf7550de, 0x3fcccd6d, 0x3e4fc06a, 0xbfddb698, 0xbdab68e9, 0xbf94e497,
            0xbf211906, 0xbef9dbe6, 0xbf369bb5, 0x3f0daa36, 0xbd813338, 0xbf16e4f8, 0x3ed1bc0d, 0x3f547166, 0xbfd24e97,
            0xbe837222, 0xbf7b1242, 0xbe314f9a, 0xbfa50bac, 0x3ca97ee7, 0xba94f909, 0xbc15968d, 0xbd00c4eb, 0xbc42bc48,
            0xbd061a3d, 0xbd26872e, 0x3bdcf92f, 0xbd085122, 0xbcb01bcc, 0x3cb01bcc, 0xbd757de1, 0x3c05c1bc, 0xbd076102,
            0x3a81fc7d, 0x3aab9167, 0xbd745698, 0xbbe576b4, 0xbbfb73ab, 0x3cec6bd7, 0xbd112d1a, 0x3cb56195, 0xbd070ab2,
            0xbc22d60b, 0xbcce8e00, 0x3d320525, 0x3c8ba4e1, 0x3d9567d8, 0x3c9dc1e3, 0x3ccfaa59, 0x3cce9b31, 0xbc9514b3,
            0xbb09ae79,
        ];
        let q8_0: [u8; 68] = [
            252, 34, 197, 159, 238, 31, 83, 0, 215, 198, 55, 120, 20, 166, 186, 117, 15, 129, 250, 171, 210, 220, 204,
            41, 251, 213, 30, 61, 136, 237, 184, 243, 161, 2, 181, 16, 254, 240, 201, 235, 199, 185, 12, 198, 219, 37,
            152, 14, 198, 2, 2, 152, 244, 243, 50, 194, 39, 199, 239, 212, 76, 30, 127, 34, 44, 44, 224, 252,
        ];
        let q4_0: [u8; 36] = [
            238, 50, 132, 50, 87, 106, 93, 184, 133, 84, 171, 207, 9, 114, 52, 127, 41, 128, 171, 160, 152, 153, 91,
            201, 108, 204, 151, 188, 58, 102, 15, 103, 92, 88, 168, 143,
        ];
        let x = bits.map(f32::from_bits);
        let mut bytes = [0; 68];
        quantize_q8_0_rows(&x, &mut bytes);
        assert_eq!(bytes, q8_0);
        let mut bytes = [0; 36];
        to_q4_0(&x, &mut bytes);
        assert_eq!(bytes, q4_0);
    }

    #[test]
    fn a_block_with_something_infinite_or_no_number_does_not_become_finite() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = wave(32);
            x[7] = bad;
            assert!(round_trip(GgmlType::Q8_0, &x).iter().all(|v| v.is_nan()));
        }
    }

    #[test]
    fn blocks_of_zeros_stay_zeros() {
        for dtype in [GgmlType::Q8_0, GgmlType::Q4_0] {
            assert_eq!(round_trip(dtype, &[0.0; 64]), [0.0; 64]);
        }
    }

    #[test]
    fn a_type_without_code_is_refused_by_name() {
        let error = dequantizer(GgmlType::from_name("IQ2_XS").unwrap()).err().unwrap();
        assert!(error.to_string().contains("IQ2_XS"), "{error}");
    }
}
