//! Norms, the merge into the residual stream, quantization, predictors.

use super::Test;
use super::exchange::{Array, Exchange, answer, at};
use super::memory::{Memory, SLACK, equal, near};
use crate::cpu::signs;
use crate::gpu::Ptr;
use crate::gpu::ops::norm::{self, Acts, Merge, Norm, x8_bytes};
use crate::gpu::ops::predict;
use crate::gpu::ops::token::Answer;
use crate::model::NormKind;
use anyhow::Result;

/// More than a block of a norm has threads, and not a multiple of them.
const N: usize = 4096 + 32;
const EPS: f32 = 1e-5;
/// Relative to the largest output: the scale may be rounded the other way, and four operations round after it.
const TOLERANCE: f64 = 4.0 * f32::EPSILON as f64;

pub(super) fn all(test: &mut Test) -> Result<()> {
    test.of("norm", |m| [NormKind::Rms, NormKind::Layer].into_iter().try_for_each(|kind| normed(m, kind)))?;
    test.of("merge_norm", |m| {
        merged(m)?;
        merged_of_many(m)
    })?;
    test.of("quantize", quantized)?;
    test.of("sign_scores", scored)?;
    test.of("hidden", hidden)
}

/// What the processor computes, before the last rounding.
fn reference(kind: NormKind, weight: &[f32], bias: &[f32], x: &[f32]) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = match kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => x.iter().map(|v| f64::from(*v)).sum::<f64>() / n,
    };
    let square = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    let (mean, scale) = (mean as f32, 1.0 / (square as f32 + EPS).sqrt());
    let value = |i: usize| f64::from(x[i] - mean) * f64::from(scale) * f64::from(weight[i]);
    (0..x.len()).map(|i| value(i) + f64::from(bias[i])).collect()
}

/// Fails where the floats are not the norm of `x`, or the quants not those of the floats.
fn check(m: &mut Memory, out: Acts, expected: &[f64]) -> Result<()> {
    let got = m.get::<f32>(out.f32, expected.len())?;
    let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    near("value", &got, expected.iter().copied(), |_| SLACK * TOLERANCE * largest)?;
    m.check_quantized(out.x8, &got)
}

fn normed(m: &mut Memory, kind: NormKind) -> Result<()> {
    let (x, weight, bias) = (m.random.values(N), m.random.values(N), m.random.values(N));
    let work = Norm { kind, eps: EPS, weight: m.put(&weight)?, bias: m.put(&bias)? };
    let (there, out) = (m.put(&x)?, Acts { f32: m.room_of::<f32>(N)?, x8: m.room(x8_bytes(N))? });
    norm::norm(&m.kernels, &m.stream, there, N, 1, &work, out)?;
    check(m, out, &reference(kind, &weight, &bias, &x))
}

fn merged(m: &mut Memory) -> Result<()> {
    const JOB: u32 = 3;
    let [x, a, b, weight, given] = std::array::from_fn(|_| m.random.values(N));
    let exchange = Exchange::new(m, false)?;
    answer(m, JOB, &given);
    let answer = Answer { reply: at(m, Array::Given), job: exchange.job(m, JOB), limit_ms: 1000 };
    let work = Norm { kind: NormKind::Rms, eps: EPS, weight: m.put(&weight)?, bias: Ptr::NULL };
    let merge = Merge { a: m.put(&a)?, b: m.put(&b)?, answer: Some(answer), ..Merge::nothing(m.put(&x)?, N) };
    let out = Acts { f32: m.room_of::<f32>(N)?, x8: m.room(x8_bytes(N))? };
    norm::merge_norm(&m.kernels, &m.stream, &merge, Some(&work), out)?;
    let sum: Vec<f32> = (0..N).map(|i| (x[i] + a[i]) + (b[i] + given[i])).collect();
    equal("sum", &m.get::<f32>(merge.x, N)?, &sum)?;
    check(m, out, &reference(NormKind::Rms, &weight, &vec![0.0; N], &sum))
}

