//! `split --json`, `profile --show --json` and `--progress-json`: one object, and lines that a program can read.

use crate::support::{Outcome, model_and_text, tool};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Place {
    folder: tempfile::TempDir,
    model: PathBuf,
    text: PathBuf,
}

impl Place {
    fn new() -> Self {
        let (folder, model, text) = model_and_text(&"once upon a time a dog ran to the house\n".repeat(10));
        Self { folder, model, text }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn profile(&self) -> Command {
        let mut command = tool("profile");
        command.arg("-m").arg(&self.model).arg("-f").arg(&self.text).arg("-o").arg(self.at("p")).args(["-t", "1"]);
        command
    }

    fn split(&self, args: &[&str], out: &Path) -> Value {
        let mut command = tool("split");
        command.arg("-m").arg(&self.model).args(args).arg("-o").arg(out).args(["-t", "1", "--json"]);
        serde_json::from_str(&Outcome::from(command.output().unwrap()).ok().stdout).unwrap()
    }
}

#[test]
fn split_says_what_it_has_written() {
    let place = Place::new();
    Outcome::from(place.profile().output().unwrap()).ok();
    let (profile, out) = (place.at("p"), place.at("v.gguf"));
    let made = place.split(&["--profile", profile.to_str().unwrap(), "--type", "q8_0"], &out);
    assert_eq!((&made["kind"], made["path"].as_str()), (&Value::from("variant"), out.to_str()));
    assert_eq!(made["file_bytes"], std::fs::metadata(&out).unwrap().len());
    assert!(made["types"]["Q8_0"]["tensors"].as_u64() > Some(0), "{made}");
    let bytes: u64 = made["types"].as_object().unwrap().values().map(|of| of["bytes"].as_u64().unwrap()).sum();
    assert_eq!(made["weights_bytes"], bytes);
    let hot: u64 = made["groups"].as_array().unwrap().iter().map(|group| group["hot"].as_u64().unwrap()).sum();
    assert_eq!(made["hot_neurons"], hot);
    assert!(made["kl_nats_per_token"].as_f64().unwrap() >= 0.0 && made["kl_tokens"].as_u64() > Some(0), "{made}");
    let plain = place.split(&["--type", "q8_0", "--quantize-only"], &place.at("q.gguf"));
    assert_eq!(
        (&plain["kind"], &plain["groups"], &plain["kl_tokens"]),
        (&Value::from("quantized"), &Value::Null, &Value::Null)
    );
    assert!(plain["weights_bytes"].as_u64() < plain["source_weights_bytes"].as_u64());
    let nowhere = place.split(&["--type", "q8_0", "--quantize-only"], Path::new(crate::support::NOWHERE));
    assert_eq!((&nowhere["file_bytes"], &nowhere["types"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_profile_has_the_fields_that_the_documents_name() {
    let place = Place::new();
    Outcome::from(place.profile().output().unwrap()).ok();
    let mut show = tool("profile");
    let shown = Outcome::from(show.arg("--show").arg(place.at("p")).arg("--json").output().unwrap()).ok().stdout;
    let json: Value = serde_json::from_str(&shown).unwrap();
    let page = include_str!("../../docs/pictures.md");
    let fields = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<Vec<String>>();
    for field in fields(&json).into_iter().chain(fields(&json["layers"][0])) {
        assert!(page.contains(&format!("`{field}")), "docs/pictures.md does not name {field}");
    }
    assert_eq!(json["layers"].as_array().unwrap()[0]["neurons"].as_u64().is_some(), json["tokens"].as_u64() > Some(0));
}

#[test]
fn progress_is_lines_of_json_where_that_is_asked_for() {
    let place = Place::new();
    let told = Outcome::from(place.profile().arg("--progress-json").output().unwrap()).ok().stderr;
    let lines: Vec<Value> =
        told.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_stage = |what: &str| lines.iter().filter(|line| line["progress"] == what).collect::<Vec<_>>();
    let profiling = of_stage("profiling");
    assert!(profiling.len() >= 2, "{told}");
    let done = |line: &Value| line["done"].as_u64().unwrap();
    assert!(profiling.is_sorted_by_key(|line| done(line)) && done(profiling[0]) == 0);
    assert_eq!(profiling.last().unwrap()["done"], profiling[0]["total"]);
    assert!(lines.iter().all(|line| line["seconds"].as_f64().unwrap() >= 0.0));
    let without = Outcome::from(place.profile().output().unwrap()).ok().stderr;
    assert!(!without.lines().any(|line| line.starts_with('{')), "{without}");
}
