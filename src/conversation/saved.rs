//! Conversations in files: a list of messages in JSON, as other programs write them, which is hostile until it is checked.

use crate::chat::Message;
use crate::files::{open_regular, read_regular};
use crate::progress::Progress;
use crate::units::Bytes;
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use std::path::Path;

/// Of a conversation in a file.
const MOST_CONVERSATION: Bytes = Bytes(64 << 20);
/// Messages of one.
const MOST_MESSAGES: usize = 100_000;
/// Who may say something.
const ROLES: [&str; 3] = ["system", "user", "assistant"];

/// Writes `messages` to `path`, whole or not at all. Of files that are there only conversations are replaced.
///
/// # Errors
/// When the file is no conversation, or cannot be written.
pub fn save(messages: &[Message], path: &Path, progress: &dyn Progress) -> Result<()> {
    if path.exists() {
        open_regular(path).with_context(|| path.display().to_string())?;
        let is_conversation = read(path).is_ok();
        ensure!(is_conversation, "{}: exists and is no conversation; give another name", path.display());
    }
    crate::files::write_whole(path, to_json(messages)?.as_bytes(), progress)
}

/// What [`save`] writes.
///
/// # Errors
/// None that are known.
pub fn to_json(messages: &[Message]) -> Result<String> {
    Ok(serde_json::to_string_pretty(messages)? + "\n")
}

/// The conversation in the file at `path`: a list of objects with `role` and `content`, or an object whose `messages` are such a
/// list. What else the objects hold is not read.
///
/// # Errors
/// One line with the path and what is wrong, with the number of the message from 1: no such file, no JSON, a role that is not
/// `system`, `user` or `assistant`, a system message that is not the first.
pub fn load(path: &Path) -> Result<Vec<Message>> {
    read(path).with_context(|| path.display().to_string())
}

fn read(path: &Path) -> Result<Vec<Message>> {
    from_json(&read_regular(path, MOST_CONVERSATION)?)
}

/// The conversation that `text` is, as [`load`] reads it.
///
/// # Errors
/// What is wrong, with the number of the message from 1.
pub fn from_json(text: &str) -> Result<Vec<Message>> {
    let value: Value = serde_json::from_str(text).map_err(|error| anyhow!("is no JSON: {error}"))?;
    let list = match &value {
        Value::Object(object) => object.get("messages").context("is an object without \"messages\"")?,
        other => other,
    };
    let Value::Array(list) = list else { bail!("is no list of messages") };
    ensure!(list.len() <= MOST_MESSAGES, "has {} messages; at most {MOST_MESSAGES} are read", list.len());
    let numbered = list.iter().enumerate();
    numbered.map(|(i, value)| message(i, value).with_context(|| format!("message {}", i + 1))).collect()
}

fn message(i: usize, value: &Value) -> Result<Message> {
    let text = |key: &str| match value.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(anyhow!("\"{key}\" is no text")),
        None => Err(anyhow!("has no \"{key}\"")),
    };
    let (role, content) = (text("role")?, text("content")?);
    let short: String = role.chars().take(20).collect();
    ensure!(ROLES.contains(&role.as_str()), "role {short:?}: known are {}", ROLES.join(", "));
    ensure!(role != "system" || i == 0, "is the system's, which comes first or not at all");
    Ok(Message { role, content })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.to_owned(), content: content.to_owned() }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.json");
        let said =
            [message("system", "Be \"brief\"."), message("user", "a\n\u{1b}\u{e9}\u{1f999}"), message("assistant", "")];
        save(&said, &path, &Silent).unwrap();
        assert_eq!(load(&path).unwrap(), said);
        save(&said[..1], &path, &Silent).unwrap();
        assert_eq!(load(&path).unwrap(), said[..1], "a conversation is replaced");
        std::fs::write(&path, "precious").unwrap();
        let error = format!("{:#}", save(&said, &path, &Silent).unwrap_err());
        assert!(error.contains("talk.json: exists and is no conversation"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn what_other_programs_send_to_servers_is_read() {
        let text = r#"{"model": "x", "messages": [{"role": "user", "content": "hi", "name": "me"}]}"#;
        assert_eq!(from_json(text).unwrap(), [message("user", "hi")]);
        assert_eq!(from_json("[]").unwrap(), []);
    }

    #[test]
    fn what_is_no_conversation_is_refused_with_its_place() {
        let user = r#"{"role": "user", "content": "hi"}"#;
        let cases = [
            ("", "is no JSON"),
            ("[", "is no JSON"),
            ("3", "is no list of messages"),
            ("{}", "without \"messages\""),
            (r#"{"messages": {}}"#, "is no list of messages"),
            ("[3]", "message 1: has no \"role\""),
            (&format!("[{user}, {{\"role\": \"user\"}}]"), "message 2: has no \"content\""),
            (r#"[{"role": "user", "content": ["a"]}]"#, "message 1: \"content\" is no text"),
            (r#"[{"role": "tool", "content": "a"}]"#, "message 1: role \"tool\""),
            (r#"[{"role": "a\u001b[2J", "content": "a"}]"#, "message 1: role \"a\\u{1b}[2J\""),
            (&format!("[{user}, {{\"role\": \"system\", \"content\": \"a\"}}]"), "message 2: is the system's"),
            (&"[".repeat(100_000), "is no JSON"),
        ];
        for (text, wanted) in cases {
            let error = format!("{:#}", from_json(text).unwrap_err());
            assert!(error.contains(wanted), "{error} for {}", &text[..text.len().min(80)]);
        }
    }
}
