//! The catalogue of known models by their sizes alone, and how a user names one:
//! `NAME[-LAYERS][:TYPE[:DENSITY[:POPULARITY]]]`.

mod catalogue;

pub use catalogue::SHAPES;

use crate::cpu::check_supported;
use crate::model::Router;
use crate::quant::GgmlType;
use anyhow::{Context, Result, ensure};
use std::str::FromStr;

/// Sizes of a known model, with GGUF's names.
#[derive(Debug, PartialEq)]
pub struct Shape {
    /// What it is called.
    pub name: &'static str,
    /// A shorter name, which files of synthetic models have; the same where there is none.
    pub short: &'static str,
    /// `general.architecture`.
    pub arch: &'static str,
    /// Layers.
    pub n_layer: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Neurons of a layer's FFN, or of each of its experts.
    pub n_ff: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads.
    pub n_head_kv: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Entries of the vocabulary.
    pub n_vocab: usize,
    /// Base of the rotary frequencies, where there are such.
    pub rope_base: f32,
    /// Whether the FFN has a gate.
    pub gated: bool,
    /// Share of neurons that fire in the sparse model of this shape; of those of a chosen expert, where there are experts.
    pub density: f64,
    /// Whether the token embedding is the head, too.
    pub tied: bool,
    /// What layers are, by a letter each: `M` for Mamba-2, `E` for an FFN, `*` for attention. Further layers begin it again.
    /// Where it is absent, each has attention and an FFN.
    pub pattern: Option<&'static str>,
    /// Where some layers look back on a few tokens only.
    pub window: Option<Window>,
    /// Where each FFN consists of experts.
    pub experts: Option<ExpertShape>,
    /// Where layers are recurrent.
    pub mamba: Option<MambaShape>,
}

/// Which layers have a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Tokens that such a layer looks back on, the current one among them.
    pub n: usize,
    /// Layers whose number this divides have none.
    pub full_every: usize,
}

/// Experts of a layer. Each has [`Shape::n_ff`] neurons.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertShape {
    /// How many there are.
    pub n: usize,
    /// How some of them are chosen.
    pub router: Router,
    /// Whether a bias is added to the router's scores for the choice.
    pub biased: bool,
    /// Neurons of the expert that every token has beside them; 0 where there is none.
    pub n_ff_shared: usize,
    /// Width of what experts read and give, where it is not that of the residual stream.
    pub latent: Option<usize>,
    /// How unequally they are chosen: how often falls with the rank to this power, up to always.
    pub popularity: f64,
}

/// A Mamba-2 layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MambaShape {
    /// Tokens that the convolution spans.
    pub n_conv: usize,
    /// Elements of all heads.
    pub inner: usize,
    /// Values that each of these elements remembers.
    pub state: usize,
    /// Heads.
    pub heads: usize,
    /// Groups of heads, which share what they write with and read by.
    pub groups: usize,
}

impl MambaShape {
    /// Channels of the convolution.
    pub fn n_channels(&self) -> usize {
        self.inner + 2 * self.groups * self.state
    }

    /// Rows of `ssm_in`: gate, channels, and a time step for each head.
    pub fn n_in(&self) -> usize {
        self.inner + self.n_channels() + self.heads
    }

    /// Floats that a sequence remembers in such a layer.
    pub fn n_state(&self) -> usize {
        (self.n_conv - 1) * self.n_channels() + self.inner * self.state
    }
}

/// What a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// Attention, then an FFN.
    Block,
    /// Attention alone.
    Attention,
    /// A Mamba-2 mixer alone.
    Recurrent,
    /// An FFN alone.
    Ffn,
}

impl LayerKind {
    /// Whether it has attention.
    pub fn attends(self) -> bool {
        matches!(self, Self::Block | Self::Attention)
    }

    /// Whether it has neurons.
    pub fn has_ffn(self) -> bool {
        matches!(self, Self::Block | Self::Ffn)
    }
}

impl Shape {
    /// Elements of all query heads.
    pub fn n_q(&self) -> usize {
        self.head_dim * self.n_head
    }

    /// Elements of all key or value heads.
    pub fn n_kv(&self) -> usize {
        self.head_dim * self.n_head_kv
    }

    /// What layer number `layer` is, in a model of however many.
    pub fn kind(&self, layer: usize) -> LayerKind {
        let letter = self.pattern.and_then(|pattern| pattern.chars().cycle().nth(layer));
        match letter {
            None => LayerKind::Block,
            Some('M') => LayerKind::Recurrent,
            Some('*') => LayerKind::Attention,
            Some(_) => LayerKind::Ffn,
        }
    }

