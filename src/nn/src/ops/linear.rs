//! Matrix product with a weight, fused with bias, activation and residual.

use crate::gradients::{Flow, Gradient};
use crate::host::uninitialized;
use crate::kernels::activation::Activation;
use crate::kernels::gemm::{Factor, Matrix, multiply, multiply_then};
use crate::kernels::reduce;
use crate::ops::operation::{Operation, apply, composed};
use crate::ops::row_map::sum_rows;
use crate::saved_tensor::SavedTensor;
use crate::stored::Weight;
use crate::tape::{precision, record};
use crate::{NnError, Precision, Result, Value, host};
use candle_core::Tensor;
use rayon::prelude::*;

#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    inputs: usize,
    outputs: usize,
    /// The number format of input, weight and gradient.
    precision: Precision,
}

impl Sizes {
    /// The shape of the output for an input.
    fn shape(self, input: &Value) -> Vec<usize> {
        [&input.dims()[..input.dims().len() - 1], &[self.outputs]].concat()
    }

    /// The input, `[row, input]`.
    fn input(self, elements: &[f32]) -> Matrix<'_> {
        Matrix::row_major(elements, self.rows, self.inputs).of(self.precision)
    }

    /// The weight, `[output, input]`.
    fn weight<'w>(self, elements: &'w Weight<'_>) -> Factor<'w> {
        elements.matrix(self.outputs, self.inputs, self.precision)
    }

    /// The output or its gradient, `[row, output]`.
    fn output(self, elements: &[f32]) -> Matrix<'_> {
        Matrix::row_major(elements, self.rows, self.outputs).of(self.precision)
    }
}

fn sizes(input: &Value, weight: &Value, bias: Option<&Value>) -> Result<Sizes> {
    let &[outputs, inputs] = weight.dims() else {
        return Err(NnError::shape("linear weight", "[output, input]", weight.dims()));
    };
    if input.width() != inputs || input.dims().is_empty() {
        return Err(NnError::shape("linear", format!("[.., {inputs}]"), input.dims()));
    }
    if let Some(bias) = bias.filter(|bias| bias.dims() != [outputs]) {
        return Err(NnError::shape("linear bias", format!("[{outputs}]"), bias.dims()));
    }
    let values: Vec<&Value> = [Some(input), Some(weight), bias].into_iter().flatten().collect();
    Ok(Sizes { rows: input.rows(), inputs, outputs, precision: precision(&values) })
}

/// Writes the terms that the product is added to: the bias, the residual, or both.
fn prepare(out: &mut [f32], outputs: usize, bias: Option<&[f32]>, residual: Option<&[f32]>) {
    let chunk = crate::kernels::elementwise::rows_per_chunk(outputs) * outputs;
    let tasks = out.par_chunks_mut(chunk.max(1)).enumerate();
    tasks.for_each(|(index, out)| {
        let rows = out.chunks_exact_mut(outputs).enumerate();
        for (row, out) in rows {
            let residual = residual.map(|residual| &residual[index * chunk + row * outputs..][..outputs]);
            match (bias, residual) {
                (Some(bias), Some(residual)) => {
                    out.iter_mut().zip(bias).zip(residual).for_each(|((out, b), r)| *out = b + r);
                }
                (Some(source), None) | (None, Some(source)) => out.copy_from_slice(source),
                (None, None) => {}
            }
        }
    });
}

/// Adds the gradients of input, weight and bias (inputs 0, 1 and 2 of the operation), from the gradient of the product.
fn give(
    flow: &mut Flow<'_>,
    dy: &[f32],
    input: &SavedTensor,
    weight: &Value,
    has_bias: bool,
    sizes: Sizes,
) -> Result<()> {
    let gradient = sizes.output(dy);
    if flow.wants(0) {
        let w = Weight::of("linear", weight)?;
        flow.give_product(0, input.dims(), gradient, sizes.weight(&w))?;
    }
    if flow.wants(1) {
        let x = input.tensor()?;
        let x = host::slice("linear", &x)?;
        flow.give_product(1, weight.dims(), gradient.transposed(), sizes.input(&x))?;
    }
    if has_bias && flow.wants(2) {
        flow.give_vec(2, reduce::sum_rows(dy, sizes.outputs), &[sizes.outputs])?;
    }
    Ok(())
}

