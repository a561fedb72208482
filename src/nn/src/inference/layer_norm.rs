//! Layer normalization with constant gain and bias.

use candle_core::Tensor;

use crate::ops::Normalization;
use crate::{NnError, Result, Value, host};

/// Layer normalization over the innermost axis, by the operation of the tape.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f32,
}

impl LayerNorm {
    /// Creates the layer from gain and bias `[channel]`.
    ///
    /// # Errors
    /// When they differ in length.
    pub fn new(weight: &Tensor, bias: &Tensor, epsilon: f32) -> Result<Self> {
        if weight.dims() != bias.dims() || weight.rank() != 1 {
            return Err(NnError::shape("layer norm", format!("a bias of {:?}", weight.dims()), bias.dims()));
        }
        Ok(Self { weight: host::contiguous(weight)?, bias: host::contiguous(bias)?, epsilon })
    }

    /// Normalizes `[.., channel]`.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward(&self, input: &Value) -> Result<Value> {
        let [weight, bias] = [&self.weight, &self.bias].map(|tensor| Value::new(tensor.clone(), None));
        let settings = Normalization { epsilon: self.epsilon, ..Normalization::default() };
        input.layer_norm(Some(&weight), Some(&bias), settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Normalization;
    use crate::random::RngKey;

    #[test]
    fn it_is_the_layer_that_is_trained() {
        let value = |name: &str, shape: &[usize]| {
            Value::from_vec(RngKey::new(2).purpose(name).normals(shape.iter().product()), shape).unwrap()
        };
        let (weight, bias, input) = (value("weight", &[19]), value("bias", &[19]), value("input", &[4, 3, 19]));
        let found = LayerNorm::new(weight.tensor(), bias.tensor(), 1e-3).unwrap().forward(&input).unwrap();
        let settings = Normalization { epsilon: 1e-3, ..Normalization::default() };
        let expected = input.layer_norm(Some(&weight), Some(&bias), settings).unwrap();
        assert_eq!(found.tensor().to_vec3::<f32>().unwrap(), expected.tensor().to_vec3::<f32>().unwrap());
        assert!(LayerNorm::new(weight.tensor(), value("bias", &[18]).tensor(), 1e-3).is_err());
    }
}
