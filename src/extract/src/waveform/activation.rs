//! Activations of networks over waveforms.

use candle_core::Tensor;
use flowmill_nn::kernels::{elementwise, functions};
use flowmill_nn::{NnError, Result, Value, device, host};

/// The addend to a channel's frequency that keeps its reciprocal finite, as in the public implementation of Snake.
const TINY: f32 = 1e-9;

/// Exponential linear unit: x where positive, e^x - 1 elsewhere.
///
/// # Errors
/// When a device cannot compute it.
pub fn elu(signal: &Value) -> Result<Value> {
    if !device::is_fused(signal.tensor()) {
        return Value::plain(signal.tensor().elu(1.0)?);
    }
    let x = host::slice("elu", signal.tensor())?;
    let unit = |x: f32| if x > 0.0 { x } else { functions::exp(x) - 1.0 };
    Value::from_vec(elementwise::map(&x, unit), signal.dims())
}

/// Leaky rectifier: x where positive, `slope` times x elsewhere, with a slope from 0 to 1.
///
/// # Errors
/// When a device cannot compute it.
pub fn leaky_relu(signal: &Value, slope: f32) -> Result<Value> {
    if !device::is_fused(signal.tensor()) {
        let x = signal.tensor();
        return Value::plain(x.maximum(&(x * f64::from(slope))?)?);
    }
    let x = host::slice("leaky relu", signal.tensor())?;
    Value::from_vec(elementwise::map(&x, |x| x.max(slope * x)), signal.dims())
}

/// Snake (Ziyin et al., "Neural networks fail to learn periodic functions and how to fix it", 2020): x + sin²(a x) / a with a frequency
/// `a` for each channel, `[channel]`.
///
/// # Errors
/// When there is not a frequency for each channel, or a device cannot compute it.
pub fn snake(signal: &Value, frequencies: &Tensor) -> Result<Value> {
    if frequencies.dims() != [signal.width()] {
        return Err(NnError::shape("snake", format!("[{}]", signal.width()), frequencies.dims()));
    }
    if !device::is_fused(signal.tensor()) {
        let x = signal.tensor();
        let wave = x.broadcast_mul(frequencies)?.sin()?.sqr()?;
        return Value::plain((x + wave.broadcast_div(&(frequencies + f64::from(TINY))?)?)?);
    }
    let x = host::slice("snake", signal.tensor())?;
    let frequencies = host::slice("snake", frequencies)?;
    let value = |x: f32, frequency: f32| x + squared_sine(frequency * x) / (frequency + TINY);
    Value::from_vec(elementwise::zip_rows(&x, &frequencies, value), signal.dims())
}

/// sin²(x), without branches or calls, so that loops over it vectorize. Its period is π, so x is reduced to at most π/2; the series
/// ends below the precision of `f32` there.
#[inline(always)]
fn squared_sine(x: f32) -> f32 {
    // 1.5 * 2^23: adding it rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    // π in parts with few digits, so that their multiples are exact.
    const PI_HIGH: f32 = 3.140_625;
    const PI_MIDDLE: f32 = 9.670_257_6e-4;
    const PI_LOW: f32 = 6.277_114e-7;
    let periods = x.mul_add(std::f32::consts::FRAC_1_PI, ROUND) - ROUND;
    let x = periods.mul_add(-PI_HIGH, x);
    let x = periods.mul_add(-PI_MIDDLE, x);
    let x = periods.mul_add(-PI_LOW, x);
    let square = x * x;
    let mut series = 1.605_904_4e-10f32;
    series = series.mul_add(square, -2.505_210_8e-8);
    series = series.mul_add(square, 2.755_731_9e-6);
    series = series.mul_add(square, -1.984_127e-4);
    series = series.mul_add(square, 8.333_333e-3);
    series = series.mul_add(square, -0.166_666_67);
    let sine = (series * square).mul_add(x, x);
    sine * sine
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_nn::random::RngKey;

    #[test]
    fn the_squared_sine_is_that_of_double_precision() {
        for index in 0..40_000 {
            let x = (index - 20_000) as f32 * 0.011;
            let exact = f64::from(x).sin().powi(2);
            assert!((f64::from(squared_sine(x)) - exact).abs() < 2e-6, "{x}");
        }
    }

    #[test]
    fn kernels_and_compositions_agree() {
        let signal = Value::from_vec(RngKey::new(3).normals(500 * 3), &[500, 3]).unwrap();
        let frequencies = host::tensor(vec![0.5, 1.0, 7.0], &[3]).unwrap();
        let both = |activate: &dyn Fn() -> Value| {
            let (fused, composed) = (activate(), device::by_composition(activate));
            let (fused, composed) = (host::read(fused.tensor()).unwrap(), host::read(composed.tensor()).unwrap());
            assert!(fused.iter().zip(&composed).all(|(a, b)| (a - b).abs() < 1e-5));
        };
        both(&|| elu(&signal).unwrap());
        both(&|| leaky_relu(&signal, 0.1).unwrap());
        both(&|| snake(&signal, &frequencies).unwrap());
        assert!(snake(&signal, &host::tensor(vec![1.0; 2], &[2]).unwrap()).is_err());
        let values = |value: Value| host::read(value.tensor()).unwrap();
        let x = Value::from_vec(vec![-2.0, 0.0, 3.0], &[1, 3]).unwrap();
        assert!((values(elu(&x).unwrap())[0] - (-0.864_664_7)).abs() < 1e-6);
        assert_eq!(values(leaky_relu(&x, 0.25).unwrap()), [-0.5, 0.0, 3.0]);
    }
}
