//! What begins and ends a token, each kernel by itself; then a token of jobs that the processor answers.

use super::Test;
use super::exchange::{Array, Exchange, POSITION, answer, at, floats, give, words};
use super::memory::{LIMIT, Memory, equal};
use crate::gpu::mailbox::{Arrival, DONE, Layout, Mailbox, POSTED, Sizes, Wait};
use crate::gpu::ops::token::{self, Answer, Copied, TOKEN_BYTES};
use crate::gpu::{Graph, Mapped, Ptr, Stream};
use anyhow::{Result, ensure};
use std::time::Duration;

const N: usize = 96;
const JOB: u32 = 3;
/// How long the card waits for an answer: less than the processor waits for the card.
const CARD_WAITS: Duration = Duration::from_secs(6);

pub(super) fn all(test: &mut Test) -> Result<()> {
    test.of("begin_token", begun)?;
    test.of("post_x", posted)?;
    test.of("take_reply", taken)?;
    test.of("finish", finished)?;
    test.of("rendezvous", rendezvous)
}

fn begun(m: &mut Memory) -> Result<()> {
    let mut exchange = Exchange::new(m, false)?;
    exchange.token = m.room(TOKEN_BYTES)?;
    let (given, x) = (m.random.values(N), m.room_of::<f32>(N)?);
    give(m, Array::Given, &given);
    token::begin_token(&m.kernels, &m.stream, m.shared.ptr(), exchange.token, at(m, Array::Given), x, N)?;
    equal("value", &m.get::<f32>(x, N)?, &given)?;
    exchange.check_state(m, 1)
}

fn posted(m: &mut Memory) -> Result<()> {
    let (exchange, x) = (Exchange::new(m, true)?, m.random.values(N));
    let there = m.put(&x)?;
    token::post_x(&m.kernels, &m.stream, there, at(m, Array::X), N, &exchange.job(m, JOB))?;
    m.wait()?;
    equal("value", &floats(m, Array::X, N), &x)?;
    exchange.check_ticket(m, POSTED, JOB)?;
    exchange.check_state(m, 0)
}

fn taken(m: &mut Memory) -> Result<()> {
    let (exchange, given, x) = (Exchange::new(m, false)?, m.random.values(N), m.room_of::<f32>(N)?);
    answer(m, JOB, &given);
    let limit_ms = CARD_WAITS.as_millis() as u32;
    let work = Answer { reply: at(m, Array::Given), job: exchange.job(m, JOB), limit_ms };
    token::take_reply(&m.kernels, &m.stream, x, N, &work)?;
    equal("value", &m.get::<f32>(x, N)?, &given)?;
    exchange.check_state(m, 0)
}

fn finished(m: &mut Memory) -> Result<()> {
    /// More than a block copies, and not by fours.
    const N_VOCAB: usize = 5003;
    let (exchange, logits) = (Exchange::new(m, true)?, m.random.values(N_VOCAB));
    let counts: Vec<u32> = (0..N).map(|_| m.random.next() as u32).collect();
    let x = Copied { from: m.put(&logits)?, to: at(m, Array::Sent), n: N_VOCAB };
    let counted = Copied { from: m.put(&counts)?, to: at(m, Array::Counts), n: N };
    token::finish(&m.kernels, &m.stream, &x, &counted, &exchange.job(m, JOB))?;
    m.wait()?;
    equal("logit", &floats(m, Array::Sent, N_VOCAB), &logits)?;
    equal("count", &words(m, Array::Counts, N), &counts)?;
    exchange.check_ticket(m, DONE, JOB)
}

const N_JOBS: u32 = 4;

/// What the processor answers to a job.
fn answered(x: &[f32], job: u32) -> Vec<f32> {
    x.iter().map(|x| 0.5 * x - job as f32).collect()
}

/// Two tokens through a mailbox, in a graph.
fn rendezvous(m: &mut Memory) -> Result<()> {
    let layout = Layout::new(Sizes { n_embd: N, n_ff: 0, n_vocab: N, n_groups: 0, n_tokens: 1 });
    let mut mailbox = Mailbox::new(Mapped::new(m.stream.device(), layout.bytes, "the self-test")?, layout)?;
    let (state, x) = (m.zeros(TOKEN_BYTES)?, m.room_of::<f32>(N)?);
    let graph = jobs(m, &mailbox, state, x)?;
    let given = [m.random.values(N), m.random.values(N)];
    let done = given.iter().try_for_each(|x| one_token(&m.stream, &mut mailbox, &graph, x));
    if done.is_err() {
        // The card must not wait for answers that never come.
        mailbox.stop();
    }
    // What failed first is what is told.
    let ended = m.wait();
    done.and(ended)
}

fn jobs(m: &mut Memory, mailbox: &Mailbox, state: Ptr, x: Ptr) -> Result<Graph> {
    let (kernels, stream, at) = (&m.kernels, &m.stream, mailbox.addresses());
    let job = |number| token::Job { mailbox: at.base, token: state, number };
    let limit_ms = CARD_WAITS.as_millis() as u32;
    stream.capture(|| {
        token::begin_token(kernels, stream, at.base, state, at.in_x, x, N)?;
        for number in 0..N_JOBS {
            token::post_x(kernels, stream, x, at.post_x, N, &job(number))?;
            token::take_reply(kernels, stream, x, N, &Answer { reply: at.reply, job: job(number), limit_ms })?;
        }
        let logits = Copied { from: x, to: at.logits, n: N };
        token::finish(kernels, stream, &logits, &Copied { from: x, to: at.counts, n: 0 }, &job(N_JOBS))
    })
}

fn one_token(stream: &Stream, mailbox: &mut Mailbox, graph: &Graph, x: &[f32]) -> Result<()> {
    let wait = Wait { limit: LIMIT, alive: &|| stream.query().map(drop) };
    mailbox.begin_token(N_JOBS, POSITION as usize, x)?;
    graph.launch(stream)?;
    let mut x = x.to_vec();
    for job in 0..N_JOBS {
        ensure!(mailbox.wait_job(job, wait)? == Arrival::Posted, "the card left out job {job}");
        equal("posted value", mailbox.post_x(), &x)?;
        x = answered(&x, job);
        mailbox.reply(job, &x)?;
    }
    mailbox.wait_done(wait)?;
    equal("value", mailbox.logits(), &x)
}
