//! Which chat template: the file's, one by name, one of a file; and what it is told of thinking.

use crate::support::{ModelFile, Outcome, Value, refused, tool, usage_error};
use std::path::{Path, PathBuf};

fn written(folder: &Path, template: Option<&str>) -> PathBuf {
    let mut file = ModelFile::tiny();
    file.set("llama.context_length", Value::U32(512));
    if let Some(template) = template {
        file.set("tokenizer.chat_template", Value::Str(template.to_owned()));
    }
    file.written(folder, "tiny.gguf")
}

/// What `hi` becomes, and the notes beside it.
fn prompt(model: &Path, args: &[&str]) -> (String, String) {
    let mut command = tool("run");
    command.arg("-m").arg(model).args(["-st", "-p", "hi", "-n", "1", "-t", "1", "--verbose-prompt"]).args(args);
    let outcome = Outcome::from(command.output().unwrap()).ok();
    let line = outcome.stderr.lines().find_map(|line| line.strip_prefix("prompt: ")).unwrap().to_owned();
    (line, outcome.stderr)
}

fn refused_with(model: &Path, args: &[&str], wanted: &[&str]) {
    let mut command = tool("run");
    refused(command.arg("-m").arg(model).args(["-cnv", "-p", "hi", "-n", "1", "-t", "1"]).args(args), wanted);
}

#[test]
fn a_template_is_named_or_read_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.jinja");
    std::fs::write(&file, "{% for m in messages %}<{{ m.content }}>{% endfor %}").unwrap();
    let mine = file.to_str().unwrap();
    for template in [None, Some("{% for m in messages %}({{ m.content }}){% endfor %}")] {
        let model = written(folder.path(), template);
        let named = |name| prompt(&model, &["--chat-template", name]).0;
        assert_eq!(named("chatml"), "'<|im_start|>user\\nhi<|im_end|>\\n<|im_start|>assistant\\n'");
        assert_eq!(named("llama2"), "'[INST] hi [/INST]'");
        assert_eq!(named("zephyr"), "'<|user|>\\nhi</s>\\n<|assistant|>\\n'");
        assert_eq!(named(mine), "'<hi>'");
        assert_eq!(named("{% for m in messages %}[{{ m.content }}]{% endfor %}"), "'[hi]'");
    }
    let model = written(folder.path(), None);
    refused_with(&model, &[], &["tiny.gguf", "no chat template", "--chat-template"]);
    refused_with(
        &model,
        &["--chat-template", "chatlm"],
        &["chatlm", "no template of that name", "chatml", "mistral-v1"],
    );
    refused_with(&model, &["--chat-template", "none.jinja"], &["none.jinja", crate::support::NO_SUCH_FILE]);
    std::fs::write(&file, "{% for m in messages %}").unwrap();
    refused_with(&model, &["--chat-template", mine], &["mine.jinja", "cannot be read"]);
    std::fs::write(&file, b"\xff\xfe").unwrap();
    refused_with(&model, &["--chat-template", mine], &["mine.jinja", "UTF-16"]);
    refused_with(&model, &["--chat-template", folder.path().to_str().unwrap()], &["irectory"]);
    std::fs::write(&file, "x".repeat(3 << 20)).unwrap();
    refused_with(&model, &["--chat-template", mine], &["mine.jinja", "at most"]);
}

#[test]
fn a_hostile_template_of_a_file_is_contained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.jinja");
    std::fs::write(&file, "{{ 'x' * 10**9 }}").unwrap();
    let model = written(folder.path(), None);
    refused_with(&model, &["--chat-template", file.to_str().unwrap()], &["mine.jinja", "chat template"]);
}

#[test]
fn a_prompt_with_a_named_template_is_plain_text_still() {
    let folder = tempfile::tempdir().unwrap();
    let model = written(folder.path(), None);
    let mut command = tool("run");
    command.arg("-m").arg(&model).args(["--chat-template", "chatml", "-p", "hi", "-n", "1", "-t", "1", "--ignore-eos"]);
    let outcome = Outcome::from(command.output().unwrap()).ok();
    assert!(outcome.stdout.starts_with("hi"), "{outcome:?}");
    assert!(outcome.stderr.contains("note: plain text, as there is a prompt"), "{}", outcome.stderr);
}

#[test]
fn thinking_is_switched_off_where_the_template_knows_it() {
    let folder = tempfile::tempdir().unwrap();
    let thinks = "{% for m in messages %}{{ m.content }}{% endfor %}\
                  {% if enable_thinking is defined and enable_thinking is false %}[no]{% else %}[yes]{% endif %}";
    let model = written(folder.path(), Some(thinks));
    assert_eq!(prompt(&model, &[]).0, "'hi[yes]'");
    assert_eq!(prompt(&model, &["--reasoning-budget", "-1"]).0, "'hi[yes]'");
    let (line, notes) = prompt(&model, &["--reasoning-budget", "0"]);
    assert_eq!(line, "'hi[no]'");
    assert!(!notes.contains("has no effect"), "{notes}");
    let model = written(folder.path(), Some("{% for m in messages %}{{ m.content }}{% endfor %}"));
    let notes = prompt(&model, &["--reasoning-budget", "0"]).1;
    assert_eq!(notes.matches("note: --reasoning-budget 0 has no effect").count(), 1, "{notes}");
    let notes = prompt(&model, &["--reasoning-budget", "0", "-no-cnv"]).1;
    assert!(notes.contains("note: --reasoning-budget 0 has no effect on plain text"), "{notes}");
    usage_error("run", &["--reasoning-budget", "5", "-p", "x"], "--reasoning-budget");
}

#[test]
fn a_template_is_told_the_variables_of_its_users() {
    let folder = tempfile::tempdir().unwrap();
    let says = "{% for m in messages %}{{ m.content }}{% endfor %}\
                [{{ effort }} {% if tools %}{{ tools[0].a }}{% endif %} {{ enable_thinking }}]";
    let model = written(folder.path(), Some(says));
    let given = ["--chat-template-kwargs", r#"{"effort":"low","enable_thinking":true}"#];
    let more = [&given[..], &["--chat-template-kwargs", r#"{"tools":[{"a":1}]}"#]].concat();
    let (line, notes) = prompt(&model, &more);
    assert_eq!((&*line, notes.contains("no effect")), ("'hi[low 1 True]'", false), "{notes}");
    let (line, notes) = prompt(&model, &["--reasoning-effort", "high", "--chat-template-kwargs", r#"{"effort":2}"#]);
    assert!(line.starts_with("'hi[2 "), "{line}");
    assert!(notes.contains("--chat-template-kwargs has no effect: the chat template does not know reasoning_effort"));
    // What is given last goes before what a budget says.
    let line = prompt(&model, &[&["--reasoning-budget", "0"][..], &given].concat()).0;
    assert!(line.ends_with(" True]'"), "{line}");
    let notes = prompt(&model, &[&given[..], &["-no-cnv"]].concat()).1;
    assert!(notes.contains("note: --chat-template-kwargs has no effect on plain text"), "{notes}");
    for wrong in ["", "{", "[1]", "7", r#"{"messages":[]}"#, r#"{"add_generation_prompt":false}"#] {
        usage_error("run", &["--chat-template-kwargs", wrong, "-st", "-p", "x"], "--chat-template-kwargs");
    }
}
