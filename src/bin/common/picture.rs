//! `--plot`: pictures that commands draw.

use super::models::keep_inputs;
use super::terminal::Bar;
use anyhow::Result;
use powerinfer::files::{check_writable, write_whole};
use powerinfer::plot::{Format, Picture};
use std::path::Path;

/// Finds out before long work whether a picture can be written to `path`, and that it is none of `inputs`.
pub fn check<'a>(path: Option<&Path>, inputs: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    keep_inputs(path, inputs)?;
    Format::of(path)?;
    check_writable(path)
}

/// Draws in the format that the ending of `path` says.
pub fn write(path: &Path, picture: &Picture) -> Result<()> {
    write_whole(path, &picture.draw(Format::of(path)?)?, &Bar::new())
}
