//! `powerinfer-run --lines`: several texts at once, each of which is what it is alone.

use crate::support::{ModelFile, Outcome, refused, tool, usage_error};
use powerinfer::units::Bytes;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Prompts of different lengths, the second of which is said twice.
const PROMPTS: [&str; 5] =
    ["Once upon a time", "The cat", "The cat", "A little girl named Lily went to the park and", "Tom"];

/// Tokens of the tiny model.
const N_TINY: usize = 286;

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn run(args: &[&str]) -> Command {
    let mut command = tool("run");
    command.args(["-t", "1", "-q"]).args(args);
    command
}

fn ok(command: &mut Command) -> String {
    Outcome::from(command.output().unwrap()).ok().stdout
}

fn objects(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn texts_at_once_are_those_of_separate_runs_in_the_order_of_the_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "prompts.txt", &(PROMPTS.join("\n\n") + "\n"));
    // Greedily, and with all that a sampler remembers.
    let drawn: &[&str] = &["--temp", "1", "--repeat-penalty", "1.2", "--mirostat", "2", "-r", "."];
    let guided: &[&str] = &["--temp", "1", "--grammar", "root ::= [a-z ]+"];
    for (sampling, n) in [(&["--temp", "0"][..], "12"), (drawn, "16"), (guided, "6")] {
        let alone: String = (0..PROMPTS.len())
            .map(|i| {
                let seed = (7 + i).to_string();
                ok(run(&["-p", PROMPTS[i], "-n", n, "--seed", &seed]).args(sampling))
            })
            .collect();
        for n_parallel in ["2", "9"] {
            let mut command = run(&["--lines", "-np", n_parallel, "-n", n, "--seed", "7"]);
            assert_eq!(ok(command.arg("-f").arg(&file).args(sampling)), alone, "-np {n_parallel} {sampling:?}");
        }
    }
}

