//! What a processor and its system must have for any of this to run.

use anyhow::Result;

/// Holds that programs may use the instructions that this processor says it has.
///
/// # Errors
/// When it has F16C and the system keeps no registers of AVX, which F16C needs: libraries ask for the one alone, and would end
/// the program with an illegal instruction.
#[cfg(target_arch = "x86_64")]
pub fn check() -> Result<()> {
    let usable = !is_x86_feature_detected!("f16c") || is_x86_feature_detected!("avx");
    anyhow::ensure!(
        usable,
        "this processor has F16C, but its system or virtual machine withholds AVX, without which F16C does not work; \
         start Linux without noxsave, or give the virtual machine AVX or no F16C"
    );
    Ok(())
}

/// Holds that programs may use the instructions that this processor says it has.
///
/// # Errors
/// None: what other processors have, all programs may use.
#[cfg(not(target_arch = "x86_64"))]
pub fn check() -> Result<()> {
    Ok(())
}
