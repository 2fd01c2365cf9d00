//! One process fetches a file, others wait for it. The lock is the one that huggingface_hub takes.

use super::fault::pause;
use crate::files::has_name;
use crate::progress::Progress;
use anyhow::{Context, Result};
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::time::Duration;

/// How often to try.
const PAUSE: Duration = Duration::from_millis(50);

/// Held as long as it lives, and given up by the system when the process ends in whatever way.
pub(super) struct Lock {
    /// None where the file system has no locks.
    file: Option<File>,
}

impl Lock {
    /// Takes the lock at `path`; `wait` is called once if somebody else has it.
    ///
    /// # Errors
    /// When the file cannot be made; [`crate::progress::Interrupted`].
    pub fn take(path: &Path, progress: &dyn Progress, wait: impl FnOnce()) -> Result<Self> {
        let shown = || format!("{}: cannot be locked", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(shown)?;
        }
        let mut wait = Some(wait);
        loop {
            let file = File::options().create(true).truncate(false).write(true).open(path).with_context(shown)?;
            match file.try_lock() {
                // Some clear such files away: one without a name locks nobody out.
                Ok(()) if has_name(&file, path) => return Ok(Self { file: Some(file) }),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if let Some(wait) = wait.take() {
                        wait();
                    }
                    pause(PAUSE, progress)?;
                }
                Err(TryLockError::Error(_)) => return Ok(Self { file: None }),
            }
        }
    }

    /// Whether others are locked out.
    pub fn is_held(&self) -> bool {
        self.file.is_some()
    }
}
