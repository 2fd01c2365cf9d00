//! The mailbox, with a thread as the other side.

use super::*;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

const SIZES: Sizes = Sizes { n_embd: 96, n_ff: 260, n_vocab: 100, n_groups: 3, n_tokens: 1 };
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

fn mailbox(last: u32) -> Mailbox {
    let layout = Layout::new(SIZES);
    Mailbox::starting_at(Mapped::plain(layout.bytes).unwrap(), layout, last).unwrap()
}

fn patient() -> Wait<'static> {
    Wait { limit: LONG, alive: &|| Ok(()) }
}

fn hasty() -> Wait<'static> {
    Wait { limit: SHORT, alive: &|| Ok(()) }
}

#[test]
fn arrays_follow_the_words_and_do_not_overlap() {
    assert_eq!([POSTED, DONE, REPLIED, STOP, FAILED, TOKEN, POST_N], [0, 128, 256, 384, 512, 640, 768]);
    let l = Layout::new(SIZES);
    let arrays = [
        (l.in_x, 96),
        (l.post_x, 96),
        (l.post_list, 260),
        (l.post_act, 260),
        (l.reply, 96),
        (l.logits, 100),
        (l.counts, 6),
        (l.bytes, 0),
    ];
    assert_eq!(arrays[0].0, 1024);
    for pair in arrays.windows(2) {
        let ((at, n), (next, _)) = (pair[0], pair[1]);
        assert!(at % 256 == 0 && at + 4 * n <= next && next < at + 4 * n + 256, "{arrays:?}");
    }
    let box_ = mailbox(0);
    let addresses = box_.addresses();
    assert_eq!(addresses.reply, addresses.base.offset(l.reply as u64));
}

#[test]
fn tickets_are_compared_across_the_wrap() {
    assert!(reached(5, 5) && reached(6, 5) && !reached(4, 5));
    assert!(reached(1, u32::MAX) && !reached(u32::MAX, 1) && reached(u32::MAX, u32::MAX - 3));
}

/// Ten tokens of three jobs, of which the card posts those in `posted`; values tell token and job.
fn tokens(last: u32, posted: &'static [u32]) {
    const N: usize = 10;
    let mut host = mailbox(last);
    let mut card = host.stand_in();
    let (launch, launched) = mpsc::channel();
    let thread = thread::spawn(move || {
        let (mut x, mut reply) = ([0.0; 96], [0.0; 96]);
        while let Ok(()) = launched.recv() {
            let position = card.begin_token(&mut x).unwrap();
            let mut sum = 0.0;
            for job in posted {
                let list: Vec<u32> = (0..*job + 5).collect();
                let act: Vec<f32> = list.iter().map(|i| *i as f32 + 0.5).collect();
                x[95] = *job as f32;
                card.post(*job, &x, &list, &act).unwrap();
                card.wait_reply(*job, LONG, &mut reply).unwrap();
                sum += reply[7];
            }
            card.finish(3, &[sum; 100], &[position as u32; 6]).unwrap();
        }
    });
    for token in 0..N {
        let in_x = [token as f32; 96];
        host.begin_token(3, token, &in_x).unwrap();
        launch.send(()).unwrap();
        let mut sum = 0.0;
        for job in 0..3 {
            let found = host.wait_job(job, patient()).unwrap();
            if posted.contains(&job) {
                assert_eq!(found, Arrival::Posted);
                assert_eq!((host.post_x()[0], host.post_x()[95]), (token as f32, job as f32));
                assert_eq!(host.post_list(0).unwrap(), (0..job + 5).collect::<Vec<_>>());
                assert_eq!(host.post_act(0).unwrap()[4], 4.5);
                let value = (100 * token) as f32 + job as f32;
                sum += value;
                host.reply(job, &[value; 96]).unwrap();
            } else {
                let later = posted.iter().any(|p| *p > job);
                assert_eq!(found, if later { Arrival::Skipped } else { Arrival::Done });
            }
        }
        host.wait_done(patient()).unwrap();
        assert_eq!((host.logits()[99], host.counts()[5]), (sum, token as u32));
    }
    drop(launch);
    thread.join().unwrap();
}

#[test]
fn jobs_come_in_order_and_each_sees_its_own_data() {
    tokens(0, &[0, 1, 2]);
}

#[test]
fn jobs_that_are_not_posted_are_seen_as_skipped() {
    tokens(0, &[]);
    tokens(0, &[0]);
    tokens(0, &[1]);
    tokens(0, &[2]);
    tokens(0, &[0, 2]);
}

#[test]
fn tickets_may_wrap_around_anywhere_in_a_token() {
    for before in 0..12 {
        tokens(u32::MAX - before, &[0, 2]);
        tokens(i32::MAX as u32 - before, &[1]);
    }
}

