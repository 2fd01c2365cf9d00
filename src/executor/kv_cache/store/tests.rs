//! Loans: who may read, and for whom the owner waits.

use super::*;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

const LAYOUT: Layout = Layout { first: 0, n_rows: 8, key_bytes: 2, value_bytes: 3 };

fn store() -> Store {
    Store::new(2 * 8 * 2, 2 * 8 * 3, 2).unwrap()
}

fn put(store: &mut Store, layer: usize, position: usize, value: u8) {
    store.write((layer, position), (LAYOUT, 2), |head, keys, values| {
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
    assert!(waits(|store| store.get_mut(Plane::Keys, 0..1).fill(1)));
}
