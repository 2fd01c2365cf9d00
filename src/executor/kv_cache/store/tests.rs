//! Loans: who may read, and for whom the owner waits. Pages: whose they are.

use super::super::page::PAGE;
use super::*;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

const LAYOUTS: [Layout; 2] = [
    Layout { first: 0, n_rows: 8, n_heads: 2, key_bytes: 2, value_bytes: 3 },
    Layout { first: 1, n_rows: 8, n_heads: 2, key_bytes: 2, value_bytes: 3 },
];
const LAYOUT: Layout = LAYOUTS[0];

fn store() -> Store {
    let mut store = Store::new(2, 2);
    assert!(store.make_own(&LAYOUTS[0], 0, 0) && store.make_own(&LAYOUTS[1], 1, 0));
    store
}

fn put(store: &mut Store, layer: usize, position: usize, value: u8) {
    store.write((layer, position), &LAYOUTS[layer], 0, |head, keys, values| {
        keys.fill(value + head as u8);
        values.fill(value + 10 * head as u8);
    });
}

#[test]
fn what_is_written_is_read_until_it_is_called_in() {
    let mut store = store();
    (0..5).for_each(|position| put(&mut store, 0, position, position as u8));
    let loan = store.lend(0, LAYOUT, 0..5);
    {
        let reader = loan.begin().unwrap();
        let head = reader.of_head(1);
        assert_eq!(head.keys(&(2..4)).get(1), [4, 4]);
        assert_eq!(head.values(&(2..4)).get(0), [12, 12, 12]);
    }
    put(&mut store, 0, 5, 9);
    assert!(loan.begin().is_none());
    let loan = store.lend(0, LAYOUT, 0..6);
    drop(store);
    assert!(loan.begin().is_none());
}

#[test]
#[should_panic(expected = "rows that were not lent")]
fn nothing_else_is_read() {
    let store = store();
    let loan = store.lend(0, LAYOUT, 2..5);
    loan.begin().unwrap().of_head(0).keys(&(4..6));
}

/// Whether the owner waits for a reader of positions 2 to 4 of layer 0 before it does something.
fn waits(act: impl FnOnce(&mut Store) + Send) -> bool {
    let mut store = store();
    let loan = store.lend(0, LAYOUT, 2..5);
    let reader = loan.begin().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            act(&mut store);
            done.store(true, Ordering::SeqCst);
        });
        let start = Instant::now();
        while !done.load(Ordering::SeqCst) && start.elapsed() < Duration::from_millis(200) {
            thread::yield_now();
        }
        let waited = !done.load(Ordering::SeqCst);
        drop(reader);
        waited
    })
}

#[test]
fn the_owner_waits_for_those_who_may_see_what_it_writes_and_for_nobody_else() {
    assert!(!waits(|store| put(store, 0, 5, 1)));
    assert!(!waits(|store| put(store, 0, 9, 1)));
    assert!(!waits(|store| put(store, 1, 0, 1)));
    // Positions that were dropped and come anew, and such as take the rows of those that are seen.
    assert!(waits(|store| put(store, 0, 4, 1)));
    assert!(waits(|store| put(store, 0, 10, 1)));
    assert!(waits(|store| store.get_mut(&LAYOUT, (Plane::Keys, 0), &(5..6), 0).fill(1)));
    // The page itself.
    assert!(waits(|store| store.give_up(0)));
}

const LONG: Layout = Layout { first: 0, n_rows: 3 * PAGE, n_heads: 2, key_bytes: 1, value_bytes: 1 };

/// One whose rows at the first `n` positions are of the byte `value`.
fn filled(n: usize, value: u8) -> Store {
    let mut store = Store::new(3, 1);
    (0..n).for_each(|position| set(&mut store, position, value));
    store
}

fn set(store: &mut Store, position: usize, value: u8) {
    let n_used = position % PAGE;
    store.write((0, position), &LONG, n_used, |_, keys, values| {
        keys.fill(value);
        values.fill(value);
    });
}

/// Whether the rows at some positions are of one byte.
fn is_all(store: &Store, positions: Range<usize>, value: u8) -> bool {
    let heads = (0..2).map(|head| store.of_head(LONG, head));
    heads.flat_map(|head| LONG.stretches(positions.clone()).map(move |stretch| (head.clone(), stretch))).all(
        |(head, stretch)| Plane::BOTH.iter().all(|plane| head.stored(*plane, &stretch).iter().all(|v| *v == value)),
    )
}

fn holders(store: &Store) -> Vec<usize> {
    store.pages().map(|(_, n)| n).collect()
}

#[test]
fn a_page_of_several_is_copied_by_whoever_writes_there_and_by_nobody_else() {
    let n = PAGE + 40;
    let (mut a, mut b, mut c) = (filled(n, 1), Store::new(3, 1), filled(3 * PAGE, 9));
    assert_eq!((holders(&a), holders(&b)), (vec![1, 1], vec![]));
    (0..2).for_each(|page| b.share(page, &a));
    (0..2).for_each(|page| c.share(page, &b));
    assert_eq!((holders(&a), holders(&c)), (vec![3, 3], vec![3, 3, 1]));
    // Its first rows go with it, those that are not used do not.
    set(&mut b, PAGE + 32, 2);
    assert!(is_all(&b, 0..PAGE + 32, 1) && is_all(&b, PAGE + 32..PAGE + 33, 2) && is_all(&b, PAGE + 33..n, 0));
    assert!(is_all(&a, 0..n, 1) && is_all(&c, 0..n, 1));
    assert_eq!((holders(&a), holders(&b)), (vec![3, 2], vec![3, 1]));
    set(&mut a, n, 3);
    // The last one that has it writes where it is.
    let before: Vec<_> = c.pages().map(|(page, _)| std::ptr::from_ref(page)).collect();
    set(&mut c, n, 4);
    assert!(before == c.pages().map(|(page, _)| std::ptr::from_ref(page)).collect::<Vec<_>>());
    assert!(is_all(&a, 0..n, 1) && is_all(&a, n..n + 1, 3) && is_all(&c, n..n + 1, 4) && is_all(&c, PAGE..n, 1));
    drop(a);
    b.give_up_shared();
    assert_eq!((holders(&b), holders(&c)), (vec![1], vec![1, 1, 1]));
    assert!(is_all(&c, 2 * PAGE..3 * PAGE, 9));
}

#[test]
fn a_late_reader_sees_a_page_as_it_was_whatever_the_others_do() {
    let mut a = filled(PAGE, 1);
    let mut b = Store::new(3, 1);
    b.share(0, &a);
    let loan = b.lend(0, LONG, 0..PAGE);
    let reader = loan.begin().unwrap();
    // Not the reader's own store, and another page since.
    set(&mut a, 5, 2);
    assert!(reader.of_head(0).stored(Plane::Keys, &(0..PAGE)).iter().all(|v| *v == 1));
    drop((a, reader));
    assert!(is_all(&b, 0..PAGE, 1));
}
