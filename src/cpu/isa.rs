//! Instruction sets: which of them this processor has, and the names that `--isa` takes.

use anyhow::{Result, bail};
use std::fmt;
use std::str::FromStr;

/// A set of kernels that one kind of processor can run. Each one adds to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust: the specification, for every processor.
    Plain,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// AVX2 with the 8-bit dot products of AVX-VNNI.
    AvxVnni,
    /// AVX-512 (F, BW, DQ, VL, VBMI) with VNNI.
    Avx512,
}

impl Isa {
    /// All, slowest first.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Avx2, Self::AvxVnni, Self::Avx512];

    /// The best that this processor has.
    pub fn detect() -> Self {
        Self::ALL.into_iter().rfind(|isa| isa.is_available()).unwrap_or(Self::Plain)
    }

    /// Whether this processor can run it.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        let avx2 =
            || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        let avx512 = || {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vbmi")
                && is_x86_feature_detected!("avx512vnni")
        };
        match self {
            Self::Plain => true,
            Self::Avx2 => avx2(),
            Self::AvxVnni => avx2() && is_x86_feature_detected!("avxvnni"),
            Self::Avx512 => avx2() && avx512(),
        }
    }

    /// Whether this processor can run it.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_available(self) -> bool {
        self == Self::Plain
    }

    /// Name in flags and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = anyhow::Error;

    /// Refuses what this processor cannot run.
    fn from_str(name: &str) -> Result<Self> {
        let names = |isas: &mut dyn Iterator<Item = Self>| isas.map(Self::name).collect::<Vec<_>>().join(", ");
        let Some(isa) = Self::ALL.into_iter().find(|isa| isa.name() == name) else {
            bail!("instruction set \"{name}\" is not known; {} are", names(&mut Self::ALL.into_iter()));
        };
        if !isa.is_available() {
            let have = names(&mut Self::ALL.into_iter().filter(|isa| isa.is_available()));
            bail!("this processor does not have {isa}; it has {have}");
        }
        Ok(isa)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_where_the_processor_has_them() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            assert_eq!(isa.name().parse::<Isa>().unwrap(), isa);
        }
        assert!("neon".parse::<Isa>().unwrap_err().to_string().contains("plain, avx2"));
    }

    #[test]
    fn what_is_detected_is_available() {
        assert!(Isa::detect().is_available());
        assert!(Isa::Plain.is_available());
    }
}
