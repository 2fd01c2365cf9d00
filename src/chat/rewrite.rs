//! Rewrites a template from Jinja2, as transformers sets it up, into what minijinja reads in the same way.
//!
//! Four things differ: newlines are one kind in Jinja2, `{% generation %}` is a tag of transformers, `%` also formats
//! strings there, and operands may have a plus sign. Lines stay where they are, so that errors name the right ones.

use super::errors::Unusable;
use anyhow::{Result, ensure};

/// The function that stands for the operator `%`.
pub(super) const MODULO: &str = "__modulo__";
/// Brackets within brackets; minijinja's own limit is lower.
const MAX_DEPTH: usize = 200;
/// Words that are no operands.
const OPERATORS: [&str; 7] = ["and", "or", "not", "in", "is", "if", "else"];

/// `source` as minijinja is to see it. What is no template is left as it is: minijinja then says what is wrong.
///
/// # Errors
/// When brackets nest too deeply.
pub(super) fn rewritten(source: &str) -> Result<String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(begin) = next_tag(rest) {
        let (text, tag) = rest.split_at(begin);
        out += text;
        let len = match &tag[..2] {
            "{#" => tag.find("#}").map(|end| end + 2),
            "{%" => raw_block(tag),
            _ => None,
        };
        if let Some(len) = len {
            out += &tag[..len];
            rest = &tag[len..];
            continue;
        }
        let Some(tokens) = tokens(tag) else {
            out += tag;
            return Ok(out);
        };
        let end = tokens.last().map_or(tag.len(), |t| t.end);
        let rewriter = Rewriter { source: tag, tokens: &tokens, at: 0, out: &mut out, copied: 0, depth: 0 };
        rewriter.tag()?;
        rest = &tag[end..];
    }
    out += rest;
    Ok(out)
}

fn next_tag(text: &str) -> Option<usize> {
    let is_tag = |(at, _): &(usize, &str)| matches!(text.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
    text.match_indices('{').find(is_tag).map(|(at, _)| at)
}

/// The length of a tag that consists of `name` alone, with its marks for whitespace.
fn plain_tag(tag: &str, name: &str) -> Option<usize> {
    let inner = tag.strip_prefix("{%")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start().strip_prefix(name)?.trim_start();
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).strip_prefix("%}")?;
    Some(tag.len() - inner.len())
}

/// The length of a raw block with its tags; to the end where it is not closed.
fn raw_block(tag: &str) -> Option<usize> {
    let begin = plain_tag(tag, "raw")?;
    let ends = tag[begin..].match_indices("{%").map(|(at, _)| begin + at);
    let end = ends.filter_map(|at| Some(at + plain_tag(&tag[at..], "endraw")?)).next();
    Some(end.unwrap_or(tag.len()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Number,
    Text,
    Sign,
}

#[derive(Clone, Copy)]
struct Token {
    kind: Kind,
    begin: usize,
    end: usize,
}

/// The tokens of the tag at the beginning of `source`, with those that open and close it; `None` where it is not closed.
fn tokens(source: &str) -> Option<Vec<Token>> {
    let close = if source.starts_with("{{") { "}}" } else { "%}" };
    let mut at = 2 + usize::from(source[2..].starts_with(['-', '+']));
    let mut tokens = vec![Token { kind: Kind::Sign, begin: 0, end: at }];
    let mut open = 0usize;
    loop {
        let rest = &source[at..];
        let c = rest.chars().next()?;
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let marked = rest.strip_prefix(['-', '+']).is_some_and(|r| r.starts_with(close));
        if open == 0 && (marked || rest.starts_with(close)) {
            tokens.push(Token { kind: Kind::Sign, begin: at, end: at + usize::from(marked) + 2 });
            return Some(tokens);
        }
        let is_word = |c: char| c == '_' || c.is_alphanumeric();
        let (kind, len) = match c {
            '"' | '\'' => (Kind::Text, text_length(rest)?),
            '0'..='9' => (Kind::Number, number_length(rest, source[..at].ends_with('.'))),
            c if is_word(c) => (Kind::Name, rest.find(|c| !is_word(c)).unwrap_or(rest.len())),
            _ => {
                match c {
                    '(' | '[' | '{' => open += 1,
                    ')' | ']' | '}' => open = open.saturating_sub(1),
                    _ => {}
                }
                let double = ["**", "//", "==", "!=", ">=", "<="].iter().any(|s| rest.starts_with(s));
                (Kind::Sign, if double { 2 } else { c.len_utf8() })
            }
        };
        tokens.push(Token { kind, begin: at, end: at + len });
        at += len;
    }
}

fn text_length(text: &str) -> Option<usize> {
    let quote = text.as_bytes()[0];
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|b| {
        let ends = !escaped && b == quote;
        escaped = !escaped && b == b'\\';
        ends
    });
    end.map(|n| n + 2)
}

/// With fraction and exponent, except for an index as in `x.1.0`.
fn number_length(text: &str, is_index: bool) -> usize {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let continues = |(at, b): (usize, &u8)| match b {
        b'.' => !is_index && digit(at + 1),
        b'+' | b'-' => !is_index && matches!(bytes[at - 1], b'e' | b'E') && digit(at + 1),
        b => b.is_ascii_alphanumeric() || *b == b'_',
    };
    bytes.iter().enumerate().skip(1).find(|(at, b)| !continues((*at, b))).map_or(text.len(), |(at, _)| at)
}

/// Copies a tag, token by token. It knows of expressions only where operands begin and end, which is enough to find
/// those of `%`.
struct Rewriter<'a> {
    source: &'a str,
    tokens: &'a [Token],
    at: usize,
    out: &'a mut String,
    /// How far `source` has been copied.
    copied: usize,
    depth: usize,
}

