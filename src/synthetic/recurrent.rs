//! Vectors of Mamba-2 layers: states that remember some ten to a thousand tokens and give about as much as what goes past them.

use super::random::{Stream, permutation};
use crate::shapes::MambaShape;

/// Range of the decay per unit of time, as Mamba-2 draws it at first.
const DECAY: (f64, f64) = (1.0, 16.0);
/// Range of a step in time, likewise.
const STEP: (f64, f64) = (1e-3, 1e-1);
/// Mean square of the SiLU of a standard normal number, which inputs of the state are.
const SQUARE: f64 = 0.355_78;

/// By head: bias of the time step, decay (negative), and what goes past the state.
pub(super) struct Heads {
    pub dt_bias: Vec<f32>,
    pub a: Vec<f32>,
    pub d: Vec<f32>,
}

impl Heads {
    /// Those of a layer, whose random numbers `key` makes. Decays and steps are spread evenly over their ranges' logarithms, in
    /// orders that have nothing to do with each other.
    pub fn new(shape: &MambaShape, key: [u64; 3]) -> Self {
        let places = |which| {
            let order = permutation([key[0], key[1], key[2], which], shape.heads);
            order.into_iter().map(|place| (f64::from(place) + 0.5) / shape.heads as f64)
        };
        let within = |(from, to): (f64, f64), place: f64| from * (to / from).powf(place);
        let pairs: Vec<(f64, f64)> =
            places(0).zip(places(1)).map(|(decay, step)| (within(DECAY, decay), within(STEP, step))).collect();
        // The state's part of the output has this variance for an input of variance 1, as steps are short.
        let given = |(a, step): &(f64, f64)| (shape.state as f64 * SQUARE * SQUARE * step / (2.0 * a)).sqrt() as f32;
        Self {
            // The inverse of softplus.
            dt_bias: pairs.iter().map(|(_, step)| (step + (-(-step).exp_m1()).ln()) as f32).collect(),
            a: pairs.iter().map(|(a, _)| -a as f32).collect(),
            d: pairs.iter().map(given).collect(),
        }
    }
}

/// Weights of a channel's convolution, which keep the variance.
pub(super) fn convolution(key: [u64; 4], taps: &mut [f32]) {
    let mut stream = Stream::new(key);
    taps.iter_mut().for_each(|tap| *tap = stream.normal());
    let norm = taps.iter().map(|tap| tap * tap).sum::<f32>().sqrt();
    taps.iter_mut().for_each(|tap| *tap /= norm);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_decay_and_take_in_what_they_should() {
        let shape = MambaShape { n_conv: 4, inner: 256, state: 32, heads: 8, groups: 2 };
        let heads = Heads::new(&shape, [1, 2, 3]);
        for ((bias, a), d) in heads.dt_bias.iter().zip(&heads.a).zip(&heads.d) {
            let step = f64::from(*bias).exp().ln_1p();
            assert!((1e-3..1e-1).contains(&step) && (-16.0..-1.0).contains(a) && *d > 0.0, "{bias} {a} {d}");
            let kept = (step * f64::from(*a)).exp();
            assert!((0.2..0.9999).contains(&kept), "{kept}");
        }
        let mut taps = [0.0; 4];
        convolution([1, 2, 3, 4], &mut taps);
        assert!((taps.iter().map(|tap| tap * tap).sum::<f32>() - 1.0).abs() < 1e-6, "{taps:?}");
    }
}
