//! Templates that fail, exceed what they may take, want messages in another form, or leave some out. What templates give
//! is compared with Jinja2 in `tests/library/templates.rs`.

use super::{Message, Request, Unusable};
use anyhow::Result;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SAID: &str = "{% for m in messages %}{{ m.role }}: {{ m.content|trim }}\n{% endfor %}";

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into() }
}

fn conversation() -> [Message; 4] {
    [message("system", "Be brief."), message("user", "Hi"), message("assistant", "Hello."), message("user", "Bye")]
}

fn render(source: &str, messages: &[Message]) -> Result<String> {
    let (source, messages) = (source.to_owned(), messages.to_vec());
    Request { source, messages, variables: BTreeMap::new(), add_generation_prompt: true }.render()
}

fn error_of(source: &str) -> String {
    let begin = Instant::now();
    let error = render(source, &conversation()).unwrap_err().to_string();
    let taken = begin.elapsed();
    assert!(taken < Duration::from_secs(20), "{taken:?}: {error}");
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn every_message_must_reach_the_prompt() {
    let said = render(SAID, &conversation()).unwrap();
    assert_eq!(said, "system: Be brief.\nuser: Hi\nassistant: Hello.\nuser: Bye\n");
    let leaves_out = |source: &str| error_of(source).split_once("leaves out ").unwrap().1.to_owned();
    assert_eq!(leaves_out("{{ messages[0].content }}"), "message 2 (user)");
    assert_eq!(
        leaves_out("{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}"),
        "message 3 (assistant)"
    );
    assert_eq!(leaves_out("{% for m in messages[1:] %}{{ m.content }}{% endfor %}"), "message 1 (system)");
    assert_eq!(leaves_out("hello"), "message 1 (system)");
}

#[test]
fn parts_of_messages_may_be_cut_and_changed() {
    let messages = [message("user", "Why?"), message("assistant", "<think>hm</think> So.")];
    let last = "{% for m in messages %}{{ m.content.split('</think>')[-1]|trim|upper }}.{% endfor %}";
    assert_eq!(render(last, &messages).unwrap(), "WHY?.SO..");
    let first = "{% for m in messages %}{{ m.content.split('?')[0]|tojson(ensure_ascii=true) }}{% endfor %}";
    assert_eq!(render(first, &messages).unwrap(), "\"Why\"\"<think>hm</think> So.\"");
    let by_length = "{% for m in messages %}{% if m.content|length < 5 %}{{ m.content }}{% else %}{{ m.content }}!{% endif %}{% endfor %}";
    assert_eq!(render(by_length, &messages[..1]).unwrap(), "Why?");
}

#[test]
fn templates_that_want_parts_get_them() {
    let parts = "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}.{% endif %}{% endfor %}{% endfor %}";
    assert_eq!(render(parts, &conversation()).unwrap(), "Be brief..Hi.Hello..Bye.");
    let first = "{% for m in messages %}{{ m.content[0]['text'] }}.{% endfor %}";
    assert_eq!(render(first, &conversation()).unwrap(), "Be brief..Hi.Hello..Bye.");
    let both = "{% for m in messages %}{% if m.content is string %}S{{ m.content }}{% else %}P{{ m.content[0].text }}{% endif %}{% endfor %}";
    assert_eq!(render(both, &conversation()).unwrap(), "SBe brief.SHiSHello.SBye");
    let mixed = "{% for m in messages %}{{ m.content|trim if m.role == 'system' else m.content|map(attribute='text')|join }}{% endfor %}";
    assert_eq!(render(mixed, &conversation()).unwrap(), "Be brief.HiHello.Bye");
    let users = "{% for m in messages %}{{ m.content[0].text if m.role == 'user' else m.content.strip() }}{% endfor %}";
    assert_eq!(render(users, &conversation()).unwrap(), "Be brief.HiHello.Bye");
}

#[test]
fn a_template_may_refuse_a_conversation_in_its_own_words() {
    let refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}";
    let error = render(refuses, &conversation()).unwrap_err();
    assert!(error.is::<super::Refused>());
    assert_eq!(
        error.to_string(),
        "the model's chat template: invalid operation: System role not supported (in chat_template:1)"
    );
    for source in ["{{ 1|nothing }}", "{% if %}", "{{ nothing() }}", "{% include 'chat_template' %}"] {
        assert!(render(source, &conversation()).unwrap_err().is::<Unusable>(), "{source}");
    }
}

#[test]
fn a_huge_template_is_refused() {
    assert_eq!(
        error_of(&" ".repeat((1 << 20) + 1)),
        "the model's chat template: has 1048577 bytes; at most 1 MiB are read"
    );
}

#[test]
fn undefined_has_length_zero() {
    assert_eq!(render("{{ nothing|length }}", &[]).unwrap(), "0");
    assert!(error_of("{{ 5|length }}").contains("cannot calculate length"));
}

#[test]
fn a_syntax_error_is_one_line_with_its_place() {
    let error = render("a\n{% for x in %}\n", &[]).unwrap_err().to_string();
    assert!(error.starts_with("the model's chat template: cannot be read: "), "{error}");
    assert!(error.ends_with("(in chat_template:2)"), "{error}");
}

#[test]
fn an_error_cannot_write_control_characters() {
    let error = error_of("{{ raise_exception('a\\n\\x1b[31mb' ~ 'c' * 10000) }}");
    assert!(!error.contains('\x1b'), "{error}");
    assert!(error.chars().count() < 400, "{error}");
}

#[test]
fn huge_loops_run_out_of_instructions() {
    let two_loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}";
    assert_eq!(error_of(two_loops), "the model's chat template: takes more than 504000 instructions: an endless loop?");
    assert!(error_of("{% for i in range(100000000) %}x{% endfor %}").contains("too many elements"));
}

#[test]
fn endless_recursion_is_an_error() {
    let recursion = "the model's chat template: ";
    assert!(error_of("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").starts_with(recursion));
    assert!(error_of("{% include 'chat_template' %}").starts_with(recursion));
    let nested = "(".repeat(100_000);
    assert!(error_of(&format!("{{{{ {nested}1 }}}}")).starts_with(recursion));
    let loops = "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}";
    assert!(error_of(loops).starts_with(recursion));
}

#[test]
fn a_huge_output_is_an_error() {
    let line = "x".repeat(1000);
    let source = format!("{{% for i in range(99999) %}}{line}{{% endfor %}}");
    assert_eq!(error_of(&source), "the model's chat template: writes more than 16 MiB");
}

#[test]
fn long_conversations_have_fuel() {
    let messages = vec![message("user", "word"); 2_000];
    assert!(render(SAID, &messages).is_ok());
}

#[test]
fn a_template_may_ask_for_the_date() {
    let today = render("{{ strftime_now('%d %b %Y') }}", &[]).unwrap();
    assert_eq!(today.len(), "26 Jul 2024".len(), "{today}");
    assert!(error_of("{{ strftime_now('%Q') }}").contains("unknown directive in \"%Q\""));
}
