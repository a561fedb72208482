//! Arrays of f32 in safetensors files.

use std::borrow::Cow;
use std::path::Path;

use candle_core::{Device, Tensor};
use flowmill_nn::{ParameterId, Parameters, host};
use safetensors::{Dtype, SafeTensors, View};

use crate::TrainError;
use crate::optimizer::Optimizer;

/// Name of the optimiser's count of updates, an I64 of shape [1].
const UPDATES: &str = "updates";

/// An array as safetensors wants to see it.
struct Array<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    fn f32(shape: &'a [usize], values: &'a [f32]) -> Self {
        Self { dtype: Dtype::F32, shape, bytes: bytemuck::cast_slice(values) }
    }
}

impl View for Array<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes every parameter under its name.
pub(super) fn write_parameters(path: &Path, parameters: &Parameters) -> Result<(), TrainError> {
    let slices = parameters.ids().map(|id| host::slice("save", parameters.tensor(id)));
    let slices = slices.collect::<Result<Vec<_>, _>>().map_err(TrainError::tensor("saving the weights"))?;
    let entries = parameters.ids().zip(&slices);
    write_f32(path, entries.map(|(id, values)| (parameters.name(id), parameters.tensor(id).dims(), &values[..])))
}

/// Writes arrays of f32, each with its name and shape.
pub(super) fn write_f32<'a>(
    path: &Path,
    arrays: impl Iterator<Item = (&'a str, &'a [usize], &'a [f32])>,
) -> Result<(), TrainError> {
    write(path, arrays.map(|(name, shape, values)| (name, Array::f32(shape, values))).collect())
}

/// Writes an optimiser's state and its count of updates.
pub(super) fn write_optimizer(path: &Path, optimizer: &dyn Optimizer) -> Result<(), TrainError> {
    let updates = (optimizer.updates() as i64).to_le_bytes();
    let state = optimizer.state();
    let arrays = state.iter().map(|array| (array.name.as_str(), Array::f32(&array.shape, array.values)));
    let count = (UPDATES, Array { dtype: Dtype::I64, shape: &[1], bytes: &updates });
    write(path, arrays.chain([count]).collect())
}

fn write(path: &Path, arrays: Vec<(&str, Array<'_>)>) -> Result<(), TrainError> {
    safetensors::serialize_to_file(arrays, None, path)
        .map_err(|error| TrainError::io("write", path)(std::io::Error::other(error)))
}

/// Sets every parameter to its stored value; on an error none is changed.
pub(super) fn read_parameters(bytes: &[u8], parameters: &mut Parameters) -> Result<(), String> {
    let file = parse(bytes)?;
    let mut loaded: Vec<(ParameterId, Tensor)> = Vec::with_capacity(parameters.len());
    for id in parameters.ids() {
        let name = parameters.name(id);
        let dims = parameters.tensor(id).dims();
        let values = values(&file, name).ok_or_else(|| format!("{name} is missing or not F32"))?;
        let tensor = Tensor::from_vec(values, dims, &Device::Cpu).map_err(|error| format!("{name}: {error}"))?;
        loaded.push((id, tensor));
    }
    loaded.into_iter().try_for_each(|(id, tensor)| parameters.set(id, tensor)).map_err(|error| error.to_string())
}

/// Gives the optimiser its stored state.
pub(super) fn read_optimizer(bytes: &[u8], optimizer: &mut dyn Optimizer) -> Result<(), String> {
    let file = parse(bytes)?;
    let updates = file.tensor(UPDATES).map_err(|error| error.to_string())?;
    let updates: [u8; 8] = updates.data().try_into().map_err(|_| format!("{UPDATES} is not one 64-bit integer"))?;
    optimizer.restore(u64::from_le_bytes(updates), &mut |name| values(&file, name))
}

fn parse(bytes: &[u8]) -> Result<SafeTensors<'_>, String> {
    SafeTensors::deserialize(bytes).map_err(|error| error.to_string())
}

fn values(file: &SafeTensors<'_>, name: &str) -> Option<Vec<f32>> {
    let view = file.tensor(name).ok().filter(|view| view.dtype() == Dtype::F32)?;
    let (words, _) = view.data().as_chunks::<4>();
    Some(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}
