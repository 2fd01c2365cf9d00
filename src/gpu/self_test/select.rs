//! Lists of active slots; the cold ones are posted.

use super::Test;
use super::exchange::{Array, Exchange, at, floats, words};
use super::memory::{Memory, equal};
use crate::gpu::Ptr;
use crate::gpu::mailbox::{POST_N, POSTED};
use crate::gpu::ops::select::{HotAndCold, HotList, Posting, Scored, select_act, select_hot, select_score};
use anyhow::{Result, ensure};
use std::ops::Range;
use std::sync::atomic::Ordering::Acquire;

/// Two blocks of hot slots, two of cold ones.
const N_FF: usize = 2500;
const N_HOT: usize = 1300;
const N_EMBD: usize = 96;
const JOB: u32 = 3;

pub(super) fn all(test: &mut Test) -> Result<()> {
    test.of("select_hot", hot)?;
    test.of("select_act", by_activation)?;
    test.of("select_score", by_score)
}

/// What is selected with, and where it goes.
struct Selection {
    exchange: Exchange,
    x: Vec<f32>,
    counts: Ptr,
    posting: Posting,
}

impl Selection {
    fn new(m: &mut Memory) -> Result<Self> {
        let (exchange, x) = (Exchange::new(m, true)?, m.random.values(N_EMBD));
        let posting = Posting {
            x: m.put(&x)?,
            n_embd: N_EMBD,
            post_x: at(m, Array::X),
            post_list: at(m, Array::List),
            post_act: at(m, Array::Act),
            job: exchange.job(m, JOB),
        };
        Ok(Self { exchange, x, counts: m.room_of::<u32>(2)?, posting })
    }

    fn slots(&self) -> HotAndCold {
        HotAndCold { n_hot: N_HOT, n_ff: N_FF, counts: self.counts }
    }

    /// Fails unless `cold` is what was posted and counted.
    fn check_posted(&self, m: &mut Memory, cold: &[u32]) -> Result<()> {
        m.wait()?;
        self.exchange.check_ticket(m, POSTED, JOB)?;
        let n = m.shared.word(POST_N).load(Acquire) as usize;
        ensure!(n == cold.len(), "{n} slots are posted, {} expected", cold.len());
        equal("posted slot", &words(m, Array::List, n), cold)?;
        equal("posted input", &floats(m, Array::X, N_EMBD), &self.x)?;
        let counted = m.get::<u32>(self.counts, 2)?[1] as usize;
        ensure!(counted == n, "{counted} cold slots are counted, {n} expected");
        self.exchange.check_state(m, 0)
    }
}

/// Active slots of `range`.
fn active(act: &[f32], range: Range<usize>) -> Vec<u32> {
    range.filter(|i| act[*i] != 0.0).map(|i| i as u32).collect()
}

fn hot(m: &mut Memory) -> Result<()> {
    let act = m.random.sparse(N_HOT, 5);
    let (there, list, n, counts) = (m.put(&act)?, m.room_of::<u32>(N_HOT)?, m.room_of::<u32>(1)?, m.zeros(8)?);
    let slots = HotAndCold { n_hot: N_HOT, n_ff: N_FF, counts };
    select_hot(&m.kernels, &m.stream, there, false, slots, &HotList { list, n })?;
    let expected = active(&act, 0..N_HOT);
    equal("number of slots", &m.get::<u32>(n, 1)?, &[expected.len() as u32])?;
    equal("slot", &m.get::<u32>(list, expected.len())?, &expected)?;
    equal("count", &m.get::<u32>(counts, 1)?, &[expected.len() as u32])
}

fn by_activation(m: &mut Memory) -> Result<()> {
    let act = m.random.sparse(N_FF, 5);
    let selection = Selection::new(m)?;
    let there = m.put(&act)?;
    select_act(&m.kernels, &m.stream, there, false, selection.slots(), &selection.posting)?;
    let cold = active(&act, N_HOT..N_FF);
    selection.check_posted(m, &cold)?;
    let acts: Vec<f32> = cold.iter().map(|i| act[*i as usize]).collect();
    equal("posted activation", &floats(m, Array::Act, cold.len()), &acts)
}

fn by_score(m: &mut Memory) -> Result<()> {
    const N_ALWAYS: usize = N_HOT + 10;
    let (scores, bias) = (m.random.values(N_FF), m.random.values(N_FF));
    let selection = Selection::new(m)?;
    let scored = Scored { scores: m.put(&scores)?, bias: m.put(&bias)?, n_always: N_ALWAYS };
    select_score(&m.kernels, &m.stream, &scored, selection.slots(), &selection.posting)?;
    let active = |i: &u32| (*i as usize) < N_ALWAYS || scores[*i as usize] + bias[*i as usize] >= 0.0;
    let cold: Vec<u32> = (N_HOT as u32..N_FF as u32).filter(active).collect();
    selection.check_posted(m, &cold)
}