#[test]
fn a_card_that_does_not_post_is_given_up_in_time() {
    let mut host = mailbox(0);
    host.begin_token(2, 0, &[]).unwrap();
    let error = host.wait_job(1, hasty()).unwrap_err().to_string();
    assert_eq!(error, "the card did not come to job 1 within 20ms");
    let error = host.wait_done(hasty()).unwrap_err().to_string();
    assert!(error.contains("did not finish the token"), "{error}");
}

#[test]
fn a_card_that_is_known_to_have_failed_is_not_waited_for() {
    let mut host = mailbox(0);
    host.begin_token(1, 0, &[]).unwrap();
    let asked = AtomicUsize::new(0);
    let alive = || {
        ensure!(asked.fetch_add(1, Relaxed) < 3, "illegal address");
        Ok(())
    };
    let begin = Instant::now();
    let error = host.wait_job(0, Wait { limit: LONG, alive: &alive }).unwrap_err().to_string();
    assert_eq!(error, "illegal address");
    assert_eq!(asked.load(Relaxed), 4);
    assert!(begin.elapsed() >= Duration::from_millis(4) && begin.elapsed() < LONG);
}

#[test]
fn a_processor_that_does_not_answer_is_given_up_by_the_card_for_the_rest_of_the_token() {
    let mut host = mailbox(0);
    let mut card = host.stand_in();
    host.begin_token(3, 0, &[]).unwrap();
    card.begin_token(&mut []).unwrap();
    card.post(1, &[], &[], &[]).unwrap();
    assert_eq!(host.wait_job(0, patient()).unwrap(), Arrival::Skipped);
    assert_eq!(host.wait_job(1, patient()).unwrap(), Arrival::Posted);
    let error = card.wait_reply(1, SHORT, &mut []).unwrap_err().to_string();
    assert!(error.contains("no answer to job 1"), "{error}");
    card.post(2, &[], &[], &[]).unwrap();
    assert!(card.wait_reply(2, LONG, &mut []).is_err());
    card.finish(3, &[], &[]).unwrap();
    host.reply(1, &[0.0; 96]).unwrap();
    let error = host.wait_job(2, patient()).unwrap_err().to_string();
    assert_eq!(error, "the card gave up waiting for the answer to job 1");

    // After a restart the same two sides go on.
    assert!(host.begin_token(1, 1, &[]).is_err());
    host.restart();
    host.begin_token(1, 1, &[]).unwrap();
    assert_eq!(card.begin_token(&mut []).unwrap(), 1);
    card.post(0, &[], &[], &[]).unwrap();
    assert_eq!(host.wait_job(0, patient()).unwrap(), Arrival::Posted);
}

#[test]
fn a_stop_ends_the_waits_of_both_sides() {
    let mut host = mailbox(0);
    let mut card = host.stand_in();
    host.begin_token(1, 0, &[]).unwrap();
    card.begin_token(&mut []).unwrap();
    card.post(0, &[], &[], &[]).unwrap();
    host.stop();
    assert!(card.wait_reply(0, LONG, &mut []).unwrap_err().to_string().contains("stopped"));
    assert!(host.wait_job(0, patient()).unwrap_err().to_string().contains("stopped"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut host = mailbox(0);
    let mut card = host.stand_in();
    assert!(host.wait_job(0, hasty()).is_err() && host.wait_done(hasty()).is_err() && host.reply(0, &[]).is_err());
    assert!(host.begin_token(1, 0, &[1.0; 95]).is_err());
    host.begin_token(1, 0, &[]).unwrap();
    assert!(host.begin_token(1, 0, &[]).is_err() && host.wait_job(1, hasty()).is_err());
    assert!(card.post(0, &[0.0; 97], &[], &[]).is_err() && card.post(0, &[], &[0; 261], &[]).is_err());
    card.begin_token(&mut []).unwrap();
    card.post(0, &[], &[], &[]).unwrap();
    assert_eq!(host.wait_job(0, patient()).unwrap(), Arrival::Posted);
    assert!(host.reply(0, &[0.0; 97]).is_err() && host.reply(1, &[0.0; 96]).is_err());
    host.shared.word(POST_N).store(261, Relaxed);
    assert!(host.post_list(0).unwrap_err().to_string().contains("261 slots of 260"));
    let layout = Layout::new(SIZES);
    assert!(Mailbox::new(Mapped::plain(layout.bytes - 1).unwrap(), layout).is_err());
}

#[test]
#[should_panic(expected = "nothing is posted")]
fn nothing_is_read_before_it_is_posted() {
    let mut host = mailbox(0);
    host.begin_token(1, 0, &[]).unwrap();
    host.post_x();
}
