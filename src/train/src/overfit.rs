//! Whether settings can learn at all: a few batches again and again, with the same draws each time.

use std::time::Instant;

use flowmill_nn::{Parameters, device, device_memory, host};

use crate::loader::{self, Loaded};
use crate::optimizer::{GradientNorms, Update, freeze, gradient_norms};
use crate::overflow::Computed;
use crate::pass::Pass;
use crate::setup::own_weights;
use crate::{DataSource, LossScale, Observer, Progress, Task, TrainConfig, TrainError, coverage, pass};

/// On how much, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OverfitOptions {
    /// How many batches, the first of the first epoch; fewer when there are not so many.
    pub batches: usize,
    /// The most steps, each on one batch.
    pub steps: u64,
    /// Stop before when the loss has fallen by this share of itself.
    pub enough: Option<f64>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Overfit {
    /// Batches there were.
    pub batches: usize,
    /// Steps done.
    pub steps: u64,
    /// Mean loss of the batches, each when it was seen first.
    pub first: f64,
    /// Mean loss of the batches, each when it was seen last.
    pub last: f64,
    /// Number of trainable parameters.
    pub parameters: usize,
    /// Those that are as they were, or never had a gradient other than zero.
    pub unchanged: Vec<String>,
    /// Peak memory of tensors, in bytes, on a device with memory of its own.
    pub device_memory: Option<u64>,
    /// Whether it was stopped early.
    pub interrupted: bool,
}

impl Overfit {
    /// By how much of itself the loss fell: 0.9 when a tenth is left, negative when it rose.
    pub fn fall(&self) -> f64 {
        1.0 - self.last / self.first
    }
}

/// Trains on the same few batches, one a step in turn, with the draws of each batch the same every time it comes, at the full learning
/// rate throughout. Nothing is written; `parameters` are those at the end. The observer hears of a step when all its work is done, on a
/// device too.
///
/// # Errors
/// Those of the first-step check; a loss or gradient that is not finite; whatever the task or the data report.
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
    let batches = first_batches(data, options.batches)?;
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
            coverage::check_first_step(parameters, &norms, observer)?;
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
    let unchanged = names.zip(changed).filter(|(_, changed)| !changed).map(|(name, _)| name).collect();
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

/// The gradient of one batch, at the first loss scale that it does not overflow with: the same draws again, nothing is lost by trying.
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

/// The first batches of the first epoch.
fn first_batches<D: DataSource>(data: &D, count: usize) -> Result<Vec<Loaded<D::Batch>>, TrainError> {
    let plan = loader::plan(data, 0)?;
    let total = plan.len() as u64;
    let chosen = plan.into_iter().take(count.max(1)).enumerate();
    chosen.map(|(index, items)| loader::load(data, 0, index as u64, total, items)).collect()
}

/// A digest of every trainable parameter, which takes less room than a copy.
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

/// The mean loss of the batches when they were seen first, and when they were seen last.
fn ends(losses: &[f64], batches: usize) -> (f64, f64) {
    let seen = batches.min(losses.len());
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    (mean(&losses[..seen]), mean(&losses[losses.len() - seen..]))
}
