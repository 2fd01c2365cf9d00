//! Token ids of a text, for people and for programs.

use crate::support::{Outcome, tool};

#[test]
fn ids_are_printed_as_numbers_or_as_an_object() {
    let printed = |more: &[&str]| {
        let mut run = tool("run");
        Outcome::from(run.args(["--tokenize", "-p", "Once upon a time"]).args(more).output().unwrap()).ok().stdout
    };
    let plain: Vec<u32> = printed(&[]).split_whitespace().map(|id| id.parse().unwrap()).collect();
    let object: serde_json::Value = serde_json::from_str(&printed(&["--json"])).unwrap();
    assert_eq!(object, serde_json::json!({ "tokens": plain }));
    let without: serde_json::Value = serde_json::from_str(&printed(&["--json", "--no-bos"])).unwrap();
    assert_eq!(without["tokens"].as_array().unwrap().len() + 1, plain.len());
}
