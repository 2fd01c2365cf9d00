//! Which tokens end a generation, and which are control tokens whatever the file calls them.

use super::vocab::{Kind, Vocab};

/// Texts that chat models end a turn with; files do not always say so by id. The set is llama.cpp's.
const ENDS: &[&str] = &[
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

/// Texts of padding, repository names and file separators of infilling: they end a generation, too, unless a key names
/// another token.
const FIM_PAD: &[&str] = &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"];
const FIM_REP: &[&str] = &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"];
const FIM_SEP: &[&str] = &["<|file_sep|>"];

/// Texts of the tokens around the parts of an infilling prompt, which a user's text must not become.
const FIM_PARTS: &[&str] = &[
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
];

/// Texts that structure a message and are part of it: they are printed.
const STRUCTURE: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Ids that end a generation, in ascending order. Those found by their text become control tokens, whatever type the file
/// gives them.
pub(super) fn end_of_generation(vocab: &Vocab, kinds: &mut [Kind], eos: Option<u32>) -> Vec<u32> {
    let named = vocab.ends.named().into_iter().filter_map(|(_, id)| id);
    let mut ids: Vec<u32> = eos.into_iter().chain(named).collect();
    let by_text = |id: Option<u32>, texts| if id.is_none() { texts } else { &[] as &[&str] };
    let ends = [
        ENDS,
        by_text(vocab.ends.fim_pad, FIM_PAD),
        by_text(vocab.ends.fim_rep, FIM_REP),
        by_text(vocab.ends.fim_sep, FIM_SEP),
    ];
    let mut found = Vec::new();
    for (id, token) in vocab.tokens.iter().enumerate() {
        let Ok(text) = std::str::from_utf8(token) else { continue };
        if ends.iter().any(|texts| texts.contains(&text)) {
            kinds[id] = Kind::Control;
            ids.push(id as u32);
            found.push((text, id));
        } else if FIM_PARTS.contains(&text) {
            kinds[id] = Kind::Control;
        } else if STRUCTURE.contains(&text) {
            kinds[id] = Kind::UserDefined;
        }
    }
    let has = |text| found.iter().any(|(t, _)| *t == text);
    let mut spare = |text: &str, kind| {
        for (_, id) in found.iter().filter(|(t, _)| *t == text) {
            kinds[*id] = kind;
            ids.retain(|other| *other as usize != *id);
        }
    };
    // Vocabularies that end turns with <|return|> or <|flush|> put <|end|> between the parts of one turn.
    if (has("<|call|>") || has("<|calls|>")) && (has("<|return|>") || has("<|flush|>")) {
        spare("<|end|>", Kind::UserDefined);
    }
    // Where answers of tools are marked, </s> is markup.
    if has("<|tool_response>") {
        spare("</s>", Kind::Normal);
    }
    ids.sort_unstable();
    ids.dedup();
    ids
}
