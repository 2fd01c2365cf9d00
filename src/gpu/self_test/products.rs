//! Matrix times vector, and both halves of an FFN.

use super::Test;
use super::memory::{Memory, SLACK, equal, near};
use super::weights::{DOT_TOLERANCE, SUM_TOLERANCE, TYPES, Weights};
use crate::gpu::Ptr;
use crate::gpu::matrix::planes;
use crate::gpu::ops::down;
use crate::gpu::ops::ffn::{self, List};
use crate::gpu::ops::matvec::{Rows, matvec};
use crate::model::{Activation, Threshold};
use crate::quant::GgmlType;
use anyhow::Result;

/// Neurons: more than a block of any kernel has at once, and no multiple of anything.
const N_FF: usize = 75;

/// Activations that are nowhere much steeper than 1; FATReLU is tested beside them.
const SMOOTH: [Option<Activation>; 6] = [
    Some(Activation::Relu),
    Some(Activation::DRelu),
    Some(Activation::Silu),
    Some(Activation::Gelu),
    Some(Activation::GeluErf),
    Some(Activation::GeluQuick),
];

/// A threshold of FATReLU.
const JUMP: f32 = 0.125;

/// A width that leaves blocks unfinished.
fn width(dtype: GgmlType) -> usize {
    if dtype.block_len() == 256 { 768 } else { 416 }
}

pub(super) fn all(test: &mut Test) -> Result<()> {
    for dtype in TYPES {
        let planes = planes(dtype)?;
        if planes.scales > 0 {
            test.of(&format!("repack_{}", planes.name), |m| repacked(m, dtype))?;
        }
        // They are the same code for all types. Without one nothing hides: ReLU makes zeros of all rows where all are negative,
        // as those of types with minima may be.
        let jumping = [Some(Activation::FatRelu(Threshold::new(JUMP)?))];
        let activations = if dtype == GgmlType::F32 { [&SMOOTH[..], &jumping].concat() } else { vec![None] };
        test.of(&format!("matvec_{}", planes.name), |m| activations.iter().try_for_each(|f| product(m, dtype, *f)))?;
        test.of(&format!("up_{}", planes.name), |m| up(m, dtype))?;
        test.of(&format!("gate_up_{}", planes.name), |m| gate_up(m, dtype))?;
        test.of(&format!("down_{}", planes.name), |m| down(m, dtype))?;
    }
    Ok(())
}

fn repacked(m: &mut Memory, dtype: GgmlType) -> Result<()> {
    let planes = planes(dtype)?;
    let w = Weights::random(m, dtype, 5, width(dtype))?;
    let (mut quants, mut scales) = (Vec::new(), Vec::new());
    for block in w.bytes.chunks(dtype.block_bytes()) {
        // The scale of a Q6_K block is at its end, others at their beginning.
        let (scale, rest) = match dtype {
            GgmlType::Q6_K => (&block[planes.quants..], &block[..planes.quants]),
            _ => block.split_at(planes.scales),
        };
        quants.extend_from_slice(rest);
        scales.extend_from_slice(scale);
    }
    let got = m.get::<u8>(w.matrix.ptr(), w.bytes.len())?;
    equal("byte", &got, &[quants, scales].concat())
}

fn product(m: &mut Memory, dtype: GgmlType, activation: Option<Activation>) -> Result<()> {
    m.clear();
    const FIRST: usize = 3;
    let n_cols = width(dtype);
    let (a, b) = (Weights::random(m, dtype, N_FF, n_cols)?, Weights::random(m, dtype, 9, n_cols)?);
    let x = m.random.values(n_cols);
    let (acts, on_card) = m.acts(dtype, &x)?;
    let n_rows = N_FF - 2 * FIRST;
    let bias = m.random.values(n_rows);
    let (bias_at, y) = (m.put(&bias)?, m.room_of::<f32>(n_rows)?);
    let part = Rows { first: FIRST, n_rows, bias: bias_at, ..Rows::all(&a.matrix, y) };
    let parts = [part, Rows::all(&b.matrix, m.room_of::<f32>(9)?)];
    matvec(&m.kernels, &m.stream, &parts, on_card, activation)?;
    for (w, part) in [&a, &b].into_iter().zip(&parts) {
        let got = m.get::<f32>(part.y, part.n_rows)?;
        let bias = |i: usize| if part.bias.is_null() { 0.0 } else { bias[i] };
        let applied = |sum: f32| activation.map_or(sum, |activation| activation.apply(sum));
        let sum = |i: usize| w.dot(part.first + i, &acts) + bias(i);
        near("row", &got, (0..part.n_rows).map(|i| f64::from(applied(sum(i)))), |i| {
            let off = SLACK * f64::from(DOT_TOLERANCE * (w.dot_size(part.first + i, &x) + 1.0));
            // So close to the point where it jumps, both sides are right.
            let jump = activation.and_then(Activation::threshold).map_or(0.0, |t| f64::from(t.get()));
            if jump > 0.0 && (f64::from(sum(i)) - jump).abs() <= off { jump + off } else { off }
        })?;
    }
    Ok(())
}

