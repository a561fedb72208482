//! The weights of a codec: taken from a file, kept in a state, and loaded into a network.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use flowmill_nn::host;
use flowmill_nn::ops::Convolution as Settings;
use flowmill_nn::random::RngKey;

use super::{Convolution, Upsampling};
use crate::{State, UnusableWeights};

/// The sizes of a codec's network.
pub trait Sizes: Sized {
    /// The extractor's kind.
    const KIND: &'static str;

    /// Reads the sizes from the shapes of plain weights.
    ///
    /// # Errors
    /// When there is a size without which there is nothing to compute.
    fn of(tensors: &BTreeMap<String, Tensor>) -> Result<Self, UnusableWeights>;

    /// Returns the names and shapes of all weights.
    fn shapes(&self) -> Vec<(String, Vec<usize>)>;

    /// Returns the deviation of random weights of a shape, by which the network keeps the power of a signal.
    fn deviation(shape: &[usize]) -> f32 {
        let count = shape.iter().product::<usize>();
        (shape.first().copied().unwrap_or(1) as f32 / count.max(1) as f32).sqrt()
    }
}

/// The weights of a codec's network with the sizes `D`, weight norms folded.
#[derive(Debug, Clone)]
pub struct Checkpoint<D> {
    dimensions: D,
    tensors: BTreeMap<String, Tensor>,
}

impl<D: Sizes> Checkpoint<D> {
    /// Takes plain weights, which are those of the network and no others.
    ///
    /// # Errors
    /// When a size or a tensor is missing, or a tensor is of another shape or not expected.
    pub(crate) fn of_plain(mut tensors: BTreeMap<String, Tensor>) -> Result<Self, UnusableWeights> {
        let dimensions = D::of(&tensors)?;
        let mut taken = BTreeMap::new();
        for (name, shape) in dimensions.shapes() {
            let tensor = tensors.remove(&name);
            let tensor = tensor.ok_or_else(|| UnusableWeights(format!("there is no tensor `{name}`")))?;
            if tensor.dims() != shape {
                let reason = format!("`{name}` has the shape {:?}, expected {shape:?}", tensor.dims());
                return Err(UnusableWeights(reason));
            }
            taken.insert(name, tensor);
        }
        match tensors.keys().next() {
            Some(first) => Err(UnusableWeights(format!(
                "{} tensors belong to no part of the network, the first is `{first}`",
                tensors.len()
            ))),
            None => Ok(Self { dimensions, tensors: taken }),
        }
    }

    /// Draws weights of a magnitude that keeps the power of a signal, for runs that only try the machinery.
    ///
    /// # Errors
    /// When they do not fit into memory.
    pub fn random(dimensions: D, seed: u64) -> Result<Self, UnusableWeights> {
        let rng_key = RngKey::new(seed).purpose(D::KIND);
        let draw = |(name, shape): (String, Vec<usize>)| {
            let count = shape.iter().product::<usize>();
            let scale = if name.ends_with("bias") { 0.0 } else { D::deviation(&shape) };
            let values = rng_key.purpose(&name).normals(count).into_iter().map(|value| scale * value).collect();
            Ok((name, host::tensor(values, &shape)?))
        };
        let tensors = dimensions.shapes().into_iter().map(draw).collect::<Result<_, UnusableWeights>>()?;
        Ok(Self { dimensions, tensors })
    }
}

impl<D> Checkpoint<D> {
    /// The sizes.
    pub fn dimensions(&self) -> &D {
        &self.dimensions
    }

    /// Adds the tensors to a state, under their names.
    ///
    /// # Errors
    /// When they cannot be copied.
    pub(crate) fn keep(&self, state: &mut State) -> Result<(), UnusableWeights> {
        for (name, tensor) in &self.tensors {
            state.set_f32(name, tensor.dims(), host::read(tensor)?);
        }
        Ok(())
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// When it is missing.
    pub(crate) fn tensor(&self, name: &str) -> Result<&Tensor, UnusableWeights> {
        self.tensors.get(name).ok_or_else(|| UnusableWeights(format!("there is no tensor `{name}`")))
    }

    /// The elements of the tensor of this name.
    ///
    /// # Errors
    /// When it is missing.
    pub(crate) fn elements(&self, name: &str) -> Result<Vec<f32>, UnusableWeights> {
        Ok(host::read(self.tensor(name)?)?)
    }

    /// The convolution of `NAME.weight` and `NAME.bias`.
    ///
    /// # Errors
    /// When one is missing or they do not fit.
    pub(crate) fn convolution(
        &self,
        name: &str,
        settings: Settings,
        device: &Device,
    ) -> Result<Convolution, UnusableWeights> {
        let (weight, bias) = (self.tensor(&format!("{name}.weight"))?, self.tensor(&format!("{name}.bias"))?);
        Ok(Convolution::new(weight, bias, settings, device)?)
    }

    /// The transposed convolution of `NAME.weight` and `NAME.bias`.
    ///
    /// # Errors
    /// When one is missing or they do not fit.
    pub(crate) fn upsampling(&self, name: &str, device: &Device) -> Result<Upsampling, UnusableWeights> {
        let (weight, bias) = (self.tensor(&format!("{name}.weight"))?, self.tensor(&format!("{name}.bias"))?);
        Ok(Upsampling::new(weight, bias, device)?)
    }
}

/// Returns an axis of a tensor; 0 if there is none.
pub(crate) fn axis(tensors: &BTreeMap<String, Tensor>, name: &str, axis: usize) -> usize {
    tensors.get(name).and_then(|tensor| tensor.dims().get(axis).copied()).unwrap_or(0)
}