#[test]
fn objects_say_what_is_their_own_and_results_are_objects() {
    let folder = tempfile::tempdir().unwrap();
    let lines = [
        r#"{"prompt": "Once upon a time", "n_predict": 2}"#,
        r#"{"prompt": "Once\nupon a time", "n_predict": 9, "temperature": 0}"#,
        r#"{"prompt": "The cat", "n_predict": 40, "seed": 3, "stop": [".", "!"]}"#,
        r#"{"prompt": "Tom"}"#,
    ];
    let file = written(folder.path(), "prompts.JSONL", &lines.join("\n"));
    let stdout = ok(run(&["--lines", "-np", "3", "-n", "5", "--seed", "11", "--temp", "1", "--json", "-f"]).arg(&file));
    let got = objects(&stdout);
    let of = |key: &str| got.iter().map(|object| object[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("index"), [0, 1, 2, 3]);
    assert_eq!(of("line"), [1, 2, 3, 4]);
    assert_eq!(of("seed"), [11, 12, 3, 14]);
    assert_eq!(of("prompt"), ["Once upon a time", "Once\nupon a time", "The cat", "Tom"]);
    assert_eq!((&of("stop")[0], &of("n_gen")[0], &of("n_gen")[1]), (&"length".into(), &2.into(), &9.into()));
    let [stop, stop_string] = [&got[2]["stop"], &got[2]["stop_string"]];
    assert!(stop == "stop_string" && (stop_string == "." || stop_string == "!"), "{}", got[2]);
    let alone = ["-p", "The cat", "-n", "40", "--seed", "3", "--temp", "1", "-r", ".", "-r", "!", "--json"];
    let alone: Value = serde_json::from_str(&ok(&mut run(&alone))).unwrap();
    assert_eq!((&got[2]["text"], &got[2]["tokens"]), (&alone["text"], &alone["tokens"]));
    assert!(got.iter().all(|object| object["error"].is_null() && object["decode_s"].is_number()));
}

#[test]
fn a_common_beginning_is_computed_once_and_changes_no_text() {
    let folder = tempfile::tempdir().unwrap();
    let common =
        "Once upon a time there was a little girl named Lily, who liked to play in the park with her dog. ".repeat(2);
    let ends = ["The dog", "One day", "One day", "", "Her mom said", "x"];
    let lines: Vec<String> = ends.iter().map(|end| format!("{common}{end}")).collect();
    let file = written(folder.path(), "prompts.txt", &(lines.join("\n") + "\nTom and the cat\n"));
    let hybrid = crate::support::real::repository("models/tiny-stories-hybrid-f16.gguf");
    let models: [&[&str]; 2] = [&[], &["-m", hybrid.to_str().unwrap()]];
    for model in models {
        let alone: String = lines
            .iter()
            .enumerate()
            .map(|(i, line)| {
                ok(run(&["-p", line, "-n", "6", "--temp", "1", "--seed", &(5 + i).to_string()]).args(model))
            })
            .collect();
        for n_parallel in ["1", "3"] {
            let line = ["--lines", "-np", n_parallel, "-n", "6", "--temp", "1", "--seed", "5"];
            let text = ok(run(&line).args(model).arg("-f").arg(&file));
            assert_eq!(text[..alone.len()], alone, "-np {n_parallel} {model:?}");
            let got = objects(&ok(run(&line).args(model).arg("--json").arg("-f").arg(&file)));
            let n_shared: Vec<u64> = got.iter().map(|object| object["n_shared"].as_u64().unwrap()).collect();
            assert!(n_shared[0] == 0 && n_shared[6] == 0, "{n_shared:?}");
            assert!(n_shared[1..6].iter().all(|n| *n >= 32 && n % 32 == 0), "{n_shared:?}");
            let all = got[1]["n_prompt"].as_u64().unwrap() + n_shared[1];
            let other = got[2]["n_prompt"].as_u64().unwrap() + n_shared[2];
            assert_eq!(all, other);
        }
    }
}

#[test]
fn pages_of_a_common_beginning_are_held_once_and_counted() {
    const PAGE: u64 = 128;
    let folder = tempfile::tempdir().unwrap();
    let common = "Once upon a time there was a little girl named Lily, who liked to play in the park. ".repeat(14);
    let ends = ["The dog", "One day", "Her mom said", "x"];
    let lines: Vec<String> = ends.iter().map(|end| format!("{common}{end}")).chain(["Tom".to_owned()]).collect();
    let file = written(folder.path(), "prompts.txt", &lines.join("\n"));
    let model = crate::support::real::repository("models/tiny-stories-relu2-f16.gguf");
    let output = |n_parallel: &str| {
        let mut command = tool("run");
        command.args([
            "-t",
            "1",
            "--lines",
            "-np",
            n_parallel,
            "-n",
            "3",
            "-c",
            "512",
            "--temp",
            "0",
            "--ignore-eos",
            "--json",
        ]);
        Outcome::from(command.arg("-m").arg(&model).arg("-f").arg(&file).output().unwrap()).ok()
    };
    let (all, one) = (output("5"), output("1"));
    let (got, alone) = (objects(&all.stdout), objects(&one.stdout));
    let of = |object: &Value, key: &str| object[key].as_u64().unwrap();
    let n_shared = of(&got[1], "n_shared");
    assert!(n_shared >= 2 * PAGE && got[1..4].iter().all(|object| of(object, "n_shared") == n_shared), "{got:?}");
    // A short text takes one page in each layer.
    let page = of(&got[4], "kv_bytes");
    assert_eq!(of(&got[4], "kv_shared_bytes"), 0);
    // Also where a longer one was before it.
    assert_eq!(of(&alone[4], "kv_bytes"), page);
    let (whole, mut held) = (n_shared / PAGE, page);
    for (object, alone) in got.iter().zip(&alone).take(4) {
        assert_eq!((&object["text"], &object["tokens"]), (&alone["text"], &alone["tokens"]));
        // The last token is not fed back.
        let n_tokens = of(object, "n_prompt") + of(object, "n_shared") + of(object, "n_gen") - 1;
        assert_eq!(of(object, "kv_bytes"), n_tokens.div_ceil(PAGE) * page, "{object}");
        assert_eq!(of(object, "kv_shared_bytes"), whole * page, "{object}");
        assert_eq!(of(alone, "kv_shared_bytes"), 0);
        held += of(object, "kv_bytes");
    }
    let (shared, taken) = (Bytes(whole * page), Bytes(held - 3 * whole * page));
    let line = format!("KV pages took {taken} at the most, {shared} of it shared: {} otherwise", Bytes(held));
    assert!(all.stderr.contains(&line), "{line}: {}", all.stderr);
    assert!(one.stderr.contains("KV pages took") && !one.stderr.contains("shared:"), "{}", one.stderr);
}

#[test]
fn an_end_of_the_context_ends_one_text_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "prompts.txt", "Once upon a time there was a little girl\nTom\n");
    let line = ["--lines", "-np", "2", "-n", "20", "-c", "16", "--temp", "0", "--ignore-eos", "--json", "-f"];
    let got = objects(&ok(run(&line).arg(&file)));
    assert_eq!([&got[0]["stop"], &got[1]["stop"]], ["context", "context"]);
    let n = |object: &Value| object["n_prompt"].as_u64().unwrap() + object["n_gen"].as_u64().unwrap();
    // The last token is printed, and not fed back.
    assert_eq!([n(&got[0]), n(&got[1])], [17, 17]);
}

