//! Layer normalisation (Ba et al., arXiv 1607.06450) and group normalisation (Wu and He, arXiv 1803.08494).

use crate::gradients::{Flow, Gradient};
use crate::kernels::activation::Activation;
use crate::kernels::norm::{self, Affine};
use crate::tape::record;
use crate::{NnError, Result, Value, host};

/// Settings of a normalisation.
#[derive(Debug, Clone, Copy)]
pub struct Normalisation {
    /// Added to the variance.
    pub epsilon: f32,
    /// Applied to the result, in the same pass.
    pub activation: Activation,
}

impl Default for Normalisation {
    fn default() -> Self {
        Self { epsilon: 1e-5, activation: Activation::Identity }
    }
}

impl Value {
    /// Normalises the innermost axis to mean 0 and variance 1, then multiplies by `weight`, adds `bias` (both as wide as that axis, or
    /// absent) and applies the activation.
    ///
    /// Adaptive normalisation (AdaLN) is this without weight and bias, followed by [`modulate`](Value::modulate).
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn layer_norm(&self, weight: Option<&Value>, bias: Option<&Value>, settings: Normalisation) -> Result<Value> {
        let width = self.width();
        let mut parameters = [weight, bias].into_iter().flatten();
        if let Some(parameter) = parameters.find(|value| value.dims() != [width]) {
            return Err(NnError::shape("layer norm", format!("weight and bias of [{width}]"), parameter.dims()));
        }
        if self.tensor().elem_count() == 0 {
            return Err(NnError::shape("layer norm", "at least one element", self.dims()));
        }
        let gain = weight.map(|value| host::slice("layer norm", value.tensor())).transpose()?;
        let offset = bias.map(|value| host::slice("layer norm", value.tensor())).transpose()?;
        let affine = Affine { weight: gain.as_deref(), bias: offset.as_deref() };
        let x = host::slice("layer norm", self.tensor())?;
        let (out, moments) = norm::forward(&x, width, affine, settings.epsilon, settings.activation);
        let output = host::tensor(out, self.dims())?;
        let values: Vec<&Value> = [Some(self), weight, bias].into_iter().flatten().collect();
        Ok(record(output, &values, || {
            let input = self.tensor().clone();
            let [weight, bias] = [weight, bias].map(|value| value.map(|value| value.tensor().clone()));
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let gain = weight.as_ref().map(|value| host::slice("layer norm", value)).transpose()?;
                let offset = bias.as_ref().map(|value| host::slice("layer norm", value)).transpose()?;
                let affine = Affine { weight: gain.as_deref(), bias: offset.as_deref() };
                let x = host::slice("layer norm", &input)?;
                let mut sums = None;
                let gradient = gradient.map(|gradient| {
                    sums = Some(norm::backward(gradient, &x, width, affine, &moments, settings.activation));
                })?;
                flow.give(0, gradient)?;
                let (weight_sum, bias_sum) = sums.unwrap_or_default();
                let mut input = 1;
                for (present, sum) in [(weight.is_some(), weight_sum), (bias.is_some(), bias_sum)] {
                    if present {
                        flow.give_vec(input, sum, &[width])?;
                        input += 1;
                    }
                }
                Ok(())
            }
        }))
    }

    /// Normalises each of `groups` groups of channels over time and channels, item by item: input `[item, time, channel]`, weight
    /// and bias `[channel]`. As PyTorch's `GroupNorm` on `[item, channel, time]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn group_norm(&self, groups: usize, weight: &Value, bias: &Value, settings: Normalisation) -> Result<Value> {
        let &[items, time, channels] = self.dims() else {
            return Err(NnError::shape("group norm", "[item, time, channel]", self.dims()));
        };
        if groups == 0 || channels % groups != 0 {
            return Err(NnError::invalid("group norm", format!("{channels} channels in {groups} groups")));
        }
        // [item, time, group, channel] -> [item, group, time x channel]: then it is a layer norm without gain.
        let split = self.reshape(&[items, time, groups, channels / groups])?.swap_middle()?;
        let flat = split.reshape(&[items, groups, time * channels / groups])?;
        let plain = Normalisation { activation: Activation::Identity, ..settings };
        let normal = flat.layer_norm(None, None, plain)?.reshape(&[items, groups, time, channels / groups])?;
        let normal = normal.swap_middle()?.reshape(&[items, time, channels])?;
        normal.scale_channels(weight)?.add_channels(bias)?.activate(settings.activation)
    }
}
