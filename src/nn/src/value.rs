//! A tensor that may have been recorded.

use crate::kept::{Again, Kept};
use crate::tape::{Node, Tape};
use crate::{Result, device, host};
use candle_core::{D, DType, Device, Tensor};
use rayon::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

/// What layers compute on: a contiguous float tensor, either plain or recorded on a [`Tape`]. An operation on recorded values
/// gives a recorded value and leaves its backward pass on the tape; on plain values it only computes, so the same layer code
/// serves training and inference.
#[derive(Debug, Clone)]
pub struct Value {
    tensor: Tensor,
    node: Option<Node>,
    /// How to make it once more, where that is cheaper than to keep it.
    again: Option<Again>,
    /// What operations on a device or in another element type read: moved and converted once.
    elsewhere: Rc<RefCell<Option<Tensor>>>,
}

impl Value {
    /// A value that no derivative flows through: made contiguous, and on the CPU converted to `f32`, where it is not.
    ///
    /// # Errors
    /// When candle cannot convert it.
    pub fn plain(tensor: Tensor) -> Result<Self> {
        let tensor = if tensor.device().is_cpu() { tensor.to_dtype(DType::F32)? } else { tensor };
        Ok(Self::new(tensor.contiguous()?, None))
    }

    /// A plain value of the given elements.
    ///
    /// # Errors
    /// When the number of elements is not that of the shape.
    pub fn from_vec(elements: Vec<f32>, shape: &[usize]) -> Result<Self> {
        Ok(Self::new(host::tensor(elements, shape)?, None))
    }

    pub(crate) fn new(tensor: Tensor, node: Option<Node>) -> Self {
        Self { tensor, node, again: None, elsewhere: Rc::default() }
    }

    /// The elements on a device and in an element type, contiguous.
    pub(crate) fn enter(&self, place: &Device, dtype: DType) -> Result<Tensor> {
        if self.tensor.dtype() == dtype && self.tensor.device().same_device(place) {
            return device::contiguous(&self.tensor);
        }
        let mut elsewhere = self.elsewhere.borrow_mut();
        let fits = |tensor: &&Tensor| tensor.dtype() == dtype && tensor.device().same_device(place);
        if let Some(tensor) = elsewhere.as_ref().filter(fits) {
            return Ok(tensor.clone());
        }
        let tensor = device::cast(&device::contiguous(&self.tensor)?.to_device(place)?, dtype)?;
        // What is recorded is read here and kept by its operation; data are read by every layer.
        if !self.is_recorded() {
            *elsewhere = Some(tensor.clone());
        }
        Ok(tensor)
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
        match &self.node {
            Some(_) => Self::new(self.tensor.clone(), None),
            None => self.clone(),
        }
    }

    /// A plain value on a device, for data that an operation makes larger before they meet parameters: what is copied there is small then.
    /// Itself where it is there already, or is recorded.
    ///
    /// # Errors
    /// When candle cannot copy it.
    pub fn on(&self, device: &Device) -> Result<Self> {
        if self.is_recorded() || self.tensor.device().same_device(device) {
            return Ok(self.clone());
        }
        Ok(Self::new(self.tensor.to_device(device)?, None))
    }

    /// Says how its elements are made once more, so that who reads it need not keep them; `make` computes in single precision.
    /// A plain value is left as it is.
    pub(crate) fn made_again(mut self, make: impl Fn() -> Result<Tensor> + 'static) -> Self {
        let precision = self.tape().map(|tape| tape.precision().of_shape(self.dims()));
        self.again = precision.map(|precision| Again::new(make, precision));
        self
    }

    /// This value, whose elements are those of `source` under another shape.
    pub(crate) fn reshaped_from(mut self, source: &Value) -> Self {
        self.again = source.again.as_ref().map(|again| again.reshape(self.dims()));
        self
    }

    /// What an operation keeps of it for its backward pass.
    pub(crate) fn keep(&self) -> Kept {
        Kept::new(&self.tensor, self.again.as_ref())
    }

    pub(crate) fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    pub(crate) fn tape(&self) -> Option<&Tape> {
        self.node.as_ref().map(|node| &node.tape)
    }

    /// The place of the largest element of every row: on the CPU the first of equal ones, on devices one of them.
    ///
    /// # Errors
    /// When candle cannot compute it.
    pub fn largest(&self) -> Result<Vec<u32>> {
        if !device::is_host_single(&self.tensor) {
            return Ok(self.tensor.argmax(D::Minus1)?.flatten_all()?.to_vec1()?);
        }
        let larger = |best: (u32, f32), (place, x): (u32, &f32)| if *x > best.1 { (place, *x) } else { best };
        let largest = |row: &[f32]| (0..).zip(row).fold((0, f32::NEG_INFINITY), larger).0;
        let rows = host::slice("largest", &self.tensor)?;
        Ok(rows.par_chunks_exact(self.width().max(1)).map(largest).collect())
    }

    /// The only element of a scalar value.
    ///
    /// # Errors
    /// When it has more than one element.
    pub fn scalar(&self) -> Result<f32> {
        Ok(self.tensor.reshape(())?.to_dtype(DType::F32)?.to_scalar::<f32>()?)
    }
}
