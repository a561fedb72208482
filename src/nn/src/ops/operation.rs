//! The trait of differentiable operations, and the one function that runs them.

use crate::device::{self, Place};
use crate::gradients::{Flow, Gradient};
use crate::tape::record;
use crate::{Result, Value};
use candle_core::{DType, Device, Tensor};

/// One differentiable operation.
///
/// [`forward`](Self::forward) and [`backward`](Self::backward) are its composition: candle operations that compute on any device and in
/// any float type. All inputs are contiguous, on one device and of one element type.
pub(crate) trait Operation: Sized + 'static {
    /// True if the composition computes in single precision or wider, even if the tape rounds to a narrower format.
    const IN_SINGLE_PRECISION: bool = false;

    /// State that the composition saves for its backward pass.
    type Saved: 'static;

    /// Returns the output of a CUDA kernel if there is one for these inputs. It saves the same state as the composition.
    #[cfg(feature = "cuda")]
    fn cuda(&self, _inputs: &[Tensor]) -> Result<Option<(Tensor, Self::Saved)>> {
        Ok(None)
    }

    /// Returns the output of the composition.
    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Self::Saved)>;

    /// Takes the gradient that has already arrived at the first input, if the backward pass can add to it for free. Returns whether it
    /// did.
    fn onto(&mut self, _saved: &Self::Saved, _arrived: &Tensor) -> bool {
        false
    }

    /// Returns the gradients of the inputs, in their order, from the gradient of the output. Unneeded ones may be left out.
    fn backward(self, saved: Self::Saved, gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>>;

    /// Computes the operation by its fused CPU kernel on contiguous `f32`, or by the composition if there is no kernel.
    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        compose(self, inputs, &Device::Cpu, DType::F32)
    }
}

/// Runs an operation on the device of its inputs.
pub(crate) fn apply<O: Operation>(operation: O, inputs: &[&Value]) -> Result<Value> {
    match Place::of(inputs) {
        Place::Fused => operation.fused(inputs),
        Place::Composed(device, DType::BF16 | DType::F16) if O::IN_SINGLE_PRECISION => {
            compose(operation, inputs, &device, DType::F32)
        }
        Place::Composed(device, dtype) => compose(operation, inputs, &device, dtype),
    }
}

/// Returns whether an operation on these values is composed, for operations that are compositions of recorded operations.
pub(crate) fn composed(inputs: &[&Value]) -> bool {
    matches!(Place::of(inputs), Place::Composed(..))
}

fn compose<O: Operation>(operation: O, inputs: &[&Value], device: &Device, dtype: DType) -> Result<Value> {
    // CUDA rejects a launch over nothing, so the CPU computes operations without elements.
    let empty = inputs.iter().any(|value| value.tensor().elem_count() == 0);
    let place = if empty { &Device::Cpu } else { device };
    let tensors = inputs.iter().map(|value| value.enter(place, dtype)).collect::<Result<Vec<_>>>()?;
    #[cfg(feature = "cuda")]
    let by_kernel = operation.cuda(&tensors)?;
    #[cfg(not(feature = "cuda"))]
    let by_kernel = None;
    let (output, saved) = by_kernel.map_or_else(|| operation.forward(&tensors), Ok)?;
    let dtypes: Vec<DType> = inputs.iter().map(|value| value.tensor().dtype()).collect();
    drop(tensors);
    Ok(record(device::contiguous(&output)?.to_device(device)?, inputs, || {
        let place = place.clone();
        move |gradient: Gradient, flow: &mut Flow<'_>| give_composed(operation, saved, dtypes, &place, gradient, flow)
    }))
}

/// Adds the gradients of the composition, computed at `place`, to inputs of these element types.
pub(crate) fn give_composed<O: Operation>(
    mut operation: O,
    saved: O::Saved,
    dtypes: Vec<DType>,
    place: &Device,
    gradient: Gradient,
    flow: &mut Flow<'_>,
) -> Result<()> {
    let needs: Vec<bool> = (0..dtypes.len()).map(|input| flow.wants(input)).collect();
    let device = gradient.tensor().device().clone();
    if let Some(arrived) = flow.take(0)
        && !operation.onto(&saved, arrived.tensor())
    {
        flow.give(0, arrived)?;
    }
    let gradients = operation.backward(saved, &device::contiguous(gradient.tensor())?.to_device(place)?, &needs)?;
    drop(gradient);
    for (input, (gradient, dtype)) in gradients.into_iter().zip(dtypes).enumerate() {
        if let Some(gradient) = gradient.filter(|_| needs[input]) {
            flow.give(
                input,
                Gradient::shared(device::cast(&device::contiguous(&gradient)?.to_device(&device)?, dtype)?),
            )?;
        }
    }
    Ok(())
}
