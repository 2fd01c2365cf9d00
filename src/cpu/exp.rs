//! The exponential function in a form that compilers turn into vectors.

/// Adding and subtracting this rounds a float of moderate size to a whole number, whose bits are then the lowest ones.
const ROUND: f32 = 12_582_912.0;
/// The natural logarithm of 2, in two parts of which the first has few digits.
const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
/// Beyond these the result is 0 or infinite for what is done with it here.
const LEAST: f32 = -87.3;
const MOST: f32 = 88.3;
/// `(exp(r) - 1 - r) / r^2` for `r` to half of `ln 2`, lowest power first.
const POLYNOMIAL: [f32; 6] = [0.5, 0.166_666_65, 0.041_665_796, 8.333_452e-3, 1.398_199_9e-3, 1.987_569e-4];

/// `exp(x)` to about two units of the last place; of arguments beyond -87.3 and 88.3, that of these.
#[inline(always)]
pub(in crate::cpu) fn exp<const FMA: bool>(x: f32) -> f32 {
    // Keeps what is not a number.
    let x = if x < LEAST { LEAST } else { x };
    let x = if x > MOST { MOST } else { x };
    let rounded = add_product::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = add_product::<FMA>(n, -LN_2[0], x);
    let r = add_product::<FMA>(n, -LN_2[1], r);
    let [a, b, c, d, e, f] = POLYNOMIAL;
    let p = add_product::<FMA>(f, r, e);
    let p = add_product::<FMA>(p, r, d);
    let p = add_product::<FMA>(p, r, c);
    let p = add_product::<FMA>(p, r, b);
    let p = add_product::<FMA>(p, r, a);
    let p = add_product::<FMA>(p * r, r, r) + 1.0;
    p * f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// The same, but 0 below -87.3: what a softmax gives to what it does not see.
#[inline(always)]
pub(in crate::cpu) fn exp_or_zero<const FMA: bool>(x: f32) -> f32 {
    if x < LEAST { 0.0 } else { exp::<FMA>(x) }
}

/// The hyperbolic tangent to about 2e-7, absolutely: near 0 it has fewer digits than its argument.
#[inline(always)]
pub(in crate::cpu) fn tanh<const FMA: bool>(x: f32) -> f32 {
    (1.0 - 2.0 / (exp::<FMA>(2.0 * x.abs()) + 1.0)).copysign(x)
}

/// `a * b + c`, in one rounding where the processor can.
#[inline(always)]
pub(in crate::cpu) fn add_product<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `x * sigmoid(x)`.
#[inline(always)]
pub(in crate::cpu) fn silu<const FMA: bool>(x: f32) -> f32 {
    x / (1.0 + exp::<FMA>(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_exponential_function_to_a_few_units_of_the_last_place() {
        for i in -43_500..=44_000 {
            let x = i as f32 * 2e-3;
            let exact = f64::from(x).exp();
            for found in [exp::<false>(x), exp::<true>(x)] {
                let error = (f64::from(found) / exact - 1.0).abs();
                assert!(error < 4e-7, "exp({x}) = {found}, not {exact}");
            }
        }
    }

    #[test]
    fn the_hyperbolic_tangent_is_one_to_its_absolute_error() {
        for i in -50_000..=50_000 {
            let x = i as f32 * 4e-4;
            for found in [tanh::<false>(x), tanh::<true>(x)] {
                let error = (f64::from(found) - f64::from(x).tanh()).abs();
                assert!(error < 2e-7, "tanh({x}) is {error:e} off");
            }
        }
        assert_eq!((tanh::<true>(f32::INFINITY), tanh::<true>(f32::NEG_INFINITY)), (1.0, -1.0));
        assert!(tanh::<true>(f32::NAN).is_nan());
    }

    #[test]
    fn one_is_exact_and_zero_is_zero() {
        assert_eq!((exp::<false>(0.0), exp::<true>(0.0)), (1.0, 1.0));
        assert_eq!((exp_or_zero::<true>(f32::NEG_INFINITY), exp_or_zero::<false>(-88.0)), (0.0, 0.0));
        assert!(exp_or_zero::<true>(f32::NAN).is_nan());
    }

    #[test]
    fn what_lies_outside_and_what_is_no_number() {
        assert!(exp::<false>(f32::NEG_INFINITY) < 2e-38 && exp::<false>(f32::INFINITY) > 1e38);
        assert!(exp::<false>(f32::NAN).is_nan() && silu::<false>(f32::NAN).is_nan());
        assert_eq!(silu::<false>(0.0), 0.0);
        assert_eq!(silu::<false>(200.0), 200.0);
        assert!(silu::<false>(-200.0).abs() < 1e-35);
    }
}
