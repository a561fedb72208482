//! Weights drawn at random, for runs that only try the chain.

use flowmill_nn::random::RngKey;

use super::{
    error::Result,
    weights::{Convolution, Dimensions, Normalization, Source},
};

/// Draws in the range of weights before training (He et al. 2015), each tensor from a stream of its own.
pub(super) struct Random {
    dimensions: Dimensions,
    rng_key: RngKey,
    tensors: u64,
}

impl Random {
    pub(super) fn new(dimensions: Dimensions, seed: u64) -> Self {
        Self { dimensions, rng_key: RngKey::new(seed).purpose("campplus"), tensors: 0 }
    }

    fn normals(&mut self, count: usize, deviation: f32) -> Vec<f32> {
        self.tensors += 1;
        let mut values = self.rng_key.sample(self.tensors).normals(count);
        values.iter_mut().for_each(|value| *value *= deviation);
        values
    }
}

impl Source for Random {
    fn dimensions(&self) -> Result<Dimensions> {
        Ok(self.dimensions)
    }

    fn convolution(&mut self, _name: &str, _norm: Option<&str>, shape: &[usize]) -> Result<Convolution> {
        let terms: usize = shape[1..].iter().product();
        let weight = self.normals(shape.iter().product(), (2.0 / terms as f32).sqrt());
        Ok(Convolution { weight, bias: self.normals(shape[0], 0.1) })
    }

    fn normalization(&mut self, _name: &str, channels: usize) -> Result<Normalization> {
        let scale = self.normals(channels, 0.1).into_iter().map(|value| 1.0 + value).collect();
        Ok(Normalization { scale, shift: self.normals(channels, 0.1) })
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}
