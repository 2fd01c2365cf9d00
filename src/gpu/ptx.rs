//! The PTX that the programs carry, compressed.

use anyhow::{Context, Result, anyhow};
use miniz_oxide::inflate::decompress_to_vec_zlib;

/// A PTX text, as `build.rs` has compressed it.
#[derive(Debug, Clone, Copy)]
pub struct Packed(&'static [u8]);

impl Packed {
    /// The text.
    ///
    /// # Errors
    /// When the bytes are damaged; they have a checksum.
    pub fn text(&self) -> Result<String> {
        let bytes = decompress_to_vec_zlib(self.0).map_err(|e| anyhow!("the PTX in this program is damaged: {e}"))?;
        String::from_utf8(bytes).context("the PTX in this program is no text")
    }
}

/// The PTX of one `.cu`, for one or several compute capabilities.
#[derive(Debug, Clone, Copy)]
pub struct File {
    /// Name of the `.cu`, without ending.
    pub name: &'static str,
    /// Compute capability (75 is 7.5) and PTX, in rising order: a card takes the highest that it has.
    pub targets: &'static [(u32, Packed)],
}

impl File {
    /// The text of the highest target that a card of capability `major.minor` runs.
    pub(super) fn text_for(&self, (major, minor): (u32, u32)) -> Result<String> {
        let fits = self.targets.iter().filter(|(target, _)| *target <= 10 * major + minor);
        let best = fits.max_by_key(|(target, _)| *target);
        let (_, packed) =
            best.with_context(|| format!("{}.cu: no PTX for compute capability {major}.{minor}", self.name))?;
        packed.text().with_context(|| format!("{}.cu", self.name))
    }
}

/// `file!("gemm": 75, 80)` is `kernels/ptx/gemm.sm75.ptx` and `gemm.sm80.ptx`.
macro_rules! file {
    ($name:literal: $($target:literal),+) => {
        File {
            name: $name,
            targets: &[$((
                $target,
                Packed(include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".sm", $target, ".ptx.z"))),
            )),+],
        }
    };
}

/// All files, one line each.
pub const FILES: &[File] = &[
    file!("attention": 75),
    file!("attention_prefill": 75),
    file!("down": 75),
    file!("ffn": 75),
    file!("gemm": 75, 80),
    file!("matvec": 75),
    file!("norm": 75),
    file!("predict": 75),
    file!("recurrent": 75),
    file!("repack": 75),
    file!("rope": 75),
    file!("route": 75),
    file!("select": 75),
    file!("several": 75),
    file!("token": 75),
];

#[cfg(test)]
mod tests {
    use super::super::entries::{Parameter, entries};
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_card_takes_the_highest_target_that_it_has() {
        let gemm = FILES.iter().find(|f| f.name == "gemm").unwrap();
        let target = |capability| {
            let text = gemm.text_for(capability).unwrap();
            text.lines().find_map(|line| line.strip_prefix(".target ")).unwrap().to_owned()
        };
        assert_eq!([target((7, 5)), target((8, 0)), target((12, 0))], ["sm_75", "sm_80", "sm_80"]);
        assert!(gemm.text_for((7, 0)).unwrap_err().to_string().contains("gemm.cu"));
    }

    #[test]
    fn no_kernel_has_two_homes() {
        let mut homes = BTreeMap::new();
        for file in FILES {
            assert!(!file.targets.is_empty() && file.targets.is_sorted_by(|a, b| a.0 < b.0), "{}", file.name);
            for entry in entries(&file.targets[0].1.text().unwrap()) {
                let other = homes.insert(entry.name.to_owned(), file.name);
                assert!(other.is_none(), "{} is in {} and {other:?}", entry.name, file.name);
                assert!(!entry.parameters.contains(&Parameter::Other), "{}", entry.name);
            }
        }
    }

    #[test]
    fn damage_is_seen() {
        let error = Packed(b"no zlib").text().unwrap_err().to_string();
        assert!(error.starts_with("the PTX in this program is damaged"), "{error}");
    }
}
