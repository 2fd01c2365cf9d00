//! The activation function of the FFN.

use anyhow::{Context, Result, bail, ensure};
use std::fmt;
use std::str::FromStr;

/// Applied to the gate (gated FFN) or to the up projection (ungated).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `x * sigmoid(x)`: never exactly zero, so nothing can be skipped.
    Silu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))` (arXiv 1606.08415): never exactly zero over a range of inputs.
    Gelu,
    /// `x / 2 * (1 + erf(x / sqrt(2)))`, which [`Activation::Gelu`] approximates: never exactly zero over a range of inputs.
    GeluErf,
    /// `x * sigmoid(1.702 x)`, the coarser approximation: never exactly zero.
    GeluQuick,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)^2`.
    Relu2,
    /// FATReLU (arXiv 2402.13516): `x` where it is above the threshold, else 0.
    FatRelu(Threshold),
    /// dReLU (arXiv 2406.05955): `max(gate, 0) * max(up, 0)`. The gate says which rows of `up` are read, both which neurons
    /// fire.
    DRelu,
    /// `min(gate, 7) * sigmoid(1.702 min(gate, 7)) * (clamp(up, -7, 7) + 1)`, as gpt-oss has it: never exactly zero.
    SwigluOai,
}

/// What [`Activation::SwigluOai`] keeps gates below, and `up` on both sides.
const OAI_LIMIT: f32 = 7.0;

/// What a value must be above for FATReLU to let it through: finite and not negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold(f32);

impl Threshold {
    /// Takes `value` for a threshold.
    ///
    /// # Errors
    /// When it is negative or no finite number.
    pub fn new(value: f32) -> Result<Self> {
        ensure!(value.is_finite() && value >= 0.0, "a threshold of {value}: must be a finite number from 0 up");
        // -0 is 0.
        Ok(Self(value + 0.0))
    }

    /// The number.
    pub fn get(self) -> f32 {
        self.0
    }
}

/// The name of FATReLU, which a threshold follows.
const FATRELU: &str = "fatrelu";

impl Activation {
    const NAMES: [(&'static str, Self); 23] = [
        ("silu", Self::Silu),
        ("gelu", Self::Gelu),
        ("gelu_erf", Self::GeluErf),
        ("gelu_quick", Self::GeluQuick),
        ("relu", Self::Relu),
        ("relu2", Self::Relu2),
        ("drelu", Self::DRelu),
        ("swiglu_oai", Self::SwigluOai),
        ("swish", Self::Silu),
        ("swiglu", Self::Silu),
        ("gelu_tanh", Self::Gelu),
        ("gelu_pytorch_tanh", Self::Gelu),
        ("gelu_new", Self::Gelu),
        ("gelu_fast", Self::Gelu),
        ("geglu", Self::Gelu),
        ("gelu_exact", Self::GeluErf),
        ("quick_gelu", Self::GeluQuick),
        ("reglu", Self::Relu),
        ("relu_sqr", Self::Relu2),
        ("relu_squared", Self::Relu2),
        ("squared_relu", Self::Relu2),
        ("relu^2", Self::Relu2),
        ("d_relu", Self::DRelu),
    ];

    /// The function of this name, with this threshold where it needs one and the name has none behind a colon.
    ///
    /// # Errors
    /// When the name is not known, or a threshold is missing, makes no sense, or is there twice and differs.
    pub fn named(name: &str, threshold: Option<Threshold>) -> Result<Self> {
        if let Some((_, found)) = Self::NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            return Ok(*found);
        }
        let (stem, own) = name.split_once(':').map_or((name, None), |(stem, own)| (stem, Some(own)));
        if !stem.eq_ignore_ascii_case(FATRELU) {
            let shown = name.chars().take(60).collect::<String>();
            bail!(
                "activation \"{}\" is not known; silu, gelu, gelu_erf, gelu_quick, relu, relu2, drelu, swiglu_oai and \
                 fatrelu:THRESHOLD are",
                shown.escape_debug()
            );
        }
        let own = own.map(|own| {
            let value = own.trim().parse::<f32>().ok().with_context(|| format!("{name}: \"{own}\" is not a number"))?;
            Threshold::new(value).with_context(|| name.to_owned())
        });
        match (own.transpose()?, threshold) {
            (Some(own), Some(other)) if own != other => {
                bail!("{name}: another threshold is {}; one of the two is wrong", other.get())
            }
            (Some(found), _) | (None, Some(found)) => Ok(Self::FatRelu(found)),
            (None, None) => bail!("activation fatrelu needs its threshold: fatrelu:0.01, say"),
        }
    }

