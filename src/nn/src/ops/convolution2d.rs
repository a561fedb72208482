//! Two-dimensional convolution of images, channels innermost.

use crate::gradients::{Flow, Gradient};
use crate::kernels::convolution2d::{self as kernel, Geometry2d, Windows};
use crate::kernels::reduce;
use crate::ops::linear::finish;
use crate::ops::operation::{Operation, apply};
use crate::ops::row_map::{RowMap, matrix, sum_rows, swap};
use crate::stored::Weight;
use crate::tape::{precision, record};
use crate::{Activation, NnError, Result, Value, host};
use candle_core::Tensor;

/// Settings of a two-dimensional convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution2d {
    /// Distance between windows along both axes.
    pub stride: usize,
    /// Zeros above and below, and left and right of each image.
    pub padding: [[usize; 2]; 2],
}

impl Default for Convolution2d {
    fn default() -> Self {
        Self { stride: 1, padding: [[0; 2]; 2] }
    }
}

impl Convolution2d {
    /// A convolution with the same number of zeros on all four sides.
    pub fn padded(padding: usize, stride: usize) -> Self {
        Self { stride, padding: [[padding; 2]; 2] }
    }

    /// Returns whether each output pixel reads the input pixel at its place only, for a kernel of this size.
    fn is_pointwise(&self, kernel: [usize; 2]) -> bool {
        kernel == [1, 1] && *self == Self::default()
    }
}

impl Value {
    /// Convolves each image: input `[item, height, width, input]`, weight `[output, input, tap down, tap across]` in PyTorch's layout,
    /// bias `[output]`; returns `[item, height', width', output]`.
    ///
    /// # Errors
    /// When the shapes do not fit or an image is smaller than the kernel.
    pub fn conv2d(&self, weight: &Value, bias: Option<&Value>, settings: Convolution2d) -> Result<Value> {
        let &[items, height, width, _] = self.dims() else {
            return Err(NnError::shape("conv2d", "[item, height, width, channel]", self.dims()));
        };
        let &[outputs, inputs, down, across] = weight.dims() else {
            return Err(NnError::shape("conv2d weight", "[output, input, tap, tap]", weight.dims()));
        };
        if self.width() != inputs {
            return Err(NnError::shape("conv2d", format!("[.., {inputs}]"), self.dims()));
        }
        if let Some(bias) = bias.filter(|bias| bias.dims() != [outputs]) {
            return Err(NnError::shape("conv2d bias", format!("[{outputs}]"), bias.dims()));
        }
        let Convolution2d { stride, padding } = settings;
        if [stride, down, across, inputs, outputs].contains(&0) {
            return Err(NnError::invalid("conv2d", "kernel, stride and channels must be at least 1"));
        }
        if settings.is_pointwise([down, across]) {
            return self.linear(&weight.reshape(&[outputs, inputs])?, bias);
        }
        let values: Vec<&Value> = [Some(self), Some(weight), bias].into_iter().flatten().collect();
        let (kernel, size, precision) = ([down, across], [height, width], precision(&values));
        let geometry = Geometry2d { items, size, inputs, outputs, kernel, stride, padding, precision };
        let Some([out_height, out_width]) = geometry.output_size() else {
            let message = format!("images of {height} x {width} are smaller than the kernel of {down} x {across} taps");
            return Err(NnError::invalid("conv2d", message));
        };
        apply(Convolve2d { geometry, shape: [items, out_height, out_width, outputs] }, &values)
    }

    /// Repeats every pixel `factor` times along both axes (nearest-neighbor upsampling): `[item, height, width, channel]` to
    /// `[item, factor x height, factor x width, channel]`.
    ///
    /// # Errors
    /// When the value is not a batch of images or the factor is 0.
    pub fn repeat_pixels(&self, factor: usize) -> Result<Value> {
        let &[items, height, width, channels] = self.dims() else {
            return Err(NnError::shape("repeat pixels", "[item, height, width, channel]", self.dims()));
        };
        let across = self.reshape(&[items * height, width, channels])?.repeat_frames(factor)?;
        let row = factor * width * channels;
        let down = across.reshape(&[items, height, row])?.repeat_frames(factor)?;
        down.reshape(&[items, factor * height, factor * width, channels])
    }
}

/// A convolution; inputs are the images, the weight and an optional bias.
struct Convolve2d {
    geometry: Geometry2d,
    /// Shape of the output.
    shape: [usize; 4],
}

