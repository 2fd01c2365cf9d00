//! The vocabulary of a GGUF file.

use super::vocab::{Ends, Vocab};
use crate::gguf::{Gguf, Metadata};
use anyhow::{Context, Result};

/// Reads the `tokenizer.ggml.*` keys of a file, with or without weights in it.
///
/// # Errors
/// Names the file and the key that is missing or of the wrong type.
pub fn read_vocab(gguf: &Gguf) -> Result<Vocab> {
    read(gguf.metadata()).with_context(|| gguf.source().name().to_owned())
}

fn read(metadata: &Metadata) -> Result<Vocab> {
    let key = |suffix: &str| format!("tokenizer.ggml.{suffix}");
    let strings = |suffix: &str| -> Result<Option<Vec<Vec<u8>>>> {
        let Some(array) = metadata.array(&key(suffix))? else { return Ok(None) };
        let strings = array.strings().with_context(|| key(suffix))?;
        Ok(Some(strings.into_iter().map(<[u8]>::to_vec).collect()))
    };
    let model = metadata.str(&key("model"))?;
    let model = model.context("tokenizer.ggml.model: the key is missing; the file has no tokenizer")?.to_owned();
    let tokens = strings("tokens")?.context("tokenizer.ggml.tokens: the key is missing")?;
    let scores = metadata.array(&key("scores"))?.map(|a| a.floats().with_context(|| key("scores")));
    let types = metadata.array(&key("token_type"))?.map(|a| a.integers().with_context(|| key("token_type")));
    let name = metadata.str("general.name")?.unwrap_or_default().to_lowercase();
    // OPT has read `</s>` before every text, and not all of its files say so.
    let always_begins = metadata.str("general.architecture")? == Some("opt");
    let id = |name: &str| metadata.u32(&key(&format!("{name}_token_id")));
    Ok(Vocab {
        model,
        pre: metadata.str(&key("pre"))?.map(str::to_owned),
        tokens,
        scores: scores.transpose()?.unwrap_or_default(),
        token_types: types.transpose()?.unwrap_or_default().into_iter().map(|t| t as i32).collect(),
        merges: strings("merges")?.unwrap_or_default(),
        bos: id("bos")?,
        eos: id("eos")?,
        unk: id("unknown")?,
        ends: Ends {
            eot: id("eot")?,
            eom: id("eom")?,
            fim_pad: id("fim_pad")?,
            fim_rep: id("fim_rep")?,
            fim_sep: id("fim_sep")?,
        },
        add_bos: metadata.bool(&key("add_bos_token"))?.or(always_begins.then_some(true)),
        add_eos: metadata.bool(&key("add_eos_token"))?,
        add_space_prefix: metadata.bool(&key("add_space_prefix"))?,
        strips_behind_special: ["phi-3", "phi3"].iter().any(|phi| name.contains(phi)),
    })
}
