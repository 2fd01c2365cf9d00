//! Lists of active slots, and their posting.

use super::card::Card;
use super::support::Random;
use powerinfer::gpu::mailbox::{POST_N, POSTED};
use powerinfer::gpu::ops::select::{HotAndCold, HotList, Posting, Scored, select_act, select_hot, select_score};
use powerinfer::gpu::ops::token::{Job, TOKEN_BYTES};
use powerinfer::gpu::{DeviceBuffer, Mapped, Ptr};

/// Where the arrays begin in the memory that both sides see.
const ARRAYS: u64 = 4096;
const UNTOUCHED: u32 = u32::MAX;

/// Everything that a selection writes to.
struct Room {
    n_ff: usize,
    n_embd: usize,
    mapped: Mapped,
    token: DeviceBuffer,
    hot: [DeviceBuffer; 2],
    counts: DeviceBuffer,
    x: Vec<f32>,
    x_on_card: DeviceBuffer,
}

impl Room {
    fn new(card: &Card, random: &mut Random, n_ff: usize, n_embd: usize) -> Self {
        let x = random.values(n_embd);
        let mapped = card.mapped(ARRAYS as usize + 4 * (n_embd + 2 * n_ff));
        card.poke(mapped.ptr().offset(ARRAYS), &vec![UNTOUCHED; n_embd + 2 * n_ff]);
        let mut state = vec![0u32; TOKEN_BYTES as usize / 4];
        // The first ticket, such that tickets wrap at job 2; `skip` as nothing writes it.
        (state[0], state[3]) = (UNTOUCHED - 1, 77);
        Self {
            n_ff,
            n_embd,
            token: card.put(&state),
            hot: [n_ff, 1].map(|n| card.room::<u32>(n)),
            counts: card.room::<u32>(2),
            x_on_card: card.put(&x),
            x,
            mapped,
        }
    }

    fn posting(&self, job: u32) -> Posting {
        let at = |words: usize| self.mapped.ptr().offset(ARRAYS + 4 * words as u64);
        Posting {
            x: self.x_on_card.ptr(),
            n_embd: self.n_embd,
            post_x: at(0),
            post_list: at(self.n_embd),
            post_act: at(self.n_embd + self.n_ff),
            job: Job { mailbox: self.mapped.ptr(), token: self.token.ptr(), number: job },
        }
    }

    fn hot_list(&self) -> HotList {
        let [list, n] = [0, 1].map(|i| self.hot[i].ptr());
        HotList { list, n }
    }

    fn word(&self, offset: usize) -> u32 {
        self.mapped.word(offset).load(std::sync::atomic::Ordering::Acquire)
    }

    /// Fails where what was posted is not `slots`; `acts` are their activations, or nothing where none are posted.
    fn assert_posted(&self, card: &Card, job: u32, slots: &[u32], acts: Option<&[u32]>, what: &str) {
        card.stream.synchronize().unwrap();
        let posting = self.posting(job);
        let state = card.get::<u32>(self.token.ptr(), TOKEN_BYTES as usize / 4);
        assert_eq!(state[3], u32::from(slots.is_empty()), "{what}: skip");
        assert_eq!(state[4], 0, "{what}: the counter of blocks");
        let n = slots.len();
        if n == 0 {
            assert_eq!(self.word(POSTED), 0, "{what}: nothing is posted");
            return;
        }
        assert_eq!(self.word(POSTED), (UNTOUCHED - 1).wrapping_add(job), "{what}: ticket");
        assert_eq!(self.word(POST_N) as usize, n, "{what}: number");
        assert_eq!(card.peek::<u32>(posting.post_list, n), slots, "{what}: posted list");
        let posted_acts = card.peek::<u32>(posting.post_act, self.n_ff);
        let expected_acts = acts.unwrap_or_default();
        assert_eq!(&posted_acts[..expected_acts.len()], expected_acts, "{what}: posted activations");
        assert!(posted_acts[expected_acts.len()..].iter().all(|a| *a == UNTOUCHED), "{what}: beyond the end");
        assert_eq!(card.peek::<f32>(posting.post_x, self.n_embd), self.x, "{what}: x");
    }
}

#[test]
fn active_slots_are_listed_in_order_and_the_cold_ones_posted() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for (n_ff, n_embd) in [(1, 4), (33, 32), (1024, 64), (1025, 32), (2999, 4096), (5000, 36)] {
        let mut hots = vec![0, 1.min(n_ff), n_ff / 3, n_ff - 1, n_ff, random.below(n_ff)];
        hots.extend((1024 < n_ff).then_some(1024));
        for n_hot in hots {
            for (active, dense) in [(0.0, false), (0.1, false), (1.0, false), (0.1, true)] {
                let mut act = random.sparse(n_ff, active);
                if active == 0.1 {
                    act[random.below(n_ff)] = f32::NAN;
                    act[random.below(n_ff)] = -0.0;
                }
                let what = format!("{n_hot} of {n_ff} hot, active {active}, dense {dense}");
                let room = Room::new(&card, &mut random, n_ff, n_embd);
                let on_card = card.put(&act);
                let job = random.below(5) as u32;
                let (hot, counts) = (room.hot_list(), room.counts.ptr());
                let posting = room.posting(job);
                let slots = HotAndCold { n_hot, n_ff, counts };
                let (kernels, stream) = (card.kernels, &card.stream);
                select_hot(kernels, stream, on_card.ptr(), dense, slots, &hot).unwrap();
                if n_hot < n_ff {
                    select_act(kernels, stream, on_card.ptr(), dense, slots, &posting).unwrap();
                }

                let chosen: Vec<u32> = (0..n_ff as u32).filter(|i| dense || act[*i as usize] != 0.0).collect();
                let (hot_slots, cold_slots) = chosen.split_at(chosen.partition_point(|i| (*i as usize) < n_hot));
                let bits = |slots: &[u32]| slots.iter().map(|i| act[*i as usize].to_bits()).collect::<Vec<_>>();
                let n = hot_slots.len();
                assert_eq!(card.get::<u32>(hot.n, 1), [n as u32], "{what}");
                assert_eq!(card.get::<u32>(hot.list, n), hot_slots, "{what}");
                let rest = card.get::<u32>(hot.list, n_ff);
                assert!(rest[n..].iter().all(|i| *i == UNTOUCHED), "{what}: beyond the end");
                let counted = card.get::<u32>(counts, 2);
                assert_eq!(counted[0], n as u32, "{what}");
                if n_hot < n_ff {
                    assert_eq!(counted[1], cold_slots.len() as u32, "{what}");
                    room.assert_posted(&card, job, cold_slots, Some(&bits(cold_slots)), &what);
                } else {
                    assert_eq!(room.word(POSTED), 0, "{what}");
                    assert_eq!(card.get::<u32>(room.token.ptr(), 4)[3], 77, "{what}");
                }
            }
        }
    }
}

