//! How templates fail, so that callers can tell what can go on from what cannot.

use std::fmt;

/// The error of a template that no conversation can be held with, in one line: it cannot be read, asks for something that
/// does not exist, or exceeds what templates may take.
#[derive(Debug)]
pub struct Unusable(pub(super) String);

impl Unusable {
    pub(super) fn because(why: impl fmt::Display) -> anyhow::Error {
        Self(format!("the model's chat template: {why}")).into()
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

/// The error of a template that rejects a conversation in its own words, by `raise_exception`.
#[derive(Debug)]
pub struct Refused(pub(super) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}
