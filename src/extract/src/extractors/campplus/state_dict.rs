//! Weights under the names that they have in the public implementation's `state_dict`.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::{
    error::{CampplusError, Result, expect_shape},
    weights::{BatchNorm, Convolution, Dimensions, Normalization, Source},
};

/// PyTorch's default.
const EPSILON: f64 = 1e-5;

/// Tensors by name; each is taken once.
pub(super) struct StateDict {
    tensors: BTreeMap<String, Tensor>,
}

impl StateDict {
    pub(super) fn new(tensors: BTreeMap<String, Tensor>) -> Self {
        Self { tensors }
    }

    fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(self.tensors.get(name).ok_or_else(|| CampplusError::Missing(name.to_owned()))?.dims())
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.take_if_there(name, shape)?.ok_or_else(|| CampplusError::Missing(name.to_owned()))
    }

    fn take_if_there(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.tensors.remove(name) else { return Ok(None) };
        expect_shape(name, tensor.dims(), shape)?;
        let values = tensor.flatten_all().and_then(|flat| flat.to_vec1()).map_err(flowmill_nn::NnError::from)?;
        Ok(Some(values))
    }

    fn batch_norm(&mut self, name: &str, channels: usize) -> Result<BatchNorm> {
        let mean = self.take(&format!("{name}.running_mean"), &[channels])?;
        let variance = self.take(&format!("{name}.running_var"), &[channels])?;
        // A batch norm without gain and bias has neither name.
        let weight = self.take_if_there(&format!("{name}.weight"), &[channels])?;
        let bias = self.take_if_there(&format!("{name}.bias"), &[channels])?;
        let (weight, bias) = (weight.unwrap_or(vec![1.0; channels]), bias.unwrap_or(vec![0.0; channels]));
        Ok(BatchNorm { weight, bias, mean, variance, epsilon: EPSILON })
    }
}

impl Source for StateDict {
    fn dimensions(&self) -> Result<Dimensions> {
        let layer = "xvector.block1.tdnnd1";
        Ok(Dimensions::of_shapes(
            self.shape("head.conv1.weight")?,
            self.shape("xvector.tdnn.linear.weight")?,
            self.shape(&format!("{layer}.linear1.weight"))?,
            self.shape(&format!("{layer}.cam_layer.linear_local.weight"))?,
            self.shape("xvector.dense.linear.weight")?,
        ))
    }

    fn convolution(&mut self, name: &str, norm: Option<&str>, shape: &[usize]) -> Result<Convolution> {
        let weight = self.take(&format!("{name}.weight"), shape)?;
        let bias = self.take_if_there(&format!("{name}.bias"), &shape[..1])?;
        let mut convolution = Convolution { weight, bias: bias.unwrap_or(vec![0.0; shape[0]]) };
        if let Some(norm) = norm {
            self.batch_norm(norm, shape[0])?.fold(norm, &mut convolution)?;
        }
        Ok(convolution)
    }

    fn normalization(&mut self, name: &str, channels: usize) -> Result<Normalization> {
        self.batch_norm(name, channels)?.normalization(name)
    }

    fn finish(&self) -> Result<()> {
        match self.tensors.keys().next() {
            Some(first) => Err(CampplusError::Extra { count: self.tensors.len(), first: first.clone() }),
            None => Ok(()),
        }
    }
}
