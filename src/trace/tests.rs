//! What is kept, how much of it, and what is written.

use super::*;
use crate::progress::Silent;
use serde_json::Value;

fn written(recorder: &Recorder) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    recorder.write(&path, &Silent).unwrap();
    let all: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    all["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X").cloned().collect()
}

#[test]
fn spans_nest_and_threads_get_the_label_of_what_is_done() {
    let recorder = Recorder::new(2, 1);
    let some = Some(&recorder);
    {
        let _pass = Span::pass(some, What::Token, 1);
        let _ffn = Span::begin(some, What::Ffn, Some(3));
        let _mask = Span::begin(some, What::Mask, None);
        recorder.end(1, recorder.begin());
        recorder.end_waiting(1, recorder.begin());
    }
    let events = written(&recorder);
    let of = |event: &Value| {
        (event["name"].as_str().unwrap().to_owned(), event["tid"].as_u64(), event["args"]["layer"].as_u64())
    };
    let wanted = [
        ("mask", 0, Some(3)),
        ("hot and cold", 0, Some(3)),
        ("token", 0, None),
        ("mask", 1, Some(3)),
        ("waiting", 1, Some(3)),
    ];
    let wanted = wanted.map(|(name, thread, layer)| (name.to_owned(), Some(thread), layer));
    assert_eq!(events.iter().map(of).collect::<Vec<_>>(), wanted);
    let time = |i: usize| (events[i]["ts"].as_f64().unwrap(), events[i]["dur"].as_f64().unwrap());
    let ((inner, inner_dur), (outer, outer_dur)) = (time(0), time(2));
    assert!(outer <= inner && inner + inner_dur <= outer + outer_dur + 1e-6);
    assert_eq!(events[2]["args"]["tokens"], 1);
}

#[test]
fn later_tokens_and_what_has_no_room_are_left_out() {
    let recorder = Recorder::new(1, 2);
    for _ in 0..5 {
        drop(Span::pass(Some(&recorder), What::Token, 1));
    }
    assert!(recorder.begin().is_none());
    assert_eq!(written(&recorder).len(), 2);
    let recorder = Recorder::new(1, 1);
    for _ in 0..MOST_EVENTS + 7 {
        recorder.end(0, recorder.begin());
    }
    assert_eq!((recorder.n_lost(), recorder.lanes[0].lock().unwrap().capacity()), (7, MOST_EVENTS));
    recorder.end(9, recorder.begin());
    assert_eq!(recorder.n_lost(), 8);
}

#[test]
fn labels_are_what_they_were_made_of() {
    for what in What::ALL {
        assert_eq!((Label::new(what, 77).what(), Label::new(what, 77).layer()), (what, 77));
    }
    drop(Span::begin(None, What::Mask, Some(1)));
}
