//! Elementwise non-linearities.

use crate::gradients::{Flow, Gradient};
use crate::kernels::activation::Activation;
use crate::tape::record;
use crate::{Result, Value, host};

impl Value {
    /// `f(self)`, element by element.
    ///
    /// # Errors
    /// When the value is not a CPU tensor.
    pub fn activate(&self, activation: Activation) -> Result<Value> {
        if activation == Activation::Identity {
            return Ok(self.clone());
        }
        let output = host::tensor(activation.map(&host::slice("activation", self.tensor())?), self.dims())?;
        Ok(record(output, &[self], || {
            let input = self.tensor().clone();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let input = host::slice("activation", &input)?;
                flow.give(0, gradient.map(|gradient| activation.chain(gradient, &input))?)
            }
        }))
    }
}
