//! GBNF, the language of llama.cpp's grammars: `root ::= "a" [b-z]* (digit | ".")? # comment`.

use super::expr::{Chars, Expr, Rules, TokenName};
use anyhow::{Result, anyhow, bail, ensure};
use std::collections::HashMap;

/// Groups within groups at most.
const DEEPEST: usize = 200;
/// Repetitions that a number may ask for at most.
const MOST: usize = 10_000;

/// Reads a grammar; `source` is what messages call it. The text is what the rule "root" says.
///
/// # Errors
/// In one line that names the source, the line and what is wrong there.
pub fn read(text: &str, source: &str) -> Result<Rules> {
    let mut reader = Reader { text, at: 0, numbers: HashMap::new(), rules: Vec::new() };
    reader.rule("root");
    if let Err(error) = reader.read() {
        let line = 1 + text[..reader.at.min(text.len())].matches('\n').count();
        bail!("{source}: line {line}: {error}");
    }
    let mut rules = Rules { source: source.to_owned(), ..Rules::default() };
    for (name, expr) in reader.rules {
        let expr = expr.ok_or_else(|| match name.as_str() {
            "root" => anyhow!("{source}: no rule is called root, which the text begins with"),
            _ => anyhow!("{source}: no rule is called {name}"),
        })?;
        rules.add(name, expr);
    }
    Ok(rules)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    numbers: HashMap<String, usize>,
    /// `None` where a rule was named but not yet said.
    rules: Vec<(String, Option<Expr>)>,
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, wanted: &str) -> bool {
        let found = self.rest().starts_with(wanted);
        if found {
            self.at += wanted.len();
        }
        found
    }

    fn next(&mut self) -> Result<char> {
        let c = self.peek().ok_or_else(|| anyhow!("the grammar ends in the middle of something"))?;
        self.at += c.len_utf8();
        Ok(c)
    }

    /// Skips white space and comments; line breaks only if they mean nothing here.
    fn space(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                '#' => self.at += self.rest().find(['\n', '\r']).unwrap_or(self.rest().len()),
                ' ' | '\t' => self.at += 1,
                '\n' | '\r' if lines => self.at += 1,
                _ => return,
            }
        }
    }

    fn name(&mut self) -> Result<&'a str> {
        let length = self.rest().find(|c| !is_name(c)).unwrap_or(self.rest().len());
        ensure!(length > 0, "expected the name of a rule, found {}", self.found());
        let name = &self.rest()[..length];
        self.at += length;
        Ok(name)
    }

    fn found(&self) -> String {
        self.peek().map_or_else(|| "the end".to_owned(), |c| format!("\"{}\"", c.escape_debug()))
    }

    /// The number of a rule.
    fn rule(&mut self, name: &str) -> usize {
        let next = self.rules.len();
        let number = *self.numbers.entry(name.to_owned()).or_insert(next);
        if number == next {
            self.rules.push((name.to_owned(), None));
        }
        number
    }

    fn read(&mut self) -> Result<()> {
        self.space(true);
        while self.peek().is_some() {
            let name = self.name()?;
            self.space(false);
            ensure!(self.take("::="), "expected ::= after {name}, found {}", self.found());
            self.space(true);
            let expr = self.choice(0)?;
            ensure!(
                matches!(self.peek(), None | Some('\n' | '\r')),
                "expected the end of the rule, found {}",
                self.found()
            );
            let number = self.rule(name);
            self.rules[number].1 = Some(expr);
            self.space(true);
        }
        Ok(())
    }

    fn choice(&mut self, depth: usize) -> Result<Expr> {
        ensure!(depth <= DEEPEST, "more than {DEEPEST} groups within each other");
        let mut options = vec![self.sequence(depth)?];
        loop {
            let before = self.at;
            self.space(true);
            if !self.take("|") {
                self.at = before;
                break;
            }
            self.space(true);
            options.push(self.sequence(depth)?);
        }
        Ok(if options.len() == 1 { options.remove(0) } else { Expr::Choice(options) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Expr> {
        let mut parts: Vec<Expr> = Vec::new();
        loop {
            self.space(depth > 0);
            let Some(c) = self.peek() else { break };
            let part = match c {
                '"' => self.literal()?,
                '[' => self.class()?,
                '.' => {
                    self.at += 1;
                    Expr::Chars(Chars::any())
                }
                '<' | '!' => self.token()?,
                '(' => {
                    self.at += 1;
                    self.space(true);
                    let group = self.choice(depth + 1)?;
                    self.space(true);
                    ensure!(self.take(")"), "expected ), found {}", self.found());
                    group
                }
                '*' | '+' | '?' | '{' => {
                    let last = parts.pop().ok_or_else(|| anyhow!("expected something to repeat before {c}"))?;
                    let (least, most) = self.times(c)?;
                    last.times(least, most)
                }
                c if is_name(c) => {
                    let name = self.name()?;
                    Expr::Rule(self.rule(name))
                }
                _ => break,
            };
            parts.push(part);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Sequence(parts) })
    }

    fn times(&mut self, c: char) -> Result<(usize, Option<usize>)> {
        self.at += 1;
        Ok(match c {
            '*' => (0, None),
            '+' => (1, None),
            '?' => (0, Some(1)),
            _ => {
                let least = self.number()?;
                let most = if !self.take(",") {
                    Some(least)
                } else if self.peek() == Some('}') {
                    None
                } else {
                    Some(self.number()?)
                };
                ensure!(self.take("}"), "expected }}, found {}", self.found());
                ensure!(most.is_none_or(|most| most >= least), "{{m,n}} with n less than m");
                (least, most)
            }
        })
    }

    fn number(&mut self) -> Result<usize> {
        self.space(true);
        let digits = self.rest().find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest().len());
        ensure!(digits > 0, "expected a number, found {}", self.found());
        let number = self.rest()[..digits].parse().unwrap_or(usize::MAX);
        ensure!(number <= MOST, "more than {MOST} repetitions");
        self.at += digits;
        self.space(true);
        Ok(number)
    }

    fn literal(&mut self) -> Result<Expr> {
        self.at += 1;
        let mut text = Vec::new();
        while !self.take("\"") {
            let c = self.character()?;
            text.push(Expr::Chars(Chars(vec![(c, c)])));
        }
        Ok(Expr::Sequence(text))
    }

    fn class(&mut self) -> Result<Expr> {
        self.at += 1;
        let negated = self.take("^");
        let mut ranges = Vec::new();
        while !self.take("]") {
            let from = self.character()?;
            let is_range = self.rest().starts_with('-') && !self.rest().starts_with("-]");
            let to = if is_range {
                self.at += 1;
                self.character()?
            } else {
                from
            };
            ensure!(from <= to, "a range of characters that ends before it begins");
            ranges.push((from, to));
        }
        let chars = Chars(ranges);
        Ok(Expr::Chars(if negated { chars.others() } else { chars }))
    }

    fn character(&mut self) -> Result<u32> {
        let c = self.next()?;
        if c != '\\' {
            return Ok(u32::from(c));
        }
        Ok(match self.next()? {
            'x' => self.hex(2)?,
            'u' => self.hex(4)?,
            'U' => self.hex(8)?,
            't' => u32::from('\t'),
            'r' => u32::from('\r'),
            'n' => u32::from('\n'),
            c @ ('\\' | '"' | '[' | ']' | '-' | '^') => u32::from(c),
            c => bail!("unknown escape \\{}", c.escape_debug()),
        })
    }

    fn hex(&mut self, digits: usize) -> Result<u32> {
        let text = self.rest().get(..digits).filter(|text| text.chars().all(|c| c.is_ascii_hexdigit()));
        let text = text.ok_or_else(|| anyhow!("expected {digits} hexadecimal digits"))?;
        self.at += digits;
        let code = u32::from_str_radix(text, 16)?;
        ensure!(char::from_u32(code).is_some(), "{text} is no character");
        Ok(code)
    }

    /// `<[1000]>`, `<think>`, and any other token with `!` before it.
    fn token(&mut self) -> Result<Expr> {
        let other = self.take("!");
        ensure!(self.peek() == Some('<'), "expected a token such as <[1000]> or <think>, found {}", self.found());
        let end = self.rest().find('>').ok_or_else(|| anyhow!("expected > after the name of a token"))?;
        let name = &self.rest()[..=end];
        self.at += name.len();
        let name = match name.strip_prefix("<[").and_then(|name| name.strip_suffix("]>")) {
            Some(id) => TokenName::Id(id.parse().map_err(|_| anyhow!("{name} is no token id"))?),
            None => TokenName::Text(name.to_owned()),
        };
        Ok(Expr::Token(name, other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_line() {
        for (text, message) in [
            ("root ::= \"a\n", "g: line 2: the grammar ends"),
            ("root ::= [a", "the grammar ends"),
            ("\n\nroot = \"a\"", "line 3: expected ::= after root, found \"=\""),
            ("root ::= (\"a\"", "expected ), found the end"),
            ("root ::= \"a\")", "expected the end of the rule, found \")\""),
            ("root ::= *", "expected something to repeat before *"),
            ("root ::= \"a\"{3,2}", "{m,n} with n less than m"),
            ("root ::= \"a\"{x}", "expected a number, found \"x\""),
            ("root ::= \"a\"{99999999999999999999}", "more than 10000 repetitions"),
            ("root ::= \"\\q\"", "unknown escape \\q"),
            ("root ::= \"\\x4\"", "expected 2 hexadecimal digits"),
            ("root ::= \"\\ud800\"", "d800 is no character"),
            ("root ::= [z-a]", "ends before it begins"),
            ("root ::= a", "g: no rule is called a"),
            ("a ::= \"x\"", "g: no rule is called root"),
            ("", "no rule is called root"),
            ("root ::= <[x]>", "<[x]> is no token id"),
            ("root ::= <think", "expected >"),
            ("::= \"a\"", "expected the name of a rule"),
        ] {
            let error = read(text, "g").unwrap_err().to_string();
            assert!(error.starts_with("g: ") && error.contains(message), "{text}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let deep = format!("root ::= {}\"a\"{}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(read(&deep, "g").unwrap_err().to_string().contains("more than 200 groups"));
    }
}
