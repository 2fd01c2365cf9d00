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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::Random;

    #[test]
    fn a_stream_never_shows_half_a_character() {
        let mut stream = TextStream::new();
        let shown: Vec<String> = "a🦙b".bytes().map(|byte| stream.push(&[byte])).collect();
        assert_eq!(shown, ["a", "", "", "", "🦙", "b"]);
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn a_stream_replaces_invalid_bytes_at_once_and_an_unfinished_character_at_the_end() {
        let mut stream = TextStream::new();
        assert_eq!(stream.push(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(stream.push(b"\xf0\x9f"), "");
        assert_eq!(stream.push(b"c"), "\u{fffd}c");
        assert_eq!(stream.push(b"\xe2\x96"), "");
        assert_eq!(stream.finish(), "\u{fffd}");
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn a_stream_in_any_pieces_equals_the_whole() {
        let mut random = Random(17);
        for _ in 0..500 {
            let mut bytes = random.text(12).into_bytes();
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len() as u64 + 1) as usize;
                bytes.insert(at, random.below(256) as u8);
            }
            let mut stream = TextStream::new();
            let mut joined = String::new();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(1 + random.below(rest.len() as u64) as usize);
                joined += &stream.push(piece);
                rest = after;
            }
            joined += &stream.finish();
            assert_eq!(joined, String::from_utf8_lossy(&bytes));
        }
    }
}
