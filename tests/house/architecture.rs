//! Holds the map: imports run one way, unsafe code stays behind its fence, files keep to the style.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Files over 600 lines, with the reason why they are not divided.
const LONG_FILES: [(&str, &str); 0] = [];
const MAX_LINES: usize = 600;

/// All files in src: path from there, and contents.
fn files() -> BTreeMap<String, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut folders) = (BTreeMap::new(), vec![src.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/");
                found.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    assert!(found.contains_key("lib.rs"));
    found
}

/// The files of the library, without the tools and without `lib.rs`.
fn library() -> impl Iterator<Item = (String, String)> {
    files().into_iter().filter(|(name, _)| name != "lib.rs" && !name.starts_with("bin/"))
}

/// The code without line comments; where a string holds two slashes, the rest of its line goes too.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// The code up to the unit tests.
fn shipped(text: &str) -> String {
    code(text.split("#[cfg(test)]").next().unwrap_or(""))
}

/// Whether the file at `name` is a module that exists in tests only.
fn is_test_module(files: &BTreeMap<String, String>, name: &str) -> bool {
    let Some((folder, file)) = name.rsplit_once('/') else { return false };
    let declared = format!("#[cfg(test)]\nmod {};", file.trim_end_matches(".rs"));
    [format!("{folder}.rs"), format!("{folder}/mod.rs")]
        .iter()
        .any(|parent| files.get(parent).is_some_and(|text| text.contains(&declared)))
}

/// Modules in the order of `pub mod` lines.
fn order(lib: &str) -> Vec<&str> {
    lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What follows each occurrence of `word` that is not part of a longer word.
fn after<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let starts = text.match_indices(word).map(|(at, _)| at).filter(|at| !text[..*at].ends_with(is_word));
    let rests = starts.map(|at| &text[at + word.len()..]);
    rests.filter(|rest| !(word.ends_with(is_word) && rest.starts_with(is_word))).collect()
}

/// The modules that `crate::name` and `crate::{a::b, c::{d, e}}` name.
fn imported(code: &str) -> Vec<String> {
    let first_word = |text: &str| text.trim_start().chars().take_while(|c| is_word(*c)).collect::<String>();
    let mut names = Vec::new();
    for rest in after(code, "crate::") {
        let Some(group) = rest.trim_start().strip_prefix('{') else {
            names.push(first_word(rest));
            continue;
        };
        let mut depth = 0usize;
        names.push(first_word(group));
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => names.push(first_word(&group[at + 1..])),
                _ => {}
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Imports that do not run upwards in `order`, in the words of the test's message.
fn upward_imports(order: &[&str], module: &str, code: &str) -> Vec<String> {
    let place = |name: &str| order.iter().position(|m| *m == name);
    let own = place(module);
    let wrong = |name: &String| place(name).is_none() || place(name) > own;
    imported(code).into_iter().filter(wrong).collect()
}

#[test]
fn every_module_imports_only_from_those_above_it_in_lib_rs() {
    let files = files();
    let order = order(&files["lib.rs"]);
    assert!(order.len() > 10, "{order:?}");
    for (name, text) in library() {
        let module = name.split('/').next().unwrap().trim_end_matches(".rs");
        assert!(order.contains(&module), "{name}: {module} is not a `pub mod` of lib.rs");
        let wrong = upward_imports(&order, module, &code(&text));
        assert!(wrong.is_empty(), "{name}: imports {wrong:?}, which are not above {module} in lib.rs");
    }
}

#[test]
fn an_upward_import_is_seen_in_every_spelling() {
    let wrong = |code: &str| upward_imports(&["low", "mid", "high"], "mid", code);
    assert!(wrong("use crate::low::X; use crate::mid; let y = crate::low::f();").is_empty());
    assert_eq!(wrong("use crate::high::X;"), ["high"]);
    assert_eq!(wrong("crate::high::f()"), ["high"]);
    assert_eq!(wrong("use crate::{low::{A, b}, high};"), ["high"]);
    assert_eq!(wrong("use crate::{\n    high::{A},\n    low,\n};"), ["high"]);
    assert_eq!(wrong("use crate::unknown;"), ["unknown"]);
    assert!(wrong("use my_crate::high;").is_empty());
}

#[test]
fn the_tools_use_the_library_from_outside() {
    let files = files();
    for (name, text) in files.iter().filter(|(name, _)| name.starts_with("bin/")) {
        let text = code(text);
        let order = order(&files["lib.rs"]);
        assert!(!text.contains("#[path"), "{name}: takes in a file by its path");
        let own = imported(&text).into_iter().filter(|n| order.contains(&n.as_str()));
        assert_eq!(
            own.collect::<Vec<_>>(),
            Vec::<String>::new(),
            "{name}: reaches for the library as if it were its own"
        );
    }
}

#[test]
fn unsafe_code_stands_only_in_files_that_give_a_reason() {
    let cargo = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(cargo.contains("unsafe_code = \"deny\""), "Cargo.toml does not deny unsafe code");
    for (name, text) in files() {
        let fenced = text.contains("\n#![allow(unsafe_code, reason = \"");
        let uses = after(&code(&text), "unsafe").len();
        assert!(fenced || uses == 0, "{name}: unsafe code without `#![allow(unsafe_code, reason = ...)]`");
        assert!(!fenced || uses > 0, "{name}: the exception for unsafe code is not needed");
        let reasons = text.matches("// SAFETY:").count() + text.matches("/// # Safety").count();
        assert!(uses == 0 || reasons > 0, "{name}: unsafe code without `// SAFETY:`");
        assert_eq!(
            text.matches("allow(unsafe_code").count(),
            usize::from(fenced),
            "{name}: an exception beside the fence"
        );
    }
}

#[test]
fn every_file_begins_by_saying_what_it_is_for() {
    for (name, text) in files() {
        let first = text.lines().next().unwrap_or("");
        assert!(first.starts_with("//! ") && first.len() > 12, "{name}: begins with {first:?}");
    }
}

#[test]
fn files_are_short_or_say_why_not() {
    let files = files();
    for (name, text) in &files {
        let (n, listed) = (text.lines().count(), LONG_FILES.iter().any(|(long, _)| long == name));
        assert!(n <= MAX_LINES || listed, "{name}: {n} lines; divide it, or list it with a reason");
        assert!(n > MAX_LINES || !listed, "{name}: is listed as long and has {n} lines");
    }
    assert!(LONG_FILES.iter().all(|(name, reason)| files.contains_key(*name) && !reason.is_empty()));
}

#[test]
fn nothing_is_left_to_be_done_later() {
    for (name, text) in files() {
        for mark in ["TODO", "FIXME", "XXX"] {
            assert!(after(&text, mark).is_empty(), "{name}: {mark}");
        }
    }
}

#[test]
fn the_library_does_not_print_exit_read_the_environment_or_start_programs() {
    let forbidden = [
        "println!",
        "eprintln!",
        "print!",
        "eprint!",
        "dbg!",
        "std::process",
        "std::env",
        "process::exit",
        "env::var",
        "Command::new",
    ];
    let files = files();
    for (name, text) in library().filter(|(name, _)| !is_test_module(&files, name)) {
        let text = shipped(&text);
        for word in forbidden {
            assert!(after(&text, word).is_empty(), "{name}: {word}");
        }
    }
}