/// Every third slot, with the first and the last: longer on the card than its count says.
fn listed(m: &mut Memory, n: usize) -> Result<(Vec<u32>, List)> {
    let slots: Vec<u32> = (0..n as u32).filter(|i| i % 3 == 0 || *i as usize == n - 1).collect();
    let mut padded = slots.clone();
    padded.resize(n, u32::MAX);
    let list = List { slots: m.put(&padded)?, count: m.put(&[slots.len() as u32])?, n };
    Ok((slots, list))
}

fn up(m: &mut Memory, dtype: GgmlType) -> Result<()> {
    let w = Weights::random(m, dtype, N_FF, width(dtype))?;
    let x = m.random.values(width(dtype));
    let (acts, on_card) = m.acts(dtype, &x)?;
    let (slots, list) = listed(m, N_FF)?;
    let mut act = m.random.values(N_FF);
    act.iter_mut().step_by(6).for_each(|a| *a = 0.0);
    let bias = m.random.values(N_FF);
    for (biased, activation) in [(false, Activation::Relu), (true, Activation::Relu), (true, Activation::DRelu)] {
        let (at, bias) = if biased { (m.put(&bias)?, &bias) } else { (Ptr::NULL, &vec![0.0; N_FF]) };
        // Over the activations, as in a layer: what is not listed stays.
        let h = m.put(&act)?;
        ffn::up(&m.kernels, &m.stream, &w.matrix, at, &list, h, on_card, activation, h)?;
        let got = m.get::<f32>(h, N_FF)?;
        let expected = (0..N_FF).map(|i| match act[i] {
            0.0 => 0.0,
            a if slots.contains(&(i as u32)) => activation.gated(a, w.dot(i, &acts) + bias[i]),
            a => a,
        });
        let size = |i: usize| act[i].abs() * (w.dot_size(i, &x) + bias[i].abs());
        near("neuron", &got, expected.map(f64::from), |i| SLACK * f64::from(DOT_TOLERANCE * size(i)))?;
    }
    Ok(())
}

fn gate_up(m: &mut Memory, dtype: GgmlType) -> Result<()> {
    const N: usize = 43;
    let (gate, up) = (Weights::random(m, dtype, N + 2, width(dtype))?, Weights::random(m, dtype, N + 5, width(dtype))?);
    let mut x = m.random.values(width(dtype));
    let (mut acts, mut on_card) = m.acts(dtype, &x)?;
    // Where no gate is above zero, as may be with minima, a wrong product would not show.
    if (0..N).all(|i| gate.dot(i, &acts) <= 0.0) {
        x.iter_mut().for_each(|x| *x = -*x);
        (acts, on_card) = m.acts(dtype, &x)?;
    }
    let h = m.room_of::<f32>(N)?;
    ffn::gate_up(&m.kernels, &m.stream, &gate.matrix, &up.matrix, N, on_card, Activation::Relu, h)?;
    let got = m.get::<f32>(h, N)?;
    let mut tolerances = Vec::new();
    let mut expected = Vec::new();
    for i in 0..N {
        let (act, product) = (Activation::Relu.apply(gate.dot(i, &acts)), up.dot(i, &acts));
        // Both factors are off, each relative to its own size.
        let size = act.abs() * up.dot_size(i, &x) + 1.1 * gate.dot_size(i, &x) * product.abs();
        tolerances.push(SLACK * f64::from(2.0 * DOT_TOLERANCE * size));
        expected.push(f64::from(act * product));
    }
    near("neuron", &got, expected, |i| tolerances[i])
}

fn down(m: &mut Memory, dtype: GgmlType) -> Result<()> {
    const N: usize = 2 * N_FF;
    let n_embd = width(dtype);
    let w = Weights::random(m, dtype, N + 3, n_embd)?;
    let mut h = m.random.values(N);
    h.iter_mut().step_by(3).for_each(|h| *h = 0.0);
    let scratch = m.room(down::scratch_bytes(dtype, n_embd)?)?;
    down::clear_scratch(&m.stream, scratch)?;
    let there = m.put(&h)?;
    let mut run = |all| {
        let y = m.room_of::<f32>(n_embd)?;
        let factors = down::Factors { h: there, n: N, all };
        down::down(&m.kernels, &m.stream, &w.matrix, &factors, y, scratch)?;
        m.get::<f32>(y, n_embd)
    };
    let (some, all) = (run(false)?, run(true)?);
    // Offsets and minima are taken away after the products are added up: sizes are those of a row's largest weight.
    let size: f32 = h.iter().enumerate().map(|(row, h)| w.largest(row) * h.abs()).sum();
    let rows: Vec<u32> = (0..N as u32).collect();
    let tolerance = SLACK * f64::from(SUM_TOLERANCE * size);
    near("column", &some, w.sum(&rows, &h).into_iter().map(f64::from), |_| tolerance)?;
    equal("column of all rows", &all, &some)
}
