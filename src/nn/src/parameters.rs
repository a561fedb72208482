//! Named weights and buffers, in order of registration.

use crate::low_rank::LowRank;
use crate::stored::{self, shape_only};
use crate::{NnError, Precision, Result, host};
use candle_core::{Device, Tensor};
use flowmill_weights::MappedTensor;
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
    state: State,
    /// True if it comes from another model's files or from a seed.
    external: bool,
}

/// The place of a parameter's elements.
#[derive(Debug, Clone)]
enum State {
    /// In the tensor.
    Filled,
    /// Nowhere: the tensor has the shape only. Such a parameter must be loaded before it is used.
    Unfilled,
    /// In a file, from which they are read at each use. The tensor has the shape only.
    Mapped(MappedTensor),
}

impl Entry {
    fn move_to(&mut self, device: &Device) -> Result<()> {
        match &self.state {
            State::Filled => self.tensor = self.tensor.to_device(device)?,
            State::Mapped(weight) if !device.is_cpu() => {
                self.tensor = stored::to_device(weight, device)?;
                self.state = State::Filled;
            }
            // The shape needs no device.
            State::Unfilled | State::Mapped(_) => {}
        }
        Ok(())
    }
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
/// registration, each trainable or frozen. Frozen ones may stay in their file ([`set_mapped`](Self::set_mapped)). Cloning is cheap (the tensors are shared, [`set`](Self::set) replaces them).
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
        let tensor = host::contiguous(&tensor)?;
        self.push(Entry {
            name: name.into(),
            tensor,
            trainable: true,
            role: Role::Any,
            state: State::Filled,
            external: false,
        })
    }

    /// Registers a frozen parameter of a shape, whose elements are loaded before it is used.
    ///
    /// # Errors
    /// [`NnError::DuplicateParameter`] when the name is taken.
    pub(crate) fn add_unfilled(&mut self, name: String, shape: &[usize]) -> Result<ParameterId> {
        let tensor = shape_only(shape)?;
        self.push(Entry { name, tensor, trainable: false, role: Role::Any, state: State::Unfilled, external: false })
    }

    fn push(&mut self, entry: Entry) -> Result<ParameterId> {
        if self.by_name.contains_key(&entry.name) {
            return Err(NnError::DuplicateParameter(entry.name));
        }
        let id = ParameterId(self.entries.len());
        self.by_name.insert(entry.name.clone(), id);
        self.entries.push(entry);
        Ok(id)
    }

    /// Returns the first parameter whose elements have not been loaded.
    pub fn first_unfilled(&self) -> Option<&str> {
        let unfilled = |entry: &&Entry| matches!(entry.state, State::Unfilled);
        self.entries.iter().find(unfilled).map(|entry| entry.name.as_str())
    }

    /// Freezes a parameter and takes its elements from a mapped file, at each use: they have no second copy in memory. On a device they
    /// are copied there in the type of the file.
    ///
    /// # Errors
    /// When the shape differs, or the elements cannot be copied to the device.
    pub fn set_mapped(&mut self, id: ParameterId, weight: MappedTensor) -> Result<()> {
        let entry = &mut self.entries[id.0];
        if entry.tensor.dims() != weight.shape() {
            let expected = format!("{:?} for `{}`", entry.tensor.dims(), entry.name);
            return Err(NnError::shape("map parameter", expected, weight.shape()));
        }
        let device = entry.tensor.device().clone();
        entry.tensor = shape_only(weight.shape())?;
        entry.state = State::Mapped(weight);
        entry.trainable = false;
        entry.move_to(&device)
    }

    /// Makes a parameter frozen and external: checkpoints and exported models leave it out, because its value comes from another model's
    /// files, or follows from the settings.
    pub fn set_external(&mut self, id: ParameterId) {
        let entry = &mut self.entries[id.0];
        (entry.external, entry.trainable) = (true, false);
    }

    /// Returns whether a parameter is [external](Self::set_external).
    pub fn is_external(&self, id: ParameterId) -> bool {
        self.entries[id.0].external
    }

    /// Returns the file that the elements of a parameter stay in.
    pub fn mapped(&self, id: ParameterId) -> Option<&MappedTensor> {
        match &self.entries[id.0].state {
            State::Mapped(weight) => Some(weight),
            _ => None,
        }
    }

    /// Returns whether the elements of a parameter stay in a file; see [`set_mapped`](Self::set_mapped).
    pub fn is_mapped(&self, id: ParameterId) -> bool {
        self.mapped(id).is_some()
    }

    /// Returns the value of a parameter like [`tensor`](Self::tensor); one that stays in its file is read from there.
    ///
    /// # Errors
    /// When candle cannot create it.
    pub fn read(&self, id: ParameterId) -> Result<Tensor> {
        match self.mapped(id) {
            Some(weight) => stored::read(weight, Precision::Fp32),
            None => Ok(self.tensor(id).clone()),
        }
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

    /// The value of a parameter: contiguous, `f32`. Of one that [stays in its file](Self::set_mapped) the shape only; see
    /// [`read`](Self::read).
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
        entry.state = State::Filled;
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
        self.entries.iter_mut().try_for_each(|entry| entry.move_to(device))
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

    /// Number of elements of all parameters that take memory, which those in a mapped file do not.
    pub fn elements_in_memory(&self) -> usize {
        let filled = self.entries.iter().filter(|entry| matches!(entry.state, State::Filled));
        filled.map(|entry| entry.tensor.elem_count()).sum()
    }

    /// Number of elements of all parameters, or of the trainable ones.
    pub fn element_count(&self, only_trainable: bool) -> usize {
        let counted = self.entries.iter().filter(|entry| entry.trainable || !only_trainable);
        counted.map(|entry| entry.tensor.elem_count()).sum()
    }
}
