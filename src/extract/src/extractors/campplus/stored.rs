//! Folded weights in an extractor's state.

use super::{
    error::Result,
    weights::{Convolution, Dimensions, Normalization, Source},
};
use crate::State;

/// Keeps what passes from another source.
pub(super) struct Keeping<'a> {
    pub(super) source: &'a mut dyn Source,
    pub(super) state: &'a mut State,
}

impl Source for Keeping<'_> {
    fn dimensions(&self) -> Result<Dimensions> {
        self.source.dimensions()
    }

    fn convolution(&mut self, name: &str, norm: Option<&str>, shape: &[usize]) -> Result<Convolution> {
        let convolution = self.source.convolution(name, norm, shape)?;
        self.state.set_f32(&format!("{name}.weight"), shape, convolution.weight.clone());
        self.state.set_f32(&format!("{name}.bias"), &shape[..1], convolution.bias.clone());
        Ok(convolution)
    }

    fn normalization(&mut self, name: &str, channels: usize) -> Result<Normalization> {
        let norm = self.source.normalization(name, channels)?;
        self.state.set_f32(&format!("{name}.scale"), &[channels], norm.scale.clone());
        self.state.set_f32(&format!("{name}.shift"), &[channels], norm.shift.clone());
        Ok(norm)
    }

    fn finish(&self) -> Result<()> {
        self.source.finish()
    }
}

/// Takes weights from a state.
pub(super) struct Stored<'a> {
    pub(super) state: &'a State,
    pub(super) dimensions: Dimensions,
}

impl Stored<'_> {
    fn array(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let shape: Vec<Option<usize>> = shape.iter().copied().map(Some).collect();
        Ok(self.state.f32(name, &shape)?.to_vec())
    }
}

impl Source for Stored<'_> {
    fn dimensions(&self) -> Result<Dimensions> {
        Ok(self.dimensions)
    }

    fn convolution(&mut self, name: &str, _norm: Option<&str>, shape: &[usize]) -> Result<Convolution> {
        let weight = self.array(&format!("{name}.weight"), shape)?;
        Ok(Convolution { weight, bias: self.array(&format!("{name}.bias"), &shape[..1])? })
    }

    fn normalization(&mut self, name: &str, channels: usize) -> Result<Normalization> {
        let scale = self.array(&format!("{name}.scale"), &[channels])?;
        Ok(Normalization { scale, shift: self.array(&format!("{name}.shift"), &[channels])? })
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}
