//! Rows of two sides: read, paired, compared.

use super::compared::Compared;
use super::*;
use crate::measure::export::{Format, render};
use crate::measure::table::{fields, groups_of};
use serde_json::{Map, Value, json};

/// A row as an earlier run wrote it, with some fields changed; those that are null are left out.
fn row(changes: Value) -> Value {
    let mut row = json!({
        "build_commit": "0123abcd", "cpu_info": "a processor", "gpu_info": "", "backends": "CPU",
        "model_filename": "/some/where/tiny.gguf", "model_size": 1000, "n_batch": 2048, "n_ubatch": 512, "n_threads": 2,
        "type_k": "f16", "type_v": "f16", "n_prompt": 0, "n_gen": 16, "n_depth": 0, "test": "tg16", "mode": "exact",
        "hot": "none", "text": "real", "isa": "avx2", "n_ctx": null, "avg_ts": 100.0, "samples_ts": [99.0, 100.0, 101.0],
    });
    let Value::Object(fields) = &mut row else { unreachable!() };
    let Value::Object(changes) = changes else { unreachable!() };
    fields.extend(changes);
    Value::Object(fields.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect())
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn rows(rows: &[Value]) -> Vec<Measured> {
    earlier::read(&lines(rows)).unwrap()
}

#[test]
fn lists_and_lines_are_read_alike() {
    let all = [row(json!({})), row(json!({"n_gen": 32, "test": "tg32"}))];
    let read = earlier::read(&lines(&all)).unwrap();
    assert_eq!(read, earlier::read(&Value::from(all.to_vec()).to_string()).unwrap());
    assert_eq!((read[0].speeds.as_slice(), read[0].commit.as_str()), (&[99.0, 100.0, 101.0][..], "0123abcd"));
    assert_eq!(read[1].case.name(), "tg32 of tiny.gguf, exact, -t 2");
    let same = read[1].case.test().unwrap().unwrap();
    assert_eq!((same.test.n_gen, same.n_threads, same.n_batch, same.n_ubatch), (32, 2, Some(2048), Some(512)));
}

#[test]
fn what_is_no_row_is_refused_with_its_place_and_what_is_wrong() {
    let cases = [
        ("", "has no rows"),
        ("[]", "has no rows"),
        ("[1]", "row 1 is no object"),
        ("nonsense", "line 1 is no JSON"),
        ("[{\"a\": 1}", "no list of rows"),
        ("{}", "row 1: n_prompt is missing"),
    ];
    for (text, wanted) in cases {
        let error = format!("{:#}", earlier::read(text).unwrap_err());
        assert!(error.contains(wanted), "{text}: {error}");
    }
    let changed = [
        (json!({"model_filename": null}), "model_filename is missing"),
        (json!({"model_filename": 7}), "model_filename is no text"),
        (json!({"n_gen": -1}), "n_gen is no whole number"),
        (json!({"n_gen": 1.5}), "n_gen is no whole number"),
        (json!({"n_gen": "many"}), "n_gen is missing, or no number"),
        (json!({"n_gen": 1u64 << 40}), "n_gen is 1099511627776, more than"),
        (json!({"n_threads": 1_000_000}), "n_threads is 1000000, more than"),
        (json!({"mode": [1]}), "mode is neither"),
        (json!({"samples_ts": []}), "samples_ts is empty"),
        (json!({"samples_ts": [1.0, 0.0]}), "samples_ts is no speed above 0"),
        (json!({"samples_ts": [-1.0]}), "samples_ts is no speed above 0"),
        (json!({"samples_ts": ["1"]}), "samples_ts is no speed above 0"),
        (json!({"samples_ts": "1 2"}), "samples_ts is no list"),
        (json!({"samples_ts": null, "avg_ts": null}), "samples_ts and avg_ts are missing"),
        (json!({"samples_ts": null, "avg_ts": 1e300}), "avg_ts is no speed"),
        (json!({"test": "x".repeat(5000)}), "test has more than"),
    ];
    for (change, wanted) in changed {
        let error = format!("{:#}", earlier::read(&lines(&[row(json!({})), row(change.clone())])).unwrap_err());
        assert!(error.contains("row 2") && error.contains(wanted), "{change}: {error}");
    }
    let many = lines(&[row(json!({}))]).repeat(10_001);
    assert!(format!("{:#}", earlier::read(&many).unwrap_err()).contains("more than 10000 rows"));
}

#[test]
fn names_cannot_command_a_terminal() {
    let row = row(json!({"model_filename": "a\u{1b}[2Jb.gguf", "test": "t\u{9b}"}));
    let name = rows(&[row])[0].case.name();
    assert!(name.chars().all(|c| !c.is_control()), "{name:?}");
}

#[test]
fn rows_are_paired_by_what_was_measured() {
    let old = rows(&[row(json!({})), row(json!({"n_threads": 1})), row(json!({"n_depth": 64, "test": "tg16 @ d64"}))]);
    // Elsewhere, later, by another commit, and at another speed it is still the same.
    let same =
        json!({"model_filename": "C:\\models\\tiny.gguf", "build_commit": "x", "avg_ts": 1.0, "samples_ts": [1.0]});
    let new = rows(&[row(json!({"mode": "dense"})), row(same), row(json!({"n_threads": 1}))]);
    let paired = pair(&old, &new);
    let names: Vec<_> = paired.pairs.iter().map(|(old, new)| (old[0].case.name(), new.len())).collect();
    assert_eq!(
        names,
        [("tg16 of tiny.gguf, exact, -t 2".to_owned(), 1), ("tg16 of tiny.gguf, exact, -t 1".to_owned(), 1)]
    );
    assert_eq!(paired.only_old.len(), 1);
    assert_eq!(paired.only_old[0].case.name(), "tg16 @ d64 of tiny.gguf, exact, -t 2");
    assert_eq!(paired.only_new.iter().map(|m| m.case.name()).collect::<Vec<_>>(), ["tg16 of tiny.gguf, dense, -t 2"]);
}

#[test]
fn rows_of_llama_bench_and_of_older_builds_are_paired_as_far_as_they_tell() {
    let strange = row(json!({"mode": null, "hot": null, "text": null, "isa": null, "test": null}));
    let older =
        row(json!({"backends": null, "backend": "CPU", "build_commit": null, "build": "0.1.0", "n_batch": null}));
    for old in [strange, older.clone()] {
        let (old, new) = (rows(&[old]), rows(&[row(json!({}))]));
        assert_eq!(pair(&old, &new).pairs.len(), 1);
        // Which of two it was cannot be known.
        let new = rows(&[row(json!({})), row(json!({"mode": "dense"}))]);
        let paired = pair(&old, &new);
        let of_older = usize::from(old[0].commit == "0.1.0");
        assert_eq!((paired.pairs.len(), paired.only_new.len()), (of_older, 2 - of_older));
    }
    assert_eq!(rows(&[older])[0].commit, "0.1.0");
}

#[test]
fn several_rows_of_one_thing_are_several_runs() {
    let run = |speed: f64| row(json!({"samples_ts": [speed, 1.02 * speed, 0.98 * speed]}));
    let all = |speeds: [f64; 4]| rows(&speeds.map(run));
    let (old, new) = (all([100.0, 101.0, 99.0, 100.0]), all([95.0, 94.0, 96.0, 95.0]));
    let paired = pair(&old, &new);
    let (old, new) = &paired.pairs[0];
    let compared = Compared::apart(old, new, Limit::Usual);
    assert_eq!((compared.old_runs, compared.new_runs, compared.verdict.as_str()), (4, 4, "slower"));
    assert!((compared.ratio.unwrap() - 0.95).abs() < 1e-4 && compared.ratio_high.unwrap() < 0.98, "{compared:?}");
    assert_eq!((compared.old_ts, compared.new_ts), (100.0, 95.0));
    // The same with 5 % allowed.
    assert_eq!(Compared::apart(old, new, Limit::Below(0.95)).verdict, "same");
    assert_eq!(Compared::apart(new, old, Limit::Usual).verdict, "faster");
}

#[test]
fn a_single_value_says_nothing_of_how_sure_it_is() {
    let (old, new) = (rows(&[row(json!({"samples_ts": [100.0]}))]), rows(&[row(json!({"samples_ts": [50.0]}))]));
    let compared = Compared::apart(&[&old[0]], &[&new[0]], Limit::Usual);
    assert_eq!((compared.verdict.as_str(), compared.ratio), ("unknown", None));
    let turns: Vec<_> = (0..6).map(|_| (&old[0], &new[0])).collect();
    assert_eq!(Compared::in_turns(&turns, Limit::Usual).verdict, "slower");
    assert_eq!(Compared::in_turns(&turns[..5], Limit::Usual).verdict, "unknown");
}

#[test]
fn every_field_of_a_comparison_has_a_column() {
    let (old, new) = (rows(&[row(json!({}))]), rows(&[row(json!({}))]));
    let compared = Compared::apart(&[&old[0]], &[&new[0]], Limit::Usual);
    let columns = fields(groups_of(std::slice::from_ref(&compared)));
    let columns: Map<_, _> = columns.iter().map(|f| (f.name.to_owned(), (f.value)(&compared))).collect();
    assert_eq!(serde_json::to_value(&compared).unwrap(), Value::Object(columns));
    let md = render(&[compared], Format::Md).unwrap();
    assert!(md.contains("new / old (95 %) |") && md.contains(" 1.000 (0.9") && md.contains(" same |"), "{md}");
}
