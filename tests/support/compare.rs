//! Comparing logits: bit for bit, or within a tolerance.

use anyhow::{Result, ensure};

/// Fails at the first position whose logits differ in any bit.
pub fn same_bits(expected: &[Vec<f32>], got: &[Vec<f32>]) -> Result<()> {
    ensure!(expected.len() == got.len(), "{} positions instead of {}", got.len(), expected.len());
    for (position, (expected, got)) in expected.iter().zip(got).enumerate() {
        let differing = expected.iter().zip(got).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        ensure!(expected.len() == got.len() && differing == 0, "position {position}: {differing} logits differ");
    }
    Ok(())
}

/// Largest absolute difference; NaN anywhere makes it infinite.
pub fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() }).fold(0.0, f32::max)
}

/// The best token, and by how much its logit leads the second one's.
pub fn best(logits: &[f32]) -> (u32, f32) {
    let first = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0);
    let others = logits.iter().enumerate().filter(|(i, _)| *i != first).map(|(_, l)| *l);
    (first as u32, logits[first] - others.fold(f32::NEG_INFINITY, f32::max))
}
