//! The session file. Laid out byte by byte in docs/formats.md.

use super::key::{Key, MOST_NAME};
use crate::executor::Executor;
use crate::files::AtomicFile;
use crate::progress::Progress;
use anyhow::{Context, Result, anyhow, bail, ensure};
use sha2::{Digest, Sha256};
use std::io::{ErrorKind, Read};
use std::path::Path;

const MAGIC: [u8; 8] = *b"PWRISESS";
/// Of what is written and read.
pub const VERSION: u32 = 1;
/// Bytes of the checksum at the end.
const SUM_BYTES: u64 = 32;
/// Settings at the most.
const MOST_SETTINGS: usize = 32;
/// Tokens at the most: far more than any model remembers, and no memory is asked for on the word of a file.
const MOST_TOKENS: u64 = 1 << 26;
/// Tokens that are read at a time.
const PIECE: usize = 1 << 16;

const HELPS: &str = "remove it or name another file";

/// Writes `tokens`, which are the first ones that `executor` holds, with what it remembers of them. Only the user may read the
/// file.
///
/// # Errors
/// When a card fails or the file cannot be written.
pub fn write(path: &Path, key: &Key, tokens: &[u32], executor: &mut Executor, progress: &dyn Progress) -> Result<()> {
    let mut file = AtomicFile::create(path, progress)?;
    file.keep_private()?;
    let mut hash = Sha256::new();
    let mut put = |bytes: &[u8]| {
        hash.update(bytes);
        file.append(bytes)
    };
    put(&header(key, tokens))?;
    executor.write_memory(tokens.len(), &mut put)?;
    let sum = hash.finalize();
    file.append(&sum)?;
    file.commit()
}

/// All that comes before what the model remembers.
fn header(key: &Key, tokens: &[u32]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend(key.model);
    out.extend(key.file);
    out.extend((key.settings.len() as u32).to_le_bytes());
    for text in key.settings.iter().flat_map(|(name, value)| [name, value]) {
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    }
    out.extend((tokens.len() as u64).to_le_bytes());
    tokens.iter().for_each(|token| out.extend(token.to_le_bytes()));
    out
}

/// Bytes as they come, and their checksum.
struct Input<R> {
    from: R,
    /// Bytes before the checksum that were not read yet.
    left: u64,
    hash: Sha256,
}

impl<R: Read> Input<R> {
    /// # Errors
    /// When the file ends before.
    fn take(&mut self, bytes: &mut [u8]) -> Result<()> {
        ensure!(bytes.len() as u64 <= self.left, "is cut short; {HELPS}");
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => anyhow!("is cut short; {HELPS}"),
            _ => error.into(),
        })?;
        self.left -= bytes.len() as u64;
        self.hash.update(bytes);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<String> {
        let n = self.u32()? as usize;
        ensure!(n <= MOST_NAME, "has a setting of {n} bytes; {HELPS}");
        let mut bytes = vec![0; n];
        self.take(&mut bytes)?;
        let text = String::from_utf8(bytes).ok().filter(|text| text.chars().all(|c| !c.is_control()));
        text.with_context(|| format!("has a setting that is no text; {HELPS}"))
    }

    fn key(&mut self) -> Result<Key> {
        let (model, file) = (self.array()?, self.array()?);
        let n = self.u32()? as usize;
        ensure!(n <= MOST_SETTINGS, "has {n} settings; {HELPS}");
        let settings = (0..n).map(|_| Ok((self.string()?, self.string()?))).collect::<Result<_>>()?;
        Ok(Key { model, file, settings })
    }

    fn tokens(&mut self, n_vocab: usize) -> Result<Vec<u32>> {
        let n = u64::from_le_bytes(self.array()?);
        let fits = n <= MOST_TOKENS && 4 * n <= self.left;
        ensure!(fits, "has {n} tokens in {} bytes; {HELPS}", self.left);
        let mut tokens = Vec::with_capacity(n as usize);
        let mut bytes = vec![0; 4 * PIECE.min(n as usize)];
        while tokens.len() < n as usize {
            let more = PIECE.min(n as usize - tokens.len());
            self.take(&mut bytes[..4 * more])?;
            tokens.extend(bytes[..4 * more].as_chunks().0.iter().map(|token| u32::from_le_bytes(*token)));
        }
        let strange = tokens.iter().find(|token| **token as usize >= n_vocab);
        match strange {
            Some(token) => bail!("has token {token}, and the vocabulary {n_vocab}; {HELPS}"),
            None => Ok(tokens),
        }
    }
}

/// Reads a session file of `n_bytes`, and takes what it has into `executor`, whose key is `key`: of its tokens the first
/// `wanted`, or as few less as it must. Returns those that the executor holds then.
///
/// # Errors
/// One line without the file's name: what is wrong with it, and what helps. Nothing is in the executor then.
pub fn read(
    from: impl Read,
    n_bytes: u64,
    key: &Key,
    executor: &mut Executor,
    wanted: impl FnOnce(&[u32]) -> usize,
) -> Result<Vec<u32>> {
    executor.clear();
    let mut input = Input { from, left: n_bytes.saturating_sub(SUM_BYTES), hash: Sha256::new() };
    ensure!(n_bytes >= SUM_BYTES && input.array()? == MAGIC, "is no session file; name another file");
    let version = input.u32()?;
    ensure!(version == VERSION, "has version {version}, and {VERSION} is read; {HELPS}");
    key.check(&input.key()?)?;
    let mut tokens = input.tokens(executor.model().config.n_tokens)?;
    let n = wanted(&tokens);
    if n == 0 {
        return Ok(Vec::new());
    }
    let n = executor.read_memory(&tokens, n, &mut |bytes| input.take(bytes)).and_then(|n| {
        ensure!(input.left == 0, "goes on behind its end; {HELPS}");
        let (mut sum, own) = ([0; SUM_BYTES as usize], std::mem::take(&mut input.hash).finalize());
        input.from.read_exact(&mut sum)?;
        ensure!(sum[..] == own[..], "was changed or damaged: its checksum is another; {HELPS}");
        Ok(n)
    });
    tokens.truncate(n.inspect_err(|_| executor.clear())?);
    Ok(tokens)
}
