//! Which tokens end a generation.

use super::vocab::{Kind, Vocab};

/// Texts that chat models end a turn with; files do not always say so by id. The set is llama.cpp's.
const TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Ids that end a generation, in ascending order. Those found by their text become control tokens, whatever type the file
/// gives them.
pub(super) fn end_of_generation(vocab: &Vocab, kinds: &mut [Kind], eos: Option<u32>) -> Vec<u32> {
    let mut ids: Vec<u32> = eos.into_iter().chain(vocab.eot).collect();
    let mut end = None;
    let (mut returns, mut calls, mut flushes) = (false, false, false);
    for (id, token) in vocab.tokens.iter().enumerate() {
        let Some(text) = TEXTS.iter().find(|text| text.as_bytes() == token) else {
            continue;
        };
        kinds[id] = Kind::Control;
        ids.push(id as u32);
        match *text {
            "<|end|>" => end = Some(id as u32),
            "<|return|>" => returns = true,
            "<|call|>" | "<|calls|>" => calls = true,
            "<|flush|>" => flushes = true,
            _ => {}
        }
    }
    // Vocabularies that end turns with <|return|> or <|flush|> put <|end|> between the parts of one turn.
    if calls && (returns || flushes) {
        ids.retain(|&id| Some(id) != end);
    }
    ids.sort_unstable();
    ids.dedup();
    ids
}
