//! Transposed convolutions.

use candle_core::{Device, Tensor};
use flowmill_nn::ops::Convolution as Settings;
use flowmill_nn::{NnError, Result, Value, host};

use super::Convolution;

/// A transposed convolution: from `[frame, input]` to `stride` output frames for each input frame. An output frame sees one input frame for
/// each
/// `stride` taps, so it is a convolution of that many taps which computes all output frames of an input frame at once.
pub struct Upsampling {
    convolution: Convolution,
    stride: usize,
    outputs: usize,
    /// Output frames at the end that no tap reaches, because the taps are no multiple of the stride.
    excess: usize,
}

impl Upsampling {
    /// Creates one whose taps are twice the stride, from the weight `[input, output, tap]` in PyTorch's layout and the bias `[output]`, to
    /// run on a device.
    ///
    /// # Errors
    /// When the shapes do not fit, or they cannot be copied to the device.
    pub(crate) fn new(weight: &Tensor, bias: &Tensor, device: &Device) -> Result<Self> {
        let taps = weight.dims().get(2).copied().unwrap_or(0);
        if !taps.is_multiple_of(2) {
            return Err(NnError::invalid("upsampling", format!("{taps} taps")));
        }
        Self::with_stride(weight, bias, taps / 2, device)
    }

    /// Creates one from the weight `[input, output, tap]` in PyTorch's layout and the bias `[output]`, to run on a device.
    ///
    /// # Errors
    /// When the shapes do not fit, the stride is 0 or exceeds the taps, or they cannot be copied to the device.
    pub fn with_stride(weight: &Tensor, bias: &Tensor, stride: usize, device: &Device) -> Result<Self> {
        let &[inputs, outputs, taps] = weight.dims() else {
            return Err(NnError::shape("upsampling weight", "[input, output, tap]", weight.dims()));
        };
        if !(1..=taps).contains(&stride) || bias.dims() != [outputs] {
            let message =
                format!("{taps} taps, a stride of {stride}, and a bias of {:?} for {outputs} channels", bias.dims());
            return Err(NnError::invalid("upsampling", message));
        }
        // The input frames that an output frame sees.
        let seen = taps.div_ceil(stride);
        // [input, output, tap] -> [phase x output, input, seen]: later taps weigh earlier input frames.
        let source = host::read(weight)?;
        let mut phases = vec![0.0; stride * outputs * inputs * seen];
        for (index, target) in phases.iter_mut().enumerate() {
            let (row, place) = (index / seen, index % seen);
            let (channel, input) = (row / inputs, row % inputs);
            let (phase, output) = (channel / outputs, channel % outputs);
            let tap = phase + (seen - 1 - place) * stride;
            if tap < taps {
                *target = source[(input * outputs + output) * taps + tap];
            }
        }
        let phases = host::tensor(phases, &[stride * outputs, inputs, seen])?;
        let bias = host::tensor(host::read(bias)?.repeat(stride), &[stride * outputs])?;
        let settings = Settings { padding: [seen - 1, seen - 1], ..Settings::default() };
        let convolution = Convolution::new(&phases, &bias, settings, device)?;
        Ok(Self { convolution, stride, outputs, excess: seen * stride - taps })
    }

    /// Upsamples a signal. The result of `(frames - 1) stride + taps` frames is cut by these numbers of frames at its start and its end.
    ///
    /// # Errors
    /// When the shape does not fit, or more is cut than there is.
    pub fn forward(&self, signal: &Value, [start, end]: [usize; 2]) -> Result<Value> {
        let whole = self.convolution.forward(signal)?;
        let frames = whole.rows() * self.stride;
        let count = frames.checked_sub(start + end + self.excess);
        let count =
            count.ok_or_else(|| NnError::invalid("upsampling", format!("{start} + {end} of {frames} frames")))?;
        let whole = whole.tensor().reshape((frames, self.outputs))?;
        Value::plain(whole.narrow(0, start, count)?)
    }

    /// Output frames per input frame.
    pub fn stride(&self) -> usize {
        self.stride
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_nn::random::RngKey;

    #[test]
    fn every_input_frame_adds_its_weighted_taps() {
        for (stride, taps) in [(3, 6), (5, 11), (3, 7), (4, 4), (2, 3)] {
            let (frames, inputs, outputs) = (5, 3, 2);
            let rng_key = RngKey::new(2);
            let weight = rng_key.purpose("weight").normals(inputs * outputs * taps);
            let x = rng_key.purpose("signal").normals(frames * inputs);
            let bias = [0.5, -1.0];
            let length = (frames - 1) * stride + taps;
            let mut expected: Vec<f32> = bias.repeat(length);
            for frame in 0..frames {
                for tap in 0..taps {
                    for output in 0..outputs {
                        for input in 0..inputs {
                            let weight = weight[(input * outputs + output) * taps + tap];
                            expected[(frame * stride + tap) * outputs + output] += weight * x[frame * inputs + input];
                        }
                    }
                }
            }
            let weight = host::tensor(weight, &[inputs, outputs, taps]).unwrap();
            let bias = host::tensor(bias.to_vec(), &[outputs]).unwrap();
            let upsampling = Upsampling::with_stride(&weight, &bias, stride, &Device::Cpu).unwrap();
            let signal = Value::from_vec(x, &[frames, inputs]).unwrap();
            let found = upsampling.forward(&signal, [2, 1]).unwrap();
            assert_eq!((upsampling.stride(), found.dims()), (stride, &[length - 3, outputs][..]));
            let found = host::read(found.tensor()).unwrap();
            let expected = &expected[2 * outputs..][..found.len()];
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{stride} {taps}");
            assert!(upsampling.forward(&signal, [length, 1]).is_err());
            assert_eq!(Upsampling::new(&weight, &bias, &Device::Cpu).is_ok(), taps.is_multiple_of(2));
            assert!(Upsampling::with_stride(&weight, &bias, taps + 1, &Device::Cpu).is_err());
        }
    }
}