/// Adds bias `[channel]` and residual to a product `[row, channel]` that has no other owner, and applies an activation. Returns the
/// result and, with an activation, its input.
pub(crate) fn finish(
    product: Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    activation: Activation,
) -> Result<(Tensor, Option<Tensor>)> {
    let plain = activation == Activation::Identity;
    if plain && bias.is_none() && residual.is_none() {
        return Ok((product, None));
    }
    #[cfg(feature = "cuda")]
    if crate::cuda::activation::serves(&product) {
        let after = crate::cuda::activation::finish(&product, bias, residual, activation)?;
        return Ok(after.map_or((product.clone(), None), |after| (after, Some(product))));
    }
    let mut sum = product;
    if let Some(bias) = bias {
        sum = sum.broadcast_add(bias)?;
    }
    if let Some(residual) = residual {
        sum = (&sum + residual.reshape(sum.shape())?)?;
    }
    if plain {
        return Ok((sum, None));
    }
    Ok((activation.composed(&sum)?, Some(sum)))
}

/// `f(residual + x weight^T + bias)`; inputs are `x`, weight and, if present, bias and residual.
struct Linear {
    sizes: Sizes,
    /// The activation; the identity for the fused kernel, which has its own path for activations.
    activation: Activation,
    /// Shape of the output.
    shape: Vec<usize>,
    has_bias: bool,
    has_residual: bool,
}

impl Linear {
    fn added<'a, T>(&self, inputs: &'a [T]) -> [Option<&'a T>; 2] {
        let residual = 2 + usize::from(self.has_bias);
        [self.has_bias.then(|| &inputs[2]), self.has_residual.then(|| &inputs[residual])]
    }
}

impl Operation for Linear {
    /// Input, weight, and the input of the activation if there is one.
    type Saved = (Tensor, Tensor, Option<Tensor>);

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Self::Saved)> {
        let Sizes { rows, inputs: width, .. } = self.sizes;
        let product = inputs[0].reshape((rows, width))?.matmul(&inputs[1].t()?)?;
        let [bias, residual] = self.added(inputs);
        let (output, before) = finish(product, bias, residual, self.activation)?;
        Ok((output.reshape(self.shape.as_slice())?, (inputs[0].clone(), inputs[1].clone(), before)))
    }

    fn backward(self, saved: Self::Saved, gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (input, weight, before) = saved;
        let Sizes { rows, inputs, outputs, .. } = self.sizes;
        let mut dy = gradient.reshape((rows, outputs))?;
        if let Some(before) = before {
            dy = self.activation.composed_slope(&dy, &before)?;
        }
        let mut gradients = vec![None, None];
        if needs[0] {
            gradients[0] = Some(dy.matmul(&weight)?.reshape(input.dims())?);
        }
        if needs[1] {
            gradients[1] = Some(dy.t()?.matmul(&input.reshape((rows, inputs))?)?);
        }
        if self.has_bias {
            gradients.push(needs[2].then(|| sum_rows(&dy)).transpose()?);
        }
        if self.has_residual {
            gradients.push(Some(dy.reshape(self.shape.as_slice())?));
        }
        Ok(gradients)
    }

    fn fused(self, values: &[&Value]) -> Result<Value> {
        let Sizes { rows, outputs, .. } = self.sizes;
        let (input, weight) = (values[0], values[1]);
        let (x, w) = (host::slice("linear", input.tensor())?, Weight::of("linear", weight)?);
        // SAFETY: the product has exactly this shape, so it writes every element.
        let mut out = unsafe { uninitialized(rows * outputs) };
        let added =
            self.added(values).map(|value| value.map(|value| host::slice("linear", value.tensor())).transpose());
        let [bias_slice, residual_slice] = added;
        prepare(&mut out, outputs, bias_slice?.as_deref(), residual_slice?.as_deref());
        let (x_matrix, w) = (self.sizes.input(&x), self.sizes.weight(&w).transposed());
        multiply(&mut out, outputs, x_matrix, w, self.has_bias || self.has_residual);
        drop(x);
        let output = host::tensor(out, &self.shape)?;
        Ok(record(output, values, || {
            let (input, weight) = (input.save_for(weight), weight.detach());
            let Self { sizes, has_bias, has_residual, .. } = self;
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("linear", gradient.tensor())?;
                give(flow, &dy, &input, &weight, has_bias, sizes)?;
                drop(dy);
                if has_residual {
                    flow.give(2 + usize::from(has_bias), gradient)?;
                }
                Ok(())
            }
        }))
    }
}