    /// Tokens that layer number `layer` looks back on, where that is limited.
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        self.window.filter(|window| !layer.is_multiple_of(window.full_every)).map(|window| window.n)
    }
}

fn find(name: &str) -> Option<&'static Shape> {
    SHAPES.iter().find(|s| [s.name, s.short].iter().any(|n| n.eq_ignore_ascii_case(name)))
}

/// The names that can be given, with the shorter ones in parentheses, of the shapes for which `of` holds.
pub fn known(of: fn(&Shape) -> bool) -> String {
    let named = |s: &Shape| if s.short == s.name { s.name.to_owned() } else { format!("{} ({})", s.name, s.short) };
    SHAPES.iter().filter(|s| !catalogue::is_test(s) && of(s)).map(named).collect::<Vec<_>>().join(", ")
}

/// A shape as a user asks for it. Read from `NAME[-LAYERS][:TYPE[:DENSITY[:POPULARITY]]]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sized {
    /// Sizes, but for the number of layers.
    pub shape: &'static Shape,
    /// Layers.
    pub n_layer: usize,
    /// Type of the matrices; `Q4_0` where none is given.
    pub dtype: GgmlType,
    /// Share of neurons that fire, where one is given.
    pub density: Option<f64>,
    /// How unequally experts are chosen ([`ExpertShape::popularity`]), where that is given.
    pub popularity: Option<f64>,
}

/// Of a power law: with more, all but the first few are never chosen.
const MOST_POPULARITY: f64 = 4.0;

impl Sized {
    /// Share of neurons that fire: as given, or the shape's.
    pub fn density(&self) -> f64 {
        self.density.unwrap_or(self.shape.density)
    }

    /// How unequally experts are chosen: as given, or the shape's; 0 without experts.
    pub fn popularity(&self) -> f64 {
        self.popularity.or(self.shape.experts.map(|experts| experts.popularity)).unwrap_or(0.0)
    }

    /// What a plan calls it: name, type, density, and popularity where there are experts.
    pub fn described(&self) -> String {
        let popularity = self.shape.experts.map(|_| format!(" p={}", self.popularity()));
        let name = self.with_suffix(self.shape.name);
        format!("{name} {} d={}{}", self.dtype, self.density(), popularity.unwrap_or_default())
    }

    /// `name`, which is one of the shape's, with the number of layers where it is not the shape's.
    pub fn with_suffix(&self, name: &str) -> String {
        if self.n_layer == self.shape.n_layer { name.to_owned() } else { format!("{name}-{}", self.n_layer) }
    }

    /// The same with another number of layers.
    ///
    /// # Errors
    /// When no model has so many, or none.
    pub fn with_layers(self, n_layer: usize) -> Result<Self> {
        ensure!((1..=1024).contains(&n_layer), "{n_layer} layers; 1 to 1024 are possible");
        Ok(Self { n_layer, ..self })
    }

    /// The type that rows of `n_cols` elements get where `wanted` is asked for: that, or what llama.cpp writes instead where
    /// they are not whole blocks of it.
    ///
    /// # Errors
    /// When they are not whole blocks of that either.
    pub fn type_of_rows(&self, wanted: GgmlType, n_cols: usize) -> Result<GgmlType> {
        let fits = |dtype: &GgmlType| dtype.row_bytes(n_cols).is_some();
        let found = [Some(wanted), fallback(wanted)].into_iter().flatten().find(fits);
        found.with_context(|| format!("rows of {n_cols}, which {} has, are not whole {wanted} blocks", self.shape.name))
    }

    /// The type of rows of `n_cols` elements, as [`Sized::type_of_rows`], and the bytes of one.
    ///
    /// # Errors
    /// When they are not whole blocks.
    pub fn row(&self, wanted: GgmlType, n_cols: usize) -> Result<(GgmlType, usize)> {
        let dtype = self.type_of_rows(wanted, n_cols)?;
        Ok((dtype, dtype.row_bytes(n_cols).context("rows are not whole blocks")?))
    }

    /// Elements of the rows of all its matrices.
    fn widths(&self) -> impl Iterator<Item = usize> {
        let Shape { n_embd, n_ff, experts, mamba, .. } = *self.shape;
        let of_experts = experts.iter().flat_map(|experts| [Some(experts.n_ff_shared), experts.latent]).flatten();
        let of_experts: Vec<usize> = of_experts.collect();
        let inner = mamba.map(|mamba| mamba.inner);
        [n_embd, n_ff, self.shape.n_q()].into_iter().chain(of_experts).chain(inner)
    }

