//! What the formats read and write, compared with the gguf package and with bounds on the error.

use super::decoded::{Decoded, MAX_BLOCK_LEN, MAX_SUB_BLOCKS, block_format};
use super::lanes::Plain;
use super::{GgmlType, convert, k_plain, k_quantize};

// The two tables of hashes are what this prints (Python, with numpy and gguf 0.19.0):
//
//   import numpy as np
//   from gguf import quants
//   from gguf.constants import GGMLQuantizationType as T, GGML_QUANT_SIZES
//   SCALES = [0x3c00, 0, 0x8000, 1, 0x83ff, 0x0400, 0x7bff, 0xfbff, 0xb555, 0x2e66, 0x1234]
//   AT = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
//         "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
//         "MXFP4": []}
//   def byte():
//       global state
//       state = (state * 1664525 + 1013904223) % 2**32
//       return state >> 24
//   def fnv(data):
//       h = 0xcbf29ce484222325
//       for b in data: h = (h ^ b) * 0x100000001b3 % 2**64
//       return h
//   for name, at in AT.items():
//       state, blocks = 1, []
//       for i in range(22):
//           block = bytearray(byte() for _ in range(GGML_QUANT_SIZES[T[name]][1]))
//           for j, a in enumerate(at): block[a:a + 2] = SCALES[(i + i // 11 * 3 * j) % 11].to_bytes(2, "little")
//           blocks.append(block)
//       y = quants.dequantize(np.array(blocks, np.uint8), T[name])
//       print(name, hex(fnv(y.tobytes())), y.reshape(-1)[[0, 1, 18]])
//   state = 1
//   x = np.array([sum(byte() for _ in range(4)) - 510 for _ in range(32 * 64)], np.float32) * np.float32(2.0**-9)
//   for name in ["Q8_0", "Q4_1", "Q5_0", "Q5_1"]: print(name, hex(fnv(quants.quantize(x, T[name]).tobytes())))

/// F16 scales: one, both zeros, subnormal and smallest normal ones, the largest, and three common ones.
const SCALES: [u16; 11] = [0x3c00, 0, 0x8000, 1, 0x83ff, 0x0400, 0x7bff, 0xfbff, 0xb555, 0x2e66, 0x1234];

/// The type, where its F16 scales lie, the hash of the floats of 22 blocks, and the floats 0, 1 and 18.
const READ: [(GgmlType, &[usize], u64, [f32; 3]); 13] = [
    (GgmlType::Q4_0, &[0], 0x4b63684fe8c8c38d, [-7.0, -4.0, -8.0]),
    (GgmlType::Q4_1, &[0, 2], 0x4d8b4211a05f5771, [13.0, 15.0, 13.0]),
    (GgmlType::Q5_0, &[0], 0xcc7c6af6db561c05, [6.0, -2.0, 0.0]),
    (GgmlType::Q5_1, &[0, 2], 0xeeffe878f265a3bc, [5.0, 4.0, 21.0]),
    (GgmlType::Q8_0, &[0], 0xaef2c3c00a0337ea, [-127.0, -76.0, 55.0]),
    (GgmlType::Q2_K, &[80, 82], 0xc10fe0889c5a421c, [-3.0, 33.0, 37.0]),
    (GgmlType::Q3_K, &[108], 0x140d192790cfbf8f, [21.0, 7.0, 68.0]),
    (GgmlType::Q4_K, &[0, 2], 0x6fc3d25431b0059e, [140.0, 32.0, 32.0]),
    (GgmlType::Q5_K, &[0, 2], 0xb7f5b5e142806cc4, [80.0, 368.0, 212.0]),
    (GgmlType::Q6_K, &[208], 0x4a5dc2901d0e495a, [-1148.0, 82.0, 1484.0]),
    (GgmlType::IQ4_NL, &[0], 0x1a97cad4f6a26d0f, [-104.0, -49.0, -127.0]),
    (GgmlType::IQ4_XS, &[0], 0xb34135a7a53254c8, [196.0, 260.0, 196.0]),
    (GgmlType::MXFP4, &[], 0x3be9f7f35e5cced1, [-2.710_505_4e-20, 3.388_131_8e-21, -1.016_439_5e-20]),
];

const WRITTEN: [GgmlType; 12] = [
    GgmlType::Q8_0,
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q2_K,
    GgmlType::Q3_K,
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::Q6_K,
    GgmlType::IQ4_NL,
    GgmlType::IQ4_XS,
];

fn random_bytes() -> impl FnMut() -> u8 {
    let mut state = 1u32;
    move || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 24) as u8
    }
}

fn fnv(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf29ce484222325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100000001b3))
}

