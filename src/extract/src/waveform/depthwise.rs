//! Convolutions of each channel with its own taps.

use candle_core::{Device, Tensor};
use flowmill_nn::kernels::depthwise as kernel;
use flowmill_nn::{NnError, Ragged, Result, Value, device, host};

/// A convolution of each channel of a signal with its own taps. Zeros surround the signal, and the number of frames stays.
pub struct Depthwise {
    form: Form,
    channels: usize,
    taps: usize,
}

/// The implementation that computes it, each with weights `[tap, channel]` and a bias.
enum Form {
    /// On the CPU.
    Kernel(Vec<f32>, Vec<f32>),
    /// On a device.
    Plain(Tensor, Tensor),
}

impl Depthwise {
    /// Creates a convolution from the weight `[channel, 1, tap]` with an odd number of taps, and the bias `[channel]`, to run on a device.
    ///
    /// # Errors
    /// When the shapes do not fit, or they cannot be copied to the device.
    pub fn new(weight: &Tensor, bias: &Tensor, device: &Device) -> Result<Self> {
        let &[channels, 1, taps] = weight.dims() else {
            return Err(NnError::shape("depthwise weight", "[channel, 1, tap]", weight.dims()));
        };
        if bias.dims() != [channels] || taps.is_multiple_of(2) || channels == 0 {
            let message = format!("{taps} taps of {channels} channels and a bias of {:?}", bias.dims());
            return Err(NnError::invalid("depthwise convolution", message));
        }
        let (weights, bias) = (kernel::taps_outermost(&host::read(weight)?, taps), host::read(bias)?);
        let form = if device::has_kernels(device) {
            Form::Kernel(weights, bias)
        } else {
            let weights = host::tensor(weights, &[taps, channels])?.to_device(device)?;
            Form::Plain(weights, host::tensor(bias, &[channels])?.to_device(device)?)
        };
        Ok(Self { form, channels, taps })
    }

    /// Convolves a signal `[frame, channel]`.
    ///
    /// # Errors
    /// When the shape does not fit, or a device cannot compute it.
    pub fn forward(&self, signal: &Value) -> Result<Value> {
        let &[frames, channels] = signal.dims() else {
            return Err(NnError::shape("depthwise convolution", "[frame, channel]", signal.dims()));
        };
        if channels != self.channels {
            return Err(NnError::shape("depthwise convolution", format!("[frame, {}]", self.channels), signal.dims()));
        }
        let before = self.taps / 2;
        match &self.form {
            Form::Kernel(weights, bias) => {
                let mut out = bias.repeat(frames);
                let x = host::slice("depthwise convolution", signal.tensor())?;
                kernel::accumulate(&mut out, &x, weights, before, &Ragged::packed(&[frames]), channels);
                Value::from_vec(out, &[frames, channels])
            }
            Form::Plain(weights, bias) => {
                let signal = signal.on(weights.device())?;
                let padded = signal.tensor().pad_with_zeros(0, before, before)?;
                let mut out = bias.broadcast_as((frames, channels))?.contiguous()?;
                for tap in 0..self.taps {
                    out = (out + padded.narrow(0, tap, frames)?.broadcast_mul(&weights.get(tap)?)?)?;
                }
                Value::plain(out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_nn::random::RngKey;

    #[test]
    fn every_channel_has_its_own_taps() {
        let (frames, channels, taps) = (9, 4, 5);
        let rng_key = RngKey::new(4);
        let weight = rng_key.purpose("weight").normals(channels * taps);
        let x = rng_key.purpose("signal").normals(frames * channels);
        let value = |frame: usize, channel: usize| {
            let taps = (0..taps).filter_map(|tap| {
                let source = (frame + tap).checked_sub(2).filter(|source| *source < frames)?;
                Some(weight[channel * taps + tap] * x[source * channels + channel])
            });
            taps.sum::<f32>() + channel as f32
        };
        let expected: Vec<f32> = (0..frames * channels).map(|at| value(at / channels, at % channels)).collect();
        let tensor = host::tensor(weight.clone(), &[channels, 1, taps]).unwrap();
        let bias = host::tensor(vec![0.0, 1.0, 2.0, 3.0], &[channels]).unwrap();
        let signal = Value::from_vec(x.clone(), &[frames, channels]).unwrap();
        let forward = || Depthwise::new(&tensor, &bias, &Device::Cpu).unwrap().forward(&signal).unwrap();
        for found in [forward(), device::by_composition(forward)] {
            let found = host::read(found.tensor()).unwrap();
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
        }
        let narrow = Value::from_vec(vec![0.0; 6], &[2, 3]).unwrap();
        assert!(Depthwise::new(&tensor, &bias, &Device::Cpu).unwrap().forward(&narrow).is_err());
    }
}
