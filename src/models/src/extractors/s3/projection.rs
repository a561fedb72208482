//! A linear layer for inference: its weights lie as the matrix product reads them.
//!
//! Kept as `[output][input]`, as checkpoints have them, the weights are turned in every product, which takes as long as a third of
//! the network. They do not change here, so they are turned once.

use flowmill_nn::{
    Activation, NnError, Parameters, Value, host,
    kernels::gemm::{Matrix, multiply_then},
};

/// `x W + b` with the weights `[input][output]`.
pub(super) struct Projection {
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
}

impl Projection {
    /// The layer called `name`: `NAME.weight` `[output, input]` and, if there is one, `NAME.bias`.
    pub(super) fn new(parameters: &Parameters, name: &str) -> Result<Self, NnError> {
        let find = |part: &str| parameters.find(&format!("{name}.{part}")).map(|id| parameters.tensor(id));
        let missing = || NnError::invalid("linear layer", format!("there is no `{name}.weight`"));
        let tensor = find("weight").ok_or_else(missing)?;
        let (outputs, inputs) = tensor.dims2()?;
        let weights = tensor.t()?.contiguous()?;
        let weights = host::slice("linear layer", &weights)?.to_vec();
        let bias = find("bias").map(|bias| Ok::<_, NnError>(host::slice("linear layer", bias)?.to_vec()));
        Ok(Self { weights, bias: bias.transpose()?, inputs, outputs })
    }

    /// `f(x W + b)`.
    pub(super) fn forward(&self, input: &Value, activation: Activation) -> Result<Value, NnError> {
        let out = match &self.bias {
            Some(bias) => bias.repeat(input.rows()),
            None => vec![0.0; input.rows() * self.outputs],
        };
        self.add_product(input, out, activation)
    }

    /// `residual + x W + b`.
    pub(super) fn forward_onto(&self, input: &Value, residual: &Value) -> Result<Value, NnError> {
        let mut out = host::slice("linear layer", residual.tensor())?.to_vec();
        if let Some(bias) = &self.bias {
            for row in out.chunks_exact_mut(self.outputs) {
                row.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
            }
        }
        self.add_product(input, out, Activation::Identity)
    }

    fn add_product(&self, input: &Value, mut out: Vec<f32>, activation: Activation) -> Result<Value, NnError> {
        let (rows, Self { inputs, outputs, .. }) = (input.rows(), self);
        if input.width() != *inputs || out.len() != rows * outputs {
            return Err(NnError::shape("linear layer", format!("[.., {inputs}] to [.., {outputs}]"), input.dims()));
        }
        let mut shape = input.dims().to_vec();
        shape.pop();
        shape.push(*outputs);
        let x = host::slice("linear layer", input.tensor())?;
        let (x, weights) = (Matrix::row_major(&x, rows, *inputs), Matrix::row_major(&self.weights, *inputs, *outputs));
        multiply_then(&mut out, *outputs, x, weights, true, |_, run| activation.apply(run));
        Value::from_vec(out, &shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_nn::random::Draw;

    #[test]
    fn it_is_the_linear_layer_of_the_checkpoint() {
        let (rows, inputs, outputs) = (37, 24, 70);
        let draw = Draw::new(5);
        let tensor = |name: &str, shape: &[usize]| {
            let elements = draw.purpose(name).normals(shape.iter().product());
            host::tensor(elements, shape).unwrap()
        };
        let mut parameters = Parameters::new();
        let weight = parameters.add("layer.weight", tensor("weight", &[outputs, inputs])).unwrap();
        let bias = parameters.add("layer.bias", tensor("bias", &[outputs])).unwrap();
        let [weight, bias] = [weight, bias].map(|id| Value::plain(parameters.tensor(id).clone()).unwrap());
        let value = |name: &str, shape: &[usize]| Value::plain(tensor(name, shape)).unwrap();
        let (input, residual) = (value("input", &[rows, inputs]), value("residual", &[rows, outputs]));
        let layer = Projection::new(&parameters, "layer").unwrap();
        let agree = |found: Value, expected: Value| {
            let [found, expected] =
                [found, expected].map(|value| host::slice("test", value.tensor()).unwrap().to_vec());
            found.iter().zip(&expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-4, "{a} {b}"));
        };
        agree(
            layer.forward(&input, Activation::Gelu).unwrap(),
            input.linear_activated(&weight, Some(&bias), Activation::Gelu).unwrap(),
        );
        agree(
            layer.forward_onto(&input, &residual).unwrap(),
            input.linear_onto(&weight, Some(&bias), Some(&residual)).unwrap(),
        );
    }
}