fn random_blocks(dtype: GgmlType, scales_at: &[usize]) -> Vec<u8> {
    let mut byte = random_bytes();
    let mut blocks: Vec<u8> = (0..22 * dtype.block_bytes()).map(|_| byte()).collect();
    for (i, block) in blocks.chunks_exact_mut(dtype.block_bytes()).enumerate() {
        for (j, at) in scales_at.iter().enumerate() {
            block[*at..at + 2].copy_from_slice(&SCALES[(i + i / 11 * 3 * j) % 11].to_le_bytes());
        }
    }
    blocks
}

fn read(dtype: GgmlType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block_len()];
    convert::dequantizer(dtype).unwrap()(bytes, &mut out);
    out
}

fn write(dtype: GgmlType, x: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; dtype.row_bytes(x.len()).unwrap()];
    convert::quantizer(dtype).unwrap()(x, &mut bytes);
    bytes
}

/// Sums of `terms` random bytes, centred: with several terms they look like weights, and all are exact in Python, too.
fn bells(n: usize, terms: i32) -> Vec<f32> {
    let mut byte = random_bytes();
    let mut sum = || (0..terms).map(|_| i32::from(byte())).sum::<i32>();
    (0..n).map(|_| (2 * sum() - 255 * terms) as f32 / 1024.0).collect()
}

/// Root mean square of the error, relative to that of `x`.
fn error(dtype: GgmlType, x: &[f32]) -> f64 {
    let back = read(dtype, &write(dtype, x));
    let squares = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v) * f64::from(v)).sum::<f64>();
    (squares(&mut x.iter().zip(&back).map(|(a, b)| a - b)) / squares(&mut x.iter().copied())).sqrt()
}

#[test]
fn blocks_read_bit_for_bit_as_the_gguf_package_reads_them() {
    for (dtype, scales_at, hash, some) in READ {
        let values = read(dtype, &random_blocks(dtype, scales_at));
        assert_eq!([values[0], values[1], values[18]], some, "{dtype}");
        assert_eq!(fnv(values.iter().flat_map(|v| v.to_le_bytes())), hash, "{dtype}");
    }
}

#[test]
fn blocks_unpack_to_what_they_dequantize_to() {
    for (dtype, scales_at, ..) in READ {
        let format = block_format(dtype).unwrap();
        let blocks = random_blocks(dtype, scales_at);
        let values = read(dtype, &blocks);
        let mut decoded = Decoded { min: [f32::NAN; MAX_SUB_BLOCKS], ..Decoded::default() };
        for (block, values) in blocks.chunks_exact(dtype.block_bytes()).zip(values.chunks_exact(dtype.block_len())) {
            decoded.read(format, block);
            for (i, value) in values.iter().enumerate() {
                let (scale, min) = (decoded.scale[i / format.sub_len], decoded.min[i / format.sub_len]);
                let product = f64::from(scale) * (f64::from(decoded.q[i]) - f64::from(format.offset));
                let tolerance = 1e-6 * (product.abs() + f64::from(min.abs())) + 1e-40;
                let too_large =
                    product.abs() > f64::from(f32::MAX) && f64::from(*value) == product.signum() * f64::INFINITY;
                assert!(
                    too_large || (product - f64::from(min) - f64::from(*value)).abs() <= tolerance,
                    "{dtype}: element {i}"
                );
            }
        }
    }
}

#[test]
fn formats_fit_their_types() {
    assert!(block_format(GgmlType::F16).is_none());
    for (dtype, ..) in READ {
        let format = block_format(dtype).unwrap();
        assert_eq!(format.n_sub() * format.sub_len, dtype.block_len(), "{dtype}");
        assert!(format.sub_len == 16 || format.sub_len == 32, "{dtype}");
        assert!(dtype.block_len() <= MAX_BLOCK_LEN && format.n_sub() <= MAX_SUB_BLOCKS, "{dtype}");
        assert_eq!(format.has_min, format.offset == 0, "{dtype}");
    }
}

#[test]
fn blocks_of_32_are_written_byte_for_byte_as_the_gguf_package_writes_them() {
    // Not Q4_0, which rounds ties as ggml's C code does where it is fused, and this version of the package does not.
    let mut byte = random_bytes();
    let mut sum = || (0..4).map(|_| i32::from(byte())).sum::<i32>();
    let x: Vec<f32> = (0..32 * 64).map(|_| (sum() - 510) as f32 / 512.0).collect();
    for (dtype, hash) in [
        (GgmlType::Q8_0, 0x9158bccfddfa2910),
        (GgmlType::Q4_1, 0x305c645c712bf9f4),
        (GgmlType::Q5_0, 0x83902b2b675dd2e6),
        (GgmlType::Q5_1, 0x881004669fba771e),
    ] {
        assert_eq!(fnv(write(dtype, &x)), hash, "{dtype}");
    }
}

