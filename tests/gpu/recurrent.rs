//! Kernels of layers that recur, against the plain Rust.

use super::card::{Card, assert_close};
use super::support::Random;
use powerinfer::cpu::ssm::{Sizes, plain};
use powerinfer::gpu::ops::norm::{Acts, x8_bytes};
use powerinfer::gpu::ops::recurrent::{GroupNorm, Mixer, Tokens, convolve, group_norm, scan};
use powerinfer::gpu::{DeviceBuffer, Ptr};

/// Relative to the largest value: sums of up to 150 products run in another order.
const TOLERANCE: f64 = 4e-6;
/// Some that leave a rest everywhere, a group of each head, one of all; more elements of a state, or of a head, than a block holds.
const SIZES: [Sizes; 5] = [
    Sizes { n_heads: 4, head_dim: 64, n_groups: 2, n_state: 128, n_conv: 4 },
    Sizes { n_heads: 6, head_dim: 7, n_groups: 3, n_state: 5, n_conv: 3 },
    Sizes { n_heads: 1, head_dim: 1, n_groups: 1, n_state: 1, n_conv: 1 },
    Sizes { n_heads: 3, head_dim: 35, n_groups: 3, n_state: 150, n_conv: 16 },
    Sizes { n_heads: 2, head_dim: 80, n_groups: 1, n_state: 17, n_conv: 2 },
];

/// A mixer's weights, here and on the card.
struct Layer {
    sizes: Sizes,
    weights: [Vec<f32>; 5],
    on_card: [DeviceBuffer; 5],
}

/// What a sequence remembers.
struct Memory {
    conv: DeviceBuffer,
    states: DeviceBuffer,
}

impl Layer {
    fn new(card: &Card, random: &mut Random, sizes: Sizes) -> Self {
        let (n, n_heads) = (sizes.n_channels(), sizes.n_heads);
        let mut weights = [n * sizes.n_conv, n, n_heads, n_heads, n_heads].map(|n| random.values(n));
        // States decay.
        weights[3].iter_mut().for_each(|a| *a -= 1.5);
        let on_card = [0, 1, 2, 3, 4].map(|i: usize| card.put(&weights[i]));
        Self { sizes, weights, on_card }
    }

    /// Lets tokens through on the card, the first at this position: what is gated.
    fn mix(&self, card: &Card, memory: &Memory, projected: &[f32], first: usize) -> Vec<f32> {
        let n_tokens = projected.len() / self.sizes.n_projected();
        let at = |i: usize| self.on_card[i].ptr();
        let (conv, heads) = (memory.conv.ptr(), memory.states.ptr());
        let sizes = self.sizes;
        let mixer =
            Mixer { sizes, taps: at(0), bias: at(1), dt_bias: at(2), rates: at(3), past: at(4), conv, heads, apart: 0 };
        let (there, y) = (card.put(projected), card.room::<f32>(n_tokens * sizes.n_inner()));
        // The position is the sum of both.
        let token = card.put(&[0u32, first as u32 / 2].into_iter().chain([0; 62]).collect::<Vec<u32>>());
        let first = first - first / 2;
        let tokens = Tokens { projected: there.ptr(), n_tokens, token: token.ptr(), first };
        convolve(card.kernels, &card.stream, &mixer, &tokens).unwrap();
        scan(card.kernels, &card.stream, &mixer, &tokens, y.ptr()).unwrap();
        card.get(y.ptr(), n_tokens * sizes.n_inner())
    }

    /// The same here.
    fn expected(&self, conv: &mut [f32], states: &mut [f32], projected: &[f32]) -> Vec<f32> {
        let [taps, bias, dt_bias, rates, past] = &self.weights;
        let weights = plain::Weights { taps, bias, dt_bias, rates, past };
        let of = |projected: &[f32]| {
            let mut y = vec![0.0; self.sizes.n_inner()];
            plain::mix(self.sizes, &weights, projected, conv, states, &mut y);
            y
        };
        projected.chunks_exact(self.sizes.n_projected()).flat_map(of).collect()
    }
}

impl Memory {
    fn with(card: &Card, conv: &[f32], states: &[f32]) -> Self {
        Self { conv: card.put(conv), states: card.put(states) }
    }

    fn get(&self, card: &Card, sizes: Sizes) -> [Vec<f32>; 2] {
        [card.get(self.conv.ptr(), sizes.n_conv_state()), card.get(self.states.ptr(), sizes.n_states())]
    }
}

fn assert_near(got: &[f32], expected: &[f32], what: &str) {
    let largest = expected.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let expected: Vec<f64> = expected.iter().map(|v| f64::from(*v)).collect();
    assert_close(got, &expected, TOLERANCE * f64::from(largest), what);
}

