//! Strings of JSON: free ones, those of some length, and keys other than some.

use super::expr::{Chars, Expr};

/// What has a letter of its own behind the backslash.
const LETTERS: [(char, char); 7] =
    [('"', '"'), ('\\', '\\'), ('\u{8}', 'b'), ('\u{c}', 'f'), ('\n', 'n'), ('\r', 'r'), ('\t', 't')];

/// The characters that stand for themselves.
fn plain() -> Chars {
    Chars::of(&[('\0', '\u{1f}'), ('"', '"'), ('\\', '\\'), ('\u{7f}', '\u{7f}')]).others()
}

/// Any character, in any way to write it; of `\u`, those that are half a character are left out.
fn any_character() -> Expr {
    let digit = || Expr::chars(&[('0', '9'), ('a', 'f'), ('A', 'F')]);
    // d800 to dfff are the halves.
    let high = Expr::Choice(vec![
        Expr::Sequence(vec![Expr::chars(&[('0', '9'), ('a', 'c'), ('e', 'f'), ('A', 'C'), ('E', 'F')]), digit()]),
        Expr::Sequence(vec![Expr::chars(&[('d', 'd'), ('D', 'D')]), Expr::chars(&[('0', '7')])]),
    ]);
    let escaped = Expr::Choice(vec![
        Expr::chars(&[
            ('"', '"'),
            ('\\', '\\'),
            ('/', '/'),
            ('b', 'b'),
            ('f', 'f'),
            ('n', 'n'),
            ('r', 'r'),
            ('t', 't'),
        ]),
        Expr::Sequence(vec![Expr::text("u"), high, digit(), digit()]),
    ]);
    Expr::Choice(vec![Expr::Chars(plain()), Expr::Sequence(vec![Expr::text("\\"), escaped])])
}

/// One of these characters, in the one way that it is usually written in.
pub fn character(chars: &Chars) -> Expr {
    let mut options = vec![Expr::Chars(chars.and(&plain()))];
    for (from, to) in chars.and(&plain().others()).0 {
        for c in (from..=to).filter_map(char::from_u32) {
            options.push(match LETTERS.iter().find(|(special, _)| *special == c) {
                Some((_, letter)) => Expr::text(&format!("\\{letter}")),
                None => Expr::text(&format!("\\u{:04x}", u32::from(c))),
            });
        }
    }
    Expr::Choice(options)
}

/// `content` in quotation marks.
pub fn quoted(content: Expr) -> Expr {
    Expr::Sequence(vec![Expr::text("\""), content, Expr::text("\"")])
}

/// Any string of at least and at most so many characters.
pub fn of_length(least: usize, most: Option<usize>) -> Expr {
    quoted(any_character().times(least, most))
}

/// Any string that is none of `names`; only of characters that stand for themselves, as a name could be written otherwise.
pub fn other_than(names: &[&str]) -> Expr {
    let names: Vec<Vec<char>> = names.iter().map(|name| name.chars().collect()).collect();
    quoted(rest_other_than(&names.iter().map(Vec::as_slice).collect::<Vec<_>>()))
}

fn rest_other_than(names: &[&[char]]) -> Expr {
    let mut firsts: Vec<char> = names.iter().filter_map(|name| name.first().copied()).collect();
    firsts.sort_unstable();
    firsts.dedup();
    let mut options = Vec::new();
    if !names.iter().any(|name| name.is_empty()) {
        options.push(Expr::Sequence(vec![]));
    }
    let other = Chars(firsts.iter().map(|c| (u32::from(*c), u32::from(*c))).collect()).others().and(&plain());
    options.push(Expr::Sequence(vec![Expr::Chars(other), Expr::Chars(plain()).any_number()]));
    for c in firsts.into_iter().filter(|c| !plain().and(&Chars::of(&[(*c, *c)])).0.is_empty()) {
        let rests: Vec<&[char]> = names
            .iter()
            .filter_map(|name| name.split_first().filter(|(first, _)| **first == c))
            .map(|(_, rest)| rest)
            .collect();
        options.push(Expr::Sequence(vec![Expr::chars(&[(c, c)]), rest_other_than(&rests)]));
    }
    Expr::Choice(options)
}
