//! Blocks of several lines between `"""`.

const MARK: &str = "\"\"\"";

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// A line, or a command with its block.
    Line(String),
    /// A block, which is said whatever it begins with.
    Block(String),
}

/// A block that is not complete.
#[derive(Debug)]
pub struct Open {
    /// What stands before it.
    command: String,
    text: String,
}

/// Takes a line apart that may begin a block: with `"""`, or a command with it behind it.
pub fn begun(line: &str) -> Result<Typed, Open> {
    let trimmed = line.trim_start();
    let found = match trimmed.strip_prefix(MARK) {
        Some(text) => Some(("", text)),
        None if trimmed.starts_with('/') && !trimmed.starts_with("//") => {
            let behind_name = |(head, _): &(&str, &str)| head.ends_with(' ') && !head.trim_end().contains(' ');
            trimmed.split_once(MARK).filter(behind_name)
        }
        None => None,
    };
    let Some((command, text)) = found else { return Ok(Typed::Line(line.to_owned())) };
    let open = Open { command: command.to_owned(), text: text.to_owned() };
    open.closed()
}

impl Open {
    /// Goes on with a line.
    pub fn with(mut self, line: &str) -> Result<Typed, Self> {
        self.text += "\n";
        self.text += line;
        self.closed()
    }

    /// It, if it is complete now.
    fn closed(self) -> Result<Typed, Self> {
        let Some(text) = self.text.trim_end().strip_suffix(MARK) else { return Err(self) };
        // The marks may stand on lines of their own.
        let text = text.strip_prefix('\n').unwrap_or(text);
        let text = text.strip_suffix('\n').unwrap_or(text);
        if self.command.is_empty() { Ok(Typed::Block(text.to_owned())) } else { Ok(Typed::Line(self.command + text)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(lines: &[&str]) -> Option<Typed> {
        let mut state = begun(lines[0]);
        for line in &lines[1..] {
            state = state.unwrap_err().with(line);
        }
        state.ok()
    }

    #[test]
    fn blocks_end_with_their_mark() {
        let block = |text: &str| Some(Typed::Block(text.to_owned()));
        assert_eq!(typed(&["\"\"\"", "a", " /b", "\"\"\""]), block("a\n /b"));
        assert_eq!(typed(&["\"\"\"a", "b\"\"\""]), block("a\nb"));
        assert_eq!(typed(&["\"\"\"a\"\"\" "]), block("a"));
        assert_eq!(typed(&["\"\"\"\na\nb\n\"\"\""]), block("a\nb"));
        assert_eq!(typed(&["\"\"\"", "", "\"\"\""]), block(""));
        assert_eq!(typed(&["\"\"\"", "a \"\"\" b"]), None);
        assert_eq!(typed(&["\"\"\""]), None);
    }

    #[test]
    fn commands_take_blocks_and_other_lines_hold_marks() {
        let line = |text: &str| Some(Typed::Line(text.to_owned()));
        assert_eq!(typed(&["/system \"\"\"", "a", "b", "\"\"\""]), line("/system a\nb"));
        for text in ["a \"\"\" b", "/what is \"\"\"", "// \"\"\"", "/read a\"\"\"", "", " x"] {
            assert_eq!(typed(&[text]), line(text));
        }
    }
}
