//! Convolutions of a whole signal with constant weights, and padding by reflection.

use candle_core::{Device, Tensor};
use flowmill_nn::inference::Convolution1d;
use flowmill_nn::kernels::convolution::{self as kernel, Geometry, Layout};
use flowmill_nn::ops::Convolution as Settings;
use flowmill_nn::{Activation, NnError, Precision, Ragged, Result, Value, device, host};

/// A convolution of a signal `[frame, input]` to `[frame', output]`.
pub struct Convolution {
    form: Form,
    kernel: usize,
    settings: Settings,
}

/// The implementation that computes a convolution.
enum Form {
    /// Windows that are contiguous in the signal: the weights are packed once.
    Windows(Convolution1d),
    /// Taps at a distance, on the CPU: weights `[output, tap, input]` and a bias.
    Taps(Vec<f32>, Vec<f32>, Geometry),
    /// Taps at a distance, on a device: weight `[output, input, tap]` and a bias.
    Plain(Tensor, Tensor),
}

impl Convolution {
    /// Creates a convolution from the weight `[output, input, tap]` and the bias `[output]`, to run on a device. The settings' padding
    /// consists of zeros.
    ///
    /// # Errors
    /// When the shapes do not fit, or they cannot be copied to the device.
    pub fn new(weight: &Tensor, bias: &Tensor, settings: Settings, device: &Device) -> Result<Self> {
        let &[outputs, inputs, kernel] = weight.dims() else {
            return Err(NnError::shape("convolution weight", "[output, input, tap]", weight.dims()));
        };
        if bias.dims() != [outputs] {
            return Err(NnError::shape("convolution bias", format!("[{outputs}]"), bias.dims()));
        }
        let Settings { stride, dilation, padding } = settings;
        if stride == 0 || dilation == 0 || kernel == 0 || inputs == 0 || outputs == 0 {
            let message = "kernel, stride, dilation and channels must be at least 1";
            return Err(NnError::invalid("convolution", message));
        }
        let (weight, bias) = (weight.to_device(device)?.contiguous()?, bias.to_device(device)?.contiguous()?);
        let form = if dilation == 1 {
            Form::Windows(Convolution1d::new(&weight, &bias, settings)?)
        } else if device::has_kernels(device) {
            let precision = Precision::Fp32;
            let geometry = Geometry { inputs, outputs, kernel, stride, dilation, padding, precision };
            let taps = kernel::taps_outermost(&host::slice("convolution", &weight)?, &geometry);
            Form::Taps(taps, host::slice("convolution", &bias)?.to_vec(), geometry)
        } else {
            Form::Plain(weight, bias)
        };
        Ok(Self { form, kernel, settings })
    }

    /// The number of frames that a window spans.
    fn reach(&self) -> usize {
        (self.kernel - 1) * self.settings.dilation + 1
    }

    /// Convolves a signal.
    ///
    /// # Errors
    /// When the shape does not fit, or the signal is shorter than a window.
    pub fn forward(&self, signal: &Value) -> Result<Value> {
        let items = Ragged::packed(&[signal.rows()]);
        match &self.form {
            Form::Windows(windows) => windows.forward(signal, &items, Activation::Identity),
            Form::Plain(weight, bias) => {
                let (weight, bias) = (Value::plain(weight.clone())?, Value::plain(bias.clone())?);
                signal.conv1d_packed(&weight, Some(&bias), self.settings, &items)
            }
            Form::Taps(taps, bias, geometry) => {
                let frames = geometry.output_length(signal.rows());
                if signal.dims().len() != 2 || signal.width() != geometry.inputs || frames == 0 {
                    let expected = format!("[at least {} frames, {}]", self.reach(), geometry.inputs);
                    return Err(NnError::shape("convolution", expected, signal.dims()));
                }
                let layout = Layout { valid: items.clone(), whole: items, output: Ragged::packed(&[frames]) };
                let x = host::slice("convolution", signal.tensor())?;
                Value::from_vec(kernel::forward(&x, taps, Some(bias), geometry, &layout), &[frames, geometry.outputs])
            }
        }
    }

    /// Convolves a signal so that an output frame sees no later input frame than its last one, and the number of frames is the input's
    /// over the stride, rounded up. The signal is reflected at its ends: before its start by the window minus the stride, after its end
    /// by what fills the last window (the causal convolutions of EnCodec, Défossez et al. 2022).
    ///
    /// # Errors
    /// When the shape does not fit.
    pub(crate) fn forward_causal(&self, signal: &Value) -> Result<Value> {
        let stride = self.settings.stride;
        let before = self.reach().saturating_sub(stride);
        let after = signal.rows().next_multiple_of(stride) - signal.rows();
        if before == 0 && after == 0 {
            return self.forward(signal);
        }
        self.forward(&reflected(signal, [before, after])?)
    }
}

