//! Groups of neurons that a router chooses: the choice, and both halves of their FFN.

use super::Test;
use super::exchange::{Array, Exchange, at, floats, words};
use super::memory::{Memory, SLACK, equal, near};
use super::weights::{DOT_TOLERANCE, SUM_TOLERANCE, TYPES, Weights};
use crate::gpu::Ptr;
use crate::gpu::mailbox::{POST_N, POSTED};
use crate::gpu::matrix::planes;
use crate::gpu::ops::down;
use crate::gpu::ops::experts::{Activated, Hot, Index, experts, experts_down, index_bytes, scratch_bytes};
use crate::gpu::ops::route::{Counted, NOT_CHOSEN, PostChosen, Routes, Scored, post_chosen, route};
use crate::model::{Activation, Gating, Router};
use crate::quant::GgmlType;
use anyhow::{Context, Result, ensure};
use std::sync::atomic::Ordering::Acquire;

/// Hot neurons of the groups, by row of the router.
const N_HOT: [usize; 4] = [0, 9, 43, 17];
/// Rows that are chosen.
const CHOSEN: [u32; 3] = [0, 1, 2];
/// Room for the neurons of each.
const STRIDE: usize = 48;

/// The group of a row.
fn group(row: usize) -> usize {
    N_HOT.len() - 1 - row
}

pub(super) fn all(test: &mut Test) -> Result<()> {
    test.of("route", routed)?;
    test.of("post_chosen", posted)?;
    for dtype in TYPES {
        let name = planes(dtype)?.name;
        test.of(&format!("experts_{name}"), |m| activated(m, dtype))?;
        test.of(&format!("experts_down_{name}"), |m| added(m, dtype))?;
    }
    Ok(())
}

fn routed(m: &mut Memory) -> Result<()> {
    const N: usize = 300;
    const N_USED: usize = 7;
    let groups: Vec<_> = (0..N).map(|row| (None, N - 1 - row)).collect();
    for (gating, biased, normalised) in
        [(Gating::Softmax, false, true), (Gating::Sigmoid, true, true), (Gating::SoftmaxOfChosen, false, false)]
    {
        m.clear();
        let index = m.put(&index_bytes(&groups)?)?;
        let router = Router { gating, n_used: N_USED, normalised, scale: 2.5 };
        let (mut expected, bias) = (m.random.values(N), m.random.values(N));
        let scores = m.put(&expected)?;
        let scored = Scored { scores, bias: if biased { m.put(&bias)? } else { Ptr::NULL }, n_groups: N };
        let (chosen, weights) = (m.room_of::<u32>(N_USED)?, m.room_of::<f32>(N_USED)?);
        let routes = Routes { chosen, weights, n_used: N_USED };
        let counts = m.room_of::<u32>(2 * N)?;
        route(&m.kernels, &m.stream, &router, &scored, &Counted { index, counts }, &routes)?;
        router.choose(&mut expected, biased.then_some(&bias), &mut Vec::new());
        let rows: Vec<u32> = (0..N as u32).filter(|row| expected[*row as usize] != 0.0).collect();
        equal("chosen group", &m.get::<u32>(chosen, N_USED)?, &rows)?;
        let wanted = rows.iter().map(|row| f64::from(expected[*row as usize]));
        near("weight", &m.get::<f32>(weights, N_USED)?, wanted, |_| SLACK * 1e-5)?;
        let mut counted = vec![0; 2 * N];
        for (row, (_, group)) in groups.iter().enumerate().filter(|(row, _)| expected[*row] == 0.0) {
            ensure!(row + group == N - 1, "an index in order");
            counted[2 * group] = NOT_CHOSEN;
        }
        equal("count", &m.get::<u32>(counts, 2 * N)?, &counted)?;
    }
    Ok(())
}

/// [`CHOSEN`] on the card, and what they count.
fn routes(m: &mut Memory) -> Result<(Routes, Vec<f32>)> {
    let weights: Vec<f32> = m.random.values(CHOSEN.len()).iter().map(|w| 0.5 + 0.25 * w).collect();
    let routes = Routes { chosen: m.put(&CHOSEN)?, weights: m.put(&weights)?, n_used: CHOSEN.len() };
    Ok((routes, weights))
}

fn posted(m: &mut Memory) -> Result<()> {
    const N: usize = 96;
    const JOB: u32 = 3;
    let exchange = Exchange::new(m, true)?;
    let (routes, weights) = routes(m)?;
    let x = m.random.values(N);
    let to = PostChosen {
        x: m.put(&x)?,
        n: N,
        post_x: at(m, Array::X),
        post_list: at(m, Array::List),
        post_weights: at(m, Array::Act),
        job: exchange.job(m, JOB),
    };
    post_chosen(&m.kernels, &m.stream, &routes, &to)?;
    m.wait()?;
    equal("value", &floats(m, Array::X, N), &x)?;
    equal("chosen group", &words(m, Array::List, CHOSEN.len()), &CHOSEN)?;
    equal("weight", &floats(m, Array::Act, CHOSEN.len()), &weights)?;
    equal("number", &[m.shared.word(POST_N).load(Acquire)], &[CHOSEN.len() as u32])?;
    exchange.check_ticket(m, POSTED, JOB)?;
    exchange.check_state(m, 0)
}

/// Several blocks of a row.
fn width(dtype: GgmlType) -> usize {
    if dtype.block_len() == 256 { 512 } else { 160 }
}

/// What the card has of a group.
struct Group {
    mask: Weights,
    up: Option<Weights>,
    down: Weights,
}