    /// The function's name without its threshold, as files have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::GeluErf => "gelu_erf",
            Self::GeluQuick => "gelu_quick",
            Self::Relu => "relu",
            Self::Relu2 => "relu2",
            Self::FatRelu(_) => FATRELU,
            Self::DRelu => "drelu",
            Self::SwigluOai => "swiglu_oai",
        }
    }

    /// The threshold, where the function has one.
    pub fn threshold(self) -> Option<Threshold> {
        match self {
            Self::FatRelu(threshold) => Some(threshold),
            Self::Silu | Self::Gelu | Self::GeluErf | Self::GeluQuick | Self::SwigluOai => None,
            Self::Relu | Self::Relu2 | Self::DRelu => None,
        }
    }

    /// The function's value: of the gate, or of `up` where there is no gate.
    #[inline]
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::Gelu => gelu(x),
            Self::GeluErf => gelu_erf(x),
            Self::GeluQuick => gelu_quick(x),
            Self::SwigluOai => gelu_quick(if x > OAI_LIMIT { OAI_LIMIT } else { x }),
            Self::Relu | Self::DRelu => relu(x),
            Self::Relu2 => relu(x) * relu(x),
            Self::FatRelu(Threshold(threshold)) => {
                if x <= threshold {
                    0.0
                } else {
                    x
                }
            }
        }
    }

    /// What a neuron multiplies its `down` vector with, from the value of the gate's function and the product with `up`:
    /// exactly 0 where it does not fire, whatever `up` is.
    #[inline]
    pub fn gated(self, act: f32, up: f32) -> f32 {
        if act == 0.0 {
            return 0.0;
        }
        match self {
            Self::DRelu if up <= 0.0 => 0.0,
            Self::SwigluOai => act * (up.clamp(-OAI_LIMIT, OAI_LIMIT) + 1.0),
            _ => act * up,
        }
    }

    /// Whether `up` has a mask of its own, so that more gates are above zero than neurons fire.
    pub fn has_two_masks(self) -> bool {
        self == Self::DRelu
    }

    /// Whether a neuron fires, by the value of the gate's function and what [`Activation::gated`] has made of it.
    #[inline]
    pub fn fires(self, act: f32, gated: f32) -> bool {
        (if self.has_two_masks() { gated } else { act }) != 0.0
    }

    /// How far above the point from which on it fires an input is, with its product with `up` where there is a gate; of
    /// functions that always fire, the input.
    #[inline]
    pub fn margin(self, x: f32, up: f32) -> f32 {
        match self {
            Self::Silu | Self::Gelu | Self::GeluErf | Self::GeluQuick | Self::SwigluOai => x,
            Self::Relu | Self::Relu2 => x,
            Self::FatRelu(Threshold(threshold)) => x - threshold,
            Self::DRelu => {
                if x <= up {
                    x
                } else {
                    up
                }
            }
        }
    }

    /// Whether it is of gate and up, so that an FFN without a gate cannot have it.
    pub fn needs_gate(self) -> bool {
        matches!(self, Self::DRelu | Self::SwigluOai)
    }

    /// Whether it is exactly zero over a whole range of inputs.
    pub fn is_sparse(self) -> bool {
        match self {
            Self::Silu | Self::Gelu | Self::GeluErf | Self::GeluQuick | Self::SwigluOai => false,
            Self::Relu | Self::Relu2 | Self::FatRelu(_) | Self::DRelu => true,
        }
    }
}

