//! A linear layer with constant weights.

use candle_core::Tensor;

use super::packed::{Packed, Rows};
use crate::{Activation, NnError, Result, Value, device, host};

/// `f(x weight^T + bias)` with weights that do not change.
pub struct Linear {
    weights: Weights,
    inputs: usize,
    outputs: usize,
}

enum Weights {
    /// For the CPU kernel: packed once, and stored in no other form.
    Packed(Packed),
    /// For the operation of the tape, on any device: weight and bias.
    Plain(Tensor, Option<Tensor>),
}

impl Linear {
    /// Creates the layer from the weight `[output, input]` and an optional bias `[output]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let &[outputs, inputs] = weight.dims() else {
            return Err(NnError::shape("linear weight", "[output, input]", weight.dims()));
        };
        if let Some(bias) = bias.filter(|bias| bias.dims() != [outputs]) {
            return Err(NnError::shape("linear bias", format!("[{outputs}]"), bias.dims()));
        }
        let weight = host::contiguous(weight)?;
        let bias = bias.map(host::contiguous).transpose()?;
        if !device::is_fused(&weight) {
            return Ok(Self { weights: Weights::Plain(weight, bias), inputs, outputs });
        }
        let bias = bias.as_ref().map(|bias| host::slice("linear", bias)).transpose()?;
        let packed = Packed::new(&host::slice("linear", &weight)?, bias.as_deref(), [outputs, inputs]);
        Ok(Self { weights: Weights::Packed(packed), inputs, outputs })
    }

    /// Number of inputs per row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of outputs per row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `f(x weight^T + bias)`: `[.., input]` to `[.., output]`.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward(&self, input: &Value, activation: Activation) -> Result<Value> {
        self.product(input, None, activation)
    }

    /// `residual + x weight^T + bias`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward_onto(&self, input: &Value, residual: &Value) -> Result<Value> {
        self.product(input, Some(residual), Activation::Identity)
    }

    fn product(&self, input: &Value, residual: Option<&Value>, activation: Activation) -> Result<Value> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let mut shape = input.dims().to_vec();
        if shape.pop() != Some(inputs) {
            return Err(NnError::shape("linear", format!("[.., {inputs}]"), input.dims()));
        }
        shape.push(outputs);
        if let Some(residual) = residual.filter(|residual| residual.dims() != shape) {
            return Err(NnError::shape("linear residual", format!("{shape:?}"), residual.dims()));
        }
        let packed = match &self.weights {
            Weights::Packed(packed) => packed,
            Weights::Plain(weight, bias) => {
                let (weight, bias) =
                    (Value::new(weight.clone(), None), bias.clone().map(|bias| Value::new(bias, None)));
                return match residual {
                    Some(residual) => input.linear_onto(&weight, bias.as_ref(), Some(residual)),
                    None => input.linear_activated(&weight, bias.as_ref(), activation),
                };
            }
        };
        let data = host::slice("linear", input.tensor())?;
        let residual = residual.map(|residual| host::slice("linear", residual.tensor())).transpose()?;
        let rows = Rows { data: &data, count: input.rows(), stride: inputs };
        // SAFETY: `apply` writes every element and reads none before.
        let mut out = unsafe { host::uninitialized(rows.count * outputs) };
        packed.apply(rows, residual.as_deref(), activation, &mut out);
        Value::from_vec(out, &shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::RngKey;

    fn value(name: &str, shape: &[usize]) -> Value {
        Value::from_vec(RngKey::new(5).purpose(name).normals(shape.iter().product()), shape).unwrap()
    }

    fn elements(value: &Value) -> Vec<f32> {
        host::slice("test", value.tensor()).unwrap().to_vec()
    }

    #[test]
    fn it_is_the_layer_that_is_trained() {
        let (weight, bias) = (value("weight", &[70, 24]), value("bias", &[70]));
        let (input, residual) = (value("input", &[3, 37, 24]), value("residual", &[3, 37, 70]));
        let layer = Linear::new(weight.tensor(), Some(bias.tensor())).unwrap();
        let without = Linear::new(weight.tensor(), None).unwrap();
        for (found, expected) in [
            (layer.forward(&input, Activation::Gelu), input.linear_activated(&weight, Some(&bias), Activation::Gelu)),
            (layer.forward_onto(&input, &residual), input.linear_onto(&weight, Some(&bias), Some(&residual))),
            (without.forward(&input, Activation::Identity), input.linear(&weight, None)),
        ] {
            let (found, expected) = (found.unwrap(), expected.unwrap());
            assert_eq!(found.dims(), expected.dims());
            let pairs = elements(&found).into_iter().zip(elements(&expected));
            pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} {b}"));
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let weight = value("weight", &[4, 3]);
        assert!(Linear::new(weight.tensor(), Some(value("bias", &[3]).tensor())).is_err());
        assert!(Linear::new(value("weight", &[4]).tensor(), None).is_err());
        let layer = Linear::new(weight.tensor(), None).unwrap();
        assert!(layer.forward(&value("input", &[2, 4]), Activation::Identity).is_err());
        assert!(layer.forward_onto(&value("input", &[2, 3]), &value("residual", &[2, 3])).is_err());
        assert_eq!(layer.forward(&value("input", &[0, 3]), Activation::Identity).unwrap().dims(), [0, 4]);
    }
}