impl Value {
    /// `self weight^T + bias` over the innermost axis: input `[.., input]`, weight `[output, input]`, bias `[output]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn linear(&self, weight: &Value, bias: Option<&Value>) -> Result<Value> {
        self.linear_onto(weight, bias, None)
    }

    /// `residual + self weight^T + bias`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn linear_onto(&self, weight: &Value, bias: Option<&Value>, residual: Option<&Value>) -> Result<Value> {
        let sizes = sizes(self, weight, bias)?;
        let shape = sizes.shape(self);
        if let Some(residual) = residual.filter(|residual| residual.dims() != shape) {
            return Err(NnError::shape("linear residual", format!("{shape:?}"), residual.dims()));
        }
        let values: Vec<&Value> = [Some(self), Some(weight), bias, residual].into_iter().flatten().collect();
        let (has_bias, has_residual) = (bias.is_some(), residual.is_some());
        apply(Linear { sizes, activation: Activation::Identity, shape, has_bias, has_residual }, &values)
    }

    /// `f(self weight^T + bias)`; the activation is applied to each tile while it is in the cache.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn linear_activated(&self, weight: &Value, bias: Option<&Value>, activation: Activation) -> Result<Value> {
        let values: Vec<&Value> = [Some(self), Some(weight), bias].into_iter().flatten().collect();
        if activation == Activation::Identity {
            return self.linear(weight, bias);
        }
        let sizes = sizes(self, weight, bias)?;
        let (Sizes { rows, outputs, .. }, shape) = (sizes, sizes.shape(self));
        if composed(&values) {
            let has_bias = bias.is_some();
            return apply(Linear { sizes, activation, shape, has_bias, has_residual: false }, &values);
        }
        let (x, w) = (host::slice("linear", self.tensor())?, Weight::of("linear", weight)?);
        // SAFETY: as in `linear_onto`.
        let mut before = unsafe { uninitialized(rows * outputs) };
        let bias_slice = bias.map(|bias| host::slice("linear", bias.tensor())).transpose()?;
        prepare(&mut before, outputs, bias_slice.as_deref(), None);
        let (x, w) = (sizes.input(&x), sizes.weight(&w).transposed());
        if values.iter().all(|value| !value.is_recorded()) {
            multiply_then(&mut before, outputs, x, w, bias.is_some(), |_, run| activation.apply(run));
            return Ok(Value::new(host::tensor(before, &shape)?, None));
        }
        // SAFETY: every element is written when its sum is finished.
        let mut after = unsafe { uninitialized(rows * outputs) };
        let buffer = crate::kernels::shared::Shared::new(&mut after);
        multiply_then(&mut before, outputs, x, w, bias.is_some(), |offset, before| {
            // SAFETY: each run of elements is finished once.
            activation.write(unsafe { buffer.slice(offset, before.len()) }, before);
        });
        let output = host::tensor(after, &shape)?;
        let before = host::tensor(before, &shape)?;
        Ok(record(output, &values, || {
            let (input, weight, has_bias) = (self.save_for(weight), weight.detach(), bias.is_some());
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let before = host::slice("linear", &before)?;
                let gradient = gradient.map(|dy| activation.chain(dy, &before))?;
                give(flow, &host::slice("linear", gradient.tensor())?, &input, &weight, has_bias, sizes)
            }
        }))
    }

    /// Computes the feed-forward block of a transformer as one operation: `f(self w1^T + b1) w2^T + b2`, plus the residual if there is
    /// one. The activations of the wide inner layer are not saved; the backward pass recomputes them from their inputs.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn feed_forward(
        &self,
        first: [&Value; 2],
        second: [&Value; 2],
        activation: Activation,
        residual: Option<&Value>,
    ) -> Result<Value> {
        let inner = sizes(self, first[0], Some(first[1]))?;
        let ([w1, b1], [w2, b2]) = (first, second);
        let &[outputs, width] = second[0].dims() else {
            return Err(NnError::shape("feed-forward weight", "[output, inner]", second[0].dims()));
        };
        if width != inner.outputs || second[1].dims() != [outputs] {
            return Err(NnError::shape("feed-forward weight", format!("[_, {}]", inner.outputs), second[0].dims()));
        }
        let rows = inner.rows;
        let outer = Sizes { rows, inputs: width, outputs, precision: inner.precision };
        let shape = outer.shape(self);
        if let Some(residual) = residual.filter(|residual| residual.dims() != shape) {
            return Err(NnError::shape("feed-forward residual", format!("{shape:?}"), residual.dims()));
        }
        let values: Vec<&Value> =
            [self, first[0], first[1], second[0], second[1]].into_iter().chain(residual).collect();
        if composed(&values) {
            let inner = self.linear_activated(first[0], Some(first[1]), activation)?;
            return inner.linear_onto(second[0], Some(second[1]), residual);
        }
        // SAFETY: `prepare` writes a bias to every element of both.
        let (mut before, mut out) = unsafe { (uninitialized(rows * width), uninitialized(rows * outputs)) };
        prepare(&mut before, width, Some(&host::slice("feed-forward", b1.tensor())?), None);
        let skip = residual.map(|residual| host::slice("feed-forward", residual.tensor())).transpose()?;
        prepare(&mut out, outputs, Some(&host::slice("feed-forward", b2.tensor())?), skip.as_deref());
        drop(skip);
        {
            let x = host::slice("feed-forward", self.tensor())?;
            let (w1, w2) = (Weight::of("feed-forward", w1)?, Weight::of("feed-forward", w2)?);
            multiply(&mut before, width, inner.input(&x), inner.weight(&w1).transposed(), true);
            let after = activation.map(&before);
            multiply(&mut out, outputs, outer.input(&after), outer.weight(&w2).transposed(), true);
        }
        let output = host::tensor(out, &shape)?;
        let has_residual = residual.is_some();
        Ok(record(output, &values, || {
            let (input, w1, w2) = (self.save_for(w1), w1.detach(), w2.detach());
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("feed-forward", gradient.tensor())?;
                let dy_matrix = outer.output(&dy);
                if flow.wants(3) {
                    let after = activation.map(&before);
                    flow.give_product(3, w2.dims(), dy_matrix.transposed(), outer.input(&after))?;
                }
                if flow.wants(4) {
                    flow.give_vec(4, reduce::sum_rows(&dy, outputs), &[outputs])?;
                }
                if flow.wants(0) || flow.wants(1) || flow.wants(2) {
                    let w2 = Weight::of("feed-forward", &w2)?;
                    let w2 = outer.weight(&w2);
                    // SAFETY: the product has exactly this shape, so it writes every element.
                    let mut inner_gradient = unsafe { uninitialized(rows * width) };
                    multiply_then(&mut inner_gradient, width, dy_matrix, w2, false, |offset, gradient| {
                        activation.multiply_slope(gradient, &before[offset..offset + gradient.len()]);
                    });
                    give(flow, &inner_gradient, &input, &w1, true, inner)?;
                }
                drop(dy);
                if has_residual {
                    flow.give(5, gradient)?;
                }
                Ok(())
            }
        }))
    }
}
