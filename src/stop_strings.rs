//! Strings that end a text: found also where they come in pieces.

/// Looks for stop strings in a text that comes piece by piece, and holds back what may be the beginning of one.
#[derive(Debug, Default)]
pub struct StopStrings<'a> {
    texts: &'a [String],
    /// The end of the text so far that one of them begins with.
    held: String,
}

/// What [`StopStrings::push`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Text that belongs to no stop string, whatever comes.
    pub text: String,
    /// The stop string that comes behind it, by its place in the list.
    pub stop: Option<usize>,
}

impl<'a> StopStrings<'a> {
    /// Looks for `texts`, of which those that are empty are found nowhere.
    pub fn new(texts: &'a [String]) -> Self {
        Self { texts, held: String::new() }
    }

    /// Goes on with `piece`. It does not matter where pieces end: the stop string that is complete first counts, of those that
    /// are complete at once the longest. Behind a stop string everything is dropped.
    pub fn push(&mut self, piece: &str) -> Pushed {
        self.held += piece;
        let found = self.texts.iter().enumerate().filter(|(_, text)| !text.is_empty());
        let found = found.filter_map(|(i, text)| self.held.find(text.as_str()).map(|at| (at + text.len(), at, i)));
        if let Some((_, at, i)) = found.min() {
            let mut text = std::mem::take(&mut self.held);
            text.truncate(at);
            return Pushed { text, stop: Some(i) };
        }
        let rest = self.held.split_off(self.held.len() - self.n_undecided());
        Pushed { text: std::mem::replace(&mut self.held, rest), stop: None }
    }

    /// Bytes at the end that a stop string begins with.
    fn n_undecided(&self) -> usize {
        let held = self.held.as_str();
        let of = |text: &String| {
            let longest = text.len().saturating_sub(1).min(held.len());
            (1..=longest).rev().find(|n| held.as_bytes().ends_with(&text.as_bytes()[..*n]))
        };
        self.texts.iter().filter_map(of).max().unwrap_or(0)
    }

    /// The text that was held back, where no more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    /// The text before the stop string, and which one it was, with pieces of so many characters.
    fn cut(text: &str, stops: &[&str], n: usize) -> (String, Option<usize>) {
        let stops = texts(stops);
        let (mut search, mut out) = (StopStrings::new(&stops), String::new());
        for piece in text.chars().collect::<Vec<_>>().chunks(n) {
            let pushed = search.push(&piece.iter().collect::<String>());
            out += &pushed.text;
            if pushed.stop.is_some() {
                return (out, pushed.stop);
            }
        }
        (out + &search.finish(), None)
    }

    #[test]
    fn they_are_found_wherever_pieces_end() {
        let cases: [(&str, &[&str], &str, Option<usize>); 12] = [
            ("hello User: hi", &["User:"], "hello ", Some(0)),
            ("Use Users User:", &["User:"], "Use Users ", Some(0)),
            ("aaab", &["aab"], "a", Some(0)),
            ("abcabcabd", &["abcabd"], "abc", Some(0)),
            ("abcd", &["abcd", "bc"], "a", Some(1)),
            ("xabc", &["bc", "abc"], "x", Some(1)),
            ("none of them", &["User:", "\n\n"], "none of them", None),
            ("at the end Us", &["User:"], "at the end Us", None),
            ("\u{e9}\u{e8}\u{ea}", &["\u{e8}\u{ea}"], "\u{e9}", Some(0)),
            ("\u{e9}\u{e8}", &["\u{e9}\u{ea}"], "\u{e9}\u{e8}", None),
            ("x", &["x"], "", Some(0)),
            ("abc", &["", "c"], "ab", Some(1)),
        ];
        for (text, stops, before, stop) in cases {
            for n in 1..=text.chars().count() {
                assert_eq!(cut(text, stops, n), (before.to_owned(), stop), "{text:?} by {n}, {stops:?}");
            }
        }
    }

    #[test]
    fn only_what_may_be_a_beginning_is_held_back() {
        let stops = texts(&["User:"]);
        let mut search = StopStrings::new(&stops);
        let mut push = |piece: &str| search.push(piece).text;
        assert_eq!(push("a U"), "a ");
        assert_eq!(push("se"), "");
        assert_eq!(push("d U"), "Used ");
        assert_eq!(push("x"), "Ux");
        assert_eq!(search.finish(), "");
    }

    #[test]
    fn without_stop_strings_nothing_is_held_back() {
        let mut search = StopStrings::new(&[]);
        assert_eq!(search.push("User:"), Pushed { text: "User:".to_owned(), stop: None });
    }
}
