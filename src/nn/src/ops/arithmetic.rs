//! Elementwise sums, products and differences, and sums of all elements.

use crate::device::wide;
use crate::gradients::{Flow, Gradient};
use crate::kernels::{elementwise, reduce};
use crate::ops::operation::{Operation, apply};
use crate::tape::record;
use crate::{NnError, Result, Value, host};
use candle_core::Tensor;

fn same_shape(operation: &'static str, a: &Value, b: &Value) -> Result<()> {
    if a.dims() == b.dims() {
        return Ok(());
    }
    Err(NnError::shape(operation, format!("two values of shape {:?}", a.dims()), b.dims()))
}

/// Combines the elements of both values one by one.
fn zipped(operation: &'static str, inputs: &[&Value], f: impl Fn(f32, f32) -> f32 + Sync) -> Result<Tensor> {
    let (a, b) = (host::slice(operation, inputs[0].tensor())?, host::slice(operation, inputs[1].tensor())?);
    host::tensor(elementwise::zip(&a, &b, f), inputs[0].dims())
}

struct Add;

impl Operation for Add {
    type Saved = ();

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, ())> {
        Ok(((&inputs[0] + &inputs[1])?, ()))
    }

    fn backward(self, (): (), gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(gradient.clone()), Some(gradient.clone())])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let output = zipped("add", inputs, |a, b| a + b)?;
        Ok(record(output, inputs, || {
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
}

struct Subtract;

impl Operation for Subtract {
    type Saved = ();

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, ())> {
        Ok(((&inputs[0] - &inputs[1])?, ()))
    }

    fn backward(self, (): (), gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(gradient.clone()), needs[1].then(|| gradient.neg()).transpose()?])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let output = zipped("subtract", inputs, |a, b| a - b)?;
        Ok(record(output, inputs, || {
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
}

struct Multiply;

impl Operation for Multiply {
    type Saved = [Tensor; 2];

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, [Tensor; 2])> {
        Ok(((&inputs[0] * &inputs[1])?, [inputs[0].clone(), inputs[1].clone()]))
    }

    fn backward(self, [a, b]: [Tensor; 2], gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let of = |input: usize, factor: &Tensor| needs[input].then(|| gradient * factor).transpose();
        Ok(vec![of(0, &b)?, of(1, &a)?])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let output = zipped("multiply", inputs, |a, b| a * b)?;
        Ok(record(output, inputs, || {
            let (a, b) = (inputs[0].tensor().clone(), inputs[1].tensor().clone());
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
}

/// `factor * x + offset`.
struct Affine {
    factor: f32,
    offset: f32,
}

impl Operation for Affine {
    type Saved = ();

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, ())> {
        Ok((inputs[0].affine(f64::from(self.factor), f64::from(self.offset))?, ()))
    }

    fn backward(self, (): (), gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(gradient.affine(f64::from(self.factor), 0.0)?)])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let Self { factor, offset } = self;
        let elements = elementwise::map(&host::slice("affine", inputs[0].tensor())?, |x| x.mul_add(factor, offset));
        let output = host::tensor(elements, inputs[0].dims())?;
        Ok(record(output, inputs, || {
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                flow.give(0, gradient.map(|g| elementwise::scale_assign(g, factor))?)
            }
        }))
    }
}

/// The sum of all elements, in single precision or wider.
struct Sum;

impl Operation for Sum {
    type Saved = Vec<usize>;

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Vec<usize>)> {
        Ok((wide(&inputs[0])?.sum_all()?, inputs[0].dims().to_vec()))
    }

    fn backward(self, shape: Vec<usize>, gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(gradient.broadcast_as(shape)?)])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let total = reduce::sum(&host::slice("sum", inputs[0].tensor())?, |x| x) as f32;
        let output = host::tensor(vec![total], &[])?;
        let shape = inputs[0].dims();
        Ok(record(output, inputs, || {
            let shape = shape.to_vec();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let upstream = host::slice("sum", gradient.tensor())?[0];
                flow.give_vec(0, vec![upstream; shape.iter().product()], &shape)
            }
        }))
    }
}

impl Value {
    /// `self + other`, same shape.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn add(&self, other: &Value) -> Result<Value> {
        same_shape("add", self, other)?;
        apply(Add, &[self, other])
    }

    /// `self - other`, same shape.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn subtract(&self, other: &Value) -> Result<Value> {
        same_shape("subtract", self, other)?;
        apply(Subtract, &[self, other])
    }

    /// `self * other` element by element, same shape.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn multiply(&self, other: &Value) -> Result<Value> {
        same_shape("multiply", self, other)?;
        apply(Multiply, &[self, other])
    }

    /// `factor * self + offset`.
    ///
    /// # Errors
    /// When candle cannot compute it.
    pub fn affine(&self, factor: f32, offset: f32) -> Result<Value> {
        apply(Affine { factor, offset }, &[self])
    }

    /// The sum of all elements, a scalar.
    ///
    /// # Errors
    /// When candle cannot compute it.
    pub fn sum(&self) -> Result<Value> {
        apply(Sum, &[self])
    }

    /// The mean of all elements, a scalar.
    ///
    /// # Errors
    /// When candle cannot compute it.
    pub fn mean(&self) -> Result<Value> {
        self.sum()?.affine(1.0 / self.tensor().elem_count().max(1) as f32, 0.0)
    }
}
