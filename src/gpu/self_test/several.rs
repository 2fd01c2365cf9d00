//! Products of a few tokens at once: each is what it is alone, which is tested beside this.

use super::Test;
use super::memory::{Memory, equal};
use super::weights::{TYPES, Weights};
use crate::gpu::Ptr;
use crate::gpu::matrix::planes;
use crate::gpu::ops::ffn::{List, gate_up, gate_up_of, up, up_of};
use crate::gpu::ops::matvec::{Rows, matvec, matvec_of};
use crate::gpu::ops::norm::{Acts, quantize, x8_bytes};
use crate::gpu::ops::several::Several;
use crate::model::Activation;
use crate::quant::GgmlType;
use anyhow::Result;

/// Neurons: no multiple of anything.
const N_FF: usize = 75;
const N_TOKENS: usize = 3;
const BYTES: usize = size_of::<f32>();

/// A multiple of 64 that leaves warps unfinished.
fn width(dtype: GgmlType) -> usize {
    if dtype.block_len() == 256 { 768 } else { 448 }
}

pub(super) fn all(test: &mut Test) -> Result<()> {
    for dtype in TYPES {
        let name = planes(dtype)?.name;
        test.of(&format!("matvec_several_{name}"), |m| products(m, dtype))?;
        test.of(&format!("up_several_{name}"), |m| up_rows(m, dtype))?;
        test.of(&format!("gate_up_several_{name}"), |m| gated(m, dtype))?;
    }
    Ok(())
}

/// The inputs of the tokens on the card, one behind the other.
fn inputs(m: &mut Memory, n: usize) -> Result<Acts> {
    let x = m.random.values(N_TOKENS * n);
    let (f32, x8) = (m.put(&x)?, m.room(N_TOKENS as u64 * x8_bytes(n))?);
    quantize(&m.kernels, &m.stream, f32, n, N_TOKENS, x8)?;
    Ok(Acts { f32, x8 })
}

/// That of one of them.
fn of_token(all: Acts, token: usize, n: usize) -> Acts {
    Acts { f32: all.f32.offset((token * n * BYTES) as u64), x8: all.x8.offset(token as u64 * x8_bytes(n)) }
}

fn at(values: Ptr, token: usize) -> Ptr {
    values.offset((token * N_FF * BYTES) as u64)
}

fn several() -> Several {
    Several { n_tokens: N_TOKENS, acts: N_FF, counts: 0, lists: 0 }
}

fn products(m: &mut Memory, dtype: GgmlType) -> Result<()> {
    let n = width(dtype);
    let (w, x) = (Weights::random(m, dtype, N_FF, n)?, inputs(m, n)?);
    let (alone, together) = (m.room_of::<f32>(N_TOKENS * N_FF)?, m.room_of::<f32>(N_TOKENS * N_FF)?);
    for token in 0..N_TOKENS {
        let rows = Rows::all(&w.matrix, at(alone, token));
        matvec(&m.kernels, &m.stream, &[rows], of_token(x, token, n), None)?;
    }
    matvec_of(&m.kernels, &m.stream, &[Rows::all(&w.matrix, together)], x, N_TOKENS, None)?;
    let expected = m.get::<f32>(alone, N_TOKENS * N_FF)?;
    equal("product", &m.get::<f32>(together, N_TOKENS * N_FF)?, &expected)
}

fn up_rows(m: &mut Memory, dtype: GgmlType) -> Result<()> {
    let n = width(dtype);
    let (w, x) = (Weights::random(m, dtype, N_FF, n)?, inputs(m, n)?);
    let mut act = m.random.values(N_TOKENS * N_FF);
    act.iter_mut().enumerate().for_each(|(i, a)| *a = if i % N_TOKENS == 0 { *a } else { 0.0 });
    let (alone, together) = (m.put(&act)?, m.put(&act)?);
    let relu = Activation::Relu;
    for token in 0..N_TOKENS {
        let (h, x) = (at(alone, token), of_token(x, token, n));
        up(&m.kernels, &m.stream, &w.matrix, Ptr::NULL, &List::all(N_FF), h, x, relu, h)?;
    }
    let list = List::all(N_FF);
    up_of(&m.kernels, &m.stream, &w.matrix, Ptr::NULL, &list, together, x, relu, together, several())?;
    let expected = m.get::<f32>(alone, N_TOKENS * N_FF)?;
    equal("neuron", &m.get::<f32>(together, N_TOKENS * N_FF)?, &expected)
}

fn gated(m: &mut Memory, dtype: GgmlType) -> Result<()> {
    let n = width(dtype);
    let (gate, up) = (Weights::random(m, dtype, N_FF, n)?, Weights::random(m, dtype, N_FF, n)?);
    let x = inputs(m, n)?;
    // Weights with minima may leave no gate of ReLU above zero: then a wrong product would not show.
    for activation in [Activation::Relu, Activation::Silu] {
        let (alone, together) = (m.room_of::<f32>(N_TOKENS * N_FF)?, m.room_of::<f32>(N_TOKENS * N_FF)?);
        for token in 0..N_TOKENS {
            let (h, x) = (at(alone, token), of_token(x, token, n));
            gate_up(&m.kernels, &m.stream, &gate.matrix, &up.matrix, N_FF, x, activation, h)?;
        }
        gate_up_of(&m.kernels, &m.stream, &gate.matrix, &up.matrix, N_FF, x, activation, together, several())?;
        let expected = m.get::<f32>(alone, N_TOKENS * N_FF)?;
        equal("neuron", &m.get::<f32>(together, N_TOKENS * N_FF)?, &expected)?;
    }
    Ok(())
}
