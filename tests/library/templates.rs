//! Chat templates give what Jinja2 gives, set up as transformers does. `scripts/compare_templates.py --write` wrote what
//! is expected.

use powerinfer::chat::{Message, Request, Value};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Deserialize)]
struct Conversation {
    messages: Vec<Message>,
    variables: BTreeMap<String, Value>,
}

/// `None` stands for a template that fails.
#[derive(Deserialize)]
struct Expected {
    conversations: BTreeMap<String, Conversation>,
    templates: BTreeMap<String, BTreeMap<String, Option<String>>>,
    snippets: Vec<(String, Option<String>)>,
    snippet_variables: BTreeMap<String, Value>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/templates")
}

fn expected() -> Expected {
    serde_json::from_str(&std::fs::read_to_string(folder().join("expected.json")).unwrap()).unwrap()
}

fn compare(what: &str, request: &Request, expected: Option<&String>) -> bool {
    let found = request.render();
    let agrees = found.as_ref().ok() == expected;
    if !agrees {
        println!("{what}:\n  expected {expected:?}\n  found    {found:?}");
    }
    agrees
}

#[test]
fn templates_in_the_manner_of_published_ones_give_what_jinja_gives() {
    let Expected { conversations, templates, .. } = expected();
    let mut differing = Vec::new();
    for (name, by_conversation) in &templates {
        let source = String::from_utf8(std::fs::read(folder().join(name)).unwrap()).unwrap();
        for (title, prompt) in by_conversation {
            let Conversation { messages, variables } = &conversations[title];
            let mut variables = variables.clone();
            let add_generation_prompt = variables.remove("add_generation_prompt").is_none_or(|v| v.is_true());
            let (source, messages) = (source.clone(), messages.clone());
            let request = Request { source, messages, variables, add_generation_prompt };
            let what = format!("{name}, {title}");
            if !compare(&what, &request, prompt.as_ref()) {
                differing.push(what);
            }
        }
    }
    assert!(differing.is_empty(), "{differing:?}");
    let n_given = templates.values().flat_map(BTreeMap::values).filter(|p| p.is_some()).count();
    assert!(
        templates.len() >= 18 && n_given >= 9 * templates.len(),
        "{} templates, {n_given} prompts",
        templates.len()
    );
}

#[test]
fn expressions_give_what_jinja_gives() {
    let Expected { snippets, snippet_variables, .. } = expected();
    let differs = |(source, prompt): &&(String, Option<String>)| {
        let (source, variables) = (source.clone(), snippet_variables.clone());
        let request = Request { source, messages: Vec::new(), variables, add_generation_prompt: true };
        !compare(&request.source, &request, prompt.as_ref())
    };
    let differing: Vec<_> = snippets.iter().filter(differs).collect();
    assert!(differing.is_empty(), "{differing:#?}");
    assert!(snippets.len() > 100, "{}", snippets.len());
}