impl Rewriter<'_> {
    fn tag(mut self) -> Result<()> {
        self.copy();
        if self.source.starts_with("{%") {
            let alone = self.tokens.len() == 3;
            match self.text() {
                "generation" if alone => self.replace("with"),
                "endgeneration" if alone => self.replace("endwith"),
                _ => self.copy(),
            }
        }
        self.expressions(1)?;
        while self.at < self.tokens.len() {
            self.copy();
        }
        Ok(())
    }

    /// What the next token is, empty at the end.
    fn text(&self) -> &str {
        self.tokens.get(self.at).map_or("", |t| &self.source[t.begin..t.end])
    }

    fn kind(&self) -> Option<Kind> {
        self.tokens.get(self.at).map(|t| t.kind)
    }

    fn gap(&mut self) {
        let Some(token) = self.tokens.get(self.at) else { return };
        *self.out += &self.source[self.copied..token.begin];
        self.copied = token.begin;
    }

    fn copy(&mut self) {
        let Some(token) = self.tokens.get(self.at) else { return };
        *self.out += &self.source[self.copied..token.end];
        self.copied = token.end;
        self.at += 1;
    }

    fn replace(&mut self, with: &str) {
        self.gap();
        let Some(token) = self.tokens.get(self.at) else { return };
        *self.out += with;
        self.copied = token.end;
        self.at += 1;
    }

    fn is_sign(&self, signs: &[&str]) -> bool {
        self.kind() == Some(Kind::Sign) && signs.contains(&self.text())
    }

    fn begins_operand(&self) -> bool {
        match self.kind() {
            Some(Kind::Name) => !OPERATORS.contains(&self.text()),
            Some(Kind::Sign) => self.is_sign(&["(", "[", "{", "-", "+"]),
            kind => kind.is_some(),
        }
    }

    /// Everything up to the closing bracket, or up to the last `n_last` tokens.
    fn expressions(&mut self, n_last: usize) -> Result<()> {
        self.depth += 1;
        ensure!(self.depth <= MAX_DEPTH, Unusable::because("nests too deeply"));
        while self.at + n_last < self.tokens.len() && !self.is_sign(&[")", "]", "}"]) {
            if self.begins_operand() {
                self.product()?;
                if self.is_sign(&["-", "+"]) {
                    self.copy();
                }
            } else {
                self.copy();
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn product(&mut self) -> Result<()> {
        self.gap();
        let begin = self.out.len();
        self.power()?;
        loop {
            if self.is_sign(&["*", "/", "//"]) {
                self.copy();
                self.power()?;
            } else if self.is_sign(&["%"]) {
                self.out.insert_str(begin, &format!("{MODULO}("));
                self.replace(",");
                self.power()?;
                self.out.push(')');
            } else {
                return Ok(());
            }
        }
    }

    fn power(&mut self) -> Result<()> {
        self.operand()?;
        while self.is_sign(&["**"]) {
            self.copy();
            self.operand()?;
        }
        Ok(())
    }

    fn operand(&mut self) -> Result<()> {
        while self.is_sign(&["-", "+"]) {
            if self.text() == "+" { self.replace("") } else { self.copy() }
        }
        self.primary()?;
        loop {
            if self.is_sign(&["|"]) {
                self.copy();
                self.dotted();
            } else if self.kind() == Some(Kind::Name) && self.text() == "is" {
                self.copy();
                if self.text() == "not" {
                    self.copy();
                }
                self.dotted();
                if self.begins_operand() && !self.is_sign(&["(", "-", "+"]) {
                    self.primary()?;
                }
            } else {
                return Ok(());
            }
            if self.is_sign(&["("]) {
                self.group()?;
            }
        }
    }

    /// The name of a filter or a test.
    fn dotted(&mut self) {
        self.copy();
        while self.is_sign(&["."]) {
            self.copy();
            self.copy();
        }
    }

    /// An operand without signs, with what is taken from it and called.
    fn primary(&mut self) -> Result<()> {
        if self.is_sign(&["(", "[", "{"]) {
            self.group()?;
        } else {
            let is_text = self.kind() == Some(Kind::Text);
            if self.begins_operand() {
                self.copy();
            }
            while is_text && self.kind() == Some(Kind::Text) {
                self.copy();
            }
        }
        loop {
            if self.is_sign(&["."]) {
                self.copy();
                self.copy();
            } else if self.is_sign(&["[", "("]) {
                self.group()?;
            } else {
                return Ok(());
            }
        }
    }

    fn group(&mut self) -> Result<()> {
        self.copy();
        self.expressions(1)?;
        if self.is_sign(&[")", "]", "}"]) {
            self.copy();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(source: &str) {
        assert_eq!(rewritten(source).unwrap(), source);
    }

    fn becomes(source: &str, expected: &str) {
        let expected = expected.replace("mod(", &format!("{MODULO}("));
        assert_eq!(rewritten(source).unwrap(), expected, "{source}");
    }

    #[test]
    fn what_is_the_same_in_both_stays() {
        same("a {{ x.y[0]|trim ~ 'a' 'b' }} {%- if not x is none and -1 - -2 < 3 -%}\n{% endif %}{# 5 % 3 #}");
        same("{{ {'a': {'b': '}}'}}.a }} {% raw %}{% generation %}{{ 1 % 2 }}{% endraw %}");
        same("{{ '{% generation %}' }} {# {% generation %} #} {{ 'open");
        same("{% for x in y if x is divisibleby 3 recursive %}{{ loop(x.1.0) ** 2 }}{% endfor %} {");
    }

    #[test]
    fn newlines_are_one_kind() {
        becomes("a\r\nb\rc\n", "a\nb\nc\n");
    }

    #[test]
    fn generation_is_a_scope_of_its_own() {
        becomes("{%- generation +%}a{%endgeneration-%}", "{%- with +%}a{%endwith-%}");
        same("{% set generation = 1 %}{% if generation %}{% endif %}");
    }

    #[test]
    fn percent_takes_the_operands_that_it_takes_in_jinja() {
        becomes("{{ '%s' % x }}", "{{ mod('%s' , x) }}");
        becomes("{{ a + b * c % d.e(f)[0]|g(h) ~ i }}", "{{ a + mod(b * c , d.e(f)[0]|g(h)) ~ i }}");
        becomes("{{ a % b % c }}", "{{ mod(mod(a , b) , c) }}");
        becomes("{{ -a % -b - c % +d }}", "{{ mod(-a , -b) - mod(c , d) }}");
        becomes("{% if loop.index0 % 2 == 0 %}", "{% if mod(loop.index0 , 2) == 0 %}");
        becomes("{{ f(a % b, [c % d], k=(e % (f, g))) }}", "{{ f(mod(a , b), [mod(c , d)], k=(mod(e , (f, g)))) }}");
        becomes("{{ not a % 2 is none or b % c }}", "{{ not mod(a , 2 is none) or mod(b , c) }}");
        becomes(
            "{{ a % 1.5e-3 }}{{ b if c % d else e % f }}",
            "{{ mod(a , 1.5e-3) }}{{ b if mod(c , d) else mod(e , f) }}",
        );
        becomes("{% set x = 'a' 'b%s' % y %}", "{% set x = mod('a' 'b%s' , y) %}");
    }

    #[test]
    fn brackets_within_brackets_have_a_limit() {
        assert!(rewritten(&format!("{{{{ {}1 }}}}", "(".repeat(100_000))).is_ok(), "it is not closed");
        let nested = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(rewritten(&nested).unwrap_err().to_string().contains("nests too deeply"));
    }
}
