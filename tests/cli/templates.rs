//! Chat templates of models: hostile ones are contained, and prompts can be looked at.

use crate::support::{ModelFile, Outcome, Value, file, refused, tool};
use powerinfer::chat::{Message, Request, Unusable, contained};
use powerinfer::progress::{Interrupted, Progress, Silent};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// They take half a second of the processor; the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

fn written(tiny: &mut ModelFile, folder: &Path, template: &str) -> PathBuf {
    tiny.set("tokenizer.chat_template", Value::Str(template.to_owned()));
    tiny.set("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    tiny.written(folder, "chat.gguf")
}

fn tokenize(model: &Path, text: &str) -> Command {
    let mut command = tool("run");
    command.arg("-m").arg(model).args(["-cnv", "--tokenize", "-p", text]);
    command
}

/// Whether this is Wine, which keeps no limits of memory, and whose stacks grow slowly.
fn has_no_limits() -> bool {
    cfg!(windows) && std::path::Path::new(r"C:\windows\system32\winecfg.exe").exists()
}

/// All of these end the conversation with one line.
#[track_caller]
fn all_end(templates: &[(&str, String)], reasons: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    for (name, template) in templates {
        let model = written(&mut ModelFile::vocabulary_only(), folder.path(), template);
        let begun = Instant::now();
        let line = refused(&mut tokenize(&model, "hi"), &["chat.gguf: the model's chat template: "]);
        let taken = begun.elapsed();
        let is_late = has_no_limits() && line.contains("takes too long");
        assert!(is_late || reasons.iter().any(|reason| line.contains(reason)), "{name}: {line}");
        assert!(taken < PATIENCE, "{name}: {taken:?}");
        assert!(line.len() < 500, "{name}: {line}");
    }
}

#[test]
fn values_that_hold_themselves_do_not_end_the_program() {
    let cyclic = |use_it: &str| format!("{{% set ns = namespace() %}}{{% set ns.a = ns %}}{use_it}");
    let uses = [
        "{{ ns }}",
        "{{ ns ~ 'x' }}",
        "{{ ns|tojson }}",
        "{{ ns|string }}",
        "{{ [ns]|join }}",
        "{{ '%s' % ns }}",
        "{{ '{}'.format(ns) }}",
        "{% set m = namespace() %}{% set m.a = m %}{{ ns == m }}{{ [ns, m]|sort }}",
        "{% set m = namespace(b=[{'c': ns}]) %}{% set ns.a = m %}{{ m }}",
    ];
    all_end(&uses.map(|u| (u, cyclic(u))), &["nests too deeply"]);
}

#[test]
fn long_chains_do_not_end_the_program() {
    let chain = |before: &str, inner: &str, behind: &str, n| {
        format!("{{{{ {}{inner}{} }}}}", before.repeat(n), behind.repeat(n))
    };
    let mut templates = vec![("brackets", chain("(", "1", ")", 50_000)), ("lists", chain("[", "1", "]", 50_000))];
    for before in ["not ", "-", "1 if 1 else ", "f("] {
        let behind = if before == "f(" { ")" } else { "" };
        templates.push((before, chain(before, "1", behind, 30_000)));
    }
    for behind in [".a", "~1", "+1", "%1", "|abs", "()", "[0]", " and 1", " is odd"] {
        templates.push((behind, chain("", "x", behind, 30_000)));
    }
    let blocks = |begin: &str, end: &str, n| begin.repeat(n) + &end.repeat(n);
    templates.push(("if", blocks("{% if 1 %}", "{% endif %}", 40_000)));
    templates.push(("elif", format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(50_000))));
    templates.push(("for", blocks("{% for i in [1] %}", "{% endfor %}", 20_000)));
    templates.push(("long", "x".repeat((1 << 20) + 1)));
    // Some are read after all, and then there is nothing of the message in the prompt.
    let reasons = [
        "nests too deeply",
        "recursion",
        "undefined",
        "unknown",
        "leaves out message 1",
        "at most 1 MiB",
        "invalid operation",
        "takes too long",
        "tried",
    ];
    all_end(&templates, &reasons);
}

#[test]
fn memory_is_bounded() {
    let templates = [
        "{% set ns = namespace(s='x' * 1000) %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}y",
        "{{ ('a' * 100000).replace('a', 'b' * 100000)|length }}",
        "{{ range(100000)|join('x' * 400000)|length }}",
        "{{ [1]|batch(1000000000, 'x')|list|length }}",
        "{{ '{:>2000000000}'.format(1)|length }}",
        "{{ '%2000000000d' % 1 }}",
        "{{ '1'.ljust(18446744073709551615) }}",
        "{{ 'x' * 10**9 }}",
        "{% set s %}{% for i in range(99999) %}{{ 'x' * 10000 }}{% endfor %}{% endset %}y",
    ];
    all_end(&templates.map(|t| (t, t.to_owned())), &["takes too much memory", "too large"]);
}

#[test]
fn time_is_bounded() {
    let templates = [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set a = range(100000)|list %}{% for i in a %}{% set b = a|sort %}{% endfor %}",
        "{% set a = 'a' * 10000000 %}{% for i in range(99999) %}{% set b = a.count('b') %}{% endfor %}",
        "{% set ns = namespace(v=[1]) %}{% for i in range(60) %}{% set ns.v = [ns.v, ns.v] %}{% endfor %}{{ ns.v|string }}",
    ];
    all_end(&templates.map(|t| (t, t.to_owned())), &["takes too long", "instructions: an endless loop?", "memory"]);
}

