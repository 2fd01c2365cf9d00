//! Holds docs/a-token.md against the code that it copies.

use super::architecture::files;
use std::fs;
use std::path::Path;

/// The indented blocks of a page, without those that are commands.
fn excerpts(page: &str) -> Vec<Vec<&str>> {
    let mut blocks: Vec<Vec<&str>> = vec![Vec::new()];
    for line in page.lines() {
        match line.strip_prefix("    ") {
            Some(code) => blocks.last_mut().unwrap().push(code.trim()),
            None => blocks.push(Vec::new()),
        }
    }
    blocks.retain(|block| block.first().is_some_and(|line| !line.starts_with("powerinfer-")));
    blocks
}

fn holds(text: &str, excerpt: &[&str]) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.windows(excerpt.len()).any(|window| window == excerpt)
}

#[test]
fn a_token_shows_code_that_is_there() {
    let files = files();
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/a-token.md")).unwrap();
    let excerpts = excerpts(&page);
    assert!(excerpts.len() > 12, "{} excerpts", excerpts.len());
    for excerpt in excerpts {
        assert!(files.values().any(|text| holds(text, &excerpt)), "no file has\n{}", excerpt.join("\n"));
    }
}

#[test]
fn an_excerpt_is_lines_in_a_row() {
    assert_eq!(excerpts("a\n\n    x\n      y\n\n    powerinfer-run\nb\n    z"), [vec!["x", "y"], vec!["z"]]);
    assert!(holds("a\n  x\n    y\nb", &["x", "y"]));
    assert!(!holds("x\nb\ny", &["x", "y"]));
}
