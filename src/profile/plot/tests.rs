//! What is drawn, and what cannot be.

use super::*;

/// Rates falling by a power of the rank, the steeper the deeper the layer.
fn power_law(n_layer: usize, n_ff: usize) -> Vec<Vec<f32>> {
    (0..n_layer)
        .map(|layer| {
            let exponent = 0.6 + 0.9 * layer as f32 / n_layer as f32;
            (0..n_ff)
                .map(|i| {
                    let rank = (i * 7919) % n_ff;
                    (1.0 + rank as f32 / n_ff as f32 * 60.0).powf(-exponent)
                })
                .collect()
        })
        .collect()
}

fn input<'a>(title: &'a str, rates: &'a [Vec<f32>], labels: &'a [String]) -> PlotInput<'a> {
    PlotInput { title, rates, labels, routers: &[], n_tokens: 100 }
}

fn labels(n: usize) -> Vec<String> {
    (0..n).map(|i| i.to_string()).collect()
}

fn picture(rates: &[Vec<f32>]) -> Vec<u8> {
    draw(&input("test", rates, &labels(rates.len()))).unwrap()
}

#[test]
fn decodes_to_the_stated_size() {
    let bytes = picture(&power_law(6, 1024));
    let reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let info = reader.info();
    assert_eq!((info.width as usize, info.height as usize), (WIDTH, HEIGHT));
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
}

#[test]
fn the_same_profile_gives_the_same_bytes() {
    assert_eq!(picture(&power_law(3, 100)), picture(&power_law(3, 100)));
}

#[test]
fn unusual_profiles_are_drawn() {
    picture(&[vec![0.0; 8]]);
    picture(&[vec![1.0; 8], vec![0.0; 8]]);
    picture(&[vec![0.5]]);
    picture(&[vec![0.1; 5], vec![0.9; 3000], vec![f32::MIN_POSITIVE]]);
    picture(&power_law(80, 512));
    picture(&power_law(2, 28_672));
    picture(&vec![vec![0.3; 2]; HEAT_HEIGHT + 20]);
    draw(&input(&"long title ".repeat(50), &[vec![0.5]], &labels(1))).unwrap();
    draw(&input("", &[vec![0.5]], &labels(1))).unwrap();
}

#[test]
fn what_cannot_be_drawn_is_an_error_with_its_place() {
    let error = |rates: &[Vec<f32>]| draw(&input("", rates, &labels(rates.len()))).unwrap_err().to_string();
    assert_eq!(error(&[]), "nothing to draw: the profile has no layers");
    assert_eq!(error(&[vec![0.5], vec![]]), "layer 1 of the profile has no neurons");
    assert_eq!(error(&[vec![0.5, f32::NAN]]), "layer 0, neuron 1: firing rate NaN is not between 0 and 1");
    assert_eq!(error(&[vec![1.5]]), "layer 0, neuron 0: firing rate 1.5 is not between 0 and 1");
}

#[test]
fn the_cumulative_curve_starts_with_the_hottest_neuron() {
    let curve = cumulative_curve(&[0.125, 0.0, 0.5, 0.375]);
    assert_eq!(curve, [(0.0, 0.0), (0.25, 0.5), (0.5, 0.875), (0.75, 1.0), (1.0, 1.0)]);
    assert_eq!(cumulative_curve(&[0.0, 0.0]), []);
    assert_eq!(cumulative_curve(&[]), []);
}

#[test]
fn neurons_covering_counts_whole_neurons() {
    let rates = [0.125, 0.0, 0.5, 0.375];
    for (share, expected) in [(0.0, 0.0), (0.1, 0.25), (0.5, 0.25), (0.51, 0.5), (0.875, 0.5), (1.0, 0.75)] {
        assert_eq!(neurons_covering(&rates, share), expected, "{share}");
    }
    assert_eq!(neurons_covering(&[0.0; 4], 0.8), 0.0);
    assert_eq!(neurons_covering(&[0.3; 10], 0.8), 0.8);
}

#[test]
fn resampling_keeps_the_mean() {
    assert_eq!(resample(&[1.0, 0.5, 0.25, 0.25], 2), [0.75, 0.25]);
    assert_eq!(resample(&[1.0, 0.0], 4), [1.0, 1.0, 0.0, 0.0]);
    assert_eq!(resample(&[0.75, 0.75, 0.0], 2), [0.75, 0.25]);
}

#[test]
fn layer_labels_do_not_overlap() {
    for (n_layer, step) in [(1, 1), (6, 1), (32, 2), (80, 5)] {
        assert_eq!(label_step(n_layer, HEAT_HEIGHT), step, "{n_layer} layers");
    }
    assert!(label_step(100_000, HEAT_HEIGHT) * HEAT_HEIGHT / 100_000 >= TEXT_HEIGHT);
}

fn rgb(bytes: Vec<u8>) -> Vec<u8> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut rgb).unwrap();
    rgb
}

#[test]
fn no_legend_covers_a_curve() {
    // All neurons and all experts alike: the curves are diagonals.
    let (rates, n) = (vec![vec![0.25; 1000]; 2], 1000);
    let router = RouterCounts {
        layer: 0,
        groups: (0..n).collect(),
        chosen: [vec![10; n as usize], vec![10; n as usize]],
        again: vec![10; n as usize],
        first: 0,
    };
    let picture = rgb(draw(&PlotInput { routers: &[router], ..input("", &rates, &labels(2)) }).unwrap());
    let at = |down: usize, share: f32| {
        let (x, y) = curve_pixel((share, share), down);
        let first = (y as usize * WIDTH + x as usize) * 3;
        <Colour>::try_from(&picture[first..first + 3]).unwrap()
    };
    for percent in (5..95).filter(|percent| *percent != 80) {
        let share = percent as f32 / 100.0;
        assert_eq!(at(0, share), BLACK, "{percent} %");
        assert_ne!(at(experts::DOWN, share), WHITE, "{percent} %");
    }
}

#[test]
fn a_long_legend_goes_on_below() {
    let entry = |n: usize| ([BLACK; SAMPLE], "x".repeat(n));
    let (blank, mut canvas) = (Canvas::new(WIDTH, HEIGHT).to_png().unwrap(), Canvas::new(WIDTH, HEIGHT));
    draw_legend(&mut canvas, 0, &[entry(60), entry(40)]);
    let (blank, drawn) = (rgb(blank), rgb(canvas.to_png().unwrap()));
    let rows: Vec<usize> =
        (0..HEIGHT).filter(|y| blank[y * WIDTH * 3..][..WIDTH * 3] != drawn[y * WIDTH * 3..][..WIDTH * 3]).collect();
    assert!(rows.last().unwrap() - rows[0] > LEGEND_LINE, "{rows:?}");
}

#[test]
fn experts_are_drawn_below() {
    let router = |layer: u32, n: u64| RouterCounts {
        layer,
        groups: (0..n as u32).collect(),
        chosen: [(0..n).collect(), (0..n).map(|i| i * i % 7).collect()],
        again: (0..n).rev().collect(),
        first: 3,
    };
    let nothing = RouterCounts::new(2, vec![0, 1]);
    let (rates, labels) = (power_law(3, 64), labels(3));
    let routers = [router(0, 8), router(1, 100), nothing.clone()];
    for routers in [&routers[..], &[nothing]] {
        let input = PlotInput { routers, ..input("experts", &rates, &labels) };
        let bytes = draw(&input).unwrap();
        assert_eq!(bytes, draw(&input).unwrap());
        let reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        assert_eq!(reader.info().height as usize, HEIGHT_WITH_EXPERTS);
    }
}
