//! What was typed in earlier conversations: a file of the user's, a line of JSON for each entry, which may have several lines.

use crate::common::{state_folder, write_cached};
use anyhow::Result;
use powerinfer::files::read_regular;
use powerinfer::progress::Silent;
use powerinfer::units::Bytes;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Entries that are kept.
pub const MOST_ENTRIES: usize = 1000;
/// Longer ones are not kept.
const LONGEST_ENTRY: usize = 64 << 10;
/// A longer file is cut.
const CUT_AT: u64 = 1 << 20;
/// A longer one is none of ours.
const MOST_BYTES: Bytes = Bytes(128 << 20);

/// The history of one user. Where it cannot be read or written there is none: it is no reason to fail.
pub struct History {
    /// `None`: nothing is kept.
    path: Option<PathBuf>,
    last: Option<String>,
}

impl History {
    /// The user's, or none.
    pub fn new(keep: bool) -> Self {
        let path = state_folder().filter(|_| keep).map(|folder| folder.join("history.jsonl"));
        Self { path, last: None }
    }

    /// The entries, the oldest first. A line that is none is left out.
    pub fn entries(&mut self) -> Vec<String> {
        let text = self.path.as_deref().and_then(|path| read_regular(path, MOST_BYTES).ok()).unwrap_or_default();
        let entries: Vec<String> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(|e: &String| is_typed(e)).collect();
        let entries = entries[entries.len().saturating_sub(MOST_ENTRIES)..].to_vec();
        self.last = entries.last().cloned();
        if let Some(path) = self.path.as_deref().filter(|_| text.len() as u64 > CUT_AT) {
            drop(cut(path, &entries));
        }
        entries
    }

    /// Adds an entry, unless it is the last one again or none that can be edited; whether it did.
    pub fn add(&mut self, entry: &str) -> bool {
        if !is_typed(entry) || self.last.as_deref() == Some(entry) {
            return false;
        }
        if let Some(path) = &self.path {
            drop(append(path, entry));
        }
        self.last = Some(entry.to_owned());
        true
    }
}

/// Whether it is an entry: editing breaks down where lines hold control characters.
fn is_typed(entry: &str) -> bool {
    let is_strange = |c: char| c.is_control() && c != '\n' && c != '\t';
    !entry.trim().is_empty() && entry.len() <= LONGEST_ENTRY && !entry.contains(is_strange)
}

/// Leaves only these entries.
fn cut(path: &Path, entries: &[String]) -> Result<()> {
    let lines: Vec<String> = entries.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    write_cached(path, (lines.join("\n") + "\n").as_bytes(), &Silent)?;
    make_private(&File::open(path)?)
}

/// In one write, so that lines of several conversations do not mix.
fn append(path: &Path, entry: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // A FIFO or a device is none of ours: it might be waited for.
    anyhow::ensure!(path.metadata().map_or(true, |found| found.is_file()), "is no file");
    let mut options = File::options();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    make_private(&file)?;
    file.write_all((serde_json::to_string(entry)? + "\n").as_bytes())?;
    Ok(())
}

/// Nobody else may read it.
fn make_private(file: &File) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}
