//! scripts/convert knows what the library reads: every architecture, and every way to cut text into words.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Names of the files in a folder with this ending, without it and without `other`.
fn stems(folder: &str, ending: &str, other: &str) -> BTreeSet<String> {
    let names =
        fs::read_dir(repository(folder)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| Some(name.strip_suffix(ending)?.to_owned())).filter(|name| name != other).collect()
}

/// Architectures whose checkpoints are not converted: those of gpt-oss hold blocks of MXFP4, and its GGUF files are its makers'.
const NOT_CONVERTED: [&str; 1] = ["gpt_oss"];

#[test]
fn every_architecture_has_a_family_that_converts_it() {
    let (read, converted) =
        (stems("src/model/arch", ".rs", "mod"), stems("scripts/convert/families", ".py", "__init__"));
    let missing: Vec<_> = read.difference(&converted).filter(|name| !NOT_CONVERTED.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "scripts/convert/families lacks {missing:?}");
    let list = fs::read_to_string(repository("scripts/convert/families/__init__.py")).unwrap();
    for name in &converted {
        assert_eq!(list.matches(&format!("{name},")).count(), 2, "families/__init__.py: {name} is imported and listed");
        let family = fs::read_to_string(repository(&format!("scripts/convert/families/{name}.py"))).unwrap();
        assert!(family.contains(&format!("arch=\"{name}\"")), "families/{name}.py is of another architecture");
    }
}

/// What is between quotation marks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

#[test]
fn the_converter_knows_every_name_of_a_pre_tokenizer() {
    let rust = fs::read_to_string(repository("src/tokenizer/pre.rs")).unwrap();
    let lists = rust.split("names: &[").skip(1).map(|rest| rest.split_once(']').unwrap().0);
    let read: BTreeSet<&str> = lists.flat_map(quoted).collect();
    assert!(read.contains("gpt-2") && read.len() > 50, "{read:?}");
    let python = fs::read_to_string(repository("scripts/convert/pre_tokenizers.py")).unwrap();
    let known = python.split_once("KNOWN = (").unwrap().1.split_once("\n)").unwrap().0;
    let known: BTreeSet<&str> = quoted(known).collect();
    let missing: Vec<_> = read.symmetric_difference(&known).collect();
    assert!(missing.is_empty(), "KNOWN in scripts/convert/pre_tokenizers.py is out of date: {missing:?}");
}
