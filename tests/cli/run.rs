//! `powerinfer-run`: prompts, conversations, JSON, vocabularies.

use crate::support::{ModelFile, Outcome, Value, refused, refused_by, tool};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                        {% if add_generation_prompt %}bot:{% endif %}";

fn run(model: &Path, args: &[&str]) -> Command {
    let mut command = tool("run");
    command.arg("-m").arg(model).args(["-t", "1", "--seed", "5"]).args(args);
    command
}

/// Runs a command with `input` on its standard input.
fn feed(command: &mut Command, input: &[u8]) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap().into()
}

fn tiny() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    (folder, model)
}

#[test]
fn the_embedded_model_tells_the_same_story_each_time() {
    let story = || {
        let mut command = tool("run");
        command.args(["-p", "Once upon a time", "-n", "8", "--temp", "0", "-t", "1"]);
        Outcome::from(command.output().unwrap()).ok().stdout
    };
    let first = story();
    assert!(first.starts_with("Once upon a time") && first.len() > 20, "{first}");
    assert_eq!(first, story());
}

#[test]
fn special_tokens_are_read_on_request_and_printed_on_request() {
    let run = |args: &[&str]| Outcome::from(tool("run").args(args).args(["-t", "1"]).output().unwrap()).ok().stdout;
    let story = |flags: &[&str]| run(&[&["-p", "The End", "--temp", "0"], flags].concat());
    let (plain, special) = (story(&[]), story(&["--special"]));
    let end = special.trim_end().strip_prefix(plain.trim_end_matches('\n')).expect("the same text, and more");
    assert_eq!(end, "<|endoftext|>");
    let json: serde_json::Value = serde_json::from_str(&story(&["--special", "--json"])).unwrap();
    assert!(json["text"].as_str().unwrap().ends_with(end) && json["stop"] == "eos", "{json}");
    let ids = |flags: &[&str]| run(&[&["--tokenize", "--no-bos", "-p", end], flags].concat());
    assert_eq!(ids(&["--parse-special"]).split_whitespace().count(), 1);
    assert!(ids(&[]).split_whitespace().count() > 1);
    assert_eq!(ids(&["--special"]), ids(&[]), "ids are ids, however they would be printed");
}

#[test]
fn a_prompt_comes_from_a_flag_a_file_or_a_pipe() {
    let (folder, model) = tiny();
    let file = folder.path().join("prompt.txt");
    std::fs::write(&file, "hello\n").unwrap();
    let greedy = ["-n", "5", "--temp", "0", "--ignore-eos"];
    let by_flag = Outcome::from(run(&model, &greedy).args(["-p", "hello"]).output().unwrap()).ok();
    let by_file = Outcome::from(run(&model, &greedy).arg("-f").arg(&file).output().unwrap()).ok();
    let by_pipe = feed(&mut run(&model, &greedy), b"hello\n").ok();
    assert!(by_flag.stdout.starts_with("hello"), "{}", by_flag.stdout);
    assert_eq!(by_flag.stdout, by_file.stdout);
    assert_eq!(by_flag.stdout, by_pipe.stdout);
    let dense = Outcome::from(run(&model, &greedy).args(["-p", "hello", "--mode", "dense"]).output().unwrap()).ok();
    assert_eq!(by_flag.stdout, dense.stdout, "exact mode changes nothing");
}

#[cfg(unix)]
#[test]
fn prompts_that_are_not_utf_8_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let (folder, model) = tiny();
    let bad = b"ab\xff\xfe";
    let file = folder.path().join("latin.txt");
    std::fs::write(&file, bad).unwrap();
    for extra in [&[][..], &["--tokenize"], &["-i"]] {
        let mut command = run(&model, extra);
        command.arg("-p").arg(std::ffi::OsStr::from_bytes(bad));
        refused(&mut command, &["-p", "UTF-8"]);
        refused(run(&model, extra).arg("-f").arg(&file), &["latin.txt", "UTF-8", "byte 2"]);
    }
    let outcome = feed(&mut run(&model, &["-n", "1"]), bad);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("error: standard input: is not UTF-8 (byte 2)"), "{}", outcome.stderr);
    let outcome = feed(&mut run(&model, &["-n", "1", "-i"]), b"a\n\xff\n");
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("error: standard input: "), "{}", outcome.stderr);
    refused(
        run(&model, &[]).arg("-f").arg(folder.path().join("none.txt")),
        &["none.txt", crate::support::NO_SUCH_FILE],
    );
    refused(run(&model, &[]).arg("-f").arg(folder.path()), &["irectory"]);
}

