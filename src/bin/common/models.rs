//! Opening models and reading text.

use super::terminal::{is_quiet, tell};
use anyhow::{Context, Result, ensure};
use powerinfer::files::{self, is_one_target, is_same};
use powerinfer::gguf::{Gguf, PartNames};
use powerinfer::model::{Activation, Model, check_tensors};
use powerinfer::printable::printable;
use powerinfer::progress::Progress;
use powerinfer::tokenizer::{Tokenizer, read_vocab};
use powerinfer::units::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The file at `path`, or the embedded model, read into memory.
pub fn read_file(path: Option<&Path>, progress: &dyn Progress) -> Result<Gguf> {
    match path {
        Some(path) => Gguf::read(path, progress),
        None => Gguf::from_source(powerinfer::embedded::source().copied(progress)?),
    }
}

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
    let name = printable(model.gguf.source().name());
    if model.is_synthetic() {
        tell!("warning: {name}: a synthetic model, whose weights are random and whose text is meaningless");
    }
    for note in &model.notes {
        tell!("note: {name}: {note}");
    }
    if !is_quiet() {
        tell!("{name}: activation {} (from {})", found.activation, found.from);
    }
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

/// What stands for standard input where a text is asked for.
const STANDARD_INPUT: &str = "-";

/// Whether a text comes from standard input.
pub fn is_standard_input(path: &Path) -> bool {
    path == Path::new(STANDARD_INPUT)
}

/// What a text is called in messages and results.
pub fn text_name(path: &Path) -> String {
    if is_standard_input(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// Reads a UTF-8 text of at most `most`, from standard input where `path` is "-".
pub fn read_text(path: &Path, most: Bytes, progress: &dyn Progress) -> Result<String> {
    if is_standard_input(path) {
        return read_standard_input(most, progress);
    }
    if let Ok(mut read) = READ.lock() {
        read.push(path.to_owned());
    }
    files::read_text(path, most, progress).with_context(|| path.display().to_string())
}

/// Texts that were read so far: none is written over.
static READ: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// All of standard input, which can be read only once.
pub fn read_standard_input(most: Bytes, progress: &dyn Progress) -> Result<String> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    ensure!(!TAKEN.swap(true, Ordering::Relaxed), "standard input: is given twice, and can be read only once");
    files::read_standard_input(most, progress)
}

/// Refuses to write to one file what two flags name files for.
pub fn keep_apart<const N: usize>(outputs: [(&str, Option<&Path>); N]) -> Result<()> {
    let named: Vec<(&str, &Path)> = outputs.into_iter().filter_map(|(flag, path)| Some((flag, path?))).collect();
    for (n, (flag, path)) in named.iter().enumerate() {
        let same = |(_, other): &&(&str, &Path)| is_one_target(other, path) || is_same(other, path);
        let other = named[..n].iter().find(same);
        ensure!(other.is_none(), "{} and {flag}: name the same file", other.map_or("", |(other, _)| other));
    }
    Ok(())
}

/// Refuses to write over a file that was read, be it one of `inputs` or a text such as a grammar.
pub fn keep_inputs<'a>(output: &Path, inputs: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let read = READ.lock().map(|read| read.clone()).unwrap_or_default();
    let inputs: Vec<&Path> = inputs.into_iter().collect();
    for input in inputs.into_iter().chain(read.iter().map(PathBuf::as_path)) {
        // Of a model in several files each is read, whichever was named.
        let mut parts: Vec<PathBuf> = PartNames::of(input).iter().flat_map(PartNames::paths).collect();
        parts.push(input.to_owned());
        let same = parts.iter().any(|part| is_same(output, part));
        ensure!(!same, "{}: is an input and would be overwritten; give another output name", output.display());
    }
    Ok(())
}