#[test]
fn what_is_wrong_is_named_before_anything_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |args: &[&str], file: &Path, wanted: &[&str]| {
        refused(run(&["--lines"]).args(args).arg("-f").arg(file), wanted);
    };
    let long = written(folder.path(), "long.txt", &format!("Tom\n\n{}\n", "cat ".repeat(100)));
    refused(&["-c", "32"], &long, &["long.txt: line 3: prompt: ", "context of 32"]);
    refused(&[], &written(folder.path(), "empty.txt", "\n  \n"), &["has no prompts"]);
    let wrong = "{\"prompt\": \"a\"}\n{\"prompt\": \"a\", \"tokens\": 3}\n";
    let wrong = written(folder.path(), "wrong.jsonl", wrong);
    refused(&[], &wrong, &["wrong.jsonl: line 2, column 24: unknown field `tokens`"]);
    let cold = written(folder.path(), "cold.jsonl", "{\"prompt\": \"a\", \"temperature\": -1}\n");
    refused(&[], &cold, &["cold.jsonl: line 1: "]);
    crate::support::refused(&mut run(&["-np", "4", "-p", "Tom"]), &["add --lines and -f FILE"]);
    let conflicts: [&[&str]; 6] =
        [&["-cnv"], &["-i"], &["-st"], &["--prompt-cache", "x"], &["--context-shift"], &["-p", "x"]];
    for flags in conflicts {
        usage_error("run", &[&["--lines", "-f", "prompts.txt"], flags].concat(), "cannot be used with");
    }
    usage_error("run", &["--lines", "-np", "0", "-f", "prompts.txt"], "--parallel");
    crate::support::refused(&mut run(&["--lines", "-p", "Tom"]), &["--lines needs -f FILE"]);
}

#[test]
fn a_text_that_no_token_can_go_on_is_told_of_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let file = written(folder.path(), "prompts.txt", "a\nb\nc\n");
    // No token may follow.
    let mut command = run(&["--lines", "-np", "2", "-n", "3", "--json", "-m"]);
    command.arg(&model).arg("-f").arg(&file).args((0..N_TINY).flat_map(|id| ["-l".to_owned(), format!("{id}-inf")]));
    let outcome = Outcome::from(command.output().unwrap());
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let got = objects(&outcome.stdout);
    assert_eq!(got.len(), 3);
    assert!(got.iter().all(|object| object["stop"] == "error" && object["error"].is_string()), "{}", outcome.stdout);
    assert!(
        outcome.stderr.contains("prompts.txt: line 2: ") && outcome.stderr.contains("3 of 3"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn an_interrupted_batch_prints_what_it_has() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;
    let folder = tempfile::tempdir().unwrap();
    let lines =
        "{\"prompt\": \"Tom\", \"n_predict\": 2}\n".to_owned() + &"{\"prompt\": \"Once upon a time\"}\n".repeat(6);
    let file = written(folder.path(), "prompts.jsonl", &lines);
    let mut command = run(&["--lines", "-np", "3", "--ignore-eos", "-n", "400", "--json", "-f"]);
    let mut child = command.arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    // The short one is printed while the others go on.
    let mut text = String::new();
    stdout.read_line(&mut text).unwrap();
    if !crate::support::ctrl_c::press(&mut child) {
        return;
    }
    stdout.read_to_string(&mut text).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let code = child.wait().unwrap().code();
    let got = objects(&text);
    assert_eq!(got[0]["stop"], "length");
    let unfinished = got.iter().filter(|object| object["stop"] == "interrupted").count();
    assert!(code == Some(130) && unfinished > 0 && got.len() < 7, "{code:?} {text} {stderr}");
    assert!(stderr.contains("unfinished, after ") && stderr.ends_with("interrupted\n"), "{stderr}");
}
