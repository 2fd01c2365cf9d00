//! Turns a conversation into a prompt with the chat template of the model file.

mod calendar;
mod template;

pub use template::ChatTemplate;

/// One turn of the conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`; which of them and in which order is up to the template.
    pub role: String,
    /// Inserted as it is: special tokens spelled out in it become special tokens of the prompt.
    pub content: String,
}
