//! The contract of a differentiable operation, and the one place that runs it.

use crate::device::{self, Place};
use crate::gradients::{Flow, Gradient};
use crate::tape::record;
use crate::{Result, Value};
use candle_core::{DType, Device, Tensor};

/// One differentiable operation.
///
/// [`forward`](Self::forward) and [`backward`](Self::backward) are its composition: candle operations that compute on any device and in any float
/// type. All inputs arrive on one device, in one element type and contiguous.
pub(crate) trait Operation: Sized + 'static {
    /// Whether the composition computes in single precision at least, also where the tape rounds to a narrower format.
    const IN_SINGLE_PRECISION: bool = false;

    /// What the composition keeps for its backward pass.
    type Saved: 'static;

    /// The output by a CUDA kernel, where there is one for these inputs. It keeps what the composition keeps.
    #[cfg(feature = "cuda")]
    fn cuda(&self, _inputs: &[Tensor]) -> Result<Option<(Tensor, Self::Saved)>> {
        Ok(None)
    }

    /// The output of the composition.
    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Self::Saved)>;

    /// Takes over what has arrived so far as the gradient of the first input, for a backward pass that adds to it at no cost. Says whether it did.
    fn onto(&mut self, _saved: &Self::Saved, _arrived: &Tensor) -> bool {
        false
    }

    /// The gradients of the inputs, in their order, from that of the output. Those that are not needed may be left out.
    fn backward(self, saved: Self::Saved, gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>>;

    /// The operation by its fused CPU kernel: contiguous `f32`. By the composition where it has none.
    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        compose(self, inputs, &Device::Cpu, DType::F32)
    }
}

/// Runs an operation where its inputs are.
pub(crate) fn apply<O: Operation>(operation: O, inputs: &[&Value]) -> Result<Value> {
    match Place::of(inputs) {
        Place::Fused => operation.fused(inputs),
        Place::Composed(device, DType::BF16 | DType::F16) if O::IN_SINGLE_PRECISION => {
            compose(operation, inputs, &device, DType::F32)
        }
        Place::Composed(device, dtype) => compose(operation, inputs, &device, dtype),
    }
}

/// Whether an operation on these values is composed. For operations that are compositions of recorded operations.
pub(crate) fn composed(inputs: &[&Value]) -> bool {
    matches!(Place::of(inputs), Place::Composed(..))
}

fn compose<O: Operation>(operation: O, inputs: &[&Value], device: &Device, dtype: DType) -> Result<Value> {
    // CUDA refuses to launch a kernel over nothing: where there are no elements, the CPU computes.
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

/// Gives the gradients of the composition, which computes at `place`, to inputs of these element types.
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
