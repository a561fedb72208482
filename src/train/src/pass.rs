//! Forward and backward passes: a step's gradient over its batches, and a validation.

use candle_core::Tensor;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Gradients, NnError, ParameterId, Parameters, Tape};

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
    /// The batches that this rank has computed.
    pub(crate) batches: Vec<BatchLoss>,
}

/// The loss of a batch, or of a rank's part of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BatchLoss {
    pub(crate) loss: f64,
    /// The parts, as names and means; NaN for one that the batch does not have.
    pub(crate) parts: Vec<(String, f64)>,
    /// Weight of the mean.
    pub(crate) weight: f64,
}

/// An observer of the last backward pass of a step, in which the sum of each gradient becomes complete.
pub(crate) trait Completion {
    /// Called once, after the last forward pass and before its backward pass.
    fn forward_done(&mut self, batches: &[BatchLoss], divisor: f64) -> Result<(), TrainError>;

    /// Called when the sum of a parameter's gradients is complete.
    fn arrived(&mut self, id: ParameterId, sums: &Gradients) -> Result<(), NnError>;
}

/// Nobody observes.
struct Unobserved;

impl Completion for Unobserved {
    fn forward_done(&mut self, _: &[BatchLoss], _: f64) -> Result<(), TrainError> {
        Ok(())
    }

    fn arrived(&mut self, _: ParameterId, _: &Gradients) -> Result<(), NnError> {
        Ok(())
    }
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
    observed(task, parameters, config, loss_scale, batches, &mut Unobserved)
}

/// The same as [`forward_backward`] with an observer.
pub(crate) fn observed<T: Task>(
    task: &T,
    parameters: &Parameters,
    config: &TrainConfig,
    loss_scale: f64,
    batches: &[Loaded<T::Batch>],
    completion: &mut dyn Completion,
) -> Result<Pass, TrainError> {
    let mut pass = Pass {
        gradients: Gradients::default(),
        divisor: 0.0,
        means: Measured::default(),
        losses: Vec::new(),
        batches: Vec::new(),
    };
    let mut first_weight = None;
    for (at, loaded) in batches.iter().enumerate() {
        let Loaded { epoch, index, batch, part, .. } = loaded;
        let what = || training_on(loaded);
        let rng_key = RngKey::new(config.seed).purpose("train").epoch(*epoch).step(*index);
        let tape = Tape::with_precision(config.precision);
        let layers = rng_key.purpose("layers");
        // Layers draw by position in the batch, so the parts of a batch need draws of their own.
        let layers = part.map_or(layers, |part| layers.purpose("part").sample(part));
        let context = Context::training(parameters, &tape, layers);
        let context = context.with_checkpoints(config.gradient_checkpointing);
        let loss = task.loss(&context, batch, rng_key).map_err(|source| TrainError::Task { what: what(), source })?;
        let measured = weigh(&loss, what)?;
        pass.means.add(measured.loss, &measured.parts, measured.weight);
        pass.losses.push(measured.loss);
        pass.batches.push(measured);
        let share = loss.weight / *first_weight.get_or_insert(loss.weight);
        pass.divisor += share;
        let is_last = at + 1 == batches.len();
        if is_last {
            completion.forward_done(&pass.batches, pass.divisor * loss_scale)?;
        }
        let arrived = &mut |id, sums: &Gradients| if is_last { completion.arrived(id, sums) } else { Ok(()) };
        let total = loss.total.tensor();
        let seed = Tensor::full((share * loss_scale) as f32, total.dims(), total.device()).map_err(NnError::from);
        let walked = seed.and_then(|seed| tape.backward_onto(&loss.total, seed, &mut pass.gradients, arrived));
        walked.map_err(TrainError::tensor(what()))?;
        drop(context);
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
        let BatchLoss { loss, parts, weight } = validate_batch(task, parameters, data, seed, (index, items))?;
        means.add(loss, &parts, weight);
    }
    Ok((means.weight > 0.0).then_some(means))
}

/// Returns the loss of one validation batch, given by its number and items.
pub(crate) fn validate_batch<T, D>(
    task: &T,
    parameters: &Parameters,
    data: &D,
    seed: u64,
    (index, items): (usize, &[u32]),
) -> Result<BatchLoss, TrainError>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    let what = || format!("validating on batch {index}");
    let rng_key = RngKey::new(seed).purpose("validation").step(index as u64);
    let batch = data.load(items, rng_key.purpose(DATA));
    let batch = batch.map_err(|source| TrainError::Data { what: what(), source })?;
    let loss = task.loss(&Context::inference(parameters), &batch, rng_key);
    weigh(&loss.map_err(|source| TrainError::Task { what: what(), source })?, what)
}

/// Returns the numbers of a loss.
fn weigh(loss: &Loss, what: impl Fn() -> String) -> Result<BatchLoss, TrainError> {
    if !(loss.weight > 0.0 && loss.weight.is_finite()) {
        return Err(TrainError::Weight { what: what(), weight: loss.weight });
    }
    let total = f64::from(loss.total.scalar().map_err(TrainError::tensor(what()))?);
    let parts = loss.parts.iter().map(|(name, part)| ((*name).to_owned(), *part)).collect();
    Ok(BatchLoss { loss: total, parts, weight: loss.weight })
}
