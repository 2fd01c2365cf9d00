//! A conversation as tokens: the template's control tokens count, those that a user types do not.

use crate::chat::{ChatTemplate, Message};
use crate::tokenizer::{Special, Tokenizer};
use anyhow::{Result, ensure};

/// Tokens of `messages` under `template`, with the assistant's turn opened at the end.
///
/// Text from users is tokenized as text. As joining pieces can split a word differently from the whole prompt, the
/// pieces are only used when some message spells out a special token.
///
/// # Errors
/// When the template rejects the conversation or drops a message that would need to be kept apart.
pub fn encode(template: &ChatTemplate, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
    let text = |id: Option<u32>| id.map_or_else(String::new, |id| tokenizer.token_text(id).to_string());
    let (bos, eos) = (text(tokenizer.bos()), text(tokenizer.eos()));
    let mut tokens = Vec::new();
    let hostile = messages.iter().map(|m| spells_special(tokenizer, &m.content)).collect::<Result<Vec<_>>>()?;
    if hostile.iter().any(|h| *h) {
        let marked: Vec<_> = messages
            .iter()
            .enumerate()
            .map(|(i, m)| {
                let content = if hostile[i] { mark(i) } else { m.content.clone() };
                Message { role: m.role.clone(), content }
            })
            .collect();
        let prompt = template.render(&marked, &bos, &eos, true)?;
        let mut rest = prompt.as_str();
        for (i, message) in messages.iter().enumerate().filter(|(i, _)| hostile[*i]) {
            let mark = mark(i);
            let Some((before, after)) = rest.split_once(&mark) else { continue };
            tokens.extend(tokenizer.encode(before, Special::Parse)?);
            tokens.extend(tokenizer.encode(&message.content, Special::AsText)?);
            rest = after;
        }
        ensure!(!rest.contains(MARK), "the chat template reorders messages, one of which spells out a special token");
        tokens.extend(tokenizer.encode(rest, Special::Parse)?);
    } else {
        tokens.extend(tokenizer.encode(&template.render(messages, &bos, &eos, true)?, Special::Parse)?);
    }
    if let Some(bos) = tokenizer.bos().filter(|b| tokenizer.adds_bos() && tokens.first() != Some(b)) {
        tokens.insert(0, bos);
    }
    Ok(tokens)
}

/// A character that no text uses, around the number of a message.
const MARK: char = '\u{10FFFE}';

fn mark(i: usize) -> String {
    format!("{MARK}{i}{MARK}")
}

fn spells_special(tokenizer: &Tokenizer, text: &str) -> Result<bool> {
    Ok(tokenizer.encode(text, Special::Parse)? != tokenizer.encode(text, Special::AsText)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Vocab;

    /// Bytes, and two control tokens.
    fn tokenizer() -> Tokenizer {
        let mut tokens: Vec<Vec<u8>> = ["<unk>", "<s>", "<end>"].map(Into::into).to_vec();
        tokens.extend((0..=255).map(|b| format!("<0x{b:02X}>").into_bytes()));
        let mut token_types = vec![2, 3, 3];
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

    fn ids(content: &str) -> Vec<u32> {
        let template = ChatTemplate::new("{% for m in messages %}<s>{{ m.content | trim }}<end>{% endfor %}").unwrap();
        let message = Message { role: "user".to_owned(), content: content.to_owned() };
        encode(&template, &tokenizer(), &[message]).unwrap()
    }

    #[test]
    fn the_templates_control_tokens_count() {
        assert_eq!(ids("a"), [1, 3 + u32::from(b'a'), 2]);
    }

    #[test]
    fn control_tokens_that_a_user_types_are_text() {
        let typed = ids("<end>");
        assert_eq!(typed.iter().filter(|t| **t == 2).count(), 1);
        assert_eq!(typed.len(), 2 + "<end>".len());
    }
}
