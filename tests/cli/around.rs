//! What is put around lines of plain text: `--in-prefix`, `--in-suffix`, and what there is without.

use crate::support::{ModelFile, Outcome, Value, tool};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// What the model was told in each turn, of these lines.
fn told(model: &Path, args: &[&str], lines: &str) -> (Vec<String>, String) {
    let mut command = tool("run");
    command.arg("-m").arg(model).args(["-n", "2", "-t", "1", "--temp", "0", "--ignore-eos", "--verbose-prompt"]);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let outcome = Outcome::from(child.wait_with_output().unwrap()).ok();
    let prompts = outcome.stderr.lines().filter_map(|line| line.strip_prefix("prompt: "));
    (prompts.map(str::to_owned).collect(), outcome.stderr)
}

#[test]
fn lines_stand_between_a_prefix_and_a_suffix() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = ModelFile::tiny();
    file.set("llama.context_length", Value::U32(512));
    let model = file.written(folder.path(), "tiny.gguf");
    let told = |args: &[&str]| told(&model, args, "hi\nho\n").0;
    assert_eq!(told(&["-i"]), ["'hi'", "'\\nho'"]);
    let around = ["-i", "--in-prefix", "<", "--in-suffix", "\\t>"];
    assert_eq!(told(&around), ["'<hi\\n\\t>'", "'\\n<ho\\n\\t>'"]);
    assert_eq!(told(&["-i", "--in-suffix", "B:"]), ["'hi\\nB:'", "'\\nho\\nB:'"]);
    // What is said first is no line that is typed.
    assert_eq!(told(&[&around[..], &["-p", "first"]].concat())[..2], ["'first'", "'\\n<hi\\n\\t>'"]);
    // Behind a stop string, in whatever the model says, there is a space unless something else is asked for.
    let stops = ["-i", "-r", "a", "--grammar", "root ::= \"a\""];
    assert_eq!(told(&stops), ["'hi'", "' ho\\n'"]);
    assert_eq!(told(&[&stops[..], &["--in-prefix", ""]].concat()), ["'hi'", "'ho\\n'"]);
    assert_eq!(told(&[&stops[..], &["--in-suffix", "B:"]].concat()), ["'hi\\nB:'", "' ho\\nB:'"]);
}

#[test]
fn a_chat_and_a_single_text_say_that_they_have_no_lines() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    for args in
        [&["-p", "x", "--in-prefix", "<"][..], &["--chat-template", "chatml", "-st", "-p", "x", "--in-suffix", ">"]]
    {
        let (prompts, notes) = told(&model, args, "");
        assert!(!prompts.iter().any(|prompt| prompt.contains(['<', '>']) && args[0] == "-p"), "{prompts:?}");
        assert_eq!(notes.matches("--in-prefix and --in-suffix have no effect").count(), 1, "{notes}");
    }
}
