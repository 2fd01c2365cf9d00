//! Texts to be fed or scored.

use crate::Args;
use crate::common::models;
use anyhow::{Context, Result, bail, ensure};
use powerinfer::files::MOST_TEXT;
use powerinfer::measure::STORY;
use powerinfer::measure::perplexity::check_windows;
use powerinfer::model::Model;
use powerinfer::progress::Progress;
use powerinfer::tokenizer::{Special, Tokenizer};
use std::path::Path;

/// Random tokens that are fed before they begin anew.
const N_RANDOM: usize = 8192;

/// The texts, read once whatever models they are for.
pub struct Texts {
    /// Fed by speed tests; `None` where there are none, or where random tokens are fed.
    feed: Option<String>,
    /// Of `--perplexity`.
    pub perplexity: Option<Text>,
    /// Of `--kl`.
    pub kl: Option<Text>,
}

/// A text by its name.
pub struct Text {
    name: String,
    text: String,
}

impl Texts {
    /// Reads what the flags name; `feeds` says whether there are speed tests.
    pub fn read(args: &Args, feeds: bool, progress: &dyn Progress) -> Result<Self> {
        let text = |path: &Path| -> Result<Text> {
            Ok(Text { name: models::text_name(path), text: models::read_text(path, MOST_TEXT, progress)? })
        };
        let feed = match args.text() {
            _ if !feeds => None,
            "random" => None,
            "real" => Some(STORY.to_owned()),
            path => Some(text(path.as_ref())?.text),
        };
        ensure!(feed.as_deref().is_none_or(|text| !text.trim().is_empty()), "{}: the text is empty", args.text());
        let perplexity = args.perplexity.as_deref().map(text).transpose()?;
        Ok(Self { feed, perplexity, kl: args.kl.kl.as_deref().map(text).transpose()? })
    }

    /// The tokens that speed tests of `model` feed.
    pub fn tokens(&self, args: &Args, model: &Model) -> Result<Vec<u32>> {
        let Some(text) = &self.feed else { return Ok(random(model.config.n_vocab as u64)) };
        if !model.gguf.metadata().has("tokenizer.ggml.model") {
            bail!("{}: has no tokenizer; give --text random", model.gguf.source().name());
        }
        models::tokenizer(&model.gguf)?.encode_prompt(text, special(args), true)
    }
}

fn random(n_vocab: u64) -> Vec<u32> {
    // A linear congruential generator (Knuth's MMIX) is random enough to be nobody's text.
    let next =
        |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    std::iter::successors(Some(1), next).skip(1).take(N_RANDOM).map(|s| ((s >> 33) % n_vocab) as u32).collect()
}

/// A text to be scored in windows.
pub struct Scored {
    /// What it is called.
    pub name: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// What begins each window.
    pub bos: Option<u32>,
}

impl Scored {
    /// `text` as `model` reads it.
    pub fn new(args: &Args, model: &Model, text: &Text) -> Result<Self> {
        let Text { name, text } = text;
        let tokenizer = models::tokenizer(&model.gguf)?;
        let tokens = tokenizer.encode_prompt(text, special(args), true)?;
        check_windows(tokens.len(), args.ctx_size).with_context(|| name.clone())?;
        Ok(Self { name: name.clone(), tokens, bos: bos(&tokenizer) })
    }
}

fn special(args: &Args) -> Special {
    if args.parse_special { Special::Parse } else { Special::AsText }
}

fn bos(tokenizer: &Tokenizer) -> Option<u32> {
    tokenizer.bos().filter(|_| tokenizer.adds_bos())
}
