//! Elementwise sums, products and differences, and sums of all elements.

use crate::gradients::{Flow, Gradient};
use crate::kernels::{elementwise, reduce};
use crate::tape::record;
use crate::{NnError, Result, Value, host};

fn same_shape(operation: &'static str, a: &Value, b: &Value) -> Result<()> {
    if a.dims() == b.dims() {
        return Ok(());
    }
    Err(NnError::shape(operation, format!("two values of shape {:?}", a.dims()), b.dims()))
}

/// The elements of both values combined one by one.
fn zipped(
    operation: &'static str,
    a: &Value,
    b: &Value,
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<candle_core::Tensor> {
    same_shape(operation, a, b)?;
    let elements = elementwise::zip(&host::slice(operation, a.tensor())?, &host::slice(operation, b.tensor())?, f);
    host::tensor(elements, a.dims())
}

impl Value {
    /// `self + other`, same shape.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn add(&self, other: &Value) -> Result<Value> {
        let output = zipped("add", self, other, |a, b| a + b)?;
        Ok(record(output, &[self, other], || {
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                if flow.wants(0) && flow.wants(1) {
                    flow.give(0, Gradient::shared(gradient.tensor().clone()))?;
                    return flow.give(1, Gradient::shared(gradient.tensor().clone()));
                }
                let input = usize::from(flow.wants(1));
                flow.give(input, gradient)
            }
        }))
    }

    /// `self - other`, same shape.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn subtract(&self, other: &Value) -> Result<Value> {
        let output = zipped("subtract", self, other, |a, b| a - b)?;
        Ok(record(output, &[self, other], || {
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                if flow.wants(0) {
                    flow.give(0, Gradient::shared(gradient.tensor().clone()))?;
                    if flow.wants(1) {
                        let gradient = Gradient::shared(gradient.tensor().clone());
                        flow.give(1, gradient.map(|g| elementwise::map_assign(g, |g| -g))?)?;
                    }
                    return Ok(());
                }
                flow.give(1, gradient.map(|g| elementwise::map_assign(g, |g| -g))?)
            }
        }))
    }

    /// `self * other` element by element, same shape.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn multiply(&self, other: &Value) -> Result<Value> {
        let output = zipped("multiply", self, other, |a, b| a * b)?;
        let (a, b) = (self.tensor(), other.tensor());
        Ok(record(output, &[self, other], || {
            let (a, b) = (a.clone(), b.clone());
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                for (input, factor) in [(0, &b), (1, &a)] {
                    if flow.wants(input) {
                        let factor = host::slice("multiply", factor)?;
                        let upstream = Gradient::shared(gradient.tensor().clone());
                        let product = upstream.map(|g| elementwise::zip_assign(g, &factor, |g, f| g * f))?;
                        flow.give(input, product)?;
                    }
                }
                Ok(())
            }
        }))
    }

    /// `factor * self + offset`.
    ///
    /// # Errors
    /// When the value is not a CPU tensor.
    pub fn affine(&self, factor: f32, offset: f32) -> Result<Value> {
        let elements = elementwise::map(&host::slice("affine", self.tensor())?, |x| x.mul_add(factor, offset));
        let output = host::tensor(elements, self.dims())?;
        Ok(record(output, &[self], || {
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                flow.give(0, gradient.map(|g| elementwise::scale_assign(g, factor))?)
            }
        }))
    }

    /// The sum of all elements, a scalar.
    ///
    /// # Errors
    /// When the value is not a CPU tensor.
    pub fn sum(&self) -> Result<Value> {
        let total = reduce::sum(&host::slice("sum", self.tensor())?, |x| x) as f32;
        let output = host::tensor(vec![total], &[])?;
        let shape = self.dims();
        Ok(record(output, &[self], || {
            let shape = shape.to_vec();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let upstream = host::slice("sum", gradient.tensor())?[0];
                flow.give_vec(0, vec![upstream; shape.iter().product()], &shape)
            }
        }))
    }

    /// The mean of all elements, a scalar.
    ///
    /// # Errors
    /// When the value is not a CPU tensor.
    pub fn mean(&self) -> Result<Value> {
        self.sum()?.affine(1.0 / self.tensor().elem_count().max(1) as f32, 0.0)
    }
}
