//! Whether a tensor has to be in a file.

/// Whether a tensor has to be in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Without it the file is refused.
    Required,
    /// Taken where it is there.
    Optional,
    /// Where it is there, the file is refused: it would be ignored.
    Absent,
}
