//! The tensor types of ggml: number, name and block geometry.

use std::fmt;

/// A ggml tensor type, known by name and size. Whether it is supported in computations is another question: see
/// [`mod@crate::cpu::kernels`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GgmlType(&'static TypeInfo);

#[derive(Debug, PartialEq, Eq, Hash)]
struct TypeInfo {
    id: u32,
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
}

const fn info(id: u32, name: &'static str, block_len: usize, block_bytes: usize) -> TypeInfo {
    TypeInfo { id, name, block_len, block_bytes }
}

/// Source: `ggml.h` (enum ggml_type) and the block structs of `ggml-common.h`. Numbers that are missing were
/// withdrawn upstream.
static TYPES: [TypeInfo; 33] = [
    info(0, "F32", 1, 4),
    info(1, "F16", 1, 2),
    info(2, "Q4_0", 32, 18),
    info(3, "Q4_1", 32, 20),
    info(6, "Q5_0", 32, 22),
    info(7, "Q5_1", 32, 24),
    info(8, "Q8_0", 32, 34),
    info(9, "Q8_1", 32, 36),
    info(10, "Q2_K", 256, 84),
    info(11, "Q3_K", 256, 110),
    info(12, "Q4_K", 256, 144),
    info(13, "Q5_K", 256, 176),
    info(14, "Q6_K", 256, 210),
    info(15, "Q8_K", 256, 292),
    info(16, "IQ2_XXS", 256, 66),
    info(17, "IQ2_XS", 256, 74),
    info(18, "IQ3_XXS", 256, 98),
    info(19, "IQ1_S", 256, 50),
    info(20, "IQ4_NL", 32, 18),
    info(21, "IQ3_S", 256, 110),
    info(22, "IQ2_S", 256, 82),
    info(23, "IQ4_XS", 256, 136),
    info(24, "I8", 1, 1),
    info(25, "I16", 1, 2),
    info(26, "I32", 1, 4),
    info(27, "I64", 1, 8),
    info(28, "F64", 1, 8),
    info(29, "IQ1_M", 256, 56),
    info(30, "BF16", 1, 2),
    info(34, "TQ1_0", 256, 54),
    info(35, "TQ2_0", 256, 66),
    info(39, "MXFP4", 32, 17),
    info(40, "NVFP4", 64, 36),
];

const fn at(index: usize) -> GgmlType {
    GgmlType(&TYPES[index])
}

impl GgmlType {
    /// 32-bit float.
    pub const F32: Self = at(0);
    /// 16-bit float (IEEE half).
    pub const F16: Self = at(1);
    /// 4-bit blocks of 32 with one F16 scale.
    pub const Q4_0: Self = at(2);
    /// 4-bit blocks of 32 with an F16 scale and an F16 minimum.
    pub const Q4_1: Self = at(3);
    /// 5-bit blocks of 32 with one F16 scale.
    pub const Q5_0: Self = at(4);
    /// 5-bit blocks of 32 with an F16 scale and an F16 minimum.
    pub const Q5_1: Self = at(5);
    /// 8-bit blocks of 32 with one F16 scale.
    pub const Q8_0: Self = at(6);
    /// 2-bit super-blocks of 256: 16 sub-blocks with 4-bit scales and minima.
    pub const Q2_K: Self = at(8);
    /// 3-bit super-blocks of 256: 16 sub-blocks with 6-bit scales.
    pub const Q3_K: Self = at(9);
    /// 4-bit super-blocks of 256: 8 sub-blocks with 6-bit scales and minima.
    pub const Q4_K: Self = at(10);
    /// 5-bit super-blocks of 256: 8 sub-blocks with 6-bit scales and minima.
    pub const Q5_K: Self = at(11);
    /// 6-bit super-blocks of 256: 16 sub-blocks with 8-bit scales.
    pub const Q6_K: Self = at(12);
    /// 4-bit blocks of 32 with one F16 scale and unevenly spaced levels.
    pub const IQ4_NL: Self = at(18);
    /// 4-bit super-blocks of 256: 8 sub-blocks with 6-bit scales and unevenly spaced levels.
    pub const IQ4_XS: Self = at(21);
    /// Bytes: quants whose scales lie elsewhere.
    pub const I8: Self = at(22);
    /// 32-bit integer: indices, never weights.
    pub const I32: Self = at(24);
    /// bfloat16.
    pub const BF16: Self = at(28);

    /// 4-bit floats in blocks of 32 with one exponent.
    pub const MXFP4: Self = at(31);

    /// The type with this number in a GGUF file.
    pub fn from_id(id: u32) -> Option<Self> {
        TYPES.iter().find(|t| t.id == id).map(Self)
    }

    /// The type of this name, in any case (`q8_0`).
    pub fn from_name(name: &str) -> Option<Self> {
        TYPES.iter().find(|t| t.name.eq_ignore_ascii_case(name)).map(Self)
    }

    /// Number in a GGUF file.
    pub fn id(self) -> u32 {
        self.0.id
    }

    /// Name as ggml writes it.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Elements per block.
    pub fn block_len(self) -> usize {
        self.0.block_len
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.0.block_bytes
    }

    /// Bytes of a row of `n` elements; `None` when `n` is not a whole number of blocks or the size overflows.
    pub fn row_bytes(self, n: usize) -> Option<usize> {
        if !n.is_multiple_of(self.0.block_len) {
            return None;
        }
        (n / self.0.block_len).checked_mul(self.0.block_bytes)
    }
}

impl fmt::Debug for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_constants_are_the_types_they_say() {
        let named = [
            (GgmlType::F32, "F32", 0),
            (GgmlType::F16, "F16", 1),
            (GgmlType::Q4_0, "Q4_0", 2),
            (GgmlType::Q4_1, "Q4_1", 3),
            (GgmlType::Q5_0, "Q5_0", 6),
            (GgmlType::Q5_1, "Q5_1", 7),
            (GgmlType::Q8_0, "Q8_0", 8),
            (GgmlType::Q2_K, "Q2_K", 10),
            (GgmlType::Q3_K, "Q3_K", 11),
            (GgmlType::Q4_K, "Q4_K", 12),
            (GgmlType::Q5_K, "Q5_K", 13),
            (GgmlType::Q6_K, "Q6_K", 14),
            (GgmlType::IQ4_NL, "IQ4_NL", 20),
            (GgmlType::IQ4_XS, "IQ4_XS", 23),
            (GgmlType::I8, "I8", 24),
            (GgmlType::I32, "I32", 26),
            (GgmlType::BF16, "BF16", 30),
            (GgmlType::MXFP4, "MXFP4", 39),
        ];
        for (ty, name, id) in named {
            assert_eq!((ty.name(), ty.id()), (name, id));
        }
    }

    #[test]
    fn a_row_must_be_whole_blocks() {
        assert_eq!(GgmlType::Q4_0.row_bytes(64), Some(36));
        assert_eq!(GgmlType::Q4_0.row_bytes(33), None);
        assert_eq!(GgmlType::F32.row_bytes(usize::MAX), None);
    }
}
