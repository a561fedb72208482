//! A test whether settings can learn: training on a few batches repeatedly, with the same draws each time.

use std::time::Instant;

use flowmill_nn::{Parameters, device, device_memory, host};

use crate::loader::{self, Loaded};
use crate::optimizer::{GradientNorms, Update, freeze, gradient_norms};
use crate::overflow::Computed;
use crate::pass::Pass;
use crate::setup::own_weights;
use crate::{DataSource, LossScale, Observer, Progress, Task, TrainConfig, TrainError, coverage, pass};

/// Number of batches and steps of the test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OverfitOptions {
    /// Number of batches, taken from the start of the first epoch; fewer if there are not as many.
    pub batches: usize,
    /// Largest number of steps, each on one batch.
    pub steps: u64,
    /// Stops earlier when the loss has fallen by this share of itself.
    pub enough: Option<f64>,
}

/// Result of the test.
#[derive(Debug, Clone, PartialEq)]
pub struct Overfit {
    /// Number of batches.
    pub batches: usize,
    /// Steps done.
    pub steps: u64,
    /// Mean loss of the batches at their first step.
    pub first: f64,
    /// Mean loss of the batches at their last step.
    pub last: f64,
    /// Number of trainable parameters.
    pub parameters: usize,
    /// Parameters that are unchanged, or never had a nonzero gradient.
    pub unchanged: Vec<String>,
    /// Peak memory of tensors, in bytes, on a device with memory of its own.
    pub device_memory: Option<u64>,
    /// True if it was stopped early.
    pub interrupted: bool,
}

impl Overfit {
    /// Returns the share by which the loss fell: 0.9 if a tenth is left, negative if it rose.
    pub fn fall(&self) -> f64 {
        1.0 - self.last / self.first
    }
}

/// Trains on the same few batches, one per step in turn, with the same draws for a batch every time, at the full learning
/// rate. Nothing is written; `parameters` are those at the end. The observer is notified of a step when all its work is done, even on a
/// device.
///
/// # Errors
/// Those of the first-step check; a loss or gradient that is not finite; errors of the task and the data.
pub fn overfit<T, D>(
    task: &T,
    parameters: &mut Parameters,
    data: &D,
    config: &TrainConfig,
    options: OverfitOptions,
    observer: &mut dyn Observer,
) -> Result<Overfit, TrainError>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    config.check()?;
    freeze(&config.optim, parameters)?;
    own_weights(parameters)?;
    let batches = first_batches(data, config.seed, options.batches)?;
    let mut optimizer = config.optim.build(parameters)?;
    let before = digests(parameters)?;
    let mut reached = vec![false; before.len()];
    let mut losses = Vec::new();
    let mut scale = config.loss_scale().as_ref().map(LossScale::new);
    let mut interrupted = false;
    let device = parameters.device();
    device_memory::reset_peak(&device);
    for (step, batch) in (1..=options.steps).zip(batches.iter().cycle()) {
        let began = Instant::now();
        let (pass, norms) = in_range(task, parameters, config, (step, batch), &mut scale, observer)?;
        if step == 1 {
            coverage::check_first_step(parameters, &norms, &|name| task.is_optional(name), observer)?;
        }
        let (loss, rate) = (pass.means.loss, config.optim.lr);
        if !(loss.is_finite() && norms.total.is_finite()) {
            return Err(TrainError::NotFinite { step, loss, grad_norm: norms.total, rate });
        }
        for (reached, (_, norm)) in reached.iter_mut().zip(&norms.each) {
            *reached |= norm.is_some_and(|norm| norm > 0.0);
        }
        let update = Update::clipped(config, &norms, pass.divisor, rate);
        optimizer.step(parameters, &pass.gradients, update)?;
        losses.push(loss);
        device::synchronize(&device).map_err(TrainError::tensor("waiting for the device"))?;
        let (steps, seconds) = (options.steps, began.elapsed().as_secs_f64());
        observer.step(&Progress { step, steps, rate, seconds, ..Progress::measured(&pass.means, &norms) });
        interrupted = observer.interrupted();
        let (first, last) = ends(&losses, batches.len());
        if interrupted || options.enough.is_some_and(|enough| 1.0 - last / first >= enough) {
            break;
        }
    }
    let device_memory = device_memory::usage(&device).map(|usage| usage.peak);
    let after = digests(parameters)?;
    let changed = before.iter().zip(&after).zip(reached).map(|((before, after), reached)| reached && before != after);
    let names = parameters.trainable_ids().map(|id| parameters.name(id).to_owned());
    let unchanged = names.zip(changed).filter(|(name, changed)| !changed && !task.is_optional(name));
    let unchanged = unchanged.map(|(name, _)| name).collect();
    let (first, last) = ends(&losses, batches.len());
    Ok(Overfit {
        batches: batches.len(),
        steps: losses.len() as u64,
        first,
        last,
        parameters: before.len(),
        unchanged,
        device_memory,
        interrupted,
    })
}

/// Computes the gradient of one batch at the first loss scale that does not overflow, with the same draws for each attempt.
fn in_range<T: Task>(
    task: &T,
    parameters: &Parameters,
    config: &TrainConfig,
    (step, batch): (u64, &Loaded<T::Batch>),
    scale: &mut Option<LossScale>,
    observer: &mut dyn Observer,
) -> Result<(Pass, GradientNorms), TrainError> {
    loop {
        let factor = scale.as_ref().map_or(1.0, LossScale::scale);
        let pass = pass::forward_backward(task, parameters, config, factor, std::slice::from_ref(batch))?;
        let norms = gradient_norms(parameters, &pass.gradients, 1.0 / pass.divisor)?;
        let computed = Computed { step, rate: config.optim.lr, pass: &pass, norms: &norms };
        if !computed.overflowed(scale, config, parameters, observer)? {
            return Ok((pass, norms));
        }
    }
}

/// Returns the first batches of the first epoch.
fn first_batches<D: DataSource>(data: &D, seed: u64, count: usize) -> Result<Vec<Loaded<D::Batch>>, TrainError> {
    let plan = loader::plan(data, 0)?;
    let chosen = plan.into_iter().take(count.max(1)).enumerate();
    chosen.map(|(index, items)| loader::load(data, seed, (0, index as u64), &items)).collect()
}

/// Returns a digest of every trainable parameter, which takes less memory than a copy.
fn digests(parameters: &Parameters) -> Result<Vec<blake3::Hash>, TrainError> {
    let digest = |id| {
        let failed = || TrainError::tensor(format!("reading {}", parameters.name(id)));
        let weights = host::fetch(parameters.tensor(id)).map_err(failed())?;
        let elements = host::slice("comparing parameters", &weights).map_err(failed())?;
        let mut hasher = blake3::Hasher::new();
        for chunk in elements.chunks(1 << 14) {
            hasher.update(&chunk.iter().flat_map(|element| element.to_le_bytes()).collect::<Vec<u8>>());
        }
        Ok(hasher.finalize())
    };
    parameters.trainable_ids().map(digest).collect()
}

/// Returns the mean loss of the batches at their first and at their last step.
fn ends(losses: &[f64], batches: usize) -> (f64, f64) {
    let seen = batches.min(losses.len());
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    (mean(&losses[..seen]), mean(&losses[losses.len() - seen..]))
}
