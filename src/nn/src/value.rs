//! A tensor that may have been recorded.

use crate::saved_tensor::{Recompute, SavedTensor};
use crate::stored::Stored;
use crate::tape::{Node, Tape};
use crate::{Result, device, host};
use candle_core::{D, DType, Device, Tensor};
use rayon::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

/// The type that layers compute on: a contiguous float tensor, either plain or recorded on a [`Tape`]. An operation on recorded values
/// returns a recorded value and records its backward pass on the tape; on plain values it only computes, so the same layer code
/// serves training and inference.
#[derive(Debug, Clone)]
pub struct Value {
    /// The elements; of a weight in a file the shape only.
    tensor: Tensor,
    /// The elements that stay in a file.
    stored: Option<Rc<Stored>>,
    node: Option<Node>,
    /// Recipe to recompute it, if that is cheaper than saving it.
    recompute: Option<Recompute>,
    /// The tensor as operations on a device or in another element type read it: moved and converted once.
    elsewhere: Rc<RefCell<Option<Tensor>>>,
}

impl Value {
    /// Creates a value that no derivative flows through: made contiguous, and on the CPU converted to `f32`, if it is not.
    ///
    /// # Errors
    /// When candle cannot convert it.
    pub fn plain(tensor: Tensor) -> Result<Self> {
        let tensor = if tensor.device().is_cpu() { tensor.to_dtype(DType::F32)? } else { tensor };
        Ok(Self::new(tensor.contiguous()?, None))
    }

    /// Creates a plain value from elements.
    ///
    /// # Errors
    /// When the number of elements does not match the shape.
    pub fn from_vec(elements: Vec<f32>, shape: &[usize]) -> Result<Self> {
        Ok(Self::new(host::tensor(elements, shape)?, None))
    }

    pub(crate) fn new(tensor: Tensor, node: Option<Node>) -> Self {
        Self { tensor, stored: None, node, recompute: None, elsewhere: Rc::default() }
    }

    /// Creates a plain value whose elements stay in a file until an operation that is not a product reads them.
    ///
    /// # Errors
    /// When candle cannot create a tensor of the shape.
    pub(crate) fn in_file(stored: Stored) -> Result<Self> {
        let tensor = stored.shape_only()?;
        Ok(Self { stored: Some(Rc::new(stored)), ..Self::new(tensor, None) })
    }

    /// The weight in a file that it is.
    pub(crate) fn stored(&self) -> Option<&Stored> {
        self.stored.as_deref()
    }

    /// The elements on a device and in an element type, contiguous.
    pub(crate) fn enter(&self, place: &Device, dtype: DType) -> Result<Tensor> {
        if self.tensor.dtype() == dtype && self.tensor.device().same_device(place) {
            return device::contiguous(self.tensor());
        }
        let mut elsewhere = self.elsewhere.borrow_mut();
        let fits = |tensor: &&Tensor| tensor.dtype() == dtype && tensor.device().same_device(place);
        if let Some(tensor) = elsewhere.as_ref().filter(fits) {
            return Ok(tensor.clone());
        }
        let tensor = device::cast(&device::contiguous(self.tensor())?.to_device(place)?, dtype)?;
        // Recorded values are read here once and saved by their operation; data are read by every layer.
        if !self.is_recorded() {
            *elsewhere = Some(tensor.clone());
        }
        Ok(tensor)
    }

    /// The elements.
    pub fn tensor(&self) -> &Tensor {
        self.stored.as_ref().map_or(&self.tensor, |stored| stored.copy())
    }

    /// A tensor of the same type, device and shape; of a weight in a file it has no elements to read.
    pub(crate) fn form(&self) -> &Tensor {
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

    /// Returns whether a derivative flows through it.
    pub fn is_recorded(&self) -> bool {
        self.node.is_some()
    }

    /// The same elements as a plain value.
    pub fn detach(&self) -> Self {
        match &self.node {
            Some(_) => Self::new(self.tensor.clone(), None),
            None => self.clone(),
        }
    }

    /// Moves a plain value to a device, for data that an operation expands before they meet parameters: the copy is smaller before that.
    /// Returns itself if it is already there, or is recorded.
    ///
    /// # Errors
    /// When candle cannot copy it.
    pub fn on(&self, device: &Device) -> Result<Self> {
        if self.is_recorded() || self.tensor.device().same_device(device) {
            return Ok(self.clone());
        }
        Ok(Self::new(self.tensor().to_device(device)?, None))
    }

    /// Sets how its elements are recomputed, so that operations that read it need not save them; `make` computes in single precision.
    /// A plain value is unchanged.
    pub(crate) fn recomputed_by(mut self, make: impl Fn() -> Result<Tensor> + 'static) -> Self {
        let precision = self.tape().map(|tape| tape.precision().of_shape(self.dims()));
        self.recompute = precision.map(|precision| Recompute::new(make, precision));
        self
    }

    /// Marks this value's elements as those of `source` under another shape.
    pub(crate) fn reshaped_from(mut self, source: &Value) -> Self {
        self.recompute = source.recompute.as_ref().map(|recompute| recompute.reshape(self.dims()));
        self
    }

    /// Returns the form in which an operation saves it for its backward pass.
    pub(crate) fn save(&self) -> SavedTensor {
        SavedTensor::new(self.tensor(), self.recompute.as_ref())
    }

    /// Returns the form in which a product with `factor` saves it, whose gradient alone depends on its elements: frozen weights need the
    /// shape only.
    pub(crate) fn save_for(&self, factor: &Value) -> SavedTensor {
        if factor.is_recorded() { self.save() } else { SavedTensor::shape_of(&self.tensor) }
    }

    pub(crate) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    pub(crate) fn tape(&self) -> Option<&Tape> {
        self.node.as_ref().map(|node| &node.tape)
    }

    /// The index of the largest element of every row: among equal ones the first on the CPU, any of them on devices.
    ///
    /// # Errors
    /// When candle cannot compute it.
    pub fn largest(&self) -> Result<Vec<u32>> {
        if !device::is_host_single(self.tensor()) {
            return Ok(self.tensor().argmax(D::Minus1)?.flatten_all()?.to_vec1()?);
        }
        let larger = |best: (u32, f32), (place, x): (u32, &f32)| if *x > best.1 { (place, *x) } else { best };
        let largest = |row: &[f32]| (0..).zip(row).fold((0, f32::NEG_INFINITY), larger).0;
        let rows = host::slice("largest", self.tensor())?;
        Ok(rows.par_chunks_exact(self.width().max(1)).map(largest).collect())
    }

    /// The only element of a scalar value.
    ///
    /// # Errors
    /// When it has more than one element.
    pub fn scalar(&self) -> Result<f32> {
        Ok(self.tensor().reshape(())?.to_dtype(DType::F32)?.to_scalar::<f32>()?)
    }
}