impl Convolve2d {
    /// The source pixel of each tap of each pixel.
    fn map(&self, windows: Windows) -> Result<RowMap> {
        let [[height, width], [source_height, source_width]] = self.geometry.sizes(windows);
        let (items, taps) = (self.geometry.items, self.geometry.taps());
        let mut rows = vec![None; items * height * width * taps];
        for (pixel, rows) in rows.chunks_exact_mut(taps).enumerate() {
            self.geometry.window(windows, pixel, |tap, source| rows[tap] = source);
        }
        RowMap::new(rows.into_iter(), items * source_height * source_width)
    }

    /// Gathers the window of each pixel, `[pixel, tap x channel]`.
    fn unfold(&self, x: &Tensor, windows: Windows) -> Result<Tensor> {
        let x = matrix(x)?;
        let seen = self.map(windows)?.gather(&x)?;
        let (taps, channels) = (self.geometry.taps(), x.dim(1)?);
        Ok(seen.reshape((seen.dim(0)? / taps, taps * channels))?)
    }

    /// Reshapes the weight `[output, input, taps]` to `[output, tap x input]`.
    fn taps(&self, weight: &Tensor) -> Result<Tensor> {
        let (Geometry2d { inputs, outputs, .. }, taps) = (self.geometry, self.geometry.taps());
        swap(weight, [inputs, taps, 1], &[outputs, taps * inputs])
    }

    /// Reshapes the weight `[output, input, taps]` to `[tap x output, input]`.
    fn taps_of_outputs(&self, weight: &Tensor) -> Result<Tensor> {
        let (Geometry2d { inputs, outputs, .. }, taps) = (self.geometry, self.geometry.taps());
        let outermost = swap(weight, [outputs * inputs, taps, 1], &[taps, outputs, inputs])?;
        Ok(outermost.reshape((taps * outputs, inputs))?)
    }
}

impl Operation for Convolve2d {
    /// Images, weight, and true if there is a bias.
    type Saved = (Tensor, Tensor, bool);

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Self::Saved)> {
        let product = self.unfold(&inputs[0], Windows::OfOutputs)?.matmul(&self.taps(&inputs[1])?.t()?)?;
        let (output, _) = finish(product, inputs.get(2), None, Activation::Identity)?;
        Ok((output.reshape(&self.shape)?, (inputs[0].clone(), inputs[1].clone(), inputs.len() == 3)))
    }

    fn backward(self, saved: Self::Saved, gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (input, weight, has_bias) = saved;
        let (Geometry2d { inputs, .. }, taps) = (self.geometry, self.geometry.taps());
        let mut gradients = vec![None; 3];
        if needs[0] {
            let seen = self.unfold(gradient, Windows::OfInputs)?;
            gradients[0] = Some(seen.matmul(&self.taps_of_outputs(&weight)?)?.reshape(input.dims())?);
        }
        if needs[1] {
            let product = matrix(gradient)?.t()?.matmul(&self.unfold(&input, Windows::OfOutputs)?)?;
            gradients[1] = Some(swap(&product, [taps, inputs, 1], weight.dims())?);
        }
        if has_bias && needs[2] {
            gradients[2] = Some(sum_rows(&matrix(gradient)?)?);
        }
        gradients.truncate(needs.len());
        Ok(gradients)
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let Self { geometry, shape } = self;
        let (input, weight, bias) = (inputs[0], inputs[1], inputs.get(2));
        let output = {
            let offset = bias.map(|bias| host::slice("conv2d", bias.tensor())).transpose()?;
            let (x, w) = (host::slice("conv2d", input.tensor())?, Weight::of("conv2d", weight)?);
            host::tensor(kernel::forward(&x, &w, offset.as_deref(), &geometry), &shape)?
        };
        Ok(record(output, inputs, || {
            let (input, weight, has_bias) = (input.save_for(weight), weight.detach(), bias.is_some());
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("conv2d", gradient.tensor())?;
                if flow.wants(0) {
                    let w = Weight::of("conv2d", &weight)?;
                    flow.give_vec(0, kernel::backward_input(&dy, &w, &geometry), input.dims())?;
                }
                if flow.wants(1) {
                    let x = input.tensor()?;
                    let x = host::slice("conv2d", &x)?;
                    flow.give_vec(1, kernel::backward_weight(&x, &dy, &geometry), weight.dims())?;
                }
                if has_bias && flow.wants(2) {
                    flow.give_vec(2, reduce::sum_rows(&dy, geometry.outputs), &[geometry.outputs])?;
                }
                Ok(())
            }
        }))
    }
}