/// Scaled vectors of several tokens and what is the same for all of them; then the same beginning at 0, in the place of one.
fn merged_of_many(m: &mut Memory) -> Result<()> {
    const N_TOKENS: usize = 3;
    const N: usize = 160;
    let (a_scale, b_scale) = (0.75, -1.25);
    let [x, a, b] = std::array::from_fn(|_| m.random.values(N_TOKENS * N));
    let (shift, weight) = (m.random.values(N), m.random.values(N));
    let work = Norm { kind: NormKind::Rms, eps: EPS, weight: m.put(&weight)?, bias: Ptr::NULL };
    let there = Merge { n_tokens: N_TOKENS, a_scale, b_scale, ..Merge::nothing(m.put(&x)?, N) };
    let there = Merge { a: m.put(&a)?, b: m.put(&b)?, shift: m.put(&shift)?, ..there };
    let second = |i: usize| b[i] + shift[i % N];
    let sum: Vec<f32> = (0..x.len()).map(|i| x[i] + a_scale * a[i] + b_scale * second(i)).collect();
    let from_zero: Vec<f32> = (0..x.len()).map(second).collect();
    let in_place = Merge { x: Ptr::NULL, a: Ptr::NULL, b_scale: 1.0, ..there };
    for (merge, sum, to) in [(there, &sum, m.room_of::<f32>(sum.len())?), (in_place, &from_zero, there.b)] {
        let out = Acts { f32: to, x8: m.room(N_TOKENS as u64 * x8_bytes(N))? };
        norm::merge_norm(&m.kernels, &m.stream, &merge, Some(&work), out)?;
        if !merge.x.is_null() {
            equal("sum", &m.get::<f32>(merge.x, sum.len())?, sum)?;
        }
        for (t, sum) in sum.chunks_exact(N).enumerate() {
            let at = |ptr: Ptr, bytes: u64| ptr.offset(t as u64 * bytes);
            let out = Acts { f32: at(out.f32, 4 * N as u64), x8: at(out.x8, x8_bytes(N)) };
            check(m, out, &reference(NormKind::Rms, &weight, &[0.0; N], sum))?;
        }
    }
    Ok(())
}

fn quantized(m: &mut Memory) -> Result<()> {
    let mut x = m.random.values(N);
    x[..32].fill(0.0);
    x[32..64].iter_mut().for_each(|v| *v *= 1e30);
    let (there, x8) = (m.put(&x)?, m.room(x8_bytes(N))?);
    norm::quantize(&m.kernels, &m.stream, there, N, 1, x8)?;
    m.check_quantized(x8, &x)
}

fn scored(m: &mut Memory) -> Result<()> {
    const N_EMBD: usize = 416;
    const N_ROWS: usize = 77;
    let x = m.random.values(N_EMBD);
    let rows: Vec<u8> = (0..N_ROWS * N_EMBD / 8).map(|_| m.random.next() as u8).collect();
    let (rows_there, x_there, scores) = (m.put(&rows)?, m.put(&x)?, m.room_of::<f32>(N_ROWS)?);
    predict::sign_scores(&m.kernels, &m.stream, rows_there, x_there, N_EMBD, N_ROWS, scores)?;
    let (mut bits, mut expected) = (Vec::new(), vec![0.0; N_ROWS]);
    signs::pack(&x, &mut bits);
    signs::agreement(&rows, signs::sign_bytes(N_EMBD), &bits, &mut expected);
    equal("score", &m.get::<f32>(scores, N_ROWS)?, &expected)
}

fn hidden(m: &mut Memory) -> Result<()> {
    const N: usize = 1056;
    let (h, bias) = (m.random.values(N), m.random.values(N));
    let (there, bias_there, x8) = (m.put(&h)?, m.put(&bias)?, m.room(x8_bytes(N))?);
    predict::hidden(&m.kernels, &m.stream, there, bias_there, N, x8)?;
    let expected: Vec<f32> = h.iter().zip(&bias).map(|(h, b)| (h + b).max(0.0)).collect();
    equal("value", &m.get::<f32>(there, N)?, &expected)?;
    m.check_quantized(x8, &expected)
}
