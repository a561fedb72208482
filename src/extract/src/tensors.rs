//! A checkpoint's tensors on their way into the layers that pack them.

use std::collections::BTreeMap;

use candle_core::Tensor;
use flowmill_nn::{
    Parameters,
    inference::{LayerNorm, Linear},
};

use crate::UnusableWeights;

/// Tensors by name. Each is taken out once and freed when it has been packed, so that a network is not in memory twice.
pub(super) struct Tensors {
    tensors: BTreeMap<String, Tensor>,
}

impl Tensors {
    /// Collects the tensors of a checked set of parameters, which the caller then drops.
    pub(super) fn of(parameters: &Parameters) -> Self {
        Self { tensors: parameters.named_tensors().into_iter().collect() }
    }

    /// The tensor of this name.
    pub(super) fn take(&mut self, name: &str) -> Result<Tensor, UnusableWeights> {
        self.tensors.remove(name).ok_or_else(|| UnusableWeights(format!("there is no tensor `{name}`")))
    }

    /// The linear layer of `NAME.weight` and, if there is one, `NAME.bias`.
    pub(super) fn linear(&mut self, name: &str) -> Result<Linear, UnusableWeights> {
        let bias = self.tensors.remove(&format!("{name}.bias"));
        Ok(Linear::new(&self.take(&format!("{name}.weight"))?, bias.as_ref())?)
    }

    /// The normalization of `NAME.weight` and `NAME.bias`.
    pub(super) fn layer_norm(&mut self, name: &str, epsilon: f32) -> Result<LayerNorm, UnusableWeights> {
        let weight = self.take(&format!("{name}.weight"))?;
        Ok(LayerNorm::new(&weight, &self.take(&format!("{name}.bias"))?, epsilon)?)
    }
}
