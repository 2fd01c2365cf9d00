//! Holds the map: imports run one way, unsafe code stays behind its fence, files keep to the style.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Files over 600 lines, with the reason why they are not divided.
const LONG_FILES: [(&str, &str); 0] = [];
const MAX_LINES: usize = 600;

/// All files in src: path from there, and contents.
pub fn files() -> BTreeMap<String, String> {
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

/// Registries, each with its entries: it lists them, and they say what they are entries of (a type or a macro in it).
const REGISTRIES: [(&str, &[&str]); 5] = [
    ("model/arch", &["model/arch/"]),
    ("quant/decoded", &["quant/iq4", "quant/k_quants", "quant/legacy", "quant/mxfp4"]),
    ("cpu/ssm/kernels", &["cpu/ssm/fused", "cpu/ssm/plain"]),
    ("cpu/kernels", &["cpu/plain", "cpu/avx2", "cpu/avx512", "cpu/neon"]),
    ("cpu/gemm/sparse", &["cpu/gemm/sparse256", "cpu/gemm/sparse512"]),
];

/// The module of the file at `name`: `a/b/mod.rs` and `a/b.rs` are `a/b`.
fn module(name: &str) -> String {
    name.trim_end_matches(".rs").trim_end_matches("/mod").to_owned()
}

/// The modules of `all` that `code`, of the module `of`, imports by `crate::` or `super::` paths. Names that are no module
/// of their own are items of the module in which they stand.
fn imported_modules(all: &BTreeMap<String, String>, of: &str, is_folder: bool, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for statement in code.split(';').filter_map(|s| after(s, "use ").last().copied().map(str::to_owned)) {
        for path in paths(&statement) {
            let mut parts = path.split("::").map(str::trim).peekable();
            let mut at: Vec<&str> = of.split('/').collect();
            match parts.next() {
                Some("crate") => at.clear(),
                Some("super") => {
                    // `super` in `a/b/mod.rs` and in `a/b.rs` is `a`.
                    at.pop();
                    while parts.peek() == Some(&"super") {
                        parts.next();
                        at.pop();
                    }
                }
                Some(child) if is_folder && all.contains_key(&format!("{of}/{child}")) => at.push(child),
                _ => continue,
            }
            for part in parts {
                let deeper = [&at[..], &[part]].concat().join("/");
                if !all.contains_key(&deeper) {
                    break;
                }
                at.push(part);
            }
            found.push(at.join("/"));
        }
    }
    found
}

/// `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn paths(statement: &str) -> Vec<String> {
    let Some((head, rest)) = statement.split_once('{') else { return vec![statement.trim().to_owned()] };
    let inner = &rest[..rest.rfind('}').unwrap_or(rest.len())];
    let (mut out, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let one = inner[start..i].trim();
                if !one.is_empty() {
                    out.extend(paths(one).into_iter().map(|path| format!("{}{path}", head.trim_start())));
                }
                start = i + 1;
            }
            _ => {}
        }
    }
    out
}

/// A circle of imports between modules of `edges`, as its members in order.
fn circle(edges: &BTreeMap<String, Vec<String>>) -> Option<Vec<String>> {
    fn visit<'a>(
        at: &'a str,
        edges: &'a BTreeMap<String, Vec<String>>,
        path: &mut Vec<&'a str>,
        done: &mut Vec<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(begin) = path.iter().position(|p| *p == at) {
            return Some(path[begin..].iter().map(|p| (*p).to_owned()).collect());
        }
        if done.contains(&at) {
            return None;
        }
        path.push(at);
        for to in edges.get(at).into_iter().flatten() {
            if let Some(found) = visit(to, edges, path, done) {
                return Some(found);
            }
        }
        path.pop();
        done.push(at);
        None
    }
    let mut done = Vec::new();
    edges.keys().find_map(|from| visit(from, edges, &mut Vec::new(), &mut done))
}

/// Whether `module` is `entry`, or stands in it where `entry` ends with a slash.
fn is_of(module: &str, entry: &str) -> bool {
    module == entry || entry.ends_with('/') && module.starts_with(entry)
}

#[test]
fn no_modules_import_each_other_but_registries_and_their_entries() {
    let files = files();
    let shipped_files = || library().filter(|(name, _)| !is_test_module(&files, name));
    let all: BTreeMap<String, String> = shipped_files().map(|(name, text)| (module(&name), text)).collect();
    let mut edges: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, text) in shipped_files() {
        let from = module(&name);
        // A folder's root may name its children: what it has beside that belongs into a child, or is told by the test above.
        let is_root = name.ends_with("/mod.rs");
        let to = imported_modules(&all, &from, is_root, &shipped(&text));
        let own_children = |to: &String| is_root && to.starts_with(&format!("{from}/"));
        let of_registry = |to: &String| {
            let entries =
                |(registry, entries): &(&str, &[&str])| registry == to && entries.iter().any(|e| is_of(&from, e));
            REGISTRIES.iter().any(entries)
        };
        let to = to.into_iter().filter(|to| *to != from && !to.is_empty() && !own_children(to) && !of_registry(to));
        edges.insert(from.clone(), to.collect());
    }
    assert!(edges.values().map(Vec::len).sum::<usize>() > 300, "imports are not seen");
    let found = circle(&edges);
    assert_eq!(found, None, "these import each other in a circle");
}

#[test]
fn circles_are_seen_in_every_spelling() {
    let all = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), String::new())).collect::<BTreeMap<_, _>>();
    let all = all(&["a", "a/b", "a/c", "d"]);
    let of = |code: &str| imported_modules(&all, "a/b", false, code);
    assert_eq!(of("use super::c::{X, Y};"), ["a/c", "a/c"]);
    assert_eq!(of("use super::Z;\nuse crate::{a::c::X, d};"), ["a", "a/c", "d"]);
    assert_eq!(of("use super::super::d::{self, W};"), ["d", "d"]);
    assert_eq!(of("use std::fmt;\npub use crate::a::c::T as U;"), ["a/c"]);
    let edges = |pairs: &[(&str, &str)]| {
        let mut edges: BTreeMap<String, Vec<String>> = BTreeMap::new();
        pairs.iter().for_each(|(a, b)| edges.entry((*a).to_owned()).or_default().push((*b).to_owned()));
        edges
    };
    assert_eq!(circle(&edges(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    assert_eq!(circle(&edges(&[("a", "b"), ("b", "c"), ("c", "b")])).unwrap(), ["b", "c"]);
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

/// It renders templates in a process of their own, which a tool starts and is.
const STARTS_PROGRAMS: &str = "chat/contained.rs";

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
        let starts = name == STARTS_PROGRAMS;
        for word in forbidden.into_iter().filter(|word| !(starts && ["std::process", "Command::new"].contains(word))) {
            assert!(after(&text, word).is_empty(), "{name}: {word}");
        }
    }
}
