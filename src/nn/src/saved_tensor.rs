//! Inputs that an operation saves for its backward pass.

use crate::precision::Precision;
use crate::{NnError, Result, host};
use candle_core::Tensor;
use std::fmt;
use std::rc::Rc;

/// Recipe to recompute a recorded value, bit for bit, from what its operation saves anyway.
///
/// The output of a norm is as large as its input and costs next to nothing compared with the product that reads it. So the product does
/// not save it, but recomputes it when its backward pass needs it.
#[derive(Clone)]
pub(crate) struct Recompute(Rc<dyn Fn() -> Result<Tensor>>);

impl Recompute {
    /// Creates the recipe from the single-precision computation and the format that its result is rounded to.
    pub(crate) fn new(make: impl Fn() -> Result<Tensor> + 'static, precision: Precision) -> Self {
        Self(Rc::new(move || {
            let tensor = make()?;
            if precision != Precision::Fp32 {
                host::modify(&tensor, |elements| precision.round(elements))?;
            }
            Ok(tensor)
        }))
    }

    /// Gives the elements another shape.
    pub(crate) fn reshape(&self, shape: &[usize]) -> Self {
        let (recompute, shape) = (self.clone(), shape.to_vec());
        Self(Rc::new(move || Ok(recompute.make()?.reshape(shape.as_slice())?)))
    }

    pub(crate) fn make(&self) -> Result<Tensor> {
        (self.0)()
    }
}

impl fmt::Debug for Recompute {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Recompute")
    }
}

/// A saved input of an operation: the elements, or the recipe to recompute them.
pub(crate) struct SavedTensor {
    dims: Vec<usize>,
    source: Source,
}

enum Source {
    Elements(Tensor),
    Recompute(Recompute),
    /// Nowhere: the backward pass does not read the elements.
    Nothing,
}

impl SavedTensor {
    pub(crate) fn new(tensor: &Tensor, recompute: Option<&Recompute>) -> Self {
        let source = recompute
            .map_or_else(|| Source::Elements(tensor.clone()), |recompute| Source::Recompute(recompute.clone()));
        Self { dims: tensor.dims().to_vec(), source }
    }

    /// Saves the shape only.
    pub(crate) fn shape_of(tensor: &Tensor) -> Self {
        Self { dims: tensor.dims().to_vec(), source: Source::Nothing }
    }

    /// The shape.
    pub(crate) fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The elements.
    ///
    /// # Errors
    /// Those of the operation that makes them.
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        match &self.source {
            Source::Elements(tensor) => Ok(tensor.clone()),
            Source::Recompute(recompute) => recompute.make(),
            Source::Nothing => Err(NnError::invalid("backward", "an input that was not saved")),
        }
    }
}