fn gelu(x: f32) -> f32 {
    let y = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2 * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + y.tanh())
}

fn gelu_quick(x: f32) -> f32 {
    x / (1.0 + (-1.702 * x).exp())
}

fn gelu_erf(x: f32) -> f32 {
    let x = f64::from(x);
    (0.5 * x * erfc(-x * std::f64::consts::FRAC_1_SQRT_2)) as f32
}

/// `ln(erfc(z) / t) + z^2` as a polynomial in `t = 1 / (1 + z / 2)`, lowest power first: interpolated at Chebyshev's points for
/// `z` from 0 to 10.5, within 2e-8.
const ERFC: [f64; 11] = [
    -1.265_571_725_2,
    1.001_673_450_4,
    0.354_627_459_9,
    0.224_958_936_5,
    -0.708_129_172_8,
    1.655_589_245_7,
    -3.529_170_505_6,
    4.210_768_136_5,
    -2.768_500_159_1,
    0.964_371_666_2,
    -0.140_617_329_5,
];

/// `1 - erf(z)`, to eight digits, of small values too.
fn erfc(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.5 * z.abs());
    let upper = t * (ERFC.iter().rfold(0.0, |sum, c| sum * t + c) - z * z).exp();
    if z < 0.0 { 2.0 - upper } else { upper }
}

/// `max(x, 0)`, except that what is not a number stays so: `f32::max` would turn it into a neuron that did not fire.
#[inline]
fn relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

