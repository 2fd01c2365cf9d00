//! Models in several files: `NAME-00001-of-00003.gguf` and so on, as llama.cpp's `gguf-split` writes them.

use super::metadata::Metadata;
use anyhow::{Result, bail, ensure};
use std::path::{Path, PathBuf};

/// The most parts: as many as have names of the right length, and as `split.count` can say.
const MAX_PARTS: u32 = u16::MAX as u32;

/// What a file says of the parts that it is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    /// Which of them it is, from 0.
    pub no: usize,
    /// How many there are: 2 or more.
    pub count: usize,
    /// Tensors of all of them, where it says so.
    pub n_tensors: Option<u64>,
}

impl Split {
    /// `None` where the file is whole.
    ///
    /// # Errors
    /// Names the key that makes no sense.
    pub fn of(metadata: &Metadata) -> Result<Option<Self>> {
        let count = metadata.u32("split.count")?.unwrap_or(0);
        if count < 2 {
            return Ok(None);
        }
        ensure!(count <= MAX_PARTS, "split.count: {count} parts; at most {MAX_PARTS} are accepted");
        let no = metadata.u32("split.no")?.unwrap_or(0);
        ensure!(no < count, "split.no: {no}, but parts of {count} are numbered from 0 to {}", count - 1);
        let n_tensors = metadata.u64("split.tensors.count")?;
        Ok(Some(Self { no: no as usize, count: count as usize, n_tensors }))
    }
}

/// The names of the parts of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartNames {
    folder: PathBuf,
    stem: String,
    no: usize,
    count: usize,
}

impl PartNames {
    /// What the name of one of them says; `None` where it is no name of a part.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = number_behind(name, "-of-")?;
        let (stem, no) = number_behind(rest, "-")?;
        let folder = path.parent()?.to_owned();
        (1..=count).contains(&no).then(|| Self { folder, stem: stem.to_owned(), no: no - 1, count })
    }

    /// File name of part number `no`, from 0.
    pub fn name(&self, no: usize) -> String {
        format!("{}-{:05}-of-{:05}.gguf", self.stem, no + 1, self.count)
    }

    /// The paths of all parts, first to last.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        (0..self.count).map(|no| self.folder.join(self.name(no)))
    }

    /// The names of the parts of `split`, one of which is the file at `path`.
    ///
    /// # Errors
    /// When the name is none from which those of the others follow, or when one of them is not there.
    pub(super) fn found(path: &Path, split: Split) -> Result<Self> {
        let Split { no, count, .. } = split;
        let which = format!("is part {} of {count}", no + 1);
        let Some(names) = Self::of(path).filter(|names| (names.no, names.count) == (no, count)) else {
            bail!("{which}; the others are found by name, so its own must end in -{:05}-of-{count:05}.gguf", no + 1)
        };
        if let Some(missing) = names.paths().position(|path| !path.exists()) {
            bail!("{which}; {} is missing; all parts must lie in one folder", names.name(missing));
        }
        Ok(names)
    }
}

/// The number of five digits behind the last `mark`, and what stands before that.
fn number_behind<'n>(name: &'n str, mark: &str) -> Option<(&'n str, usize)> {
    let (rest, digits) = name.rsplit_once(mark)?;
    let five = digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit());
    five.then(|| digits.parse().ok()).flatten().map(|n| (rest, n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_are_told_from_others() {
        let names = PartNames::of(Path::new("a/b-00002-of-00003.gguf")).unwrap();
        assert_eq!((names.no, names.count), (1, 3));
        let all: Vec<_> = names.paths().collect();
        assert_eq!(all[2], Path::new("a/b-00003-of-00003.gguf"));
        for other in
            ["b.gguf", "b-2-of-3.gguf", "b-00000-of-00003.gguf", "b-00004-of-00003.gguf", "b-00001-of-00003", ""]
        {
            assert_eq!(PartNames::of(Path::new(other)), None, "{other}");
        }
        assert_eq!(PartNames::of(Path::new("b-0000\u{e9}-of-00003.gguf")), None);
    }
}
