//! Text of files on terminals: names and the like may hold anything, escape sequences included.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a terminal may take `c` for a command, or a reader cannot see it: controls, marks that turn the direction of
/// writing, and separators of lines and paragraphs.
fn is_command(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` with what a terminal could take for commands escaped as in Rust (`\u{1b}`, `\n`): for names within a line.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// As [`printable`], but line breaks stay: for whole tables and messages.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n')
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(|c| is_command(c) && !stays(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_command(c) && !stays(c) {
            // A String never refuses.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Generated text for a terminal: without the controls of C0 and C1, but with line breaks and tabs.
pub fn without_controls(text: &str) -> Cow<'_, str> {
    let is_command = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(is_command) { Cow::Owned(text.replace(is_command, "")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_command_a_terminal() {
        assert_eq!(printable("a\x1b[31mb\r\n\x07\u{9b}\x7f"), "a\\u{1b}[31mb\\r\\n\\u{7}\\u{9b}\\u{7f}");
        assert_eq!(printable("\u{202e}gpj.exe"), "\\u{202e}gpj.exe");
        assert!(matches!(printable("\u{00fc}ber \u{4e2d}\u{6587} 🦙"), Cow::Borrowed(_)));
        assert_eq!(printable_lines("a\nb\x1b\n"), "a\nb\\u{1b}\n");
    }

    #[test]
    fn generated_text_keeps_its_lines_and_tabs() {
        assert_eq!(without_controls("a\tb\n\x1b[2J\x08\r\u{85}c"), "a\tb\n[2Jc");
        assert!(matches!(without_controls("a\n"), Cow::Borrowed(_)));
    }
}
