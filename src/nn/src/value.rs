//! A tensor that may have been recorded.

use crate::tape::{Node, Tape};
use crate::{Result, host};
use candle_core::Tensor;

/// What layers compute on: a contiguous `f32` tensor, either plain or recorded on a [`Tape`]. An operation on recorded values
/// gives a recorded value and leaves its backward pass on the tape; on plain values it only computes, so the same layer code
/// serves training and inference.
#[derive(Debug, Clone)]
pub struct Value {
    tensor: Tensor,
    node: Option<Node>,
}

impl Value {
    /// A value that no derivative flows through. Converted to contiguous `f32` where it is not.
    ///
    /// # Errors
    /// When candle cannot convert it.
    pub fn plain(tensor: Tensor) -> Result<Self> {
        Ok(Self { tensor: host::contiguous(&tensor)?, node: None })
    }

    /// A plain value of the given elements.
    ///
    /// # Errors
    /// When the number of elements is not that of the shape.
    pub fn from_vec(elements: Vec<f32>, shape: &[usize]) -> Result<Self> {
        Ok(Self { tensor: host::tensor(elements, shape)?, node: None })
    }

    pub(crate) fn new(tensor: Tensor, node: Option<Node>) -> Self {
        Self { tensor, node }
    }

    /// The elements.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The shape, outermost axis first.
    pub fn dims(&self) -> &[usize] {
        self.tensor.dims()
    }

    /// Size of the innermost axis (1 for a scalar).
    pub fn width(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// Number of rows: the product of all axes but the innermost.
    pub fn rows(&self) -> usize {
        self.tensor.elem_count() / self.width().max(1)
    }

    /// Whether a derivative flows through it.
    pub fn is_recorded(&self) -> bool {
        self.node.is_some()
    }

    /// The same elements with no derivative flowing further back.
    pub fn detach(&self) -> Self {
        Self { tensor: self.tensor.clone(), node: None }
    }

    pub(crate) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    pub(crate) fn tape(&self) -> Option<&Tape> {
        self.node.as_ref().map(|node| &node.tape)
    }

    /// The only element of a scalar value.
    ///
    /// # Errors
    /// When it has more than one element.
    pub fn scalar(&self) -> Result<f32> {
        Ok(self.tensor.reshape(())?.to_scalar::<f32>()?)
    }
}