/// Random groups of [`N_HOT`] neurons, and their index.
fn groups(m: &mut Memory, dtype: GgmlType, gated: bool) -> Result<(Vec<Option<Group>>, Index)> {
    let (mut groups, n_cols) = (Vec::new(), width(dtype));
    for n in N_HOT {
        let mut weights = || Weights::random(m, dtype, n, n_cols);
        let up = (gated && n > 0).then(&mut weights).transpose()?;
        groups.push(if n > 0 { Some(Group { mask: weights()?, up, down: weights()? }) } else { None });
    }
    let hot = |g: &Group| Hot { mask: g.mask.matrix, up: g.up.as_ref().map(|up| up.matrix), down: g.down.matrix };
    let entries: Vec<_> = groups.iter().enumerate().map(|(row, g)| (g.as_ref().map(hot), group(row))).collect();
    let like = entries.iter().find_map(|(hot, _)| *hot).context("no group has hot neurons")?;
    let index = Index { ptr: m.put(&index_bytes(&entries)?)?, most_hot: N_HOT[2], like };
    Ok((groups, index))
}

fn activated(m: &mut Memory, dtype: GgmlType) -> Result<()> {
    for gated in [true, false] {
        m.clear();
        let (groups, index) = groups(m, dtype, gated)?;
        let (routes, weights) = routes(m)?;
        let mut x = m.random.values(width(dtype));
        let (mut acts, mut on_card) = m.acts(dtype, &x)?;
        // Where no gate is above zero, as may be with minima, a wrong product would not show.
        let fires = |acts: &_| groups[2].as_ref().is_some_and(|g| (0..N_HOT[2]).any(|i| g.mask.dot(i, acts) > 0.0));
        if !fires(&acts) {
            x.iter_mut().for_each(|x| *x = -*x);
            (acts, on_card) = m.acts(dtype, &x)?;
        }
        let h = m.room_of::<f32>(CHOSEN.len() * STRIDE)?;
        let counts = m.put(&[1u32; 2 * N_HOT.len()])?;
        let to = Activated { h, stride: STRIDE, counts };
        experts(&m.kernels, &m.stream, &index, &routes, on_card, Activation::DRelu, &to)?;
        let got = m.get::<f32>(h, CHOSEN.len() * STRIDE)?;
        let mut counted = vec![1u32; 2 * N_HOT.len()];
        for ((row, weight), got) in CHOSEN.iter().zip(&weights).zip(got.chunks_exact(STRIDE)) {
            let row = *row as usize;
            let Some(g) = &groups[row] else { continue };
            let got = &got[..N_HOT[row]];
            let (mut expected, mut tolerances) = (Vec::new(), Vec::new());
            for i in 0..N_HOT[row] {
                let act = Activation::DRelu.apply(g.mask.dot(i, &acts));
                let (product, size) = match &g.up {
                    Some(up) => {
                        let dot = up.dot(i, &acts);
                        let size = act.abs() * up.dot_size(i, &x) + 1.1 * g.mask.dot_size(i, &x) * dot.abs();
                        (Activation::DRelu.gated(act, dot), size)
                    }
                    None => (act, g.mask.dot_size(i, &x)),
                };
                expected.push(f64::from(weight * product));
                tolerances.push(SLACK * f64::from(2.0 * DOT_TOLERANCE * weight * size));
                counted[2 * group(row) + 1] += u32::from(act != 0.0);
            }
            near("neuron", got, expected, |i| tolerances[i])?;
            counted[2 * group(row)] += got.iter().filter(|h| **h != 0.0).count() as u32;
        }
        let counts = m.get::<u32>(counts, 2 * N_HOT.len())?;
        // A gate at 0 may be on either side of it.
        for (got, wanted) in counts.iter().zip(&counted) {
            ensure!(got.abs_diff(*wanted) <= 1, "counted {counts:?}, {counted:?} expected");
        }
    }
    Ok(())
}

fn added(m: &mut Memory, dtype: GgmlType) -> Result<()> {
    let (groups, index) = groups(m, dtype, false)?;
    let (routes, _) = routes(m)?;
    let mut h = m.random.values(CHOSEN.len() * STRIDE);
    h.iter_mut().step_by(3).for_each(|h| *h = 0.0);
    let scratch = m.room(scratch_bytes(&index.like.down, CHOSEN.len())?)?;
    down::clear_scratch(&m.stream, scratch)?;
    let from = Activated { h: m.put(&h)?, stride: STRIDE, counts: Ptr::NULL };
    let n = width(dtype);
    let mut run = |all| {
        let y = m.room_of::<f32>(n)?;
        experts_down(&m.kernels, &m.stream, &index, &routes, &from, all, y, scratch)?;
        m.get::<f32>(y, n)
    };
    let (some, all) = (run(false)?, run(true)?);
    let (mut expected, mut size) = (vec![0.0f64; n], 0.0);
    for (row, h) in CHOSEN.iter().zip(h.chunks_exact(STRIDE)) {
        let Some(g) = &groups[*row as usize] else { continue };
        let rows: Vec<u32> = (0..N_HOT[*row as usize] as u32).collect();
        let h = &h[..rows.len()];
        expected.iter_mut().zip(g.down.sum(&rows, h)).for_each(|(sum, y)| *sum += f64::from(y));
        size += h.iter().enumerate().map(|(row, h)| g.down.largest(row) * h.abs()).sum::<f32>();
    }
    let tolerance = SLACK * f64::from(SUM_TOLERANCE * size);
    near("column", &some, expected, |_| tolerance)?;
    equal("column of all rows", &all, &some)
}