#[test]
fn a_prompt_longer_than_the_context_is_refused() {
    let (_folder, model) = tiny();
    let long = "word ".repeat(100);
    refused(run(&model, &["-n", "1"]).args(["-p", &long]), &["prompt: ", "context of 64"]);
    refused(&mut run(&model, &["-n", "1", "-c", "4", "-p", "hello"]), &["context of 4", "-c"]);
    refused(&mut run(&model, &["--json", "-n", "1", "-c", "1", "-p", "hello"]), &["context of 1", "room for 1"]);
}

#[test]
fn an_empty_prompt_begins_a_text_where_the_vocabulary_says_how() {
    let (folder, model) = tiny();
    let outcome = Outcome::from(run(&model, &["-p", "", "-n", "3", "--ignore-eos"]).output().unwrap()).ok();
    assert!(outcome.stderr.contains("prefill"), "{}", outcome.stderr);
    feed(&mut run(&model, &["-n", "1"]), b"").ok();
    let mut tiny = ModelFile::tiny();
    tiny.set("tokenizer.ggml.add_bos_token", Value::Bool(false));
    let model = tiny.written(folder.path(), "no-bos.gguf");
    refused(&mut run(&model, &["-p", "", "-n", "3"]), &["the prompt is empty"]);
}

#[test]
fn a_context_of_0_is_the_models_own() {
    let (_folder, model) = tiny();
    let args = ["-c", "0", "-p", "x", "-n", "-1", "--ignore-eos", "--json"];
    let outcome = Outcome::from(run(&model, &args).output().unwrap()).ok();
    let json: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(json["stop"], "context");
    let n = json["n_prompt"].as_u64().unwrap() + json["n_gen"].as_u64().unwrap();
    assert!((64..=65).contains(&n), "{json}");
}

#[test]
fn json_is_one_object_with_text_and_tokens() {
    let (_folder, model) = tiny();
    let args = ["-p", "say \"hi\"\n\u{e9}", "-n", "6", "--ignore-eos", "--json"];
    let first = Outcome::from(run(&model, &args).output().unwrap()).ok();
    let json: serde_json::Value = serde_json::from_str(&first.stdout).unwrap();
    assert_eq!(json["prompt"], "say \"hi\"\n\u{e9}");
    assert!(json["text"].is_string(), "{json}");
    assert_eq!(json["tokens"].as_array().unwrap().len(), 6);
    assert_eq!((&json["seed"], &json["stop"]), (&5.into(), &"length".into()));
    for key in ["model", "n_prompt", "n_gen", "prefill_ts", "decode_ts", "ffn_density", "mode", "n_threads"] {
        assert!(!json[key].is_null(), "{key} is missing in {json}");
    }
    let again = Outcome::from(run(&model, &args).output().unwrap()).ok();
    let again: serde_json::Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(json["tokens"], again["tokens"], "the same seed gives the same tokens");
}

#[test]
fn a_file_with_only_a_vocabulary_tokenizes_and_does_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let vocabulary = ModelFile::vocabulary_only().written(folder.path(), "vocabulary.gguf");
    let outcome = Outcome::from(run(&vocabulary, &["--tokenize", "-p", "ab"]).output().unwrap()).ok();
    // BOS, the space in front, a, b.
    assert_eq!(outcome.stdout, "1 259 260 261\n");
    let outcome = Outcome::from(run(&vocabulary, &["--tokenize", "--no-bos", "-p", "ab"]).output().unwrap()).ok();
    assert_eq!(outcome.stdout, "259 260 261\n");
    refused(&mut run(&vocabulary, &["-p", "ab", "-n", "1"]), &["vocabulary.gguf", "only a vocabulary"]);
    refused_by("bench", &[&"-m", &vocabulary], &["vocabulary.gguf", "only a vocabulary"]);
}

