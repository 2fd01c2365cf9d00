//! Escapes in prompts, as llama.cpp reads them.

/// `text` with `\n`, `\r`, `\t`, `\\`, `\"`, `\'` and `\x` with two digits replaced by what they stand for; other backslashes stay.
///
/// # Errors
/// When bytes of `\x` are no UTF-8.
pub fn unescaped(text: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        let (byte, used) = match (first, rest) {
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [quote @ (b'\\' | b'"' | b'\''), ..]) => (*quote, 2),
            (b'\\', [b'x', high, low, ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 4),
                _ => (b'\\', 1),
            },
            _ => (*first, 1),
        };
        out.push(byte);
        bytes = &bytes[used..];
    }
    String::from_utf8(out)
        .map_err(|_| "what \\x stands for in it is no UTF-8; --no-escape leaves it as it is".to_owned())
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
