//! Tokens from their beginning to their end, with a thread that answers through the mailbox.

use super::card::Card;
use super::support::Random;
use powerinfer::gpu::mailbox::{
    Addresses, Arrival as Came, DONE, FAILED, Layout, POSTED, REPLIED, STOP, Sizes, TOKEN, Wait,
};
use powerinfer::gpu::ops::norm::{Acts, Merge, Norm, merge_norm};
use powerinfer::gpu::ops::select::{HotAndCold, HotList, Posting, select_act, select_hot};
use powerinfer::gpu::ops::token::{Answer, Copied, Job, TOKEN_BYTES, begin_token, finish, post_x, take_reply};
use powerinfer::gpu::{DeviceBuffer, Mailbox, Mapped, Ptr};
use powerinfer::model::NormKind;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for a slow machine, and then the test has failed.
const LONG: u32 = 60_000;
/// Where the arrays begin in the memory that both sides see.
const ARRAYS: u64 = 4096;

/// A mailbox without its host side, to see what the kernels do to each word.
struct Words {
    mapped: Mapped,
    token: DeviceBuffer,
    n: usize,
    x: DeviceBuffer,
    values: Vec<f32>,
}

impl Words {
    /// A token with first ticket `first` at position 5 has begun; the reply to come is all of 7.
    fn new(card: &Card, random: &mut Random, n: usize, first: u32) -> Self {
        let mapped = card.mapped(ARRAYS as usize + 3 * 4 * n);
        let words =
            Self { token: card.zeros(TOKEN_BYTES), x: card.room::<f32>(n), values: random.values(n), n, mapped };
        card.poke(words.reply(), &vec![7.0f32; n]);
        card.poke(words.in_x(), &words.values);
        words.begin(card, first);
        words
    }

    fn begin(&self, card: &Card, first: u32) {
        self.mapped.word(TOKEN).store(first, Release);
        self.mapped.word(TOKEN + 4).store(5, Release);
        self.mapped.word(REPLIED).store(first.wrapping_sub(1), Release);
        let (mailbox, in_x) = (self.mapped.ptr(), self.in_x());
        begin_token(card.kernels, &card.stream, mailbox, self.token.ptr(), in_x, self.x.ptr(), self.n).unwrap();
    }

    fn in_x(&self) -> Ptr {
        self.mapped.ptr().offset(ARRAYS)
    }

    fn post_x(&self) -> Ptr {
        self.in_x().offset(4 * self.n as u64)
    }

    fn reply(&self) -> Ptr {
        self.in_x().offset(8 * self.n as u64)
    }

    fn job(&self, number: u32) -> Job {
        Job { mailbox: self.mapped.ptr(), token: self.token.ptr(), number }
    }

    fn answer(&self, number: u32, limit_ms: u32) -> Answer {
        Answer { reply: self.reply(), job: self.job(number), limit_ms }
    }

    fn word(&self, offset: usize) -> u32 {
        self.mapped.word(offset).load(Acquire)
    }

    fn post(&self, card: &Card, job: u32) {
        post_x(card.kernels, &card.stream, self.x.ptr(), self.post_x(), self.n, &self.job(job)).unwrap();
    }

    fn take(&self, card: &Card, job: u32, limit_ms: u32) {
        take_reply(card.kernels, &card.stream, self.x.ptr(), self.n, &self.answer(job, limit_ms)).unwrap();
    }

    fn x(&self, card: &Card) -> Vec<f32> {
        card.get(self.x.ptr(), self.n)
    }

    /// First ticket, position, dead, skip.
    fn state(&self, card: &Card) -> Vec<u32> {
        card.get(self.token.ptr(), 4)
    }
}

#[test]
fn a_token_begins_with_what_the_processor_wrote() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for n in [4, 32, 4096, 5000] {
        let words = Words::new(&card, &mut random, n, 9);
        assert_eq!(words.x(&card), words.values);
        assert_eq!(words.state(&card), [9, 5, 0, 1]);
    }
}

#[test]
fn tickets_wrap() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    let first = u32::MAX - 1;
    let words = Words::new(&card, &mut random, 64, first);
    for job in 0..5 {
        words.post(&card, job);
        words.take(&card, job, LONG);
    }
    let (n, done) = (words.n, Copied { from: Ptr::NULL, to: Ptr::NULL, n: 0 });
    let x = Copied { from: words.x.ptr(), to: words.in_x(), n };
    finish(card.kernels, &card.stream, &x, &done, &words.job(5)).unwrap();
    let deadline = Instant::now() + Duration::from_millis(u64::from(LONG));
    for job in 0..5u32 {
        let ticket = first.wrapping_add(job);
        while words.word(POSTED) != ticket {
            assert!(Instant::now() < deadline, "job {job} does not come");
            thread::yield_now();
        }
        // The card waits now: it must not take the answer to the job before for that to this one.
        assert_eq!((words.word(REPLIED), words.word(DONE)), (ticket.wrapping_sub(1), 0));
        words.mapped.word(REPLIED).store(ticket, Release);
    }
    card.stream.synchronize().unwrap();
    assert_eq!((words.word(DONE), words.word(FAILED)), (first.wrapping_add(5), 0));
    assert_eq!(card.peek::<f32>(words.in_x(), n), vec![7.0; n]);
    assert_eq!(card.peek::<f32>(words.post_x(), n), vec![7.0; n]);
}

