//! Transposed convolutions whose windows are twice the stride.

use candle_core::{Device, Tensor};
use flowmill_nn::ops::Convolution as Settings;
use flowmill_nn::{NnError, Result, Value, host};

use super::Convolution;

/// A transposed convolution with `2 stride` taps: from `[frame, input]` to `stride` output frames for each input frame. An output frame
/// sees two input frames, so it is a convolution of two taps that computes all output frames of an input frame at once.
pub(crate) struct Upsampling {
    convolution: Convolution,
    stride: usize,
    outputs: usize,
}

impl Upsampling {
    /// Creates it from the weight `[input, output, tap]` in PyTorch's layout and the bias `[output]`, to run on a device.
    ///
    /// # Errors
    /// When the shapes do not fit, or they cannot be copied to the device.
    pub(crate) fn new(weight: &Tensor, bias: &Tensor, device: &Device) -> Result<Self> {
        let &[inputs, outputs, taps] = weight.dims() else {
            return Err(NnError::shape("upsampling weight", "[input, output, tap]", weight.dims()));
        };
        if taps == 0 || !taps.is_multiple_of(2) || bias.dims() != [outputs] {
            let message = format!("{taps} taps and a bias of {:?} for {outputs} channels", bias.dims());
            return Err(NnError::invalid("upsampling", message));
        }
        let stride = taps / 2;
        // [input, output, 2 x phase] -> [phase x output, input, 2]: the first tap is the earlier input frame, which the second half of
        // the taps weighs.
        let source = host::read(weight)?;
        let mut phases = vec![0.0; source.len()];
        for (index, target) in phases.iter_mut().enumerate() {
            let (row, tap) = (index / 2, index % 2);
            let (channel, input) = (row / inputs, row % inputs);
            let (phase, output) = (channel / outputs, channel % outputs);
            *target = source[(input * outputs + output) * taps + phase + (1 - tap) * stride];
        }
        let phases = host::tensor(phases, &[stride * outputs, inputs, 2])?;
        let bias = host::tensor(host::read(bias)?.repeat(stride), &[stride * outputs])?;
        let settings = Settings { padding: [1, 1], ..Settings::default() };
        Ok(Self { convolution: Convolution::new(&phases, &bias, settings, device)?, stride, outputs })
    }

    /// Upsamples a signal. The result of `(frames + 1) stride` frames is cut by these numbers of frames at its start and its end.
    ///
    /// # Errors
    /// When the shape does not fit, or more is cut than there is.
    pub(crate) fn forward(&self, signal: &Value, [start, end]: [usize; 2]) -> Result<Value> {
        let whole = self.convolution.forward(signal)?;
        let frames = whole.rows() * self.stride;
        let count = frames.checked_sub(start + end);
        let count =
            count.ok_or_else(|| NnError::invalid("upsampling", format!("{start} + {end} of {frames} frames")))?;
        let whole = whole.tensor().reshape((frames, self.outputs))?;
        Value::plain(whole.narrow(0, start, count)?)
    }

    /// Output frames per input frame.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_nn::random::RngKey;

    #[test]
    fn every_input_frame_adds_its_weighted_taps() {
        let (frames, inputs, outputs, stride) = (5, 3, 2, 3);
        let rng_key = RngKey::new(2);
        let weight = rng_key.purpose("weight").normals(inputs * outputs * 2 * stride);
        let x = rng_key.purpose("signal").normals(frames * inputs);
        let bias = [0.5, -1.0];
        let mut expected: Vec<f32> = bias.repeat((frames + 1) * stride);
        for frame in 0..frames {
            for tap in 0..2 * stride {
                for output in 0..outputs {
                    for input in 0..inputs {
                        let weight = weight[(input * outputs + output) * 2 * stride + tap];
                        expected[(frame * stride + tap) * outputs + output] += weight * x[frame * inputs + input];
                    }
                }
            }
        }
        let weight = host::tensor(weight, &[inputs, outputs, 2 * stride]).unwrap();
        let bias = host::tensor(bias.to_vec(), &[outputs]).unwrap();
        let upsampling = Upsampling::new(&weight, &bias, &Device::Cpu).unwrap();
        let signal = Value::from_vec(x, &[frames, inputs]).unwrap();
        let found = upsampling.forward(&signal, [2, 1]).unwrap();
        assert_eq!((upsampling.stride(), found.dims()), (3, &[(frames + 1) * stride - 3, outputs][..]));
        let found = host::read(found.tensor()).unwrap();
        let expected = &expected[2 * outputs..];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5));
        assert!(upsampling.forward(&signal, [10, 10]).is_err());
    }
}
