//! The device of a run, which is the device of its parameters: messages when it changes, and when its memory is full.

use flowmill_nn::device::{DeviceName, name_of};
use flowmill_nn::device_memory;
use flowmill_nn::{NnError, Parameters};

use crate::checkpoint::State;
use crate::last_save::amount;
use crate::loader::Loaded;
use crate::plan_memory::{constant, describe, largest};
use crate::train::Run;
use crate::{BatchCost, DataSource, Observer, Task, TrainError, pass};

/// Words by which drivers report that a device is out of memory.
const OUT_OF_MEMORY: [&str; 2] = ["OUT_OF_MEMORY", "kIOGPUCommandBufferCallbackErrorOutOfMemory"];

/// A device has no memory left for a batch.
#[derive(Debug, thiserror::Error)]
#[error(
    "{device} has no memory left for batch {index} of epoch {epoch} ({}). {memory}. The same command resumes from the newest checkpoint. \
     What helps: train.gradient_checkpointing: true (the same training: it resumes); for a new training also train.precision: bf16, a lower \
     train.batch.max_frames_in_batch with train.accum_grad raised by as much, or adapters (train.lora) instead of all weights. `flowmill train \
     RECIPE --plan-memory` measures before a run; {plan}. The cause: {source}", sizes(*.items, *.cost)
)]
pub struct OutOfDeviceMemory {
    /// The device.
    pub device: DeviceName,
    /// The batch's epoch, from 0.
    pub epoch: u64,
    /// The number in the epoch, from 0.
    pub index: u64,
    /// Number of its items.
    pub items: usize,
    /// Their cost.
    pub cost: BatchCost,
    /// The amount of memory, and what is known about its use.
    pub memory: String,
    /// The largest batch of the run.
    pub plan: String,
    /// The error.
    pub source: TrainError,
}

/// Returns the name of a device for messages.
pub fn in_words(name: DeviceName) -> String {
    if name == DeviceName::Cpu { "the CPU".to_owned() } else { name.to_string() }
}

/// Records the device of the parameters in the state of a run, and reports if its checkpoint was made on another one.
pub(crate) fn note(state: &mut State, parameters: &Parameters, resumed: bool, observer: &mut dyn Observer) {
    let (then, now) = (state.device, name_of(&parameters.device()));
    state.device = now;
    if resumed && then != now {
        observer.message(&format!(
            "the checkpoint was made on {}, and this run computes on {}: it continues the same training within rounding errors, not bit \
             for bit",
            in_words(then),
            in_words(now)
        ));
    }
}

/// Returns whether an error means that a device is out of memory.
pub(crate) fn is_out_of_memory(error: &TrainError) -> bool {
    error.has_cause(|_, text| OUT_OF_MEMORY.iter().any(|words| text.contains(words)))
}

impl<T, D> Run<'_, T, D>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    /// Adds to an out-of-memory error which of the step's batches did not fit, and what to do.
    pub(crate) fn explained(&self, error: TrainError, batches: &[Loaded<T::Batch>]) -> TrainError {
        if !is_out_of_memory(&error) {
            return error;
        }
        let text = error.to_string();
        let failed = batches.iter().find(|batch| text.contains(&pass::training_on(batch))).or(batches.last());
        let Some(batch) = failed else { return error };
        let device = self.parameters.device();
        let total = device_memory::memory(&device).map(|memory| memory.total);
        let known = constant(self.parameters, self.config, &*self.optimizer, self.ema.is_some());
        let known: u64 = known.iter().map(|(_, bytes)| bytes).sum();
        let plan = largest(self.data, self.config).map_or(String::new(), |largest| describe(&largest));
        TrainError::DeviceMemory(Box::new(OutOfDeviceMemory {
            device: name_of(&device),
            epoch: batch.epoch,
            index: batch.index,
            items: batch.items.len(),
            cost: self.data.cost(&batch.items),
            memory: shares(known, total),
            plan,
            source: error,
        }))
    }
}

/// Returns whether a device has no space for any batch in addition to the `known` memory.
fn is_too_small(known: u64, total: u64) -> bool {
    known >= total
}

/// Use of a device's memory: `known` bytes from the first step to the last, of `total`.
fn shares(known: u64, total: Option<u64>) -> String {
    let constant =
        format!("{} are in use throughout training (weights, gradients, optimizer state, averages)", amount(known));
    match total {
        Some(total) if is_too_small(known, total) => {
            format!("{constant}, and it has {}: no batch fits, however small", amount(total))
        }
        Some(total) => {
            format!("Of its {}, {constant}; activations, which grow with the batch, take the rest", amount(total))
        }
        None => format!("Of its memory, {constant}; activations, which grow with the batch, take the rest"),
    }
}

/// Moves parameters to a device.
///
/// # Errors
/// [`TrainError::Tensor`] when they cannot be copied there, for example for lack of memory.
pub fn place(parameters: &mut Parameters, device: &candle_core::Device) -> Result<(), TrainError> {
    let moved: Result<(), NnError> = parameters.to_device(device);
    moved.map_err(TrainError::tensor(format!("copying the weights to {}", in_words(name_of(device)))))
}

/// Describes a batch for an error message.
pub(crate) fn sizes(items: usize, cost: BatchCost) -> String {
    let utterances = if items == 1 { "1 utterance".to_owned() } else { format!("{items} utterances") };
    format!("{utterances}, {} {}, {} after padding", cost.valid, cost.unit, cost.padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_at_all_is_told_apart_from_a_batch_that_is_too_large() {
        assert!(!is_too_small(1_000, 2_000) && is_too_small(2_000, 1_000) && is_too_small(1_000, 1_000));
        let all = [shares(1_000, Some(2_000)), shares(2_000, Some(1_000)), shares(2_000, None)];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2], "{all:?}");
    }
}
