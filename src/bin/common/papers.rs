//! What is printed for a release: completions of shells, and pages of the manual.

use super::terminal::print;
use anyhow::Result;
use clap::Command;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

/// Prints the completions of `shell` for `command`; `None` where there are none for that shell.
pub fn completions(mut command: Command, shell: &str) -> Option<Result<()>> {
    let shell = shell.parse::<Shell>().ok()?;
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    generate(shell, &mut command, name, &mut text);
    Some(print(String::from_utf8_lossy(&text)))
}

/// The page of the manual for `command`.
///
/// # Errors
/// When nobody reads it any more, or the disk behind it is full.
pub fn manual(command: Command) -> Result<()> {
    let mut page = Vec::new();
    // One line, the same from every machine.
    let command = command.long_version(env!("CARGO_PKG_VERSION"));
    Man::new(command).render(&mut page)?;
    print(String::from_utf8(page)?)
}
