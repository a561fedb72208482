//! Forward and backward passes: a step's gradient over its batches, and a validation.

use candle_core::Tensor;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Gradients, NnError, Parameters, Tape};

use crate::loader::{DATA, Loaded};
use crate::metrics::Measured;
use crate::{DataSource, Loss, Task, TrainConfig, TrainError};

/// Result of the batches of one step.
pub(crate) struct Pass {
    /// Sum over batches of (weight / first batch's weight) times the gradient, times the loss scale.
    pub(crate) gradients: Gradients,
    /// Divisor that turns that sum into the mean over everything: the loss scale for a single batch.
    pub(crate) divisor: f64,
    /// Means over the batches, by weight.
    pub(crate) means: Measured,
    /// The loss of each batch.
    pub(crate) losses: Vec<f64>,
}

/// Computes the gradient of the mean loss over everything in `batches`, whatever the size of each, as if they were one batch. The loss is
/// multiplied by `loss_scale` during the computation.
pub(crate) fn forward_backward<T: Task>(
    task: &T,
    parameters: &Parameters,
    config: &TrainConfig,
    loss_scale: f64,
    batches: &[Loaded<T::Batch>],
) -> Result<Pass, TrainError> {
    let mut pass =
        Pass { gradients: Gradients::default(), divisor: 0.0, means: Measured::default(), losses: Vec::new() };
    let mut first_weight = None;
    for loaded in batches {
        let Loaded { epoch, index, batch, .. } = loaded;
        let what = || training_on(loaded);
        let rng_key = RngKey::new(config.seed).purpose("train").epoch(*epoch).step(*index);
        let tape = Tape::with_precision(config.precision);
        let context = Context::training(parameters, &tape, rng_key.purpose("layers"));
        let context = context.with_checkpoints(config.gradient_checkpointing);
        let loss = task.loss(&context, batch, rng_key).map_err(|source| TrainError::Task { what: what(), source })?;
        let total = weigh(&loss, &mut pass.means, what)?;
        pass.losses.push(total);
        let share = loss.weight / *first_weight.get_or_insert(loss.weight);
        pass.divisor += share;
        let gradients = backward(&tape, &loss, share * loss_scale).map_err(TrainError::tensor(what()))?;
        drop(context);
        pass.gradients.accumulate(gradients).map_err(TrainError::tensor(what()))?;
    }
    pass.divisor *= loss_scale;
    Ok(pass)
}

/// Describes what is done with a batch, for errors.
pub(crate) fn training_on<B>(Loaded { epoch, index, .. }: &Loaded<B>) -> String {
    format!("training on batch {index} of epoch {epoch}")
}

/// Returns the mean loss over the validation batches, without recording and with the same draws every time. `None` without data.
pub(crate) fn validate<T, D>(
    task: &T,
    parameters: &Parameters,
    data: &D,
    seed: u64,
) -> Result<Option<Measured>, TrainError>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    let mut means = Measured::default();
    for (index, items) in data.validation().iter().enumerate() {
        validate_batch(task, parameters, data, seed, (index, items), &mut means)?;
    }
    Ok((means.weight > 0.0).then_some(means))
}

/// Adds the loss of one validation batch, given by its number and items, to the means.
pub(crate) fn validate_batch<T, D>(
    task: &T,
    parameters: &Parameters,
    data: &D,
    seed: u64,
    (index, items): (usize, &[u32]),
    means: &mut Measured,
) -> Result<(), TrainError>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    let what = || format!("validating on batch {index}");
    let rng_key = RngKey::new(seed).purpose("validation").step(index as u64);
    let batch = data.load(items, rng_key.purpose(DATA));
    let batch = batch.map_err(|source| TrainError::Data { what: what(), source })?;
    let loss = task.loss(&Context::inference(parameters), &batch, rng_key);
    weigh(&loss.map_err(|source| TrainError::Task { what: what(), source })?, means, what).map(drop)
}

/// Adds a loss to the means and returns its value.
fn weigh(loss: &Loss, means: &mut Measured, what: impl Fn() -> String) -> Result<f64, TrainError> {
    if !(loss.weight > 0.0 && loss.weight.is_finite()) {
        return Err(TrainError::Weight { what: what(), weight: loss.weight });
    }
    let total = f64::from(loss.total.scalar().map_err(TrainError::tensor(what()))?);
    means.add(total, &loss.parts, loss.weight);
    Ok(total)
}

fn backward(tape: &Tape, loss: &Loss, factor: f64) -> Result<Gradients, NnError> {
    let total = loss.total.tensor();
    tape.backward_from(&loss.total, Tensor::full(factor as f32, total.dims(), total.device())?)
}
