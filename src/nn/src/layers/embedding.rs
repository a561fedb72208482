//! A table of learned vectors.

use crate::init::{Builder, Init};
use crate::{Context, ParameterId, Result, Value};

/// Learned vectors by index: parameter `weight` `[entry, channel]`.
#[derive(Debug, Clone)]
pub struct Embedding {
    weight: ParameterId,
}

impl Embedding {
    /// Creates a table with standard normal values, like PyTorch.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(mut builder: Builder, entries: usize, channels: usize) -> Result<Self> {
        Ok(Self { weight: builder.add("weight", &[entries, channels], Init::Normal(1.0))? })
    }

    /// All vectors, `[entry, channel]`.
    pub fn value(&self, context: &Context) -> Value {
        context.parameter(self.weight)
    }

    /// The vectors at `indices`, shaped `[.. of shape, channel]`.
    ///
    /// # Errors
    /// When an index is outside of the table.
    pub fn forward(&self, context: &Context, indices: &[u32], shape: &[usize]) -> Result<Value> {
        context.embed(self.weight, indices, shape)
    }
}