    /// Type of embeddings and head: 8 bits where the rest has fewer, as `split` makes them.
    pub fn outer_type(&self) -> GgmlType {
        if self.dtype.block_bytes() < self.dtype.block_len() { GgmlType::Q8_0 } else { self.dtype }
    }
}

/// What llama.cpp writes instead of `dtype` where rows are not whole blocks of it (`tensor_type_fallback` of its
/// `llama-quant.cpp`).
fn fallback(dtype: GgmlType) -> Option<GgmlType> {
    match dtype {
        GgmlType::Q4_K => Some(GgmlType::Q5_0),
        GgmlType::Q5_K => Some(GgmlType::Q5_1),
        GgmlType::Q6_K => Some(GgmlType::Q8_0),
        _ => None,
    }
}

impl FromStr for Sized {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let shortened = || name.rsplit_once('-').and_then(|(name, n)| Some((find(name)?, Some(n.parse().ok()?))));
        let found = find(name).map(|shape| (shape, None)).or_else(shortened);
        let (shape, n_layer) = found.with_context(|| {
            format!("shape \"{name}\" is not known; {} are, and any of them with -LAYERS", known(|_| true))
        })?;
        let dtype = match parts.next() {
            None | Some("") => GgmlType::Q4_0,
            Some(name) => GgmlType::from_name(name).with_context(|| format!("type \"{name}\" is not known"))?,
        };
        check_supported(dtype)?;
        let density = match parts.next() {
            None | Some("") => None,
            Some(text) => Some(text.parse::<f64>().with_context(|| format!("density \"{text}\""))?),
        };
        let possible = density.is_none_or(|d| d > 0.0 && d <= 1.0);
        ensure!(possible, "density {}: must be above 0 and at most 1", density.unwrap_or_default());
        let popularity = match parts.next() {
            None | Some("") => None,
            Some(text) => Some(text.parse::<f64>().with_context(|| format!("popularity \"{text}\""))?),
        };
        let possible = popularity.is_none_or(|p| (0.0..=MOST_POPULARITY).contains(&p));
        ensure!(possible, "popularity {}: 0 to {MOST_POPULARITY} is possible", popularity.unwrap_or_default());
        ensure!(
            popularity.is_none() || shape.experts.is_some(),
            "shape \"{name}\" has no experts, so none is more popular than others; leave the popularity out"
        );
        ensure!(parts.next().is_none(), "more than NAME:TYPE:DENSITY:POPULARITY");
        let sized = Self { shape, n_layer: shape.n_layer, dtype, density, popularity };
        for n_cols in sized.widths() {
            sized.type_of_rows(dtype, n_cols)?;
        }
        sized.with_layers(n_layer.unwrap_or(shape.n_layer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(text: &str) -> Sized {
        text.parse().unwrap()
    }

    #[test]
    fn a_shape_has_a_long_name_and_a_short_one() {
        for shape in &SHAPES {
            assert_eq!((sized(shape.name).shape, sized(shape.short).shape), (shape, shape));
        }
        assert_eq!(sized("70B"), sized("llama-70b:q4_0"));
        assert_eq!(sized("llama-3-8b-16:f16").with_suffix("8b"), "8b-16");
        assert_eq!(sized("llama-2-7b").n_layer, 32);
        assert_eq!((sized("nemotron-3-nano-8").n_layer, sized("mixtral::0.2:1.5").popularity()), (8, 1.5));
        assert_eq!((sized("nemotron-3-nano").popularity(), sized("7b").popularity()), (0.5, 0.0));
        assert_eq!((sized("opt-30b-2::0.5").n_layer, sized("opt-30b-2::0.5").density), (2, Some(0.5)));
    }

    #[test]
    fn what_is_not_known_is_refused_and_says_what_is() {
        let error = |text: &str| format!("{:#}", text.parse::<Sized>().unwrap_err());
        assert!(error("8x7b").contains("llama-2-7b (7b), mistral-7b, llama-3-8b (8b)"), "{}", error("8x7b"));
        assert!(!error("8x7b").contains("test"));
        for text in ["mixtral:::nan", "mixtral:::-1", "mixtral:::5", "mixtral:::1:", "7b:::1"] {
            error(text);
        }
        assert!(error("7b:::1").contains("no experts"), "{}", error("7b:::1"));
        for text in ["7b-x", "7b-0", "7b-2000", "7b:f17", "7b::0", "7b::-1", "7b::1.5", "7b::nan", "7b::0.1:2"] {
            error(text);
        }
        assert!(error("7b::1.5").contains("1.5"));
    }
}
