//! `run --trace`: valid JSON that says what threads did, also of what was interrupted, and the same text as without.

use crate::support::{Outcome, refused, tool, usage_error};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn run(args: &[&str]) -> Command {
    let mut command = tool("run");
    command.args(["-p", "Once upon a time there was a", "--temp", "0", "-n", "6", "-t", "2"]).args(args);
    command
}

/// Spans of a trace, all of which are within the time that it covers and have what a viewer needs.
fn spans(path: &Path) -> Vec<Value> {
    let trace: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let (spans, others): (Vec<Value>, Vec<Value>) = events.iter().cloned().partition(|event| event["ph"] == "X");
    assert!(others.iter().all(|event| event["ph"] == "M" && event["args"]["name"].is_string()));
    for span in &spans {
        assert!(span["name"].is_string() && span["ts"].as_f64().unwrap() >= 0.0, "{span}");
        assert!(
            span["dur"].as_f64().unwrap() >= 0.0 && span["pid"] == 1 && span["tid"].as_u64().unwrap() < 2,
            "{span}"
        );
    }
    spans
}

fn count(spans: &[Value], name: &str) -> usize {
    spans.iter().filter(|span| span["name"] == name && span["tid"] == 0).count()
}

#[test]
fn threads_say_what_they_do_and_the_text_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let plain = Outcome::from(run(&[]).output().unwrap()).ok();
    let traced = Outcome::from(run(&["--trace", path.to_str().unwrap(), "--trace-tokens", "3"]).output().unwrap()).ok();
    assert_eq!(plain.stdout, traced.stdout);
    let spans = spans(&path);
    assert_eq!((count(&spans, "token"), count(&spans, "prompt")), (3, 1));
    let layers: Vec<u64> = spans
        .iter()
        .filter(|span| span["name"] == "attention")
        .filter_map(|span| span["args"]["layer"].as_u64())
        .collect();
    let n_layer = layers.iter().max().unwrap() + 1;
    for name in ["attention", "mask", "up", "down", "hot and cold"] {
        assert!(count(&spans, name) as u64 >= 4 * n_layer, "{name}");
    }
    assert!(spans.iter().any(|span| span["tid"] == 1), "the other thread has done nothing");
    // What a token does lies within it.
    let time =
        |span: &Value| (span["ts"].as_f64().unwrap(), span["ts"].as_f64().unwrap() + span["dur"].as_f64().unwrap());
    let passes: Vec<(f64, f64)> =
        spans.iter().filter(|span| span["name"] == "token" || span["name"] == "prompt").map(time).collect();
    for span in spans.iter().filter(|span| span["name"] == "attention" && span["tid"] == 0) {
        let (begin, end) = time(span);
        assert!(passes.iter().any(|(from, to)| from - 0.01 <= begin && end <= to + 0.01), "{span}");
    }
}

#[test]
fn what_is_not_wanted_is_refused_before_a_model_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("prompt.txt");
    std::fs::write(&text, "Once").unwrap();
    refused(&mut run(&["--trace", "/no/such/folder/t.json"]), &["/no/such/folder/t.json: cannot be written"]);
    let mut command = tool("run");
    refused(command.args(["-n", "1", "-f"]).arg(&text).arg("--trace").arg(&text), &["is an input"]);
    assert_eq!(std::fs::read_to_string(&text).unwrap(), "Once");
    usage_error("run", &["-p", "x", "--trace-tokens", "5"], "--trace");
    usage_error("run", &["--dry-run", "--trace", "t.json"], "--dry-run");
}

#[test]
fn ctrl_c_writes_what_there_is() {
    use std::io::Read;
    use std::process::Stdio;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let mut command = tool("run");
    command.args(["-p", "Once", "--ignore-eos", "-c", "2000", "-n", "1900", "-t", "1", "--trace"]).arg(&path);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut some = [0; 16];
    child.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    if !crate::support::ctrl_c::press(&mut child) {
        return;
    }
    child.stdout.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let spans = spans(&path);
    assert!(count(&spans, "token") > 0 && count(&spans, "mask") > 0);
}