#[test]
fn a_conversation_through_a_pipe_knows_its_commands() {
    let (_folder, model) = tiny();
    let input = b"/help\n/stats\n\nhello\n/stats\n/reset\n/stats\n/what\nmore\n/exit\nnever said\n";
    let outcome = feed(&mut run(&model, &["-i", "-n", "3", "--ignore-eos", "--temp", "0"]), input).ok();
    for text in ["/help          this list", "0 of 64 tokens", "(forgotten)", "/what: unknown command"] {
        assert!(outcome.stderr.contains(text), "{text} is missing in {}", outcome.stderr);
    }
    assert!(outcome.stderr.contains("FFN neurons fired"), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("of 64 tokens in the context").count(), 3, "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("0 of 64 tokens").count(), 2, "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("error: "), "{}", outcome.stderr);
}

#[test]
fn a_conversation_survives_a_full_context() {
    let (_folder, model) = tiny();
    let input = "hello there\n".repeat(8) + "/reset\nhello\n";
    let flags = ["-i", "-n", "12", "--ignore-eos", "--no-context-shift"];
    let outcome = feed(&mut run(&model, &flags), input.as_bytes()).ok();
    assert!(outcome.stderr.contains("the context is full"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("error: prompt: "), "{}", outcome.stderr);
}

#[test]
fn a_conversation_with_a_template_needs_one_in_the_file() {
    let (folder, model) = tiny();
    refused(&mut run(&model, &["-cnv"]), &["tiny.gguf", "has no chat template", "-i"]);
    let mut tiny = ModelFile::tiny();
    tiny.set("tokenizer.chat_template", Value::Str(TEMPLATE.to_owned()));
    tiny.set("llama.context_length", Value::U32(512));
    let model = tiny.written(folder.path(), "chat.gguf");
    let arguments = ["-cnv", "-n", "4", "--ignore-eos"];
    let outcome = feed(&mut run(&model, &arguments), b"hi\nagain\n/stats\n/reset\n/stats\n").ok();
    assert!(!outcome.stderr.contains("error: "), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("0 of 512 tokens"), "{}", outcome.stderr);
    for (bad, problem) in [("{% for %}", "template"), ("{{ raise_exception('no') }}", "no")] {
        tiny.set("tokenizer.chat_template", Value::Str(bad.to_owned()));
        let model = tiny.written(folder.path(), "bad.gguf");
        let outcome = feed(&mut run(&model, &arguments), b"hi\n");
        let errors: Vec<_> = outcome.stderr.lines().filter(|l| l.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(problem), "{bad}: {}", outcome.stderr);
    }
}

#[test]
fn every_newline_of_a_text_to_tokenize_counts() {
    let (folder, model) = tiny();
    let text = "hello\n\n";
    let file = folder.path().join("text.txt");
    std::fs::write(&file, text).unwrap();
    let by_flag = Outcome::from(run(&model, &["--tokenize", "-p", text]).output().unwrap()).ok().stdout;
    let by_file = Outcome::from(run(&model, &["--tokenize", "-f"]).arg(&file).output().unwrap()).ok().stdout;
    let by_pipe = feed(&mut run(&model, &["--tokenize"]), text.as_bytes()).ok().stdout;
    assert_eq!(by_flag, by_file);
    assert_eq!(by_flag, by_pipe);
    let shorter = Outcome::from(run(&model, &["--tokenize", "-p", "hello"]).output().unwrap()).ok().stdout;
    assert_ne!(by_flag, shorter);
}

#[test]
fn a_prompt_may_begin_with_a_dash_or_look_like_a_flag() {
    let (_folder, model) = tiny();
    for prompt in ["- a list", "-5 degrees", "-cnv", "-ub"] {
        let args = ["-p", prompt, "-n", "1", "--temp", "0", "--ignore-eos"];
        let told = Outcome::from(run(&model, &args).output().unwrap()).ok().stdout;
        assert!(told.starts_with(prompt), "{prompt}: {told}");
    }
}

#[test]
fn a_conversation_says_when_the_text_has_ended_and_reports_on_request() {
    let mut command = tool("run");
    command.args(["-i", "--temp", "0", "-t", "1", "--stats"]);
    let told = feed(&mut command, b"Once upon a time\n/reset\nOne day\n").ok();
    assert!(told.stderr.contains("the text has ended") || told.stderr.contains("context is full"), "{}", told.stderr);
    assert_eq!(told.stderr.matches("tokens/s").count(), 4, "prefill and decode of two answers: {}", told.stderr);
    assert!(told.stderr.contains("weights read per token"), "{}", told.stderr);
}
