//! Layer normalization (Ba et al., arXiv 1607.06450) and group normalization (Wu and He, arXiv 1803.08494).

use crate::device::wide;
use crate::gradients::{Flow, Gradient};
use crate::kernels::activation::Activation;
use crate::kernels::group_norm::{self, ChannelAffine, GroupMoments, Groups};
use crate::kernels::norm::{self, Affine, Moments};
use crate::ops::operation::{Operation, apply, composed};
use crate::ops::row_map::{matrix, sum_rows};
use crate::tape::record;
use crate::{NnError, Result, Value, host};
use candle_core::{DType, Tensor};
use std::rc::Rc;

/// Settings of a normalization.
#[derive(Debug, Clone, Copy)]
pub struct Normalization {
    /// Added to the variance.
    pub epsilon: f32,
    /// Applied to the result, in the same pass.
    pub activation: Activation,
}

impl Default for Normalization {
    fn default() -> Self {
        Self { epsilon: 1e-5, activation: Activation::Identity }
    }
}

/// A layer norm with its inputs.
struct LayerNorm {
    input: Tensor,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    settings: Normalization,
}

impl LayerNorm {
    /// Calls `work` with the elements of the input and the parameters.
    fn with<R>(&self, work: impl FnOnce(&[f32], Affine) -> R) -> Result<R> {
        let [weight, bias] = [&self.weight, &self.bias]
            .map(|tensor| tensor.as_ref().map(|tensor| host::slice("layer norm", tensor)).transpose());
        let (weight, bias) = (weight?, bias?);
        let affine = Affine { weight: weight.as_deref(), bias: bias.as_deref() };
        Ok(work(&host::slice("layer norm", &self.input)?, affine))
    }

    fn forward(&self) -> Result<(Tensor, Moments)> {
        let width = self.input.dims().last().copied().unwrap_or(1);
        let Normalization { epsilon, activation } = self.settings;
        let (out, moments) = self.with(|x, affine| norm::forward(x, width, affine, epsilon, activation))?;
        Ok((host::tensor(out, self.input.dims())?, moments))
    }
}

/// The composition of a layer norm without its activation; inputs are `x` and, if present, weight and bias. Statistics have single
/// precision or wider and are taken about the mean: candle's own layer norm subtracts two squares, which loses small deviations.
pub(super) struct Normalize {
    has_weight: bool,
    has_bias: bool,
    epsilon: f32,
    /// Accumulator for the gradient of the input, `[row, channel]`.
    #[cfg(feature = "cuda")]
    arrived: Option<Tensor>,
}

impl Normalize {
    pub(super) fn new(has_weight: bool, has_bias: bool, epsilon: f32) -> Self {
        Self {
            has_weight,
            has_bias,
            epsilon,
            #[cfg(feature = "cuda")]
            arrived: None,
        }
    }
}

/// Saved state of the composition of a layer norm.
pub(super) struct Normalized {
    /// Element type of the input.
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    /// `(x - mean) / deviation`.
    pub(super) normal: Tensor,
    /// `1 / deviation` of each row.
    pub(super) scale: Tensor,
    /// The weight: in single precision or wider, or for the kernels in the type of the input.
    pub(super) weight: Option<Tensor>,
    /// True if the CUDA kernels are used.
    #[cfg(feature = "cuda")]
    pub(super) by_kernel: bool,
}

#[cfg(feature = "cuda")]
impl Normalized {
    /// Returns whether the kernels can add to the gradient that has already arrived at the input.
    pub(super) fn takes(&self, arrived: &Tensor) -> bool {
        self.by_kernel && arrived.dtype() == self.dtype && arrived.device().same_device(self.normal.device())
    }
}

impl Operation for Normalize {
    type Saved = Normalized;

    #[cfg(feature = "cuda")]
    fn cuda(&self, inputs: &[Tensor]) -> Result<Option<(Tensor, Normalized)>> {
        use crate::cuda::layer_norm::{Affine, forward, serves};
        let (dtype, shape) = (inputs[0].dtype(), inputs[0].dims().to_vec());
        if !serves(&inputs[0]) {
            return Ok(None);
        }
        let weight = self.has_weight.then(|| inputs[1].clone());
        let bias = self.has_bias.then(|| &inputs[1 + usize::from(self.has_weight)]);
        let affine = Affine::Shared { weight: weight.as_ref(), bias };
        let done = forward(&matrix(&inputs[0])?, affine, self.epsilon)?;
        let output = done.output.reshape(shape.as_slice())?;
        let saved = Normalized { dtype, shape, normal: done.normal, scale: done.scale, weight, by_kernel: true };
        Ok(Some((output, saved)))
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Normalized)> {
        let (dtype, shape) = (inputs[0].dtype(), inputs[0].dims().to_vec());
        let x = wide(&matrix(&inputs[0])?)?;
        let centered = x.broadcast_sub(&x.mean_keepdim(1)?)?;
        let variance = centered.sqr()?.mean_keepdim(1)?;
        let scale = (variance + f64::from(self.epsilon))?.sqrt()?.recip()?;
        let normal = centered.broadcast_mul(&scale)?;
        let weight = self.has_weight.then(|| wide(&inputs[1])).transpose()?;
        let mut output = normal.clone();
        if let Some(weight) = &weight {
            output = output.broadcast_mul(weight)?;
        }
        if self.has_bias {
            output = output.broadcast_add(&wide(&inputs[1 + usize::from(self.has_weight)])?)?;
        }
        let output = output.to_dtype(dtype)?.reshape(shape.as_slice())?;
        let saved = Normalized {
            dtype,
            shape,
            normal,
            scale,
            weight,
            #[cfg(feature = "cuda")]
            by_kernel: false,
        };
        Ok((output, saved))
    }