#[test]
fn tokens_go_through_states_as_on_the_processor() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for sizes in SIZES {
        let layer = Layer::new(&card, &mut random, sizes);
        // What lies in memory before the first token is nothing; behind it, it counts.
        let nothing = [sizes.n_conv_state(), sizes.n_states()].map(|n| vec![f32::NAN; n]);
        let memory = Memory::with(&card, &nothing[0], &nothing[1]);
        let (mut conv, mut states) = (vec![0.0; sizes.n_conv_state()], vec![0.0; sizes.n_states()]);
        let mut first = 0;
        for n_tokens in [1, 2, 19, 1] {
            let projected = random.values(n_tokens * sizes.n_projected());
            let got = layer.mix(&card, &memory, &projected, first);
            let expected = layer.expected(&mut conv, &mut states, &projected);
            let what = format!("{sizes:?}, {n_tokens} from {first} on");
            assert_near(&got, &expected, &what);
            let [got_conv, got_states] = memory.get(&card, sizes);
            assert_eq!(got_conv, conv, "{what}");
            assert_near(&got_states, &states, &what);
            first += n_tokens;
        }
    }
}

#[test]
fn a_token_gets_the_same_bits_among_others_as_alone() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for sizes in [SIZES[1], SIZES[3]] {
        let layer = Layer::new(&card, &mut random, sizes);
        let before = [sizes.n_conv_state(), sizes.n_states()].map(|n| random.values(n));
        let [together, alone] = [0, 1].map(|_| Memory::with(&card, &before[0], &before[1]));
        let projected = random.values(18 * sizes.n_projected());
        let all = layer.mix(&card, &together, &projected, 3);
        let one_by_one = projected.chunks_exact(sizes.n_projected()).enumerate();
        let each: Vec<f32> = one_by_one.flat_map(|(i, of)| layer.mix(&card, &alone, of, 3 + i)).collect();
        assert_eq!(all, each, "{sizes:?}");
        assert_eq!(together.get(&card, sizes), alone.get(&card, sizes), "{sizes:?}");
    }
}

#[test]
fn large_step_widths_and_what_is_no_number() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    let sizes = SIZES[1];
    let mut layer = Layer::new(&card, &mut random, sizes);
    // Softplus of 30 is 30, and of -30 next to nothing.
    layer.weights[2] = (0..sizes.n_heads).map(|head| [30.0, -30.0][head % 2]).collect();
    layer.on_card[2] = card.put(&layer.weights[2]);
    let (mut conv, mut states) = (random.values(sizes.n_conv_state()), random.values(sizes.n_states()));
    let memory = Memory::with(&card, &conv, &states);
    let mut projected = random.values(3 * sizes.n_projected());
    let got = layer.mix(&card, &memory, &projected, 1);
    assert_near(&got, &layer.expected(&mut conv, &mut states, &projected), "far from 0");
    // A step width of one head: its values are none, those of the others are as they were.
    let wrong = sizes.n_projected() - sizes.n_heads + 2;
    projected[wrong] = f32::NAN;
    let got = layer.mix(&card, &memory, &projected, 4);
    let expected = layer.expected(&mut conv, &mut states, &projected);
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let of_head = i % sizes.n_inner() / sizes.head_dim == 2;
        assert_eq!((got.is_nan(), expected.is_nan()), (of_head, of_head), "{i}");
    }
}

#[test]
fn groups_are_normalised_each_by_itself() {
    const EPS: f32 = 1e-5;
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for (n_groups, n, n_tokens) in [(1, 32, 1), (3, 96, 2), (8, 512, 1), (2, 1056, 3)] {
        let all = n_groups * n;
        let (mut x, weight) = (random.values(n_tokens * all), random.values(all));
        // Groups of other magnitudes.
        x.chunks_exact_mut(n).enumerate().for_each(|(i, x)| x.iter_mut().for_each(|v| *v *= [1.0, 1e-9, 1e15][i % 3]));
        let on_card = [&x, &weight].map(|v| card.put(v));
        let (out, x8) = (card.room::<f32>(x.len()), card.room::<u8>(x8_bytes(all) as usize * n_tokens));
        let norm = GroupNorm { n_groups, n, weight: on_card[1].ptr(), eps: EPS };
        let of = |out: Ptr, x8: Ptr| {
            let out = Acts { f32: out, x8 };
            group_norm(card.kernels, &card.stream, &norm, on_card[0].ptr(), n_tokens, out).unwrap();
        };
        of(out.ptr(), x8.ptr());
        let got = card.get::<f32>(out.ptr(), x.len());
        for (i, (x, got)) in x.chunks_exact(n).zip(got.chunks_exact(n)).enumerate() {
            let square = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n as f64;
            let scale = 1.0 / (square as f32 + EPS).sqrt();
            let weight = &weight[i % n_groups * n..][..n];
            let expected: Vec<f32> = x.iter().zip(weight).map(|(x, w)| x * scale * w).collect();
            assert_near(got, &expected, &format!("{n_groups} groups of {n}, {i}"));
        }
        card.assert_quantized(x8.ptr(), &got, all);
        // In its place, without the quantized form.
        of(on_card[0].ptr(), Ptr::NULL);
        assert_eq!(card.get::<f32>(on_card[0].ptr(), x.len()), got);
    }
    let norm = GroupNorm { n_groups: 2, n: 48, weight: Ptr::NULL, eps: EPS };
    let error = group_norm(card.kernels, &card.stream, &norm, Ptr::NULL, 1, Acts::default()).unwrap_err();
    assert!(error.to_string().contains("48"), "{error}");
}
