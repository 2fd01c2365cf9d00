//! Chat templates by the names that llama.cpp has for such formats, for files that have none or a wrong one.

/// Names and templates, in the order of the names.
const TEMPLATES: [(&str, &str); 36] = [
    ("chatglm3", include_str!("builtin/chatglm3.jinja")),
    ("chatglm4", include_str!("builtin/chatglm4.jinja")),
    ("chatml", include_str!("builtin/chatml.jinja")),
    ("command-r", include_str!("builtin/command-r.jinja")),
    ("deepseek", include_str!("builtin/deepseek.jinja")),
    ("deepseek2", include_str!("builtin/deepseek2.jinja")),
    ("deepseek3", include_str!("builtin/deepseek3.jinja")),
    ("exaone3", include_str!("builtin/exaone3.jinja")),
    ("falcon3", include_str!("builtin/falcon3.jinja")),
    ("gemma", include_str!("builtin/gemma.jinja")),
    ("glmedge", include_str!("builtin/glmedge.jinja")),
    ("gpt-oss", include_str!("builtin/gpt-oss.jinja")),
    ("granite", include_str!("builtin/granite.jinja")),
    ("kimi-k2", include_str!("builtin/kimi-k2.jinja")),
    ("llama2", include_str!("builtin/llama2.jinja")),
    ("llama2-sys", include_str!("builtin/llama2-sys.jinja")),
    ("llama2-sys-bos", include_str!("builtin/llama2-sys-bos.jinja")),
    ("llama2-sys-strip", include_str!("builtin/llama2-sys-strip.jinja")),
    ("llama3", include_str!("builtin/llama3.jinja")),
    ("llama4", include_str!("builtin/llama4.jinja")),
    ("megrez", include_str!("builtin/megrez.jinja")),
    ("minicpm", include_str!("builtin/minicpm.jinja")),
    ("mistral-v1", include_str!("builtin/mistral-v1.jinja")),
    ("mistral-v3", include_str!("builtin/mistral-v3.jinja")),
    ("mistral-v3-tekken", include_str!("builtin/mistral-v3-tekken.jinja")),
    ("mistral-v7", include_str!("builtin/mistral-v7.jinja")),
    ("mistral-v7-tekken", include_str!("builtin/mistral-v7-tekken.jinja")),
    ("monarch", include_str!("builtin/monarch.jinja")),
    ("openchat", include_str!("builtin/openchat.jinja")),
    ("orion", include_str!("builtin/orion.jinja")),
    ("phi3", include_str!("builtin/phi3.jinja")),
    ("phi4", include_str!("builtin/phi4.jinja")),
    ("rwkv-world", include_str!("builtin/rwkv-world.jinja")),
    ("vicuna", include_str!("builtin/vicuna.jinja")),
    ("vicuna-orca", include_str!("builtin/vicuna-orca.jinja")),
    ("zephyr", include_str!("builtin/zephyr.jinja")),
];

/// The template of that name.
pub fn named(name: &str) -> Option<&'static str> {
    TEMPLATES.iter().find(|(known, _)| *known == name).map(|(_, template)| *template)
}

/// All names.
pub fn names() -> impl Iterator<Item = &'static str> {
    TEMPLATES.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Request, Value};
    use serde_json::Value as Json;
    use std::path::Path;

    /// Formats that are not llama.cpp's to the letter, and why.
    const DIFFERENT: [(&str, &str); 2] = [
        // Answers that were given end with <|end|>; <|return|> is what the model stops with.
        ("gpt-oss", "<|return|>"),
        // A text ends with the token that the model has for that.
        ("zephyr", "<|endoftext|>"),
    ];

    /// What stands in the same place here.
    const INSTEAD: [&str; 2] = ["<|end|>", "</s>"];

    fn prompt(source: &str, messages: Vec<Message>) -> String {
        let variables = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let variables = variables.map(|(name, text)| (name.to_owned(), Value::from(text)));
        let source = source.to_owned();
        let request = Request { source, messages, variables: variables.into(), add_generation_prompt: true };
        request.render().unwrap()
    }

    /// `scripts/make_builtin_golden.py` has written what llama.cpp makes of them.
    #[test]
    fn every_template_writes_what_llama_cpp_writes() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/builtin_templates.json");
        let golden: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let message = |message: &Json| {
            let of = |key: &str| message[key].as_str().unwrap().to_owned();
            Message { role: of("role"), content: of("content") }
        };
        assert_eq!(golden["formats"].as_object().unwrap().len(), TEMPLATES.len());
        for (name, source) in TEMPLATES {
            let conversations = golden["formats"][name].as_object().unwrap();
            assert!(conversations.len() >= 8, "{name}");
            for (what, wanted) in conversations {
                let said = golden["said"][what].as_array().unwrap().iter().map(message).collect();
                let different = DIFFERENT.iter().zip(INSTEAD).find(|((of, _), _)| *of == name);
                let wanted = wanted.as_str().unwrap().to_owned();
                let wanted = different.map_or(wanted.clone(), |((_, theirs), own)| wanted.replace(theirs, own));
                assert_eq!(prompt(source, said), wanted, "{name}, {what}");
            }
        }
    }

    #[test]
    fn names_are_sorted() {
        assert!(TEMPLATES.is_sorted_by_key(|(name, _)| *name));
        assert_eq!(named("no-such-name"), None);
        assert_eq!(names().count(), TEMPLATES.len());
    }
}