#[test]
fn hot_slots_alone_are_listed_without_a_mailbox() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for n_hot in [0, 1, 1024, 2500] {
        let act = random.sparse(n_hot.max(1), 0.2);
        let room = Room::new(&card, &mut random, 2500, 4);
        let (on_card, hot, slots) =
            (card.put(&act), room.hot_list(), HotAndCold { n_hot, n_ff: 2500, counts: Ptr::NULL });
        select_hot(card.kernels, &card.stream, on_card.ptr(), false, slots, &hot).unwrap();
        let expected: Vec<u32> = (0..n_hot as u32).filter(|i| act[*i as usize] != 0.0).collect();
        assert_eq!(card.get::<u32>(hot.n, 1), [expected.len() as u32]);
        assert_eq!(card.get::<u32>(hot.list, expected.len()), expected);
        assert_eq!(card.get::<u32>(room.token.ptr(), 4)[3], 77);
    }
}

#[test]
fn slots_that_a_predictor_names_are_posted_without_activations() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for (n_ff, n_hot, n_always) in [(40, 0, 0), (40, 39, 0), (3000, 1000, 1500), (3000, 1500, 1000), (2048, 1024, 0)] {
        for shift in [0.0, -3.0, 3.0] {
            let (mut scores, mut bias) = (random.values(n_ff), random.values(n_ff));
            bias.iter_mut().for_each(|b| *b += shift);
            // What is always active has no score; what is hot is not asked about; 0 is enough.
            scores[..n_always].fill(f32::NAN);
            (scores[n_ff - 1], bias[n_ff - 1]) = (-0.5, 0.5);
            let room = Room::new(&card, &mut random, n_ff, 96);
            let (scores_on_card, bias_on_card) = (card.put(&scores), card.put(&bias));
            let scored = Scored { scores: scores_on_card.ptr(), bias: bias_on_card.ptr(), n_always };
            let (counts, posting) = (room.counts.ptr(), room.posting(1));
            let slots = HotAndCold { n_hot, n_ff, counts };
            select_score(card.kernels, &card.stream, &scored, slots, &posting).unwrap();
            let named = |i: &usize| *i < n_always || scores[*i] + bias[*i] >= 0.0;
            let expected: Vec<u32> = (n_hot..n_ff).filter(named).map(|i| i as u32).collect();
            room.assert_posted(&card, 1, &expected, None, &format!("{n_hot} of {n_ff} hot, shift {shift}"));
            assert_eq!(card.get::<u32>(counts, 2), [UNTOUCHED, expected.len() as u32]);
        }
    }
}

#[test]
fn nothing_is_posted_once_a_wait_has_run_out() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    let room = Room::new(&card, &mut random, 3000, 64);
    let mut state = card.get::<u32>(room.token.ptr(), TOKEN_BYTES as usize / 4);
    state[2] = 1;
    card.stream.write(room.token.ptr(), &state).unwrap();
    let act = card.put(&random.sparse(3000, 0.5));
    let (counts, posting) = (room.counts.ptr(), room.posting(1));
    let slots = HotAndCold { n_hot: 1000, n_ff: 3000, counts };
    select_act(card.kernels, &card.stream, act.ptr(), false, slots, &posting).unwrap();
    let state = card.get::<u32>(room.token.ptr(), 5);
    assert_eq!((state[3], state[4], room.word(POSTED), room.word(POST_N)), (1, 0, 0, 0));
    assert!(card.peek::<u32>(posting.post_x, 64).iter().all(|v| *v == UNTOUCHED));
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    let room = Room::new(&card, &mut random, 64, 4);
    let mut posting = room.posting(0);
    let scored = Scored { scores: Ptr::NULL, bias: Ptr::NULL, n_always: 0 };
    let (kernels, stream) = (card.kernels, &card.stream);
    let slots = |n_hot| HotAndCold { n_hot, n_ff: 64, counts: Ptr::NULL };
    assert!(select_act(kernels, stream, Ptr::NULL, false, slots(64), &posting).is_err());
    assert!(select_act(kernels, stream, Ptr::NULL, false, slots(65), &posting).is_err());
    assert!(select_score(kernels, stream, &scored, slots(64), &posting).is_err());
    posting.n_embd = 6;
    assert!(select_score(kernels, stream, &scored, slots(32), &posting).is_err());
}
