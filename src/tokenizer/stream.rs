//! Text from bytes that arrive in pieces.

/// Turns the bytes of successive tokens into text without ever giving out half a character.
///
/// All that `push` and `finish` return, joined, is what `String::from_utf8_lossy` makes of all the bytes at once.
#[derive(Debug, Default)]
pub struct TextStream {
    /// The beginning of a character; at most three bytes between calls.
    pending: Vec<u8>,
}

impl TextStream {
    /// Nothing pending.
    pub fn new() -> TextStream {
        TextStream::default()
    }

    /// What is complete now. The beginning of a character is kept for later; bytes that cannot become one turn into
    /// U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(len) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[len..];
                }
            }
        }
        let kept = self.pending.len() - rest.len();
        self.pending.drain(..kept);
        text
    }

    /// What is left at the end: nothing, or one U+FFFD for a character that never became whole.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}
