//! System messages for templates that know none.

use crate::chat::Message;

/// `messages` with the system message, if they begin with one, at the head of the first message behind it, divided by an empty
/// line: for templates that take only what users and assistants say.
pub fn without_system(messages: &[Message]) -> Vec<Message> {
    let Some((system, said)) = messages.split_first().filter(|(first, _)| first.role == "system") else {
        return messages.to_vec();
    };
    let mut said = said.to_vec();
    if let Some(first) = said.first_mut() {
        first.content = format!("{}\n\n{}", system.content, first.content);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.to_owned(), content: content.to_owned() }
    }

    #[test]
    fn the_system_message_heads_the_first_of_the_others() {
        let said = [message("system", "Be brief."), message("user", "Hello"), message("assistant", "Hi")];
        let merged = [message("user", "Be brief.\n\nHello"), message("assistant", "Hi")];
        assert_eq!(without_system(&said), merged);
        assert_eq!(without_system(&merged), merged);
        assert_eq!(without_system(&said[..1]), []);
        assert_eq!(without_system(&[]), []);
    }
}
