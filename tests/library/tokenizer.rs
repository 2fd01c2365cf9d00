//! Real vocabularies give the ids that llama.cpp gives, and SentencePiece joins as a naive version of it does.

use crate::support::Random;
use anyhow::{Context, Result, ensure};
use powerinfer::gguf::Gguf;
use powerinfer::tokenizer::{Special, TextStream, Tokenizer, Vocab, read_vocab};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

#[test]
fn llama_spm_agrees_with_llama_cpp() -> Result<()> {
    agrees("llama-spm")
}

#[test]
fn gpt_2_agrees_with_llama_cpp() -> Result<()> {
    agrees("gpt-2")
}

#[test]
fn falcon_agrees_with_llama_cpp() -> Result<()> {
    agrees("falcon")
}

#[test]
fn llama_spm_joins_corpus_like_text_as_the_naive_version_does() -> Result<()> {
    let Some(path) = vocabulary("llama-spm") else {
        return Ok(());
    };
    let vocab = read_vocab(&Gguf::open(&path)?)?;
    let texts = std::fs::read_to_string(path.with_extension("gguf.inp"))?;
    let chars: Vec<char> = texts.chars().collect();
    let words: Vec<String> =
        vocab.tokens[300..].iter().map(|token| String::from_utf8_lossy(token).replace('\u{2581}', " ")).collect();
    let mut random = Random::new(7);
    same_as_naive(&vocab, 4000, || match random.below(3) {
        0 => (0..random.below(60)).map(|_| chars[random.below(chars.len())]).collect(),
        1 => chars[random.below(chars.len())].to_string().repeat(random.below(40)),
        _ => (0..random.below(12)).map(|_| words[random.below(words.len())].as_str()).collect(),
    })
}

#[test]
fn a_made_up_spm_vocabulary_joins_as_the_naive_version_does() -> Result<()> {
    let mut random = Random::new(3);
    let mut tokens: Vec<Vec<u8>> = ["<unk>", "<s>", "</s>"].map(Into::into).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>").into_bytes()));
    let letters = ["\u{2581}", "a", "b", "c", "d", "e", "é", "日"];
    tokens.extend(letters.map(Into::into));
    while tokens.len() < 700 {
        let token: String = (0..2 + random.below(5)).map(|_| letters[random.below(letters.len())]).collect();
        if !tokens.contains(&token.clone().into_bytes()) {
            tokens.push(token.into_bytes());
        }
    }
    let scores: Vec<f32> = (0..tokens.len()).map(|id| -(((id * 7919) % 100_003) as f32)).collect();
    let token_types =
        (0..tokens.len()).map(|id| [2, 3, 3].get(id).copied().unwrap_or(if id < 259 { 6 } else { 1 })).collect();
    let vocab = Vocab { model: "llama".into(), tokens, scores, token_types, ..Vocab::default() };
    let chars: Vec<char> = "  aabbccddeeéé日日xß🦙".chars().collect();
    same_as_naive(&vocab, 4000, || (0..random.below(40)).map(|_| chars[random.below(chars.len())]).collect())
}

fn agrees(name: &str) -> Result<()> {
    let Some(path) = vocabulary(name) else { return Ok(()) };
    let tokenizer = Tokenizer::new(read_vocab(&Gguf::open(&path)?)?)?;
    let texts = std::fs::read_to_string(path.with_extension("gguf.inp"))?;
    let ids = std::fs::read_to_string(path.with_extension("gguf.out"))?;
    let mut texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    ensure!(texts.pop() == Some(""), "{name}: no mark after the last text");
    ensure!(ids.lines().count() == texts.len(), "{name}: {} texts, {} lines of ids", texts.len(), ids.lines().count());
    for (text, line) in texts.into_iter().zip(ids.lines()) {
        let expected = line.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        for special in [Special::AsText, Special::Parse] {
            assert_eq!(tokenizer.encode(text, special)?, expected, "{name}: {text:?}");
        }
        assert_eq!(tokenizer.decode(&expected), text, "{name}");
        let mut stream = TextStream::new();
        let mut streamed: String = expected.iter().map(|&id| stream.push(tokenizer.token_bytes(id))).collect();
        streamed.push_str(&stream.finish());
        assert!(
            streamed.ends_with(text) && streamed.len() <= text.len() + 1,
            "{name}: {text:?} streamed as {streamed:?}"
        );
    }
    Ok(())
}

fn vocabulary(name: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("POWERINFER_VOCABS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/vocab"),
    };
    let path = folder.join(format!("ggml-vocab-{name}.gguf"));
    if path.exists() {
        return Some(path);
    }
    // Not `eprintln!`, which the test runner keeps to itself when a test passes.
    let _ = writeln!(
        std::io::stderr(),
        "skipped: no {}; POWERINFER_VOCABS may name the folder that has it",
        path.display()
    );
    None
}

fn same_as_naive(vocab: &Vocab, n: usize, mut text: impl FnMut() -> String) -> Result<()> {
    let tokenizer = Tokenizer::new(vocab.clone())?;
    let ids: HashMap<&[u8], u32> = (0..).zip(&vocab.tokens).map(|(id, token)| (token.as_slice(), id)).collect();
    for _ in 0..n {
        let text = text();
        assert_eq!(tokenizer.encode(&text, Special::AsText)?, naive(vocab, &ids, &text)?, "{text:?}");
    }
    Ok(())
}

/// Joins, again and again, the leftmost of the neighbours whose concatenation is the token with the highest score.
fn naive(vocab: &Vocab, ids: &HashMap<&[u8], u32>, text: &str) -> Result<Vec<u32>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let text = format!("\u{2581}{}", text.replace(' ', "\u{2581}"));
    let mut parts: Vec<String> = text.chars().map(String::from).collect();
    loop {
        let mut best: Option<(f32, usize)> = None;
        for i in 1..parts.len() {
            let joined = [parts[i - 1].as_bytes(), parts[i].as_bytes()].concat();
            if let Some(&id) = ids.get(joined.as_slice()) {
                let score = vocab.scores[id as usize];
                if best.is_none_or(|(top, _)| score > top) {
                    best = Some((score, i));
                }
            }
        }
        let Some((_, i)) = best else { break };
        let right = parts.remove(i);
        parts[i - 1].push_str(&right);
    }
    let mut out = Vec::new();
    for part in parts {
        match ids.get(part.as_bytes()) {
            Some(&id) => out.push(id),
            None => {
                for byte in part.bytes() {
                    out.push(*ids.get(format!("<0x{byte:02X}>").as_bytes()).context("a vocabulary with byte tokens")?);
                }
            }
        }
    }
    Ok(out)
}
