//! An exponential moving average of the weights: smoother than the weights themselves, used to validate and to export.

use candle_core::Tensor;
use flowmill_nn::{NnError, ParameterId, Parameters, device, host};

use crate::TrainError;
#[cfg(feature = "cuda")]
use crate::optimizer::multi_tensor;

/// Averages of the trainable parameters: after each update `average ← average + (1 - decay)(weight - average)`.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    averages: Vec<(ParameterId, Tensor)>,
}

impl Ema {
    /// Creates averages that start at the current weights.
    pub fn new(decay: f64, parameters: &Parameters) -> Result<Self, TrainError> {
        let copy = |id| Ok((id, parameters.tensor(id).copy()?));
        let averages = parameters.trainable_ids().map(copy).collect::<Result<_, NnError>>();
        Ok(Self { decay, averages: averages.map_err(TrainError::tensor("copying the weights for their average"))? })
    }

    /// Updates the averages with the weights after an update.
    pub fn update(&mut self, parameters: &Parameters) -> Result<(), TrainError> {
        let share = (1.0 - self.decay) as f32;
        #[cfg(feature = "cuda")]
        {
            let pairs = self.averages.iter().map(|(id, average)| [average, parameters.tensor(*id)]);
            if multi_tensor::serve(pairs.clone().flatten()) {
                return multi_tensor::average(&pairs.collect::<Vec<_>>(), share)
                    .map_err(TrainError::tensor("moving averages of the weights"));
            }
        }
        for (id, average) in &mut self.averages {
            mix(average, parameters.tensor(*id), share)
                .map_err(TrainError::tensor(format!("moving average of {}", parameters.name(*id))))?;
        }
        Ok(())
    }

    /// Exchanges averages and weights; calling it twice restores both.
    pub fn swap(&mut self, parameters: &mut Parameters) -> Result<(), TrainError> {
        for (id, average) in &mut self.averages {
            let weights = parameters.tensor(*id).clone();
            let averages = std::mem::replace(average, weights);
            parameters.set(*id, averages).map_err(TrainError::tensor("exchanging weights and averages"))?;
        }
        Ok(())
    }
}

/// Moves the average towards the weights: in place on the CPU, as a new tensor by the composition.
fn mix(average: &mut Tensor, weights: &Tensor, share: f32) -> Result<(), NnError> {
    if !device::is_fused(average) {
        *average = average.add(&weights.sub(average)?.affine(share.into(), 0.0)?)?;
        return Ok(());
    }
    let weights = host::slice("moving average", weights)?;
    host::modify(average, |averages| {
        averages.iter_mut().zip(weights.iter()).for_each(|(average, weight)| *average += share * (weight - *average));
    })
}
