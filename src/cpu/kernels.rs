//! The table of kernels: for each tensor type that can be computed with, its dot product and its scaled addition.

use super::activations::{ActKind, ActRow};
use super::scalar;
use crate::quant::GgmlType;
use anyhow::{Result, bail};

/// What the CPU does with rows of one type. All functions expect whole blocks of matching length; results depend on
/// the operands only, never on threads or on how rows are grouped.
pub struct Kernels {
    /// The type of the rows.
    pub dtype: GgmlType,
    /// The form in which `dot` reads the activations.
    pub act: ActKind,
    /// Dot product of one row with one vector of activations.
    pub dot: fn(&[u8], ActRow) -> f32,
    /// `y += a * row`, where 0 times anything is 0 (infinities too), so that adding a neuron that has not fired
    /// changes nothing.
    pub add_scaled: fn(&[u8], f32, &mut [f32]),
}

static TABLE: [Kernels; 5] = [
    Kernels { dtype: GgmlType::F32, act: ActKind::F32, dot: scalar::dot_f32, add_scaled: scalar::add_scaled_f32 },
    Kernels { dtype: GgmlType::F16, act: ActKind::F32, dot: scalar::dot_f16, add_scaled: scalar::add_scaled_f16 },
    Kernels { dtype: GgmlType::BF16, act: ActKind::F32, dot: scalar::dot_bf16, add_scaled: scalar::add_scaled_bf16 },
    Kernels { dtype: GgmlType::Q8_0, act: ActKind::Q8, dot: scalar::dot_q8_0, add_scaled: scalar::add_scaled_q8_0 },
    Kernels { dtype: GgmlType::Q4_0, act: ActKind::Q8, dot: scalar::dot_q4_0, add_scaled: scalar::add_scaled_q4_0 },
];

/// The kernels for `dtype`.
///
/// # Errors
/// Names the type and the supported ones when there are none for it.
pub fn kernels(dtype: GgmlType) -> Result<&'static Kernels> {
    match TABLE.iter().find(|k| k.dtype == dtype) {
        Some(found) => Ok(found),
        None => {
            let known: Vec<_> = TABLE.iter().map(|k| k.dtype.name()).collect();
            bail!("has type {dtype}, which is not supported yet; supported: {}", known.join(", "))
        }
    }
}
