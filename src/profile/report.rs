//! What a profile says, as a table for people.

use super::file::Profile;
use super::plot::neurons_covering;
use std::fmt::Write;

/// Share of all firings by which skew is told.
pub const COVERED: f32 = 0.8;

/// Figures of one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerReport {
    /// Share of (token, neuron) pairs that did not fire.
    pub sparsity: f64,
    /// Share of neurons, hottest first, that make up [`COVERED`] of all firings.
    pub skew: f32,
    /// Neurons that never fired.
    pub dead: usize,
    /// Neurons.
    pub n_ff: usize,
}

/// Figures of a layer of a profile.
pub fn layer(profile: &Profile, layer: usize) -> LayerReport {
    let rates = profile.rates(layer);
    let fired = &profile.layers[layer].fired;
    let possible = profile.n_tokens() as f64 * fired.len() as f64;
    LayerReport {
        sparsity: 1.0 - fired.iter().map(|f| *f as f64).sum::<f64>() / possible,
        skew: neurons_covering(&rates, COVERED),
        dead: fired.iter().filter(|f| **f == 0).count(),
        n_ff: fired.len(),
    }
}

/// Share of (token, neuron) pairs that did not fire, over all layers.
pub fn sparsity(profile: &Profile) -> f64 {
    let fired: f64 = profile.layers.iter().flat_map(|l| &l.fired).map(|f| *f as f64).sum();
    let neurons: usize = profile.layers.iter().map(|l| l.fired.len()).sum();
    1.0 - fired / (profile.n_tokens() as f64 * neurons as f64)
}

/// A table with one line per layer and one for the model.
pub fn table(profile: &Profile) -> String {
    let mut out = String::from("layer   neurons   sparsity   80 % of firings in   dead\n");
    let mut line = |name: &str, n: usize, sparsity: f64, skew: f32, dead: usize| {
        let (sparsity, skew) = (100.0 * sparsity, 100.0 * skew);
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:>5} {n:>9} {sparsity:>9.2}% {skew:>12.1}% of them {dead:>6}");
    };
    let (mut neurons, mut dead) = (0, 0);
    for i in 0..profile.layers.len() {
        let r = layer(profile, i);
        line(&i.to_string(), r.n_ff, r.sparsity, r.skew, r.dead);
        neurons += r.n_ff;
        dead += r.dead;
    }
    let all: Vec<f32> = (0..profile.layers.len()).flat_map(|i| profile.rates(i)).collect();
    line("all", neurons, sparsity(profile), neurons_covering(&all, COVERED), dead);
    out
}