#[test]
fn a_wait_that_runs_out_says_which_and_ends_all_later_ones() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    let words = Words::new(&card, &mut random, 96, 100);
    words.mapped.word(REPLIED).store(102, Release);
    words.post(&card, 3);
    words.take(&card, 3, 30);
    let start = Instant::now();
    words.take(&card, 4, LONG);
    words.post(&card, 5);
    card.stream.synchronize().unwrap();
    assert!(start.elapsed() < Duration::from_millis(u64::from(LONG) / 2));
    assert_eq!((words.word(FAILED), words.word(POSTED)), (1 + 3, 103));
    assert_eq!(words.x(&card), words.values, "nothing is taken that did not come");
    assert_eq!(words.state(&card)[2], 1);
    // The next token is alive.
    words.begin(&card, 200);
    assert_eq!(words.state(&card), [200, 5, 0, 1]);
}

#[test]
fn a_stop_ends_a_wait() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    let words = Words::new(&card, &mut random, 32, 1);
    words.post(&card, 0);
    let start = Instant::now();
    words.take(&card, 0, LONG);
    while words.word(POSTED) != 1 {
        thread::yield_now();
    }
    words.mapped.word(STOP).store(1, Release);
    card.stream.synchronize().unwrap();
    assert!(start.elapsed() < Duration::from_millis(u64::from(LONG) / 2));
    assert_eq!((words.word(FAILED), words.state(&card)[2]), (0, 1));
}

#[test]
fn nothing_is_waited_for_when_nothing_was_posted() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    let words = Words::new(&card, &mut random, 32, 1);
    let start = Instant::now();
    words.take(&card, 0, LONG);
    let merge = Merge { answer: Some(words.answer(0, LONG)), ..Merge::nothing(words.x.ptr(), 32) };
    merge_norm(card.kernels, &card.stream, &merge, None, Acts::default()).unwrap();
    assert_eq!(words.x(&card), words.values);
    assert!(start.elapsed() < Duration::from_millis(u64::from(LONG) / 2));
    assert_eq!((words.word(FAILED), words.state(&card)[2]), (0, 0));
}

const N_EMBD: usize = 96;
const N_FF: usize = 2500;
const N_HOT: usize = 700;
const N_LAYER: usize = 3;
const EPS: f32 = 1e-6;

/// Memory of a model whose layers are a selection and a merge.
struct Layers {
    x: DeviceBuffer,
    normed: DeviceBuffer,
    token: DeviceBuffer,
    act: DeviceBuffer,
    hot: [DeviceBuffer; 2],
    hot_part: DeviceBuffer,
    weight: DeviceBuffer,
    counts: DeviceBuffer,
}

impl Layers {
    fn enqueue(&self, card: &Card, to: &Addresses) -> anyhow::Result<()> {
        let (kernels, stream) = (card.kernels, &card.stream);
        let (x, token) = (self.x.ptr(), self.token.ptr());
        begin_token(kernels, stream, to.base, token, to.in_x, x, N_EMBD)?;
        let norm = Norm { kind: NormKind::Rms, eps: EPS, weight: self.weight.ptr(), bias: Ptr::NULL };
        let [list, n] = [0, 1].map(|i| self.hot[i].ptr());
        for layer in 0..N_LAYER {
            let job = Job { mailbox: to.base, token, number: layer as u32 };
            let posting =
                Posting { x, n_embd: N_EMBD, post_x: to.post_x, post_list: to.post_list, post_act: to.post_act, job };
            let all_act = self.act.ptr().offset((4 * layer * N_FF) as u64);
            let counts = self.counts.ptr().offset(8 * layer as u64);
            let slots = HotAndCold { n_hot: N_HOT, n_ff: N_FF, counts };
            select_act(kernels, stream, all_act, false, slots, &posting)?;
            select_hot(kernels, stream, all_act, false, slots, &HotList { list, n })?;
            let answer = Some(Answer { reply: to.reply, job, limit_ms: LONG });
            let merge = Merge { b: self.hot_part.ptr(), answer, ..Merge::nothing(x, N_EMBD) };
            let out = Acts { f32: self.normed.ptr(), x8: Ptr::NULL };
            merge_norm(kernels, stream, &merge, Some(&norm), out)?;
        }
        let logits = Copied { from: self.normed.ptr(), to: to.logits, n: N_EMBD };
        let counts = Copied { from: self.counts.ptr(), to: to.counts, n: 2 * N_LAYER };
        finish(kernels, stream, &logits, &counts, &Job { mailbox: to.base, token, number: N_LAYER as u32 })
    }
}

/// What the processor answers to these slots.
fn answer(x: &[f32], list: &[u32], act: &[f32]) -> Vec<f32> {
    let sum: f32 = list.iter().zip(act).map(|(slot, act)| act * (*slot % 17) as f32).sum();
    x.iter().map(|x| x * 0.25 + sum).collect()
}

