//! Speculation in `powerinfer-run`: the same text, objects and files as without.

use crate::support::{ModelFile, Outcome, Value, refused, refused_by, tool, usage_error};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                        {% if add_generation_prompt %}bot:{% endif %}";
const STORY: &str = "Once upon a time there was a dog. Once upon a time there was a cat. Once upon a";
/// None, what is on anyway, and drafts wherever there is a guess.
const OFF: [&str; 2] = ["--draft-max", "0"];
const FORCED: [&str; 4] = ["--draft-min", "1", "--draft-max", "5"];

fn run(args: &[&str]) -> Command {
    let mut command = tool("run");
    command.args(["-t", "1", "--seed", "5", "--ignore-eos"]).args(args);
    command
}

fn said(args: &[&str], more: &[&str]) -> Outcome {
    Outcome::from(run(args).args(more).output().unwrap()).ok()
}

fn feed(command: &mut Command, input: &str) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Outcome::from(child.wait_with_output().unwrap()).ok()
}

/// A model with a context of 512 tokens and a chat template, and its path.
fn tiny(folder: &Path) -> PathBuf {
    let mut file = ModelFile::tiny();
    file.set("tokenizer.chat_template", Value::Str(TEMPLATE.to_owned()));
    file.set("llama.context_length", Value::U32(512));
    file.written(folder, "tiny.gguf")
}

/// An object of `--json` without what is measured.
fn figures(outcome: &Outcome) -> Vec<serde_json::Value> {
    let objects = serde_json::Deserializer::from_str(&outcome.stdout).into_iter::<serde_json::Value>();
    let mut objects: Vec<_> = objects.map(Result::unwrap).collect();
    for object in &mut objects {
        for key in ["prefill_s", "decode_s", "prefill_ts", "decode_ts", "speculation"] {
            assert!(object.as_object_mut().unwrap().remove(key).is_some(), "{key}");
        }
    }
    objects
}

/// Runs with these flags: without drafts, with forced ones (and `more` flags) and with what is on anyway they say the same. Drafts
/// of the forced run.
fn agree(args: &[&str], more: &[&str]) -> u64 {
    let forced = [&FORCED[..], more].concat();
    let [off, forced, usual] = [&OFF[..], &forced[..], &[]].map(|more| said(args, more));
    assert_eq!(figures(&off), figures(&forced), "{args:?}");
    assert_eq!(figures(&off), figures(&usual), "{args:?}");
    let done: serde_json::Value = serde_json::from_str(&forced.stdout).unwrap();
    let none: serde_json::Value = serde_json::from_str(&off.stdout).unwrap();
    assert!(none["speculation"].is_null());
    done["speculation"]["n_drafted"].as_u64().unwrap()
}

#[test]
fn the_text_is_the_same_for_every_sampler_and_every_end() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path());
    for flags in [
        &["--temp", "0"][..],
        &["--temp", "1"],
        &["--temp", "1", "--repeat-penalty", "1.3", "--dry-multiplier", "0.8", "--presence-penalty", "0.5"],
        &["--temp", "1", "--mirostat", "2"],
        &["--temp", "1", "--xtc-probability", "0.5", "--xtc-threshold", "0.1", "--dynatemp-range", "0.4"],
        &["--temp", "1", "--grammar", "root ::= ([a-d] | \" \")+"],
        &["--temp", "1", "-r", "e", "-r", "ab"],
        &["--temp", "0", "-c", "40", "--context-shift", "--keep", "3"],
        &["--temp", "1", "-c", "40"],
        &["--temp", "0", "-n", "1"],
        &["--temp", "0", "--mode", "dense", "-ub", "2"],
    ] {
        let args = [&["-m", model.to_str().unwrap(), "-n", "60", "--json", "-p", "abcdabcdabcd"][..], flags].concat();
        // What does not repeat itself has drafts of a model.
        let n_drafted = agree(&args, &["-md", model.to_str().unwrap()]);
        let short = flags.contains(&"-r") || flags.contains(&"1") && flags.contains(&"-n");
        assert!(short || n_drafted > 3, "{flags:?}: {n_drafted}");
    }
}

#[test]
fn the_text_of_the_embedded_model_is_the_same() {
    let drawn = ["--temp", "1", "--repeat-penalty", "1.3", "--dry-multiplier", "0.8"];
    for flags in [&["--temp", "0"][..], &drawn] {
        let n_drafted = agree(&[&["-n", "24", "--json", "-p", STORY][..], flags].concat(), &[]);
        assert!(n_drafted > 3, "{flags:?}: {n_drafted}");
    }
}

#[test]
fn bench_measures_drafts_next_to_none() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path());
    let mut command = tool("bench");
    command.arg("-m").arg(&model).args(["-n", "40", "-p", "8", "-r", "2", "-t", "1", "-o", "json", "--draft"]);
    command.arg(format!("lookup,0.8,{}", model.display()));
    let rows = Outcome::from(command.output().unwrap()).ok().stdout;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&rows).unwrap();
    assert_eq!(rows.len(), 3);
    for (row, draft) in rows.iter().zip(["lookup", "scripted 0.8", model.to_str().unwrap()]) {
        assert_eq!((row["draft"].as_str(), row["n_gen"].as_u64()), (Some(draft), Some(40)));
        assert!(row["plain_ts"].as_f64() > Some(0.0) && row["drafted_ts"].as_f64() > Some(0.0), "{row}");
        for field in ["formula_ts", "deviation"] {
            assert_eq!(row[field].is_null(), draft != "scripted 0.8", "{row}");
        }
        assert!(row["n_rounds"].as_u64() >= Some(2) && row["passes"].as_array().unwrap().len() == 17, "{row}");
    }
    usage_error("bench", &["--draft", "1.5"], "a probability is from 0 to 1");
    refused_by("bench", &[&"--draft", &"missing.gguf"], &["missing.gguf"]);
    refused_by("bench", &[&"--draft", &"0.5", &"-p", &"1000000"], &["-p 1000000", "tokens to begin with"]);
}