    #[cfg(feature = "cuda")]
    fn onto(&mut self, saved: &Normalized, arrived: &Tensor) -> bool {
        if saved.takes(arrived) {
            self.arrived = matrix(arrived).ok();
        }
        self.arrived.is_some()
    }

    fn backward(self, saved: Normalized, gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        #[cfg(feature = "cuda")]
        if saved.by_kernel {
            return self.cuda_backward(saved, gradient, needs);
        }
        let Normalized { dtype, shape, normal, scale, weight, .. } = saved;
        let dy = wide(&matrix(gradient)?)?;
        let mut gradients = vec![None];
        if needs[0] {
            let inner = weight.map_or_else(|| Ok(dy.clone()), |weight| dy.broadcast_mul(&weight))?;
            gradients[0] = Some(composed_input_gradient(&inner, &normal, &scale)?.to_dtype(dtype)?.reshape(shape)?);
        }
        if self.has_weight {
            gradients.push(needs[1].then(|| sum_rows(&(&dy * &normal)?)).transpose()?);
        }
        if self.has_bias {
            gradients.push(needs[gradients.len()].then(|| sum_rows(&dy)).transpose()?);
        }
        Ok(gradients)
    }
}

/// The gradient of the input from the gradient of the normalized rows.
pub(super) fn composed_input_gradient(of_normal: &Tensor, normal: &Tensor, scale: &Tensor) -> Result<Tensor> {
    let along = normal.broadcast_mul(&(of_normal * normal)?.mean_keepdim(1)?)?;
    let centered = (of_normal.broadcast_sub(&of_normal.mean_keepdim(1)?)? - along)?;
    Ok(centered.broadcast_mul(scale)?)
}

#[cfg(feature = "cuda")]
impl Normalize {
    /// The backward pass by CUDA kernels, after a forward pass by CUDA kernels.
    fn cuda_backward(&self, saved: Normalized, gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        use crate::cuda::layer_norm::{Affine, input_gradient, parameter_gradients};
        let Normalized { dtype, shape, normal, scale, weight, .. } = saved;
        let dy = matrix(&gradient.to_dtype(dtype)?)?;
        let affine = Affine::Shared { weight: weight.as_ref(), bias: None };
        let input =
            needs[0].then(|| input_gradient(&dy, &normal, &scale, affine, self.arrived.as_ref())).transpose()?;
        let mut gradients = vec![input.map(|gradient| gradient.reshape(shape)).transpose()?];
        if needs[1..].contains(&true) {
            let sums = parameter_gradients(&dy, &normal, None, [0, 1], 2)?.reshape((2, dy.dim(1)?))?;
            let parts = [self.has_weight.then(|| sums.get(0)), self.has_bias.then(|| sums.get(1))];
            for part in parts.into_iter().flatten() {
                gradients.push(Some(part?));
            }
        }
        Ok(gradients)
    }
}

/// A group norm by its kernel, with its inputs.
struct GroupNorm {
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    shape: Groups,
    settings: Normalization,
}

impl GroupNorm {
    /// Records the kernel; inputs are `x`, weight and bias.
    fn apply(values: &[&Value; 3], shape: Groups, settings: Normalization) -> Result<Value> {
        let [input, weight, bias] = values.map(|value| value.tensor().clone());
        let layer = Rc::new(Self { input, weight, bias, shape, settings });
        let (output, moments) = layer.forward()?;
        let recorded = record(output, values, || {
            let layer = layer.clone();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let mut sums = None;
                let gradient = layer.with(|x, affine| {
                    gradient.map(|gradient| {
                        let activation = layer.settings.activation;
                        sums = Some(group_norm::backward(gradient, x, &layer.shape, affine, &moments, activation));
                    })
                })??;
                flow.give(0, gradient)?;
                let (weight_sum, bias_sum) = sums.unwrap_or_default();
                flow.give_vec(1, weight_sum, layer.weight.dims())?;
                flow.give_vec(2, bias_sum, layer.bias.dims())
            }
        });
        Ok(recorded.recomputed_by(move || Ok(layer.forward()?.0)))
    }

    /// Calls `work` with the elements of the input and the parameters.
    fn with<R>(&self, work: impl FnOnce(&[f32], ChannelAffine) -> R) -> Result<R> {
        let (weight, bias) = (host::slice("group norm", &self.weight)?, host::slice("group norm", &self.bias)?);
        Ok(work(&host::slice("group norm", &self.input)?, ChannelAffine { weight: &weight, bias: &bias }))
    }

    fn forward(&self) -> Result<(Tensor, GroupMoments)> {
        let Normalization { epsilon, activation } = self.settings;
        let (out, moments) = self.with(|x, affine| group_norm::forward(x, &self.shape, affine, epsilon, activation))?;
        Ok((host::tensor(out, self.input.dims())?, moments))
    }
}