#[test]
fn one_graph_serves_all_tokens() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    let sizes = Sizes { n_embd: N_EMBD, n_ff: N_FF, n_vocab: N_EMBD, n_groups: N_LAYER, n_tokens: 1 };
    let layout = Layout::new(sizes);
    let mut mailbox = Mailbox::new(card.mapped(layout.bytes), layout).unwrap();
    let hot_part = random.values(N_EMBD);
    let layers = Layers {
        x: card.room::<f32>(N_EMBD),
        normed: card.room::<f32>(N_EMBD),
        token: card.zeros(TOKEN_BYTES),
        act: card.room::<f32>(N_LAYER * N_FF),
        hot: [N_HOT, 1].map(|n| card.room::<u32>(n)),
        hot_part: card.put(&hot_part),
        weight: card.put(&[1.0f32; N_EMBD]),
        counts: card.room::<u32>(2 * N_LAYER),
    };
    let addresses = mailbox.addresses();
    let graph = card.stream.capture(|| layers.enqueue(&card, &addresses)).unwrap();
    let limit = Duration::from_millis(u64::from(LONG));
    let wait = Wait { limit, alive: &|| card.stream.query().map(drop) };
    for position in 0..20 {
        let in_x = random.values(N_EMBD);
        let acts: Vec<Vec<f32>> = (0..N_LAYER)
            .map(|_| {
                let active = [0.0, 0.05, 0.5][random.below(3)];
                let mut act = random.sparse(N_FF, active);
                if random.below(3) == 0 {
                    act[N_HOT..].fill(0.0);
                }
                act
            })
            .collect();
        card.stream.write(layers.act.ptr(), &acts.concat()).unwrap();
        mailbox.begin_token(N_LAYER as u32, position, &in_x).unwrap();
        graph.launch(&card.stream).unwrap();

        let mut x = in_x;
        let mut counts = Vec::new();
        for (layer, act) in acts.iter().enumerate() {
            let active = |i: &u32| act[*i as usize] != 0.0;
            let list: Vec<u32> = (N_HOT as u32..N_FF as u32).filter(active).collect();
            let cold: Vec<f32> = list.iter().map(|i| act[*i as usize]).collect();
            counts.extend([(0..N_HOT as u32).filter(active).count() as u32, list.len() as u32]);
            let came = mailbox.wait_job(layer as u32, wait).unwrap();
            assert_eq!(came == Came::Posted, !list.is_empty(), "layer {layer}: {came:?}");
            let mut part = hot_part.clone();
            if came == Came::Posted {
                assert_eq!((mailbox.post_x(), mailbox.post_list(0).unwrap()), (&*x, &*list));
                assert_eq!(mailbox.post_act(0).unwrap(), cold);
                let reply = answer(&x, &list, &cold);
                mailbox.reply(layer as u32, &reply).unwrap();
                part.iter_mut().zip(&reply).for_each(|(p, r)| *p += r);
            }
            x.iter_mut().zip(&part).for_each(|(x, p)| *x += p);
        }
        mailbox.wait_done(wait).unwrap();
        card.stream.synchronize().unwrap();
        assert_eq!(card.get::<f32>(layers.x.ptr(), N_EMBD), x, "position {position}");
        assert_eq!(mailbox.logits(), card.get::<f32>(layers.normed.ptr(), N_EMBD));
        assert_eq!(mailbox.counts(), counts);
        assert_eq!(card.get::<u32>(layers.token.ptr(), 2)[1], position as u32);
    }
}

#[test]
fn all_logits_arrive_before_the_end_is_told() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for n_vocab in [1, 7, 4099, 151_936] {
        let sizes = Sizes { n_embd: 32, n_ff: 32, n_vocab, n_groups: 40, n_tokens: 1 };
        let layout = Layout::new(sizes);
        let mut mailbox = Mailbox::new(card.mapped(layout.bytes), layout).unwrap();
        let to = mailbox.addresses();
        let (logits, counts) = (random.values(n_vocab), (0..80).map(|_| random.next() as u32).collect::<Vec<_>>());
        let (logits_on_card, counts_on_card) = (card.put(&logits), card.put(&counts));
        let token = card.zeros(TOKEN_BYTES);
        for position in 0..3 {
            mailbox.begin_token(0, position, &[]).unwrap();
            let (kernels, stream) = (card.kernels, &card.stream);
            begin_token(kernels, stream, to.base, token.ptr(), Ptr::NULL, Ptr::NULL, 0).unwrap();
            let x = Copied { from: logits_on_card.ptr(), to: to.logits, n: n_vocab };
            let counted = Copied { from: counts_on_card.ptr(), to: to.counts, n: 80 };
            let job = Job { mailbox: to.base, token: token.ptr(), number: 0 };
            finish(kernels, stream, &x, &counted, &job).unwrap();
            let limit = Duration::from_millis(u64::from(LONG));
            mailbox.wait_done(Wait { limit, alive: &|| Ok(()) }).unwrap();
            assert_eq!((mailbox.logits(), mailbox.counts()), (&*logits, &*counts));
        }
    }
}
