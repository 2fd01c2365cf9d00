//! The models of the catalogue.

use super::{ExpertShape, MambaShape, Shape, Window};
use crate::model::{Gating, Router};

/// For tests: they are never listed.
const TEST: &str = "test";
const TEST_EXPERTS: &str = "test-experts";
const TEST_EARLY: &str = "test-early";
const TEST_SILU: &str = "test-silu";

/// Whether a shape is there for tests alone.
pub(super) fn is_test(shape: &Shape) -> bool {
    [TEST, TEST_EXPERTS, TEST_EARLY, TEST_SILU].contains(&shape.name)
}

/// How unequally the experts of a model are chosen where nothing else is said: assumed. See [`ExpertShape::popularity`].
const POPULARITY: f64 = 0.5;

/// A shape with two names, then layers, `n_embd`, `n_ff`, and heads of queries and of keys.
const fn shape(
    names: (&'static str, &'static str),
    n_layer: usize,
    n_embd: usize,
    n_ff: usize,
    heads: (usize, usize),
) -> Shape {
    let ((name, short), (n_head, n_head_kv)) = (names, heads);
    Shape {
        name,
        short,
        arch: "llama",
        n_layer,
        n_embd,
        n_ff,
        n_head,
        n_head_kv,
        head_dim: n_embd / n_head,
        n_vocab: 32_000,
        rope_base: 10_000.0,
        gated: true,
        density: 0.1,
        tied: false,
        pattern: None,
        window: None,
        experts: None,
        mamba: None,
    }
}

const fn ungated(arch: &'static str, n_vocab: usize, density: f64, shape: Shape) -> Shape {
    Shape { arch, n_vocab, density, gated: false, ..shape }
}

/// `n` experts of which `n_used` are chosen, their weights normalised.
const fn experts(n: usize, n_used: usize, gating: Gating) -> ExpertShape {
    let router = Router { gating, n_used, normalised: true, scale: 1.0 };
    ExpertShape { n, router, biased: false, n_ff_shared: 0, latent: None, popularity: POPULARITY }
}

/// Of Nemotron's models: `scale` is that of the router's weights.
const fn nemotron(n: usize, n_used: usize, n_ff_shared: usize, scale: f32) -> ExpertShape {
    let of = experts(n, n_used, Gating::Sigmoid);
    ExpertShape { n_ff_shared, biased: true, router: Router { scale, ..of.router }, ..of }
}

/// Layers of Nemotron 3 Nano, as its configuration has them.
const NANO: &str = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME";
/// Those of Nemotron 3 Super, without the block that predicts further tokens.
const SUPER: &str = "MEMEMEM*EMEMEMEM*EMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEM*EMEMEMEME";

