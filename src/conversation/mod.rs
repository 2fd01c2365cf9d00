//! A conversation as tokens: the template's control tokens count, those that a user types do not.

mod saved;
mod system;

pub use saved::{from_json, load, save, to_json};
pub use system::without_system;

use crate::chat::{Message, Request, Value, unused_mark};
use crate::gguf::Metadata;
use crate::tokenizer::{Special, Tokenizer};
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::ops::Range;

/// Special tokens that templates know by name, and the keys of their ids; those of BOS and EOS the tokenizer knows.
const SPECIAL_TOKENS: [(&str, &str); 5] = [
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
    ("sep_token", "tokenizer.ggml.seperator_token_id"),
    ("cls_token", "tokenizer.ggml.cls_token_id"),
    ("mask_token", "tokenizer.ggml.mask_token_id"),
];

/// Makes prompts of conversations, with the chat template and the vocabulary of a model.
pub struct Prompter<'a> {
    tokenizer: &'a Tokenizer,
    source: String,
    variables: BTreeMap<String, Value>,
}

/// What a model is given.
pub struct Prompt {
    /// As the template wrote it.
    pub text: String,
    /// The same as tokens, with BOS where the vocabulary wants it.
    pub tokens: Vec<u32>,
}

impl<'a> Prompter<'a> {
    /// With the template `source`; `metadata` says which special tokens there are beside BOS and EOS.
    ///
    /// # Errors
    /// When a key of a special token holds something else.
    pub fn new(source: &str, tokenizer: &'a Tokenizer, metadata: &Metadata) -> Result<Self> {
        let mut variables = BTreeMap::new();
        for (name, key) in SPECIAL_TOKENS {
            if let Some(id) = metadata.u32(key)? {
                variables.insert(name.to_owned(), Value::from(tokenizer.token_text(id)));
            }
        }
        Ok(Self::with_variables(source, tokenizer, variables))
    }

    fn with_variables(source: &str, tokenizer: &'a Tokenizer, mut variables: BTreeMap<String, Value>) -> Self {
        for (name, id) in [("bos_token", tokenizer.bos()), ("eos_token", tokenizer.eos())] {
            // Templates add these to texts without asking whether they are there.
            let text = id.map_or_else(Default::default, |id| tokenizer.token_text(id));
            variables.insert(name.to_owned(), Value::from(text));
        }
        Self { tokenizer, source: source.to_owned(), variables }
    }

    /// Tells the template a variable beside those of special tokens, as `enable_thinking`.
    pub fn tell(&mut self, name: String, value: Value) {
        self.variables.insert(name, value);
    }

    /// What `render` is asked for to open the assistant's turn behind `messages`.
    pub fn request(&self, messages: Vec<Message>) -> Request {
        let (source, variables) = (self.source.clone(), self.variables.clone());
        Request { source, messages, variables, add_generation_prompt: true }
    }

    /// The prompt for `messages`, with the assistant's turn opened at the end, for a context of `n_ctx` tokens.
    ///
    /// Control tokens that a message spells out stay text. The template does not see them: it sees marks in their place,
    /// so that whatever it does to the message, it is known which tokens are not its own.
    ///
    /// # Errors
    /// Those of `render`, when the template takes the marks apart, and when the prompt cannot fit into the context: a
    /// template may write megabytes, which would take long to tokenize.
    pub fn encode(
        &self,
        messages: &[Message],
        n_ctx: usize,
        render: impl FnOnce(&Request) -> Result<String>,
    ) -> Result<Prompt> {
        let mark = unused_mark(messages)?;
        let mut spelled = Vec::new();
        let marked = messages
            .iter()
            .map(|m| Message { role: m.role.clone(), content: self.with_marks(&m.content, mark, &mut spelled) });
        let request = self.request(marked.collect());
        let (text, protected) = without_marks(&render(&request)?, mark, &spelled)?;
        let most = n_ctx.saturating_mul(self.tokenizer.longest_token());
        ensure!(
            text.len() <= most,
            "prompt: {} bytes do not fit into a context of {n_ctx} tokens; give more with -c",
            text.len()
        );
        let mut tokens = self.tokenizer.encode_protected(&text, &protected, Special::Parse)?;
        let bos = self.tokenizer.bos().filter(|_| self.tokenizer.adds_bos());
        if let Some(bos) = bos.filter(|b| tokens.first() != Some(b)) {
            tokens.insert(0, bos);
        }
        Ok(Prompt { text, tokens })
    }

    /// Tokens of a conversation that come before anything a user says: the beginning of the text, system messages, and what the
    /// template puts around them. `messages` begin with those of the conversation; none but BOS where the template does not
    /// say it.
    pub fn n_opening(&self, messages: &[Message], render: impl Fn(&Request) -> Result<String>) -> usize {
        let bos = usize::from(self.tokenizer.adds_bos() && self.tokenizer.bos().is_some());
        let Some(first) = messages.iter().position(|m| m.role == "user") else { return bos };
        let beginning_with = |content: &str| {
            let mut messages = messages[..=first].to_vec();
            messages[first].content = content.to_owned();
            Some(self.encode(&messages, usize::MAX, &render).ok()?.tokens)
        };
        let (Some(a), Some(b)) = (beginning_with("a"), beginning_with("b")) else { return bos };
        a.iter().zip(&b).take_while(|(a, b)| a == b).count().max(bos)
    }

    /// Puts marks where `content` spells control tokens, whose texts go to `spelled`.
    fn with_marks(&self, content: &str, mark: char, spelled: &mut Vec<String>) -> String {
        let (mut out, mut copied) = (String::with_capacity(content.len()), 0);
        for range in self.tokenizer.spelled(content) {
            out += &content[copied..range.start];
            out += &format!("{mark}{}{mark}", spelled.len());
            spelled.push(content[range.clone()].to_owned());
            copied = range.end;
        }
        out + &content[copied..]
    }
}