#[test]
fn a_conversation_is_the_same_and_so_is_its_session_file() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path());
    let lines = "hello there my friend\nhello there my friend\nhello you\n";
    for flags in [&["-cnv"][..], &["-i"], &["-cnv", "-c", "96"], &["-cnv", "--temp", "0", "--json"]] {
        let args = [&["-m", model.to_str().unwrap(), "-n", "40"], flags].concat();
        let with = |more: &[&str], name: &str| {
            let session = folder.path().join(name);
            drop(std::fs::remove_file(&session));
            let mut command = run(&args);
            command.args(more).args(["--prompt-cache-all", "--prompt-cache"]).arg(&session);
            (feed(&mut command, lines), std::fs::read(&session).ok())
        };
        let (off, forced) = (with(&OFF, "off"), with(&FORCED, "forced"));
        if flags.contains(&"--json") {
            assert_eq!(figures(&off.0), figures(&forced.0), "{flags:?}");
        } else {
            assert_eq!(off.0.stdout, forced.0.stdout, "{flags:?}");
        }
        assert!(off.1 == forced.1, "{flags:?}: the session files differ");
    }
}

#[test]
fn the_end_of_a_text_is_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path());
    // The token that ends the text is likely enough to come within a draft.
    for seed in ["1", "2", "3", "4", "5", "6"] {
        let text = |more: &[&str]| {
            let mut command = tool("run");
            command
                .arg("-m")
                .arg(&model)
                .args(["-p", "aaaaaaaa", "-n", "80", "-t", "1", "--temp", "1", "--seed", seed]);
            command.args(["-l", "2+1.5", "--special", "--json"]).args(more);
            figures(&Outcome::from(command.output().unwrap()).ok())
        };
        assert_eq!(text(&OFF), text(&FORCED), "seed {seed}");
    }
}

#[test]
fn a_draft_model_and_the_model_itself_change_nothing_but_the_speed() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path());
    let model = model.to_str().unwrap();
    let args = ["-m", model, "-p", "hello there", "-n", "50", "--json", "--temp", "1"];
    let off = said(&args, &OFF);
    for more in
        [&["-md", model][..], &["-md", model, "-cd", "16"], &["-md", model, "--no-lookup", "--draft-p-min", "0.01"]]
    {
        let forced = said(&args, &[&FORCED[..], more].concat());
        assert_eq!(figures(&off), figures(&forced), "{more:?}");
        let done: serde_json::Value = serde_json::from_str(&forced.stdout).unwrap();
        let sources = done["speculation"]["sources"].as_array().unwrap();
        let of_model = sources.iter().find(|source| source["source"] == "model").unwrap();
        assert!(of_model["n_drafted"].as_u64() > Some(10), "{done}");
        assert_eq!(figures(&off), figures(&said(&args, more)), "{more:?}");
    }
    let told = said(&["-m", model, "-p", "hello", "-n", "30", "--temp", "0", "--stats"], &FORCED).stderr;
    assert!(told.contains("tokens per pass, about"), "{told}");
    let told = said(&["-m", model, "-p", "hello", "-n", "3", "--stats"], &OFF).stderr;
    assert!(told.contains("speculation: none: switched off"), "{told}");
}

#[test]
fn what_cannot_be_drafted_with_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path());
    let mut other = ModelFile::tiny();
    other.set("tokenizer.chat_template", Value::Str(TEMPLATE.to_owned()));
    other.rename_token(9, "different");
    let other = other.written(folder.path(), "other.gguf");
    let wanted = ["other.gguf", "token 9 is \"different\"", "vocabulary"];
    refused_by("run", &[&"-m", &model, &"-p", &"x", &"-md", &other], &wanted);
    let missing = folder.path().join("missing.gguf");
    refused_by("run", &[&"-m", &model, &"-p", &"x", &"-md", &missing], &["missing.gguf"]);
    for (flags, wanted) in [
        (&["--draft-max", "5000"][..], "--draft-max 5000"),
        (&["--draft-max", "40", "-c", "32"], "does not fit into the context of 32"),
        (&["--draft-min", "20"], "--draft-min 20 is more than --draft-max 16"),
        (&["-cd", "0"], "--ctx-size-draft 0"),
        (&["-cd", "64"], "--ctx-size-draft: there is no draft model"),
        (&["--draft-p-min", "1.5"], "--draft-p-min 1.5"),
        (&["--draft-mode", "dense"], "--draft-mode dense"),
        (&["--draft-mode", "predicted"], "--draft-mode"),
    ] {
        refused(run(&["-p", "x"]).args(flags), &[wanted]);
    }
    usage_error("run", &["-p", "x", "--draft-max", "-1"], "--draft-max");
    usage_error("run", &["-p", "x", "--draft-mode", "quick"], "quick");
    let told =
        said(&["-m", model.to_str().unwrap(), "-p", "x", "-n", "2", "-md", model.to_str().unwrap()], &OFF).stderr;
    assert!(told.contains("note: no speculation: --draft-max is 0"), "{told}");
    let lines = folder.path().join("lines.txt");
    std::fs::write(&lines, "ab\ncd\n").unwrap();
    let (model, lines) = (model.to_str().unwrap(), lines.to_str().unwrap());
    let told = said(&["-m", model, "-f", lines, "--lines", "-n", "2", "-md", model], &[]).stderr;
    assert!(told.contains("note: no speculation: --lines"), "{told}");
}