/// All shapes. Densities are assumptions: ProSparse's 89 % sparsity for LLaMA-2 7B and 13B (arXiv 2402.13516),
/// TurboSparse's and Bamboo's 85 to 90 % for Mistral and Mixtral, 28 to 33 % firing in ReluLLaMA 70B (its model cards),
/// 3 to 10 % for the ungated ReLU models (arXiv 2310.17157 for OPT), 40 % of what is chosen in SmallThinker (its authors:
/// more than 60 % idle), and 10 % where nothing is published, as for Nemotron. Qwen3's SiLU has no zeros.
pub static SHAPES: [Shape; 20] = [
    shape(("tinyllama-1.1b", "1b"), 22, 2048, 5632, (32, 4)),
    // But for its vocabulary.
    shape(("llama-3.2-3b", "3b"), 28, 3072, 8192, (24, 8)),
    Shape { density: 0.11, ..shape(("llama-2-7b", "7b"), 32, 4096, 11_008, (32, 32)) },
    Shape { rope_base: 1e6, density: 0.12, ..shape(("mistral-7b", "mistral-7b"), 32, 4096, 14_336, (32, 8)) },
    Shape { n_vocab: 128_256, rope_base: 500_000.0, ..shape(("llama-3-8b", "8b"), 32, 4096, 14_336, (32, 8)) },
    Shape { density: 0.11, ..shape(("llama-2-13b", "13b"), 40, 5120, 13_824, (40, 40)) },
    ungated("falcon", 65_024, 0.07, shape(("falcon-40b", "falcon-40b"), 60, 8192, 32_768, (128, 8))),
    Shape { density: 0.3, ..shape(("llama-70b", "70b"), 80, 8192, 28_672, (64, 8)) },
    ungated("opt", 50_272, 0.06, shape(("opt-30b", "opt-30b"), 48, 7168, 28_672, (56, 56))),
    ungated("opt", 50_272, 0.05, shape(("opt-175b", "opt-175b"), 96, 12_288, 49_152, (96, 96))),
    Shape {
        rope_base: 1e6,
        density: 0.12,
        experts: Some(experts(8, 2, Gating::Softmax)),
        ..shape(("mixtral-8x7b", "mixtral"), 32, 4096, 14_336, (32, 8))
    },
    Shape {
        arch: "qwen3moe",
        head_dim: 128,
        n_vocab: 151_936,
        rope_base: 1e6,
        density: 1.0,
        experts: Some(experts(128, 8, Gating::Softmax)),
        ..shape(("qwen3-30b-a3b", "qwen3-30b"), 48, 2048, 768, (32, 4))
    },
    Shape {
        arch: "smallthinker",
        head_dim: 128,
        n_vocab: 151_936,
        rope_base: 1.5e6,
        density: 0.4,
        tied: true,
        experts: Some(experts(32, 4, Gating::Sigmoid)),
        ..shape(("smallthinker-4b-a0.6b", "smallthinker-4b"), 32, 1536, 768, (12, 2))
    },
    Shape {
        arch: "smallthinker",
        head_dim: 128,
        n_vocab: 151_936,
        rope_base: 1.5e6,
        density: 0.4,
        window: Some(Window { n: 4096, full_every: 4 }),
        experts: Some(experts(64, 6, Gating::Sigmoid)),
        ..shape(("smallthinker-21b-a3b", "smallthinker-21b"), 52, 2560, 768, (28, 4))
    },
    ungated(
        "nemotron_h_moe",
        131_072,
        0.1,
        Shape {
            head_dim: 128,
            pattern: Some(NANO),
            experts: Some(nemotron(128, 6, 3712, 2.5)),
            mamba: Some(MambaShape { n_conv: 4, inner: 4096, state: 128, heads: 64, groups: 8 }),
            ..shape(("nemotron-3-nano-30b-a3b", "nemotron-3-nano"), 52, 2688, 1856, (32, 2))
        },
    ),
    ungated(
        "nemotron_h_moe",
        131_072,
        0.1,
        Shape {
            pattern: Some(SUPER),
            experts: Some(ExpertShape { latent: Some(1024), ..nemotron(512, 22, 5376, 5.0) }),
            mamba: Some(MambaShape { n_conv: 4, inner: 8192, state: 128, heads: 128, groups: 8 }),
            ..shape(("nemotron-3-super-120b-a12b", "nemotron-3-super"), 88, 4096, 2688, (32, 2))
        },
    ),
    Shape { n_vocab: 512, ..shape((TEST, TEST), 8, 256, 768, (8, 4)) },
    ungated(
        "nemotron_h_moe",
        512,
        0.1,
        Shape {
            head_dim: 32,
            pattern: Some("ME*"),
            experts: Some(ExpertShape { latent: Some(128), ..nemotron(16, 4, 256, 2.5) }),
            mamba: Some(MambaShape { n_conv: 4, inner: 256, state: 32, heads: 8, groups: 2 }),
            ..shape((TEST_EXPERTS, TEST_EXPERTS), 6, 256, 128, (4, 2))
        },
    ),
    Shape {
        arch: "smallthinker",
        head_dim: 32,
        n_vocab: 512,
        tied: true,
        experts: Some(experts(8, 2, Gating::Sigmoid)),
        ..shape((TEST_EARLY, TEST_EARLY), 4, 256, 256, (6, 2))
    },
    Shape {
        arch: "qwen3moe",
        head_dim: 64,
        n_vocab: 512,
        density: 1.0,
        experts: Some(experts(16, 4, Gating::Softmax)),
        ..shape((TEST_SILU, TEST_SILU), 3, 256, 64, (4, 2))
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::LayerKind;

    #[test]
    fn layers_follow_the_published_pattern() {
        for (name, kinds) in [("nemotron-3-nano", [23, 23, 6]), ("nemotron-3-super", [40, 40, 8])] {
            let shape = SHAPES.iter().find(|s| s.short == name).unwrap();
            let counts = [LayerKind::Recurrent, LayerKind::Ffn, LayerKind::Attention]
                .map(|kind| (0..shape.n_layer).filter(|i| shape.kind(*i) == kind).count());
            assert_eq!((counts, counts.iter().sum::<usize>()), (kinds, shape.n_layer), "{name}");
            // Layers beyond the model's begin it again.
            assert_eq!(shape.kind(shape.n_layer + 1), shape.kind(1));
        }
        for shape in &SHAPES {
            let letters = shape.pattern.unwrap_or("");
            assert!(letters.is_empty() || is_test(shape) || letters.len() == shape.n_layer, "{}", shape.name);
            assert!(letters.chars().all(|letter| "ME*".contains(letter)), "{}", shape.name);
            assert_eq!(letters.contains('M'), shape.mamba.is_some(), "{}", shape.name);
        }
    }

    #[test]
    fn every_fourth_layer_of_smallthinker_attends_to_everything() {
        let shape = SHAPES.iter().find(|s| s.short == "smallthinker-21b").unwrap();
        assert_eq!((0..52).filter(|i| shape.window_of(*i).is_none()).count(), 13);
        assert_eq!([0, 1, 4].map(|i| shape.window_of(i)), [None, Some(4096), None]);
        assert_eq!(SHAPES[0].window_of(1), None);
    }
}
