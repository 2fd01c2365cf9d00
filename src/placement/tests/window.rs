//! Layers with a window read the keys and values of no more tokens than that.

use super::*;
use crate::placement::choice::LayerChoice;
use crate::placement::cost::Cost;

#[test]
fn attention_with_a_window_takes_the_time_of_as_many_tokens() {
    let (hardware, full, run) = (machine(), distinct(2, 512, 1024, 9), run(Mode::Dense));
    let mut windowed = full.clone();
    windowed.layers[1].window = Some(64);
    let on_cpu = LayerChoice::none(1);
    let seconds = |work: &Workload, layer: usize| {
        Cost::new(&hardware, work, &run).layer(layer, &on_cpu, Place::Host, &mut Vec::new()).attention
    };
    assert_eq!(seconds(&full, 0), seconds(&windowed, 0));
    // Keys and values, of 512 elements in two bytes each, of 448 tokens less, at 70 GB/s.
    let less = seconds(&full, 1) - seconds(&windowed, 1);
    let expected = f64::from(2 * 512 * 2 * (512 - 64)) / 70e9;
    assert!((less / expected - 1.0).abs() < 1e-6, "{less} instead of {expected}");
    windowed.layers[1].window = Some(100_000);
    assert_eq!(seconds(&full, 1), seconds(&windowed, 1));
}
