//! Whether backslashes in texts are escapes.

use clap::Args;

/// What the command line is read by, before its arguments are looked at (see `habits::reader`).
#[derive(Args)]
pub struct Escapes {
    /// Take backslashes in -p and other texts as they are, instead of \n, \t, \\, \", \', \r and \xHH for what they stand for
    #[arg(long, overrides_with = "escape")]
    no_escape: bool,
    /// The default: \n and the like stand for what they are
    #[arg(short, long, hide = true, overrides_with = "no_escape")]
    escape: bool,
}
