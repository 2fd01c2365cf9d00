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
    /// AArch64 with NEON, which all such processors have.
    Neon,
    /// NEON with the 8-bit dot products of Armv8.2 (`FEAT_DotProd`).
    DotProd,
    /// The same with the 8-bit products of matrices of Armv8.6 (`FEAT_I8MM`).
    I8mm,
}

impl Isa {
    /// All, slowest first.
    pub const ALL: [Self; 7] =
        [Self::Plain, Self::Avx2, Self::AvxVnni, Self::Avx512, Self::Neon, Self::DotProd, Self::I8mm];

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
            Self::Neon | Self::DotProd | Self::I8mm => false,
        }
    }

    /// Whether this processor can run it.
    #[cfg(target_arch = "aarch64")]
    pub fn is_available(self) -> bool {
        use std::arch::is_aarch64_feature_detected;
        let dot_products = || is_aarch64_feature_detected!("dotprod");
        match self {
            Self::Plain => true,
            Self::Neon => is_aarch64_feature_detected!("neon"),
            Self::DotProd => Self::Neon.is_available() && dot_products(),
            Self::I8mm => Self::DotProd.is_available() && is_aarch64_feature_detected!("i8mm"),
            Self::Avx2 | Self::AvxVnni | Self::Avx512 => false,
        }
    }

    /// Whether this processor can run it.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
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
            Self::Neon => "neon",
            Self::DotProd => "dotprod",
            Self::I8mm => "i8mm",
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
        assert!("sse".parse::<Isa>().unwrap_err().to_string().contains("plain, avx2"));
        let foreign = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
        assert!(foreign.parse::<Isa>().unwrap_err().to_string().contains("does not have"));
    }

    #[test]
    fn what_is_detected_is_available() {
        assert!(Isa::detect().is_available());
        assert!(Isa::Plain.is_available());
    }
}