#[test]
fn more_bits_and_better_searches_mean_smaller_errors() {
    let x = bells(1 << 16, 12);
    let q4_0 = error(GgmlType::Q4_0, &x);
    assert!((0.080..0.088).contains(&q4_0), "Q4_0: {q4_0}");
    for (dtype, of_q4_0) in [
        (GgmlType::Q4_1, 0.93),
        (GgmlType::Q5_0, 0.51),
        (GgmlType::Q5_1, 0.45),
        (GgmlType::Q8_0, 0.064),
        (GgmlType::Q2_K, 3.2),
        (GgmlType::Q3_K, 1.72),
        (GgmlType::Q4_K, 0.83),
        (GgmlType::Q5_K, 0.42),
        (GgmlType::Q6_K, 0.21),
        (GgmlType::IQ4_NL, 0.885),
        (GgmlType::IQ4_XS, 0.89),
    ] {
        let error = error(dtype, &x);
        assert!(error < of_q4_0 * q4_0, "{dtype}: {error}, which is {} of Q4_0", error / q4_0);
    }
}

#[test]
fn the_searches_write_the_same_bytes_on_every_machine() {
    let x = bells(1 << 12, 12);
    for (dtype, hash) in [
        (GgmlType::Q2_K, 0xeb8485f45050e718),
        (GgmlType::Q3_K, 0x1172aa6a13272807),
        (GgmlType::Q4_K, 0x5d9fb81c9935e8eb),
        (GgmlType::Q5_K, 0x0d085d3eb177f4dd),
        (GgmlType::Q6_K, 0x8a358ed201360302),
        (GgmlType::IQ4_NL, 0x09a8b59ef31f7dcc),
        (GgmlType::IQ4_XS, 0xdcb8c81d06a0b071),
    ] {
        assert_eq!(fnv(write(dtype, &x)), hash, "{dtype}");
    }
}

#[test]
fn sub_blocks_of_zeros_stay_zeros() {
    for dtype in WRITTEN {
        let mut x = vec![0.0; 256];
        assert_eq!(read(dtype, &write(dtype, &x)), x, "{dtype}");
        x[64..96].copy_from_slice(&bells(32, 12));
        let back = read(dtype, &write(dtype, &x));
        assert!(back[..64].iter().chain(&back[96..]).all(|v| *v == 0.0), "{dtype}");
        assert!(back[64..96].iter().any(|v| *v != 0.0), "{dtype}");
    }
}

#[test]
fn what_is_not_finite_spoils_its_block_and_no_other() {
    for dtype in WRITTEN {
        let len = dtype.block_len();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 7, len - 1] {
                let mut x = bells(2 * len, 12);
                x[at] = bad;
                let back = read(dtype, &write(dtype, &x));
                assert!(back[..len].iter().all(|v| v.is_nan()), "{dtype}: {bad} at {at}");
                assert!(back[len..].iter().all(|v| v.is_finite()), "{dtype}: {bad} at {at}");
            }
        }
    }
}

#[test]
fn what_is_too_large_for_the_scale_does_not_become_finite() {
    for dtype in WRITTEN {
        for large in [3e38, 1e12] {
            let x: Vec<f32> = bells(dtype.block_len(), 12).iter().map(|v| large * v.clamp(-1.0, 1.0)).collect();
            assert!(read(dtype, &write(dtype, &x)).iter().all(|v| !v.is_finite()), "{dtype}: {large}");
        }
    }
}

#[test]
fn odd_inputs_stay_close() {
    let alone = |at: usize, v: f32| -> Vec<f32> { (0..256).map(|i| if i == at { v } else { 0.0 }).collect() };
    let inputs = [
        ("constant", vec![0.75; 256]),
        ("negative constant", vec![-0.75; 256]),
        ("one value", alone(100, 3.0)),
        ("one negative value", alone(255, -3.0)),
        ("positive", bells(256, 12).iter().map(|v| v.abs() + 0.1).collect()),
        (
            "sub-blocks of all sizes",
            bells(256, 12).iter().enumerate().map(|(i, v)| v * 0.1f32.powi(i as i32 / 32)).collect(),
        ),
    ];
    for dtype in WRITTEN {
        for (name, x) in &inputs {
            let error = error(dtype, x);
            let limit = match dtype {
                GgmlType::Q2_K => 0.4,
                GgmlType::Q3_K => 0.2,
                _ => 0.12,
            };
            assert!(error < limit, "{dtype}: {name}: {error}");
        }
    }
}

type Block = fn(&[f32], &mut [u8]);