/// Returns a signal with frames before its start and after its end, which mirror it around its first and its last frame. Zeros count as
/// further frames of a signal that is too short to be mirrored.
///
/// # Errors
/// When the signal has not two axes or no frame.
pub fn reflected(signal: &Value, [before, after]: [usize; 2]) -> Result<Value> {
    let &[frames, channels] = signal.dims() else {
        return Err(NnError::shape("reflection", "[frame, channel]", signal.dims()));
    };
    if frames == 0 {
        return Err(NnError::shape("reflection", "[frame, channel] with a frame", signal.dims()));
    }
    // Mirrored around its last frame, which may be one of the zeros.
    let last = (frames - 1).max(before.max(after));
    let source = |frame: usize| {
        let frame = frame.abs_diff(before);
        let frame = if frame > last { 2 * last - frame } else { frame };
        Some(frame).filter(|frame| *frame < frames)
    };
    let (starts, ends) = (0..before, before + frames..before + frames + after);
    if !device::is_fused(signal.tensor()) {
        // The row after the last one is zero.
        let zero = Tensor::zeros((1, channels), signal.tensor().dtype(), signal.tensor().device())?;
        let with_zero = Tensor::cat(&[signal.tensor(), &zero], 0)?;
        let side = |side: std::ops::Range<usize>| -> Result<Tensor> {
            let rows: Vec<u32> = side.map(|frame| source(frame).unwrap_or(frames) as u32).collect();
            let count = rows.len();
            Ok(with_zero.index_select(&Tensor::from_vec(rows, count, signal.tensor().device())?, 0)?)
        };
        let mut parts = Vec::with_capacity(3);
        if before > 0 {
            parts.push(side(starts)?);
        }
        parts.push(signal.tensor().clone());
        if after > 0 {
            parts.push(side(ends)?);
        }
        return Value::plain(Tensor::cat(&parts, 0)?);
    }
    let x = host::slice("reflection", signal.tensor())?;
    let mut padded = vec![0.0; (before + frames + after) * channels];
    padded[before * channels..][..x.len()].copy_from_slice(&x);
    for frame in starts.chain(ends) {
        if let Some(source) = source(frame) {
            padded[frame * channels..][..channels].copy_from_slice(&x[source * channels..][..channels]);
        }
    }
    Value::from_vec(padded, &[before + frames + after, channels])
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_nn::random::RngKey;

    fn random(name: &str, shape: &[usize]) -> Tensor {
        let count = shape.iter().product();
        host::tensor(RngKey::new(11).purpose(name).normals(count), shape).unwrap()
    }

    fn elements(value: &Value) -> Vec<f32> {
        host::read(value.tensor()).unwrap()
    }

    #[test]
    fn a_dilated_convolution_is_that_of_the_tape_on_every_device() {
        let (weight, bias) = (random("weight", &[4, 3, 7]), random("bias", &[4]));
        let signal = Value::plain(random("signal", &[50, 3])).unwrap();
        for dilation in [1, 3, 9] {
            let reach = 3 * dilation;
            let settings = Settings { dilation, padding: [reach, reach], ..Settings::default() };
            let forward =
                || Convolution::new(&weight, &bias, settings, &Device::Cpu).unwrap().forward(&signal).unwrap();
            let items = Ragged::packed(&[50]);
            let (weight, bias) = (Value::plain(weight.clone()).unwrap(), Value::plain(bias.clone()).unwrap());
            let expected = elements(&signal.conv1d_packed(&weight, Some(&bias), settings, &items).unwrap());
            for found in [forward(), device::by_composition(forward)] {
                assert_eq!(found.dims(), [50, 4]);
                assert!(elements(&found).iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{dilation}");
            }
        }
    }

    #[test]
    fn a_signal_is_mirrored_around_its_ends() {
        let reflect = |frames: usize, sides: [usize; 2]| {
            let ramp = (1..=frames).map(|x| x as f32).collect();
            let signal = Value::from_vec(ramp, &[frames, 1]).unwrap();
            let (fused, composed) = (reflected(&signal, sides), device::by_composition(|| reflected(&signal, sides)));
            let (fused, composed) = (elements(&fused.unwrap()), elements(&composed.unwrap()));
            assert_eq!(fused, composed);
            fused
        };
        assert_eq!(reflect(4, [2, 3]), [3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0]);
        // Too short: the signal is 1, 2, 0, 0 before it is mirrored, of which what follows its own frames is cut.
        assert_eq!(reflect(2, [3, 0]), [0.0, 0.0, 2.0, 1.0, 2.0]);
        assert_eq!(reflect(1, [0, 2]), [1.0, 0.0, 0.0]);
        assert!(reflected(&Value::from_vec(vec![], &[0, 1]).unwrap(), [1, 0]).is_err());
    }

    #[test]
    fn a_causal_convolution_fills_its_last_window() {
        let convolution = |kernel: usize, stride: usize| {
            let weight = host::tensor(vec![1.0; kernel], &[1, 1, kernel]).unwrap();
            let bias = host::tensor(vec![0.0], &[1]).unwrap();
            Convolution::new(&weight, &bias, Settings { stride, ..Settings::default() }, &Device::Cpu).unwrap()
        };
        let signal = Value::from_vec((1..=5).map(|x| x as f32).collect(), &[5, 1]).unwrap();
        // [3, 2], 1, 2, 3, 4, 5
        assert_eq!(elements(&convolution(3, 1).forward_causal(&signal).unwrap()), [6.0, 5.0, 6.0, 9.0, 12.0]);
        // [3, 2], 1, 2, 3, 4, 5, [4]
        assert_eq!(elements(&convolution(4, 2).forward_causal(&signal).unwrap()), [8.0, 10.0, 16.0]);
    }
}
