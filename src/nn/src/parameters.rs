//! Named weights and buffers, in order of registration.

use crate::low_rank::LowRank;
use crate::{NnError, Result, host};
use candle_core::{Device, Tensor};
use std::collections::HashMap;

/// Identifies one parameter of a [`Parameters`]: its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParameterId(usize);

impl ParameterId {
    /// Returns the parameter at a position.
    pub(crate) fn at(position: usize) -> Self {
        Self(position)
    }

    /// Position in order of registration.
    pub fn index(self) -> usize {
        self.0
    }
}

#[derive(Debug, Clone)]
struct Entry {
    name: String,
    tensor: Tensor,
    trainable: bool,
    role: Role,
}

/// Role of a parameter in its layer, as far as other code needs to know.
#[derive(Debug, Clone, Copy)]
enum Role {
    /// No special role.
    Any,
    /// The weight of a linear layer, with its adapter.
    Linear(Option<LowRank>),
}

/// The weights of a model: contiguous `f32` tensors under the names of the public implementation's `state_dict`, in order of
/// registration, each trainable or frozen. Cloning is cheap (the tensors are shared, [`set`](Self::set) replaces them).
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    entries: Vec<Entry>,
    by_name: HashMap<String, ParameterId>,
}

impl Parameters {
    /// Creates an empty set of parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a trainable parameter under a unique name.
    ///
    /// # Errors
    /// [`NnError::DuplicateParameter`] when the name is taken.
    pub fn add(&mut self, name: impl Into<String>, tensor: Tensor) -> Result<ParameterId> {
        let name = name.into();
        if self.by_name.contains_key(&name) {
            return Err(NnError::DuplicateParameter(name));
        }
        let id = ParameterId(self.entries.len());
        let tensor = host::contiguous(&tensor)?;
        self.by_name.insert(name.clone(), id);
        self.entries.push(Entry { name, tensor, trainable: true, role: Role::Any });
        Ok(id)
    }

    /// Returns the number of parameters.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All parameters in order of registration.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = ParameterId> + ExactSizeIterator + use<> {
        (0..self.entries.len()).map(ParameterId)
    }

    /// The trainable parameters, in order of registration.
    pub fn trainable_ids(&self) -> impl Iterator<Item = ParameterId> + '_ {
        self.ids().filter(|id| self.trainable(*id))
    }

    /// The name of a parameter.
    pub fn name(&self, id: ParameterId) -> &str {
        &self.entries[id.0].name
    }

    /// The value of a parameter: contiguous, `f32`.
    pub fn tensor(&self, id: ParameterId) -> &Tensor {
        &self.entries[id.0].tensor
    }

    /// Replaces the value of a parameter. It stays on its device: a value on another device is copied there.
    ///
    /// # Errors
    /// When the shape differs, or the value cannot be copied.
    pub fn set(&mut self, id: ParameterId, tensor: Tensor) -> Result<()> {
        let entry = &mut self.entries[id.0];
        if entry.tensor.dims() != tensor.dims() {
            let expected = format!("{:?} for `{}`", entry.tensor.dims(), entry.name);
            return Err(NnError::shape("set parameter", expected, tensor.dims()));
        }
        entry.tensor = host::contiguous(&tensor)?.to_device(entry.tensor.device())?;
        Ok(())
    }

    /// Replaces the values of all parameters except some by tensors without elements, to free their memory. They cannot be read
    /// afterwards.
    ///
    /// # Errors
    /// When candle cannot create a tensor.
    pub fn keep_values(&mut self, keep: &[ParameterId]) -> Result<()> {
        for (at, entry) in self.entries.iter_mut().enumerate() {
            if !keep.contains(&ParameterId(at)) {
                entry.tensor = Tensor::zeros(0, entry.tensor.dtype(), entry.tensor.device())?;
            }
        }
        Ok(())
    }

    /// Moves all parameters to a device. Those that are already there are unchanged.
    ///
    /// # Errors
    /// When candle cannot copy one, for example for lack of memory there.
    pub fn to_device(&mut self, device: &Device) -> Result<()> {
        for entry in &mut self.entries {
            entry.tensor = entry.tensor.to_device(device)?;
        }
        Ok(())
    }

    /// Returns the device of the parameters: they are all on one device.
    pub fn device(&self) -> Device {
        self.entries.first().map_or(Device::Cpu, |entry| entry.tensor.device().clone())
    }

    /// Returns whether a parameter is trainable.
    pub fn trainable(&self, id: ParameterId) -> bool {
        self.entries[id.0].trainable
    }

    /// Makes a parameter trainable or frozen. A frozen one gets no gradient and costs no backward computation.
    pub fn set_trainable(&mut self, id: ParameterId, trainable: bool) {
        self.entries[id.0].trainable = trainable;
    }

    /// Returns whether a parameter is the weight of a linear layer, which can have an adapter.
    pub fn is_linear(&self, id: ParameterId) -> bool {
        matches!(self.entries[id.0].role, Role::Linear(_))
    }

    /// Returns the adapter of a linear layer's weight.
    pub fn low_rank(&self, id: ParameterId) -> Option<LowRank> {
        match self.entries[id.0].role {
            Role::Linear(adapter) => adapter,
            Role::Any => None,
        }
    }

    pub(crate) fn mark_linear(&mut self, id: ParameterId) {
        self.entries[id.0].role = Role::Linear(None);
    }

    pub(crate) fn set_low_rank(&mut self, id: ParameterId, adapter: LowRank) {
        self.entries[id.0].role = Role::Linear(Some(adapter));
    }

    /// Returns the parameter with a name.
    pub fn find(&self, name: &str) -> Option<ParameterId> {
        self.by_name.get(name).copied()
    }

    /// Number of elements of all parameters, or of the trainable ones.
    pub fn element_count(&self, only_trainable: bool) -> usize {
        let counted = self.entries.iter().filter(|entry| entry.trainable || !only_trainable);
        counted.map(|entry| entry.tensor.elem_count()).sum()
    }
}
