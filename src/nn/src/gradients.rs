//! Gradients, during the backward pass and as its result.

use crate::kernels::elementwise;
use crate::kernels::gemm::{self, Factor, Matrix};
use crate::parameters::ParameterId;
use crate::{Precision, Result, device, host};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// A gradient during the backward pass. If nothing else refers to its memory, it may be changed in place.
pub(crate) struct Gradient {
    tensor: Tensor,
    fresh: bool,
}

impl Gradient {
    /// Wraps a gradient whose memory has no other owner.
    pub(crate) fn fresh(tensor: Tensor) -> Self {
        Self { tensor, fresh: true }
    }

    /// Wraps a gradient whose memory may be in use elsewhere.
    pub(crate) fn shared(tensor: Tensor) -> Self {
        Self { tensor, fresh: false }
    }

    pub(crate) fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Gives the elements another shape with the same number of elements.
    pub(crate) fn reshape(self, shape: &[usize]) -> Result<Self> {
        Ok(Self { tensor: self.tensor.reshape(shape)?, fresh: self.fresh })
    }

    /// Changes the elements: in place when fresh, on a copy otherwise.
    pub(crate) fn map(self, change: impl FnOnce(&mut [f32])) -> Result<Self> {
        let tensor = if self.fresh { self.tensor } else { self.tensor.copy()? };
        host::modify(&tensor, change)?;
        Ok(Self::fresh(tensor))
    }

    /// Rounds the gradient to a number format; scalars are left alone.
    pub(crate) fn round(self, precision: Precision) -> Result<Self> {
        match precision.of_shape(self.tensor.dims()) {
            Precision::Fp32 => Ok(self),
            // On other devices the element type is the number format.
            _ if !device::is_host_single(&self.tensor) => Ok(self),
            precision => self.map(|elements| precision.round(elements)),
        }
    }

    pub(crate) fn add(self, other: Self) -> Result<Self> {
        if !device::is_host_single(&self.tensor) {
            return Ok(Self::shared((self.tensor + other.tensor)?));
        }
        let (target, addend) = if self.fresh || !other.fresh { (self, other) } else { (other, self) };
        let addend = host::slice("gradient", &addend.tensor)?;
        target.map(|sum| elementwise::add_assign(sum, &addend))
    }
}

/// Destination for the gradients that an operation's backward pass computes for its inputs.
pub(crate) struct Flow<'a> {
    inputs: &'a [Option<usize>],
    slots: &'a mut [Option<Gradient>],
}

impl<'a> Flow<'a> {
    pub(crate) fn new(inputs: &'a [Option<usize>], slots: &'a mut [Option<Gradient>]) -> Self {
        Self { inputs, slots }
    }

    /// Returns whether the gradient of an input is needed; computing another one is wasted work.
    pub(crate) fn wants(&self, input: usize) -> bool {
        self.inputs[input].is_some()
    }

    /// Removes and returns the gradient that has arrived at an input so far.
    pub(crate) fn take(&mut self, input: usize) -> Option<Gradient> {
        self.inputs[input].and_then(|index| self.slots[index].take())
    }

    /// Adds a gradient to those that have already arrived at an input.
    pub(crate) fn give(&mut self, input: usize, gradient: Gradient) -> Result<()> {
        let Some(index) = self.inputs[input] else {
            return Ok(());
        };
        let slot = &mut self.slots[index];
        *slot = Some(match slot.take() {
            Some(sum) => sum.add(gradient)?,
            None => gradient,
        });
        Ok(())
    }

    /// Adds newly computed elements to the gradient of an input.
    pub(crate) fn give_vec(&mut self, input: usize, elements: Vec<f32>, shape: &[usize]) -> Result<()> {
        self.give(input, Gradient::fresh(host::tensor(elements, shape)?))
    }

    /// Adds a matrix product to the gradient of an input. Avoids a separate sum if a gradient has already arrived.
    pub(crate) fn give_product<'b>(
        &mut self,
        input: usize,
        shape: &[usize],
        a: Matrix,
        b: impl Into<Factor<'b>>,
    ) -> Result<()> {
        let b = b.into();
        let Some(index) = self.inputs[input] else {
            return Ok(());
        };
        let slot = &mut self.slots[index];
        *slot = Some(match slot.take() {
            Some(sum) => sum.map(|sum| gemm::multiply(sum, b.columns(), a, b, true))?,
            None => Gradient::fresh(host::tensor(gemm::product(a, b), shape)?),
        });
        Ok(())
    }

    /// Lets `add` accumulate into the gradient of an input, which starts with zeros.
    pub(crate) fn add_to(&mut self, input: usize, shape: &[usize], add: impl FnOnce(&mut [f32])) -> Result<()> {
        let Some(index) = self.inputs[input] else {
            return Ok(());
        };
        let slot = &mut self.slots[index];
        *slot = Some(match slot.take() {
            Some(sum) => sum.map(add)?,
            None => {
                let mut elements = vec![0.0; shape.iter().product()];
                add(&mut elements);
                Gradient::fresh(host::tensor(elements, shape)?)
            }
        });
        Ok(())
    }
}

/// The gradients of a loss with respect to parameters. They are changed in place, so the type cannot be cloned.
#[derive(Debug, Default)]
pub struct Gradients {
    by_parameter: BTreeMap<ParameterId, Tensor>,
}

impl Gradients {
    /// The gradient of one parameter; `None` when the loss does not depend on it or it is frozen.
    pub fn get(&self, id: ParameterId) -> Option<&Tensor> {
        self.by_parameter.get(&id)
    }

    /// All gradients in order of the parameters.
    pub fn iter(&self) -> impl Iterator<Item = (ParameterId, &Tensor)> {
        self.by_parameter.iter().map(|(id, tensor)| (*id, tensor))
    }

    /// Returns the number of parameters with a gradient.
    pub fn len(&self) -> usize {
        self.by_parameter.len()
    }

    /// Returns whether no parameter has a gradient.
    pub fn is_empty(&self) -> bool {
        self.by_parameter.is_empty()
    }

    pub(crate) fn insert(&mut self, id: ParameterId, gradient: Gradient) -> Result<()> {
        // Weights and their gradients are in single precision, whatever the network computed in.
        let gradient = Gradient { tensor: device::wide(&gradient.tensor)?, ..gradient };
        let sum = match self.by_parameter.remove(&id) {
            Some(tensor) => Gradient::fresh(tensor).add(gradient)?,
            // The caller changes the result in place (scaling, clipping), which happens on the CPU only, so it must own the memory.
            None if gradient.fresh || !device::is_host_single(&gradient.tensor) => gradient,
            None => Gradient::fresh(gradient.tensor.copy()?),
        };
        self.by_parameter.insert(id, sum.tensor);
        Ok(())
    }

    /// Sets the gradient of a parameter, whose memory must have no other owner.
    pub fn set(&mut self, id: ParameterId, gradient: Tensor) {
        self.by_parameter.insert(id, gradient);
    }

    /// Multiplies every gradient by a factor.
    ///
    /// # Errors
    /// When candle cannot compute it.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        for tensor in self.by_parameter.values_mut() {
            if device::is_host_single(tensor) {
                host::modify(tensor, |elements| elementwise::scale_assign(elements, factor as f32))?;
            } else {
                *tensor = tensor.affine(factor, 0.0)?;
            }
        }
        Ok(())
    }
}