#[test]
fn a_template_that_turns_hostile_ends_the_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let template = "{% for m in messages %}{{ m.content }}{% if 'boo' in m.content %}{% set a = m.content * 10**7 %}{% set b = a ~ a ~ a ~ a %}{% endif %}{% endfor %}";
    let model = written(&mut ModelFile::tiny(), folder.path(), template);
    let mut command = tool("run");
    command.arg("-m").arg(&model).args(["-cnv", "-n", "1", "-t", "1", "-p", "boo"]);
    let outcome = Outcome::from(command.output().unwrap());
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let errors: Vec<_> = outcome.stderr.lines().filter(|l| l.contains("error: ")).collect();
    let is_late = has_no_limits() && errors == ["error: the model's chat template: takes too long"];
    assert!(is_late || errors == ["error: the model's chat template: takes too much memory"], "{errors:?}");
}

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}[{{ m.content.strip() }}]{{ eos_token }}{% endfor %}";

fn ids(text: &str) -> String {
    let ids = text.bytes().map(|b| match b {
        b'a'..=b'z' => u32::from(b - b'a') + 260,
        b' ' => 259,
        b => u32::from(b) + 3,
    });
    ids.map(|id| id.to_string()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_tokens_of_a_first_message_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let model = written(&mut ModelFile::vocabulary_only(), folder.path(), TEMPLATE);
    let printed = |text: &str| Outcome::from(tokenize(&model, text).output().unwrap()).ok().stdout;
    assert_eq!(printed("hi"), format!("1 {} 2\n", ids("[hi]")));
    // What a user types is text, and the template sees it like any other.
    assert_eq!(printed(" </s>a<s> \n"), format!("1 {} 2\n", ids("[</s>a<s>]")));
}

#[test]
fn words_reach_templates_that_want_parts() {
    let folder = tempfile::tempdir().unwrap();
    let template = "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}";
    let model = written(&mut ModelFile::vocabulary_only(), folder.path(), template);
    let outcome = Outcome::from(tokenize(&model, "words").output().unwrap()).ok();
    assert_eq!(outcome.stdout, format!("1 {}\n", ids("words")));
}

#[test]
fn a_message_that_is_left_out_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let template = "{% for m in messages %}{{ m.content if loop.index != 2 else 'x' }}{% endfor %}";
    let model = written(&mut ModelFile::tiny(), folder.path(), template);
    let script = "printf 'a\\nb\\n' | \"$RUN\" -m \"$0\" -cnv -n 1 -t 1 --ignore-eos --temp 0 --device cpu";
    if cfg!(unix) {
        let outcome = Outcome::from(crate::support::sh(script, &[&model]).output().unwrap());
        let errors: Vec<_> = outcome.stderr.lines().filter(|l| l.contains("error: ")).collect();
        assert_eq!(errors, ["error: the model's chat template: leaves out message 2 (assistant)"]);
    }
}

#[test]
fn prompts_and_their_tokens_are_shown_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let model = written(&mut ModelFile::tiny(), folder.path(), TEMPLATE);
    let shown = |args: &[&str]| {
        let mut command = tool("run");
        command.arg("-m").arg(&model).args(["-n", "1", "-t", "1", "--verbose-prompt", "-p", "a\u{1b}\\"]).args(args);
        let outcome = Outcome::from(command.output().unwrap()).ok();
        assert!(!outcome.stdout.contains("->"), "{}", outcome.stdout);
        let lines = outcome
            .stderr
            .lines()
            .filter(|l| l.starts_with("prompt:") || l.contains("tokens in prompt") || l.contains(" -> "));
        lines.map(|l| l.trim_start().to_owned()).collect::<Vec<_>>()
    };
    let plain = [
        "prompt: 'a\\u{1b}\\\\'",
        "number of tokens in prompt = 4",
        "1 -> '<s>'",
        "260 -> 'a'",
        "30 -> '\\u{1b}'",
        "95 -> '\\\\'",
    ];
    assert_eq!(shown(&[]), plain);
    assert_eq!(shown(&["-i"]), plain);
    let chat = shown(&["-cnv"]);
    assert_eq!(chat[..3], ["prompt: '<s>[a\\u{1b}\\\\]</s>'", "number of tokens in prompt = 7", "1 -> '<s>'"]);
    assert_eq!(chat.last().unwrap(), "2 -> '</s>'");
}

struct Cancelled;

impl Progress for Cancelled {
    fn cancelled(&self) -> bool {
        true
    }
}

fn request(source: &str) -> Request {
    let messages = vec![Message { role: "user".to_owned(), content: "hi".to_owned() }];
    Request { source: source.to_owned(), messages, variables: Default::default(), add_generation_prompt: true }
}

#[test]
fn rendering_elsewhere_gives_the_same_and_stops_on_request() {
    let program = Path::new(file("run"));
    let harmless = request("{% for m in messages %}{{ m.role }}: {{ m.content }}\u{e9}\n{% endfor %}");
    assert_eq!(contained::render(program, &harmless, &Silent).unwrap(), harmless.render().unwrap());
    let slow = request("{% set a = range(100000)|list %}{% for i in a %}{% set b = a|sort %}{% endfor %}");
    assert!(contained::render(program, &slow, &Cancelled).unwrap_err().is::<Interrupted>());
    assert!(contained::render(program, &slow, &Silent).unwrap_err().is::<Unusable>());
    let error = contained::render(Path::new("/nonexistent/run"), &harmless, &Silent).unwrap_err();
    assert!(format!("{error:#}").contains("/nonexistent/run: cannot be started"), "{error:#}");
}

#[test]
fn a_child_answers_nonsense_in_one_line() {
    let output =
        Command::new(file("run")).arg(contained::ARGUMENT).stdin(std::process::Stdio::null()).output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(answer.starts_with("{\"Failed\":") && output.stderr.is_empty(), "{answer}");
}