impl Value {
    /// Normalizes the innermost axis to mean 0 and variance 1, then multiplies by `weight`, adds `bias` (both as wide as that axis, or
    /// absent) and applies the activation.
    ///
    /// Without weight and bias, followed by [`modulate`](Value::modulate), this is adaptive normalization (AdaLN).
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn layer_norm(&self, weight: Option<&Value>, bias: Option<&Value>, settings: Normalization) -> Result<Value> {
        let width = self.width();
        let mut parameters = [weight, bias].into_iter().flatten();
        if let Some(parameter) = parameters.find(|value| value.dims() != [width]) {
            return Err(NnError::shape("layer norm", format!("weight and bias of [{width}]"), parameter.dims()));
        }
        if self.tensor().elem_count() == 0 {
            return Err(NnError::shape("layer norm", "at least one element", self.dims()));
        }
        let values: Vec<&Value> = [Some(self), weight, bias].into_iter().flatten().collect();
        if composed(&values) {
            let plain = Normalize::new(weight.is_some(), bias.is_some(), settings.epsilon);
            return apply(plain, &values)?.activate(settings.activation);
        }
        let [gain, offset] = [weight, bias].map(|value| value.map(|value| value.tensor().clone()));
        let layer = Rc::new(LayerNorm { input: self.tensor().clone(), weight: gain, bias: offset, settings });
        let (output, moments) = layer.forward()?;
        let recorded = record(output, &values, || {
            let layer = layer.clone();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let mut sums = None;
                let gradient = layer.with(|x, affine| {
                    gradient.map(|gradient| {
                        sums = Some(norm::backward(gradient, x, width, affine, &moments, layer.settings.activation));
                    })
                })??;
                flow.give(0, gradient)?;
                let (weight_sum, bias_sum) = sums.unwrap_or_default();
                let mut input = 1;
                for (parameter, sum) in [(&layer.weight, weight_sum), (&layer.bias, bias_sum)] {
                    if parameter.is_some() {
                        flow.give_vec(input, sum, &[width])?;
                        input += 1;
                    }
                }
                Ok(())
            }
        });
        Ok(recorded.recomputed_by(move || Ok(layer.forward()?.0)))
    }

    /// Normalizes each of `groups` groups of channels over time and channels, item by item: input `[item, time, channel]`, weight
    /// and bias `[channel]`. Equals PyTorch's `GroupNorm` on `[item, channel, time]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn group_norm(&self, groups: usize, weight: &Value, bias: &Value, settings: Normalization) -> Result<Value> {
        let &[items, time, channels] = self.dims() else {
            return Err(NnError::shape("group norm", "[item, time, channel]", self.dims()));
        };
        if groups == 0 || channels % groups != 0 {
            return Err(NnError::invalid("group norm", format!("{channels} channels in {groups} groups")));
        }
        if weight.dims() != [channels] || bias.dims() != [channels] {
            return Err(NnError::shape("group norm", format!("weight and bias of [{channels}]"), weight.dims()));
        }
        if self.tensor().elem_count() == 0 {
            return Err(NnError::shape("group norm", "at least one element", self.dims()));
        }
        let values = [self, weight, bias];
        if !composed(&values) {
            let shape = Groups { items, places: time, channels, groups };
            return GroupNorm::apply(&values, shape, settings);
        }
        // [item, time, group, channel] -> [item, group, time x channel], which reduces it to a layer norm without gain.
        let split = self.reshape(&[items, time, groups, channels / groups])?.swap_middle()?;
        let flat = split.reshape(&[items, groups, time * channels / groups])?;
        let plain = Normalization { activation: Activation::Identity, ..settings };
        let normal = flat.layer_norm(None, None, plain)?.reshape(&[items, groups, time, channels / groups])?;
        let normal = normal.swap_middle()?.reshape(&[items, time, channels])?;
        normal.scale_channels(weight)?.add_channels(bias)?.activate(settings.activation)
    }
}