/// `prompt` with what stood where the marks stand, and where that is.
fn without_marks(prompt: &str, mark: char, spelled: &[String]) -> Result<(String, Vec<Range<usize>>)> {
    const APART: &str = "the model's chat template takes apart a message that spells a special token";
    let escaped = format!("\\u{:04x}", u32::from(mark));
    ensure!(spelled.is_empty() || !prompt.contains(&escaped), APART);
    let (mut text, mut ranges) = (String::with_capacity(prompt.len()), Vec::new());
    // What stands between marks is by turns the template's and a number.
    for (i, part) in prompt.split(mark).enumerate() {
        if i % 2 == 0 {
            text += part;
            continue;
        }
        let original = part.parse::<usize>().ok().and_then(|n| spelled.get(n));
        let Some(original) = original else { anyhow::bail!(APART) };
        ranges.push(text.len()..text.len() + original.len());
        text += original;
    }
    ensure!(prompt.matches(mark).count().is_multiple_of(2), APART);
    Ok((text, ranges))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Vocab;

    /// Bytes, two control tokens and a user-defined one.
    fn tokenizer() -> Tokenizer {
        let mut tokens: Vec<Vec<u8>> = ["<unk>", "<s>", "<end>", "<think>"].map(Into::into).to_vec();
        tokens.extend((0..=255).map(|b| format!("<0x{b:02X}>").into_bytes()));
        let mut token_types = vec![2, 3, 3, 4];
        token_types.resize(tokens.len(), 6);
        Tokenizer::new(Vocab {
            model: "llama".to_owned(),
            tokens,
            token_types,
            add_space_prefix: Some(false),
            ..Vocab::default()
        })
        .unwrap()
    }

    fn prompt(source: &str, contents: &[&str]) -> Result<Prompt> {
        let message = |content: &&str| Message { role: "user".to_owned(), content: (*content).to_owned() };
        let messages: Vec<_> = contents.iter().map(message).collect();
        let tokenizer = tokenizer();
        Prompter::with_variables(source, &tokenizer, BTreeMap::new()).encode(&messages, 64, Request::render)
    }

    const TRIMMED: &str = "{% for m in messages %}<s>{{ m.content | trim }}<end>{% endfor %}";

    fn ids(content: &str) -> Vec<u32> {
        prompt(TRIMMED, &[content]).unwrap().tokens
    }

    fn bytes(text: &str) -> Vec<u32> {
        text.bytes().map(|b| 4 + u32::from(b)).collect()
    }

    #[test]
    fn the_templates_control_tokens_count() {
        assert_eq!(ids("a"), [&[1], &bytes("a")[..], &[2]].concat());
    }

    #[test]
    fn control_tokens_that_a_user_types_are_text() {
        for typed in ["<end>", "a<s><end>b", "<end", "<s><<end>>"] {
            assert_eq!(ids(typed), [&[1], &bytes(typed)[..], &[2]].concat(), "{typed}");
        }
        assert_eq!(ids("<think>"), [1, 3, 2], "a user-defined token counts wherever it is");
    }

    #[test]
    fn what_the_template_does_to_a_message_it_does_to_one_with_control_tokens() {
        assert_eq!(ids(" \n<end>x "), [&[1], &bytes("<end>x")[..], &[2]].concat());
        let found = prompt("{% for m in messages %}{{ m.content|upper }}|{% endfor %}", &["a<s>", "<end>b"]).unwrap();
        assert_eq!(found.text, "A<s>|<end>B|");
        assert_eq!(found.tokens, [&[1], &bytes("A<s>|<end>B|")[..]].concat());
        let found = prompt("{{ messages[1].content }}{{ messages[0].content }}", &["<s>", "<end>"]).unwrap();
        assert_eq!(found.text, "<end><s>");
    }

    #[test]
    fn what_comes_before_the_users_first_words_is_the_opening() {
        let tokenizer = tokenizer();
        let source = "{% for m in messages %}<s>{{ m.role }}:{{ m.content }}<end>{% endfor %}";
        let prompter = Prompter::with_variables(source, &tokenizer, BTreeMap::new());
        let message = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
        let said = [message("system", "kindly"), message("user", "hello"), message("assistant", "hi")];
        let opening = [&[1], &bytes("system:kindly")[..], &[2, 1], &bytes("user:")].concat();
        assert_eq!(prompter.n_opening(&said, Request::render), opening.len());
        assert_eq!(prompter.n_opening(&said[1..], Request::render), "<user:".len());
        // Where nothing is known of it there is BOS.
        assert_eq!(prompter.n_opening(&said[..1], Request::render), 1);
        assert_eq!(prompter.n_opening(&said, |_| anyhow::bail!("no")), 1);
    }

    #[test]
    fn prompts_that_cannot_fit_are_not_tokenized() {
        let error = prompt("{{ messages[0].content * 1000 }}", &["a"]).err().unwrap().to_string();
        assert!(error.contains("1000 bytes do not fit into a context of 64 tokens"), "{error}");
    }

    #[test]
    fn messages_that_are_taken_apart_are_refused() {
        for source in
            ["{{ messages[0].content|list|join('.') }}", "{{ messages[0].content|tojson(ensure_ascii=true) }}"]
        {
            let error = prompt(&format!("{source}{{{{ messages[0].content }}}}"), &["<s>"]).err().unwrap().to_string();
            assert!(error.contains("takes apart"), "{error}");
        }
    }
}
