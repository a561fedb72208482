//! Loops compiled twice: for machines with AVX2, and for any machine.
//!
//! Neither version fuses multiplications with additions, so both give the same bits.

/// Defines functions whose bodies are also compiled for AVX2; the version is chosen at run time.
macro_rules! vectorized {
    ($($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block)+) => {$(
        $(#[$attribute])*
        $visibility fn $name($($argument: $kind),*) $(-> $result)? {
            #[inline(always)]
            fn portable($($argument: $kind),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
                fn wide($($argument: $kind),*) $(-> $result)? { portable($($argument),*) }
                if $crate::simd::wide_available() {
                    // SAFETY: the processor was just found to have all of these features.
                    return unsafe { wide($($argument),*) };
                }
            }
            portable($($argument),*)
        }
    )+};
}

pub(crate) use vectorized;

/// Returns whether the machine has AVX2 and the bit instructions that come with it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn wide_available() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("bmi1")
        && std::arch::is_x86_feature_detected!("bmi2")
        && std::arch::is_x86_feature_detected!("lzcnt")
}

/// Natural logarithm of a positive, normal number, to within 2 units in the last place; without branches, so that a
/// loop over it is vectorized.
///
/// The mantissa is scaled to [2/3, 4/3), where ln m = 2 atanh((m-1)/(m+1)) needs six terms.
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    const TWO_THIRDS: i32 = 0x3f2a_aaab;
    let bits = x.to_bits() as i32;
    let exponent = bits.wrapping_sub(TWO_THIRDS) >> 23;
    let mantissa = f32::from_bits(bits.wrapping_sub(exponent << 23) as u32);
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let z = s * s;
    let series = z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z * (1.0 / 11.0)))));
    let log_mantissa = 2.0 * s + 2.0 * s * series;
    exponent as f32 * std::f32::consts::LN_2 + log_mantissa
}

vectorized! {
    /// `values[i] = scale * ln(max(values[i], floor))`; `floor` must be positive and normal.
    pub(crate) fn floored_log(values: &mut [f32], floor: f32, scale: f32) {
        for value in values {
            *value = scale * ln(value.max(floor));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ln;

    #[test]
    fn ln_agrees_with_the_standard_library() {
        for step in 0..200_000 {
            let x = 1e-10f32 * 1.000_5f32.powi(step % 90_000) * (1.0 + step as f32 * 1e-7);
            if x.is_finite() {
                let exact = f64::from(x).ln();
                let error = (f64::from(ln(x)) - exact).abs();
                assert!(error <= 3e-7 * exact.abs().max(1.0), "ln({x}) = {} instead of {exact}", ln(x));
            }
        }
    }
}
