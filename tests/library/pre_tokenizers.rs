//! Every pre-tokenizer that models of known architectures name cuts hard texts as llama.cpp does.
//!
//! tests/golden/pre_tokenizers.json has a made-up vocabulary whose ids show where a text was cut, and llama.cpp's ids of each
//! text (scripts/make_pre_golden.py).

use crate::support::real::repository;
use anyhow::Result;
use powerinfer::tokenizer::{Special, Tokenizer, Vocab};
use serde::Deserialize;
use std::collections::HashSet;

#[derive(Deserialize)]
struct Golden {
    merges: Vec<String>,
    texts: Vec<String>,
    groups: Vec<Group>,
}

/// Pre-tokenizers that give these ids, one list for each text.
#[derive(Deserialize)]
struct Group {
    names: Vec<String>,
    ids: Vec<Vec<u32>>,
}

fn golden() -> Result<Golden> {
    Ok(serde_json::from_str(&std::fs::read_to_string(repository("tests/golden/pre_tokenizers.json"))?)?)
}

/// GPT-2's character for each byte, then what each merge gives.
fn vocab(golden: &Golden, pre: &str) -> Vocab {
    let printable = |byte: &u8| matches!(*byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = (0x100..).filter_map(char::from_u32);
    let mut letter =
        |byte: u8| if printable(&byte) { char::from(byte) } else { others.next().expect("enough of them") };
    let mut tokens: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| letter(byte).to_string().into_bytes()).collect();
    tokens.extend(golden.merges.iter().map(|merge| merge.replace(' ', "").into_bytes()));
    let token_types = vec![1; tokens.len()];
    let merges = golden.merges.iter().map(|merge| merge.clone().into_bytes()).collect();
    Vocab { model: "gpt2".into(), pre: Some(pre.into()), tokens, token_types, merges, ..Vocab::default() }
}

#[test]
fn hard_texts_are_cut_as_llama_cpp_cuts_them() -> Result<()> {
    let golden = golden()?;
    let mut n = 0;
    for Group { names, ids } in &golden.groups {
        assert_eq!(ids.len(), golden.texts.len());
        for name in names {
            let tokenizer = Tokenizer::new(vocab(&golden, name))?;
            for (text, ids) in golden.texts.iter().zip(ids) {
                assert_eq!(&tokenizer.encode(text, Special::AsText)?, ids, "{name}: {text:?}");
                assert_eq!(&tokenizer.decode(ids), text, "{name}");
                n += 1;
            }
        }
    }
    assert!(n > 1000, "{n} texts");
    Ok(())
}

/// The texts tell all of them apart that are not the same by what they cut.
#[test]
fn each_group_of_pre_tokenizers_gives_ids_of_its_own() -> Result<()> {
    let groups = golden()?.groups;
    let of = |name: &str| groups.iter().position(|group| group.names.iter().any(|n| n == name)).expect("its ids");
    let apart = ["default", "falcon", "gpt-2", "jais-2", "llama-bpe", "qwen2", "starcoder", "tekken"];
    assert_eq!(apart.map(of).into_iter().collect::<HashSet<_>>().len(), apart.len());
    Ok(())
}
