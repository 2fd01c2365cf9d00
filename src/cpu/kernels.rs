//! The table of kernels: the dot product and the scaled addition of each tensor type that is supported.
#![allow(unsafe_code, reason = "features that a kernel is compiled for are checked at run time")]

use super::activations::{ActKind, ActRow};
use super::isa::Isa;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::plain;
use super::rows::Rows;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::quant::GgmlType;
use anyhow::{Result, bail};
use std::ops::Range;

/// What the CPU does with rows of one type. All functions expect rows of whole blocks and operands of matching length;
/// results depend on the operands only, never on threads or on how rows are grouped.
pub struct Kernels {
    /// The type of the rows.
    pub dtype: GgmlType,
    /// The form in which `dot` reads the activations.
    pub act: ActKind,
    /// Dot products of each row with one vector of activations, one per row.
    pub dot: fn(Rows, ActRow, &mut [f32]),
    /// Dot products of a range of the rows with 1, 2 or 4 vectors of activations, each with the bits of `dot`: row `i` of
    /// the range writes to the first elements of number `i` of the pieces of so many that the last two arguments are.
    /// [`Kernels::dots`] takes any number of vectors.
    pub dot_some: fn(Rows, Range<usize>, &[&ActRow], &mut [f32], usize),
    /// `y += a[i] * row[i]` for each row in order, where 0 times anything is 0 (infinities too), so that adding a
    /// neuron that has not fired changes nothing.
    pub add_scaled: fn(Rows, &[f32], &mut [f32]),
}

impl Isa {
    /// The kernels for `dtype` on this instruction set; where it has none of its own, the next simpler one's.
    ///
    /// # Panics
    /// When the type cannot be computed with: [`check_supported`] tells beforehand.
    pub fn kernels(self, dtype: GgmlType) -> &'static Kernels {
        assert!(self.is_available(), "this processor does not have {self}");
        find(self, dtype).unwrap_or_else(|| panic!("no kernels for {dtype}"))
    }
}

