//! Notes that a machine's user reads once: what was told is remembered in the cache folder.

use super::terminal::is_quiet;
use super::{cache_folder, write_cached};
use powerinfer::files::read_regular;
use powerinfer::measure::machine::cpu_name;
use powerinfer::progress::Silent;
use powerinfer::units::Bytes;

/// Of such a file.
const MOST: Bytes = Bytes(4096);

/// Whether `note` has not been told on this machine yet with these words. Remembers that it is now; where that fails it is told
/// the next time, too.
pub fn first_told(note: &str, words: &str) -> bool {
    let Some(path) = cache_folder().map(|folder| folder.join(format!("told-{note}"))) else { return true };
    // A home folder may be that of several machines.
    let now = format!("{}: {words}\n", cpu_name());
    let told = read_regular(&path, MOST).is_ok_and(|before| before == now);
    if !told && !is_quiet() {
        drop(write_cached(&path, now.as_bytes(), &Silent));
    }
    !told
}
