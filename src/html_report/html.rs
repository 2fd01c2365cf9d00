//! Pieces of a page. All text that is given is escaped: names in models may hold anything.

use crate::printable::printable;
use std::borrow::Cow;
use std::fmt::Write;

/// `text` as it may stand between tags and in attributes. What a terminal would take for commands is written out, too.
pub(super) fn text(text: &str) -> String {
    let mut out = String::new();
    for c in printable(text).chars() {
        match c {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

/// The same of several lines.
pub(super) fn lines(lines: &str) -> String {
    lines.lines().map(|line| text(line) + "\n").collect()
}

/// A table of `rows` under `titles`.
pub(super) fn table(titles: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut out = String::from("<div class=\"wide\"><table>\n<thead><tr>");
    // Writing to a string cannot fail.
    titles.iter().for_each(|title| _ = write!(out, "<th>{}</th>", text(title)));
    out += "</tr></thead>\n<tbody>\n";
    for row in rows {
        out += "<tr>";
        row.iter().for_each(|cell| _ = write!(out, "<td>{}</td>", text(cell)));
        out += "</tr>\n";
    }
    out + "</tbody></table></div>\n"
}

/// Figures that are seen first: what each is, and the figure.
pub(super) fn tiles(tiles: &[(&str, String)]) -> String {
    let one = |(what, figure): &(&str, String)| format!("<li><b>{}</b>{}</li>\n", text(figure), text(what));
    format!("<ul class=\"tiles\">\n{}</ul>\n", tiles.iter().map(one).collect::<String>())
}

/// A share in per cent, or that there is none.
pub(super) fn percent(share: Option<f64>, decimals: usize) -> String {
    share.map_or(Cow::Borrowed("-"), |share| Cow::Owned(format!("{:.decimals$} %", 100.0 * share))).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_given_becomes_a_tag() {
        let hostile = "<script>alert('x')</script>&\"\u{1b}[31m\u{202e}";
        for page in [
            text(hostile),
            lines(hostile),
            table(&[hostile], [vec![hostile.to_owned()]]),
            tiles(&[(hostile, hostile.to_owned())]),
        ] {
            assert!(!page.contains("<script") && !page.contains(['\u{1b}', '\u{202e}', '\'']), "{page}");
            assert!(page.contains("&lt;script&gt;") && page.contains("&amp;&quot;"), "{page}");
        }
        assert_eq!((percent(None, 1), percent(Some(0.123), 1)), ("-".to_owned(), "12.3 %".to_owned()));
    }
}
