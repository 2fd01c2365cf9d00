//! Opening models and reading text.

use super::terminal::tell;
use anyhow::{Context, Result, ensure};
use powerinfer::gguf::{Gguf, PartNames};
use powerinfer::model::{Activation, Model, check_tensors};
use powerinfer::progress::Progress;
use powerinfer::tokenizer::{Tokenizer, read_vocab};
use std::path::{Path, PathBuf};

/// The file at `path`, or the embedded model.
pub fn open_file(path: Option<&Path>) -> Result<Gguf> {
    match path {
        Some(path) => Gguf::open(path),
        None => Gguf::from_source(powerinfer::embedded::source()),
    }
}

/// A model ready to run; says on stderr which activation function it has and why.
pub fn open(gguf: Gguf, activation: Option<Activation>, check: Option<&dyn Progress>) -> Result<Model> {
    let model = Model::new(gguf, activation)?;
    if let Some(progress) = check {
        check_tensors(&model.gguf, progress)?;
    }
    let found = &model.config.activation;
    if model.is_synthetic() {
        tell!(
            "warning: {}: a synthetic model, whose weights are random and whose text is meaningless",
            model.gguf.source().name()
        );
    }
    for note in &model.notes {
        tell!("note: {}: {note}", model.gguf.source().name());
    }
    tell!("{}: activation {} (from {})", model.gguf.source().name(), found.activation, found.from);
    Ok(model)
}

/// The tokenizer of a file; its notes go to stderr.
pub fn tokenizer(gguf: &Gguf) -> Result<Tokenizer> {
    let tokenizer = Tokenizer::new(read_vocab(gguf)?).with_context(|| gguf.source().name().to_owned())?;
    for note in tokenizer.notes() {
        tell!("note: {note}");
    }
    Ok(tokenizer)
}

/// Reads a UTF-8 text.
pub fn read_text(path: &Path) -> Result<String> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| name.clone())?;
    String::from_utf8(bytes)
        .map_err(|e| anyhow::anyhow!("{name}: is not UTF-8 (byte {}); convert it first", e.utf8_error().valid_up_to()))
}

/// Refuses to write over a file that was read.
pub fn keep_inputs<'a>(output: &Path, inputs: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let Ok(target) = output.canonicalize() else { return Ok(()) };
    for input in inputs {
        // Of a model in several files each is read, whichever was named.
        let mut parts: Vec<PathBuf> = PartNames::of(input).iter().flat_map(PartNames::paths).collect();
        parts.push(input.to_owned());
        let same = parts.iter().any(|part| part.canonicalize().is_ok_and(|part| part == target));
        ensure!(!same, "{}: is an input and would be overwritten; give another output name", output.display());
    }
    Ok(())
}
