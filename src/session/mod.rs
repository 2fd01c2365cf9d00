//! Session files: a prompt's tokens with what a model remembers of them, so that the next run need not compute them again.

mod file;
mod key;

use crate::executor::Executor;
use crate::progress::{self, Progress};
use anyhow::{Context, Result};
pub use file::{VERSION, read};
pub use key::Key;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Layers that recur add up in chunks of so many tokens: a prompt that is divided between two gives the bits that it gives
/// undivided.
const CHUNK: usize = 32;
/// Tokens at the end of a prompt that are left to whoever wants its logits: a card computes fewer in another way than many.
const END: usize = 4;
/// Buffer of the reader.
const BUFFER_BYTES: usize = 1 << 20;

/// What a session file is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Read, and written with the prompt.
    Prompt,
    /// Read, and written with the prompt and the text behind it.
    All,
    /// Read only.
    ReadOnly,
}

/// A session file beside an executor.
pub struct Session {
    path: PathBuf,
    key: Key,
    how: Use,
    /// Tokens at the beginning that the file has, too.
    n_stored: usize,
    prompt: Prompt,
}

/// What became of the first prompt of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prompt {
    /// There was none yet.
    Unknown,
    /// So many of its tokens are computed and to be written.
    New(usize),
    /// All is done.
    Known,
}

impl Session {
    /// The file at `path`, which need not be there, for what `executor` computes.
    ///
    /// # Errors
    /// When the model's vocabulary cannot be read.
    pub fn new(path: &Path, how: Use, executor: &Executor) -> Result<Self> {
        Ok(Self { path: path.to_owned(), key: Key::of(executor)?, how, n_stored: 0, prompt: Prompt::Unknown })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes over what the file has: as far as it begins like `prompt`, whose last token is left to be computed, or all of it.
    /// Returns the tokens that the executor holds then; none where there is no file yet.
    ///
    /// # Errors
    /// One line with the file's name: what is wrong with it, and what helps. Nothing is in the executor then.
    pub fn load(&mut self, executor: &mut Executor, prompt: Option<&[u32]>) -> Result<Vec<u32>> {
        let name = || self.path.display().to_string();
        if self.how != Use::ReadOnly && !fs::exists(&self.path).with_context(name)? {
            return Ok(Vec::new());
        }
        let mut read = || {
            let file = crate::files::open_regular(&self.path)?;
            let n_bytes = file.metadata()?.len();
            let wanted = |stored: &[u32]| prompt.map_or(stored.len(), |prompt| n_common(stored, prompt));
            read(BufReader::with_capacity(BUFFER_BYTES, file), n_bytes, &self.key, executor, wanted)
        };
        let mut tokens = read().with_context(name)?;
        tokens.truncate(executor.n_past());
        self.n_stored = tokens.len();
        Ok(tokens)
    }

    /// Computes the first prompt of a run, of which `executor` holds the beginning, but for its end. Does nothing for later
    /// prompts, and where the file is not written. Returns how many of the tokens are in then.
    ///
    /// # Errors
    /// When they cannot be computed; [`progress::Interrupted`].
    pub fn prompt(&mut self, executor: &mut Executor, tokens: &[u32], progress: &dyn Progress) -> Result<usize> {
        let begins = executor.n_past();
        if self.prompt != Prompt::Unknown {
            return Ok(begins);
        }
        // Its end gets the bits that it gets behind a beginning that was not in a file.
        executor.expect_prompt(tokens.len());
        if self.how == Use::ReadOnly {
            self.prompt = Prompt::Known;
            return Ok(begins);
        }
        let cut = match executor.sequence().memory().recurs() {
            true => tokens.len().saturating_sub(1) / CHUNK * CHUNK,
            false => tokens.len().saturating_sub(END),
        };
        if begins < cut {
            progress.begin("prompt", (cut - begins) as u64);
            for chunk in tokens[begins..cut].chunks(executor.params().n_ubatch) {
                progress::check(progress)?;
                executor.prefill(chunk)?;
                progress.advance(chunk.len() as u64);
            }
            progress.end();
            executor.remember();
        }
        // Of a system prompt with another question behind it, the file of the first time is as good.
        let n_new = cut.saturating_sub(self.n_stored.min(begins));
        let is_new = self.how == Use::Prompt && n_new > cut / 4;
        self.prompt = if is_new { Prompt::New(cut) } else { Prompt::Known };
        Ok(cut.max(begins))
    }

    /// Writes the prompt that [`Session::prompt`] has computed, of the tokens `tokens`, where that is wanted and the file has
    /// not most of it already.
    ///
    /// # Errors
    /// When the file cannot be written: then nothing is lost but time.
    pub fn save(&mut self, executor: &mut Executor, tokens: &[u32], progress: &dyn Progress) -> Result<()> {
        let Prompt::New(n) = std::mem::replace(&mut self.prompt, Prompt::Known) else { return Ok(()) };
        self.write(executor, &tokens[..n], progress)
    }

    /// Writes all of the text `tokens`, of which `executor` holds the first ones, where that was asked for; as far as no context
    /// shift has moved it.
    ///
    /// # Errors
    /// When the file cannot be written, or what the executor does not hold yet cannot be computed.
    pub fn end(&mut self, executor: &mut Executor, tokens: &[u32], progress: &dyn Progress) -> Result<()> {
        if self.how != Use::All {
            return Ok(());
        }
        // The last token of an answer was not needed yet.
        let rest = tokens.get(executor.n_past()..).unwrap_or_default();
        let has_room = tokens.len() <= executor.params().n_ctx;
        if !rest.is_empty() && has_room && executor.n_unmoved() == executor.n_past() {
            executor.prefill(rest)?;
        }
        let n = executor.n_unmoved().min(tokens.len());
        if n > 0 { self.write(executor, &tokens[..n], progress) } else { Ok(()) }
    }

    fn write(&mut self, executor: &mut Executor, tokens: &[u32], progress: &dyn Progress) -> Result<()> {
        file::write(&self.path, &self.key, tokens, executor, progress)?;
        self.n_stored = tokens.len();
        Ok(())
    }
}

/// Tokens of `prompt` but for its last one with which `stored` begins, too.
fn n_common(stored: &[u32], prompt: &[u32]) -> usize {
    let n = stored.iter().zip(prompt).take_while(|(a, b)| a == b).count();
    n.min(prompt.len().saturating_sub(1))
}
