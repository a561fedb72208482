//! Elementary functions without branches or calls, so that loops over them vectorize. Relative errors are a few units in the
//! last place; the tests compare with double precision.

/// e^x; saturates at the ends of the normal range.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // 1.5 * 2^23: adding it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let exponent = shifted - ROUND;
    let rest = exponent.mul_add(-LN_2_LOW, exponent.mul_add(-LN_2_HIGH, x));
    let mut series = 1.987_569_1e-4f32;
    series = series.mul_add(rest, 1.398_199_9e-3);
    series = series.mul_add(rest, 8.333_452e-3);
    series = series.mul_add(rest, 4.166_579_6e-2);
    series = series.mul_add(rest, 1.666_666_5e-1);
    series = series.mul_add(rest, 0.5);
    let mantissa = series.mul_add(rest * rest, rest) + 1.0;
    mantissa * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent: a rational function on [-7.9, 7.9].
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    const ODD: [f32; 7] =
        [-2.760_768_5e-16, 2.000_188e-13, -8.604_672e-11, 5.122_297e-8, 1.485_722_4e-5, 6.372_619e-4, 4.893_525_e-3];
    const EVEN: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525_e-3];
    let x = x.clamp(-7.905_311, 7.905_311);
    let square = x * x;
    let mut numerator = ODD[0];
    for coefficient in &ODD[1..] {
        numerator = numerator.mul_add(square, *coefficient);
    }
    let mut denominator = EVEN[0];
    for coefficient in &EVEN[1..] {
        denominator = denominator.mul_add(square, *coefficient);
    }
    x * numerator / denominator
}

/// The error function: a rational function on [-4, 4].
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    const ODD: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_5e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    const EVEN: [f32; 5] = [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2];
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let mut numerator = ODD[0];
    for coefficient in &ODD[1..] {
        numerator = numerator.mul_add(square, *coefficient);
    }
    let mut denominator = EVEN[0];
    for coefficient in &EVEN[1..] {
        denominator = denominator.mul_add(square, *coefficient);
    }
    x * numerator / denominator
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, range: f32) -> f64 {
        let points = (-20_000..=20_000).map(|i| i as f32 / 20_000.0 * range);
        let error = |x: f32| {
            let exact = exact(f64::from(x));
            (f64::from(f(x)) - exact).abs() / (exact.abs() + 1e-30)
        };
        points.filter(|x| *x != 0.0).map(error).fold(0.0, f64::max)
    }

    /// The Taylor series of erf, summed until it no longer changes; exact enough in double precision on [-3, 3].
    fn erf_series(x: f64) -> f64 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-20 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn functions_agree_with_double_precision() {
        assert!(worst(exp, f64::exp, 80.0) < 3e-7, "{}", worst(exp, f64::exp, 80.0));
        let exact = |x: f64| 1.0 / (1.0 + (-x).exp());
        assert!(worst(sigmoid, exact, 30.0) < 5e-7, "{}", worst(sigmoid, exact, 30.0));
        assert!(worst(tanh, f64::tanh, 12.0) < 6e-7, "{}", worst(tanh, f64::tanh, 12.0));
        assert!(worst(erf, erf_series, 3.0) < 6e-7, "{}", worst(erf, erf_series, 3.0));
        assert!((erf(9.0) - 1.0).abs() < 1e-6 && (erf(-9.0) + 1.0).abs() < 1e-6);
    }

    #[test]
    fn extremes_stay_finite_and_nan_stays_nan() {
        for x in [f32::MIN, -1e4, 1e4, f32::MAX, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(exp(x).is_finite() && sigmoid(x).is_finite() && tanh(x).is_finite() && erf(x).is_finite());
        }
        assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan() && erf(f32::NAN).is_nan());
    }
}