/// The kernels of one type, compiled with `$dot_features` and `$add_features`, from its dot products of a single row with
/// some vectors, or with `pairs` those of one or two rows with up to so many, and its scaled addition for several rows.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! row_kernels {
    ($dot_features:literal, $add_features:literal, $dtype:ident, $act:ident, $dot:path, $add:path) => {
        row_kernels!(@ $dot_features, $add_features, $dtype, $act, 4, $add, {
            #[target_feature(enable = $dot_features)]
            fn times<const N: usize>(rows: Rows, range: Range<usize>, x: [&ActRow; N], out: &mut [f32], stride: usize) {
                // Copies, which a request for memory ahead cannot change: else each step would look again where they lie.
                let (start, own) = (range.start, x.map(|x| *x));
                let x = own.each_ref();
                for i in range {
                    out[(i - start) * stride..][..N].copy_from_slice(&$dot(rows.get(i), rows.ahead(i), x));
                }
            }
        })
    };
    ($dot_features:literal, $add_features:literal, $dtype:ident, $act:ident, pairs $most:literal $dot:path, $add:path) => {
        row_kernels!(@ $dot_features, $add_features, $dtype, $act, $most, $add, {
            #[target_feature(enable = $dot_features)]
            fn times<const N: usize>(rows: Rows, range: Range<usize>, x: [&ActRow; N], out: &mut [f32], stride: usize) {
                let (start, mut next, own) = (range.start, range.start, x.map(|x| *x));
                let x = own.each_ref();
                // With one vector, memory is what they wait for.
                while N > 1 && next + 2 <= range.end {
                    let both = $dot([rows.get(next), rows.get(next + 1)], [rows.ahead(next), rows.ahead(next + 1)], x);
                    for (i, products) in both.iter().enumerate() {
                        out[(next - start + i) * stride..][..N].copy_from_slice(products);
                    }
                    next += 2;
                }
                for i in next..range.end {
                    let [products] = $dot([rows.get(i)], [rows.ahead(i)], x);
                    out[(i - start) * stride..][..N].copy_from_slice(&products);
                }
            }
        })
    };
    (@ $dot_features:literal, $add_features:literal, $dtype:ident, $act:ident, $most:literal, $add:path, { $times:item }) => {{
        use crate::cpu::{ActKind, ActRow, Kernels, Rows};
        use std::ops::Range;

        $times
        #[target_feature(enable = $dot_features)]
        fn dot_rows(rows: Rows, x: ActRow, out: &mut [f32]) {
            assert_eq!(rows.len(), out.len());
            times(rows, 0..rows.len(), [&x], out, 1);
        }
        #[target_feature(enable = $dot_features)]
        fn dot_some(rows: Rows, range: Range<usize>, x: &[&ActRow], out: &mut [f32], stride: usize) {
            match *x {
                [a] => times(rows, range, [a], out, stride),
                [a, b] => times(rows, range, [a, b], out, stride),
                [a, b, c, d] if $most == 4 => times(rows, range, [a, b, c, d], out, stride),
                [a, b, c, d] => {
                    times(rows, range.clone(), [a, b], out, stride);
                    times(rows, range, [c, d], &mut out[2..], stride);
                }
                _ => unreachable!("{} vectors at once", x.len()),
            }
        }
        #[target_feature(enable = $add_features)]
        fn add_rows(rows: Rows, a: &[f32], y: &mut [f32]) {
            assert_eq!(rows.len(), a.len());
            $add(rows, a, y);
        }
        Kernels {
            dtype: crate::quant::GgmlType::$dtype,
            act: ActKind::$act,
            // SAFETY: `Isa::kernels` gave this table out, so the processor has the features.
            dot: |rows, x, out| unsafe { dot_rows(rows, x, out) },
            // SAFETY: as above.
            dot_some: |rows, range, x, out, stride| unsafe { dot_some(rows, range, x, out, stride) },
            // SAFETY: as above.
            add_scaled: |rows, a, y| unsafe { add_rows(rows, a, y) },
        }
    }};
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use row_kernels;

/// Tables, best first.
#[cfg(target_arch = "x86_64")]
static TABLES: [(Isa, &[Kernels]); 4] = [
    (Isa::Avx512, &avx512::TABLE),
    (Isa::AvxVnni, &avx2::VNNI_TABLE),
    (Isa::Avx2, &avx2::TABLE),
    (Isa::Plain, &plain::TABLE),
];
#[cfg(target_arch = "aarch64")]
static TABLES: [(Isa, &[Kernels]); 5] = [
    (Isa::I8mm, &neon::I8MM_TABLE),
    (Isa::DotProd, &neon::DOTPROD_TABLE),
    (Isa::Neon, &neon::TABLE),
    (Isa::Neon, &neon::FLOATS),
    (Isa::Plain, &plain::TABLE),
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
static TABLES: [(Isa, &[Kernels]); 1] = [(Isa::Plain, &plain::TABLE)];

fn find(isa: Isa, dtype: GgmlType) -> Option<&'static Kernels> {
    // There are processors with AVX-512 and without AVX-VNNI.
    TABLES
        .iter()
        .filter(|(of, _)| *of <= isa && of.is_available())
        .flat_map(|(_, table)| *table)
        .find(|k| k.dtype == dtype)
}

/// Whether rows of `dtype` can be computed with.
///
/// # Errors
/// Names the type and the supported ones when they cannot.
pub fn check_supported(dtype: GgmlType) -> Result<()> {
    if plain::TABLE.iter().any(|k| k.dtype == dtype) {
        return Ok(());
    }
    let known: Vec<_> = plain::TABLE.iter().map(|k| k.dtype.name()).collect();
    bail!("has type {dtype}, which is not supported yet; supported: {}", known.join(", "))
}