impl FromStr for Activation {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::named(name, None)
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.threshold().map_or(Ok(()), |threshold| write!(f, ":{}", threshold.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_is_not_taken_for_a_neuron_at_rest() {
        for (_, activation) in Activation::NAMES {
            assert!(activation.apply(f32::NAN).is_nan(), "{activation}");
        }
        assert!(Activation::FatRelu(Threshold(0.5)).apply(f32::NAN).is_nan());
        assert_eq!(Activation::Relu.apply(-0.0).to_bits(), 0);
    }

    #[test]
    fn values_are_those_of_64_bit_floats() {
        let close = |activation: Activation, pairs: &[(f32, f32)]| {
            for (x, y) in pairs {
                let got = activation.apply(*x);
                assert!((got - y).abs() <= 1e-6 * y.abs(), "{activation} of {x}: {got}, not {y}");
            }
        };
        close(Activation::Gelu, &[(1.0, 0.841_192), (-1.0, -0.158_808), (0.5, 0.345_714), (20.0, 20.0), (0.0, 0.0)]);
        let erf = [(1.0, 0.841_344_8), (-1.0, -0.158_655_25), (-3.0, -0.004_049_694), (0.5, 0.345_731_23)];
        close(Activation::GeluErf, &erf);
        close(Activation::GeluErf, &[(-6.0, -5.919_526e-9), (20.0, 20.0), (-20.0, 0.0), (0.0, 0.0)]);
        close(Activation::GeluQuick, &[(1.0, 0.845_795_8), (-1.0, -0.154_204_23), (-3.0, -0.018_071_31)]);
        assert_eq!([Activation::Relu.apply(-2.0), Activation::Relu2.apply(3.0)], [0.0, 9.0]);
    }

    #[test]
    fn fatrelu_fires_above_its_threshold_with_what_it_was_given() {
        let fatrelu: Activation = "fatrelu:0.25".parse().unwrap();
        let above = f32::from_bits(0.25f32.to_bits() + 1);
        let given = [-1.0, 0.0, 0.25, above, 3.0, f32::INFINITY];
        assert_eq!(given.map(|x| fatrelu.apply(x)), [0.0, 0.0, 0.0, above, 3.0, f32::INFINITY]);
        assert!(given.iter().all(|x| (fatrelu.apply(*x) != 0.0) == (fatrelu.margin(*x, 1.0) > 0.0)));
    }

    #[test]
    fn drelu_fires_where_gate_and_up_are_above_zero() {
        let values = [-2.0, -0.0, 0.0, 0.5, 3.0, f32::INFINITY];
        for (gate, up) in values.into_iter().flat_map(|gate| values.map(|up| (gate, up))) {
            let gated = Activation::DRelu.gated(Activation::DRelu.apply(gate), up);
            let fires = gate > 0.0 && up > 0.0;
            assert_eq!(gated.to_bits(), if fires { gate * up } else { 0.0 }.to_bits(), "{gate}, {up}");
            assert_eq!(Activation::DRelu.fires(Activation::DRelu.apply(gate), gated), fires);
            assert_eq!(Activation::DRelu.margin(gate, up) > 0.0, fires);
        }
        assert!(Activation::DRelu.gated(1.0, f32::NAN).is_nan() && Activation::DRelu.gated(f32::NAN, 1.0).is_nan());
        assert_eq!(Activation::DRelu.gated(0.0, f32::NAN), 0.0);
        // Of all others it is the gate alone.
        assert!(Activation::Relu.fires(1.0, 0.0) && !Activation::DRelu.fires(1.0, 0.0));
        assert_eq!(Activation::Relu.gated(2.0, -3.0), -6.0);
    }

    #[test]
    fn swiglu_oai_keeps_gate_and_up_within_bounds() {
        let of = |gate: f32, up: f32| Activation::SwigluOai.gated(Activation::SwigluOai.apply(gate), up);
        for (gate, up, expected) in [
            (1.0, 0.5, 0.845_795_8 * 1.5),
            (-1.0, -3.0, 0.154_204_23 * 2.0),
            (9.0, 20.0, 6.999_953_4 * 8.0),
            (2.0, -20.0, 1.935_658_7 * -6.0),
            (0.0, 5.0, 0.0),
        ] {
            let got = of(gate, up);
            assert!((got - expected).abs() <= 2e-6 * expected.abs(), "{gate}, {up}: {got}, not {expected}");
        }
        assert!(of(1.0, f32::NAN).is_nan() && of(f32::NAN, 1.0).is_nan());
        assert!(Activation::SwigluOai.needs_gate() && !Activation::SwigluOai.is_sparse());
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for (name, activation) in Activation::NAMES {
            assert_eq!(name.to_uppercase().parse::<Activation>().unwrap(), activation);
            assert_eq!(activation.to_string().parse::<Activation>().unwrap(), activation);
        }
        for threshold in ["0", "0.01", "0.1", "1e-20", "12.5"] {
            let activation: Activation = format!("FATReLU:{threshold}").parse().unwrap();
            assert_eq!(activation.to_string().parse::<Activation>().unwrap(), activation);
            assert_eq!(Some(activation.threshold().unwrap().get()), threshold.parse().ok());
        }
        assert_eq!("fatrelu:-0".parse::<Activation>().unwrap().to_string(), "fatrelu:0");
        for (wrong, wanted) in [
            ("fatrelu", "needs its threshold: fatrelu:0.01"),
            ("fatrelu:", "is not a number"),
            ("fatrelu:x", "is not a number"),
            ("fatrelu:nan", "finite number"),
            ("fatrelu:inf", "finite number"),
            ("fatrelu:1e39", "finite number"),
            ("fatrelu:-0.01", "from 0 up"),
            ("relu:0.01", "is not known"),
            ("elu", "fatrelu:THRESHOLD"),
        ] {
            let error = format!("{:#}", wrong.parse::<Activation>().unwrap_err());
            assert!(error.contains(wanted), "{wrong}: {error}");
        }
        let twice = Activation::named("fatrelu:0.5", Some(Threshold(0.25))).unwrap_err().to_string();
        assert!(twice.contains("0.25"), "{twice}");
    }
}
