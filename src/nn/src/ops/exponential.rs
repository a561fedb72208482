//! Exponentials and bounds, element by element.

use crate::gradients::{Flow, Gradient};
use crate::kernels::elementwise;
use crate::ops::operation::{Operation, apply};
use crate::tape::record;
use crate::{NnError, Result, Value, host};
use candle_core::Tensor;

impl Value {
    /// `e^self`, element by element.
    ///
    /// # Errors
    /// When candle cannot compute it.
    pub fn exponential(&self) -> Result<Value> {
        apply(Exponential, &[self])
    }

    /// Replaces elements outside of a range by its nearest end. No gradient flows into these.
    ///
    /// # Errors
    /// When the range is empty.
    pub fn clamp(&self, low: f32, high: f32) -> Result<Value> {
        if low > high || low.is_nan() || high.is_nan() {
            return Err(NnError::invalid("clamp", format!("an empty range, {low} to {high}")));
        }
        apply(Clamp { low, high }, &[self])
    }
}

struct Exponential;

impl Operation for Exponential {
    const IN_SINGLE_PRECISION: bool = true;

    /// The output, which is its own slope.
    type Saved = Tensor;

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Tensor)> {
        let output = inputs[0].exp()?;
        Ok((output.clone(), output))
    }

    fn backward(self, output: Tensor, gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some((gradient * output)?)])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let elements = elementwise::map(&host::slice("exponential", inputs[0].tensor())?, f32::exp);
        let output = host::tensor(elements, inputs[0].dims())?;
        Ok(record(output.clone(), inputs, || {
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let output = host::slice("exponential", &output)?;
                flow.give(0, gradient.map(|g| elementwise::zip_assign(g, &output, |g, y| g * y))?)
            }
        }))
    }
}

/// Limits elements to a range.
struct Clamp {
    low: f32,
    high: f32,
}

impl Operation for Clamp {
    type Saved = Tensor;

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Tensor)> {
        Ok((inputs[0].clamp(f64::from(self.low), f64::from(self.high))?, inputs[0].clone()))
    }

    fn backward(self, input: Tensor, gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (low, high) = (input.ge(f64::from(self.low))?, input.le(f64::from(self.high))?);
        let inside = (low * high)?.to_dtype(gradient.dtype())?;
        Ok(vec![Some((gradient * inside)?)])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let Self { low, high } = self;
        let elements = elementwise::map(&host::slice("clamp", inputs[0].tensor())?, |x| x.clamp(low, high));
        let output = host::tensor(elements, inputs[0].dims())?;
        Ok(record(output, inputs, || {
            let input = inputs[0].tensor().clone();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let input = host::slice("clamp", &input)?;
                let inside = |g: f32, x: f32| if (low..=high).contains(&x) { g } else { 0.0 };
                flow.give(0, gradient.map(|g| elementwise::zip_assign(g, &input, inside))?)
            }
        }))
    }
}
