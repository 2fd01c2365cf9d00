//! What came of self-tests, kept in the user's cache folder.

use super::{Outcome, Verdict};
use crate::common::{cache_folder, write_cached};
use anyhow::Result;
use powerinfer::files::read_regular;
use powerinfer::progress::Silent;
use powerinfer::units::Bytes;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

/// A file that is longer is none of ours.
const MOST: Bytes = Bytes(1 << 20);
/// Tests that are remembered: those of a few programs, and of a few builds of each.
const KEPT: usize = 64;

/// A program as it lies on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    path: PathBuf,
    version: String,
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u64,
}

impl Program {
    /// This one, where the system tells.
    pub fn this() -> Option<Self> {
        let path = std::env::current_exe().ok()?;
        let file = path.metadata().ok()?;
        let modified = file.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Some(Self { path, version, bytes: file.len(), modified: u64::try_from(modified).ok()? })
    }
}

/// One test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Known {
    program: Program,
    driver: String,
    ordinal: u32,
    /// Name of the card, where the test got so far.
    pub card: Option<String>,
    pub verdict: Verdict,
}

/// All that are remembered, the latest last.
pub struct Verdicts {
    path: Option<PathBuf>,
    known: Vec<Known>,
}

impl Verdicts {
    /// Those in the cache folder. What cannot be read is not there.
    pub fn read() -> Self {
        let path = cache_folder().map(|folder| folder.join("self-tests.json"));
        let text = path.as_ref().and_then(|path| read_regular(path, MOST).ok());
        let mut known: Vec<Known> = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        // What was written here is one line, and of an outcome.
        known.retain(|k| !matches!(&k.verdict, Verdict::Failed(why) if why.contains('\n')));
        known.retain(|k| !matches!(k.verdict, Verdict::Unavailable(_)));
        Self { path, known }
    }

    /// Those that this program has made of cards of this number with this driver, one of each.
    pub fn of(&self, program: &Program, ordinal: u32, driver: &str) -> Vec<Known> {
        let is_it = |k: &&Known| k.program == *program && k.ordinal == ordinal && k.driver == driver;
        self.known.iter().filter(is_it).cloned().collect()
    }

    /// Keeps a test in the place of the one that this program has made of this card before. A folder that cannot be written
    /// only means that it is made again.
    pub fn remember(&mut self, program: Program, ordinal: u32, driver: String, outcome: &Outcome) {
        let replaced = |k: &Known| k.card.is_none() || k.card == outcome.card;
        self.known.retain(|k| k.program.path != program.path || k.ordinal != ordinal || !replaced(k));
        let Outcome { card, verdict } = outcome;
        self.known.push(Known { program, driver, ordinal, card: card.clone(), verdict: verdict.clone() });
        self.known.drain(..self.known.len().saturating_sub(KEPT));
        // Told above: the next start finds out.
        let _ = self.write();
    }

    fn write(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        write_cached(path, serde_json::to_string_pretty(&self.known)?.as_bytes(), &Silent)
    }
}