/// Weights as they are, and blocks that search at a limit: of one sign, of all sizes, with outliers, zeros, ties and denormals.
fn awkward() -> Vec<f32> {
    let mut x = bells(48 * 256, 12);
    for (i, block) in x.chunks_exact_mut(256).enumerate() {
        match i % 8 {
            0 => block.iter_mut().for_each(|v| *v = v.abs()),
            1 => block.iter_mut().enumerate().for_each(|(i, v)| *v *= 0.1f32.powi(i as i32 / 32)),
            2 => block[5 * i] = -30.0,
            3 => block[32..64].fill(0.0),
            4 => block.iter_mut().for_each(|v| *v = v.round()),
            5 => block.iter_mut().for_each(|v| *v *= 1e-7),
            6 => block.iter_mut().for_each(|v| *v = -v.abs()),
            _ => {}
        }
    }
    x.extend([0.0; 256]);
    x.extend([-0.25; 256]);
    x.extend(bells(256, 12).iter().map(|v| v * 1e6));
    x
}

fn assert_bytes(dtype: GgmlType, x: &[f32], expected: Block) {
    let bytes = dtype.block_bytes();
    for (i, (x, got)) in x.chunks_exact(dtype.block_len()).zip(write(dtype, x).chunks_exact(bytes)).enumerate() {
        let mut block = vec![0; bytes];
        expected(x, &mut block);
        assert!(block == got, "{dtype}: block {i}");
    }
}

#[test]
fn the_fast_searches_write_the_bytes_of_the_plain_ones() {
    let plain: [(GgmlType, Block); 3] = [
        (GgmlType::Q4_K, k_plain::quantize_q4_k),
        (GgmlType::Q5_K, k_plain::quantize_q5_k),
        (GgmlType::Q6_K, k_plain::quantize_q6_k),
    ];
    for (dtype, plain) in plain {
        assert_bytes(dtype, &awkward(), plain);
    }
}

#[test]
fn processors_of_any_age_write_the_same_bytes() {
    let plain: [(GgmlType, Block); 7] = [
        (GgmlType::Q2_K, |x, out| k_quantize::q2_k::<Plain>(x, None, out)),
        (GgmlType::Q3_K, |x, out| k_quantize::q3_k::<Plain>(x, None, out)),
        (GgmlType::Q4_K, |x, out| k_quantize::q4_k::<Plain>(x, None, out)),
        (GgmlType::Q5_K, |x, out| k_quantize::q5_k::<Plain>(x, None, out)),
        (GgmlType::Q6_K, |x, out| k_quantize::q6_k::<Plain>(x, None, out)),
        (GgmlType::IQ4_NL, |x, out| k_quantize::iq4_nl::<Plain>(x, None, out)),
        (GgmlType::IQ4_XS, |x, out| k_quantize::iq4_xs::<Plain>(x, None, out)),
    ];
    for (dtype, plain) in plain {
        assert_bytes(dtype, &awkward(), plain);
    }
}

#[test]
fn columns_that_count_more_have_smaller_errors() {
    // Every fourth column counts a hundred times as much.
    let x = bells(1 << 14, 12);
    let importance: Vec<f32> = (0..x.len()).map(|i| if i % 4 == 1 { 1.0 } else { 0.01 }).collect();
    let weighted_error = |dtype: GgmlType, bytes: &[u8]| {
        let off = x.iter().zip(read(dtype, bytes)).map(|(x, back)| f64::from(x - back));
        off.zip(&importance).map(|(off, w)| f64::from(*w) * off * off).sum::<f64>()
    };
    let mut n = 0;
    for dtype in WRITTEN {
        let Some(quantize) = convert::weighted_quantizer(dtype) else { continue };
        let write_with = |importance: &[f32]| {
            let mut bytes = vec![0; dtype.row_bytes(x.len()).unwrap()];
            quantize(&x, importance, &mut bytes);
            bytes
        };
        let ratio = weighted_error(dtype, &write_with(&importance)) / weighted_error(dtype, &write(dtype, &x));
        assert!(ratio < 0.9, "{dtype}: {ratio}");
        // Nothing that counts is nothing to search by, but must not become what is no number.
        let back = read(dtype, &write_with(&vec![0.0; x.len()]));
        assert!(back.iter().all(|v| v.is_finite()), "{dtype}");
        n += 1;
    }
    assert_eq!(n, 9);
}

#[test]
fn columns_that_count_alike_change_nothing() {
    let x = awkward();
    for dtype in WRITTEN.into_iter().filter(|dtype| ![GgmlType::Q4_0, GgmlType::Q5_0].contains(dtype)) {
        let Some(quantize) = convert::weighted_quantizer(dtype) else { continue };
        let mut bytes = vec![0; dtype.row_bytes(x.len()).unwrap()];
        quantize(&x, &vec![1.0; x.len()], &mut bytes);
        assert!(bytes == write(dtype, &x), "{dtype}");
    }
}
