//! Peak memory of a training: runs the largest batch that the sampler can produce before hours are spent.

use std::hint::black_box;
use std::thread;

use candle_core::Device;
use flowmill_nn::{Parameters, Precision, device_memory};

use crate::device::{is_out_of_memory, sizes};
use crate::ema::Ema;
use crate::loader::{self, Ahead, Loaded, Loader};
use crate::optimizer::{Optimizer, Update, freeze, gradient_norms};
use crate::setup::own_weights;
use crate::share::Share;
use crate::{DataSource, Observer, Task, TrainConfig, TrainError, pass, process_memory};

/// Number of epochs whose batches are examined if the run has more.
const EPOCHS: u64 = 1000;
/// Number of items of the largest batch that are tried first, to see whether the whole would fit.
const PROBE: usize = 8;
/// Steps on the largest batch: the second runs in the memory that the first has left behind.
const STEPS: usize = 2;
/// Steps after it, on the following batches.
const REHEARSED: usize = 12;
/// Bytes of a weight, a gradient or a moment.
const ELEMENT: u64 = 4;

/// Cost of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchCost {
    /// Sum of the costs of its items.
    pub valid: u64,
    /// The cost of its most expensive item times the number of items.
    pub padded: u64,
    /// Unit of costs: `frames`, `tokens`, `pixels`.
    pub unit: &'static str,
}

/// The most expensive batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargestBatch {
    /// The epoch.
    pub epoch: u64,
    /// The number in the epoch, from 0.
    pub index: u64,
    /// Number of its items.
    pub items: usize,
    /// Their cost.
    pub cost: BatchCost,
    /// Number of epochs examined.
    pub epochs: u64,
}

/// Origin of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The largest batch was trained on.
    Measured,
    /// Part of the largest batch was trained on, and the whole would not fit.
    Estimated,
    /// Not even a part fit on the device. The peak is the device's memory, and more is needed.
    Full,
}

/// Peak memory in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The batch that was run.
    pub batch: LargestBatch,
    /// Origin of the figure: whether all of the batch was run.
    pub source: Source,
    /// Peak of the whole process.
    pub peak: u64,
    /// Peak by kind; the kinds add up to the peak, except on a device that was full.
    pub kinds: Vec<(&'static str, u64)>,
    /// Available memory, if known: of the device, or of the machine as given by the caller.
    pub usable: Option<u64>,
}

/// The memory that the run computes in.
enum Meter {
    /// The machine's memory, of which the process uses a part.
    Process,
    /// A device's own memory, of which tensors use a part.
    Device(Device),
}

impl Meter {
    fn of(device: Device) -> Self {
        if device.is_cpu() { Self::Process } else { Self::Device(device) }
    }

    fn now(&self) -> Option<u64> {
        match self {
            Self::Process => process_memory::resident(),
            Self::Device(device) => Some(device_memory::usage(device)?.now),
        }
    }

    fn peak(&self) -> Option<u64> {
        match self {
            Self::Process => process_memory::peak(),
            Self::Device(device) => Some(device_memory::usage(device)?.peak),
        }
    }

    fn reset_peak(&self) {
        match self {
            Self::Process => process_memory::reset_peak(),
            Self::Device(device) => device_memory::reset_peak(device),
        }
    }

    /// Returns the available memory: on a device the free and the reserved memory, on the machine the given amount.
    fn usable(&self, machine: Option<u64>) -> Option<u64> {
        match self {
            Self::Process => machine,
            Self::Device(device) => Some(device_memory::memory(device)?.free + device_memory::usage(device)?.reserved),
        }
    }

    /// Returns how much more memory reading the data will keep.
    fn to_come<D: DataSource>(&self, data: &D) -> u64 {
        if matches!(self, Self::Process) { data.still_to_keep() } else { 0 }
    }
}

/// Runs forward pass, backward pass and update on the largest batch in any epoch of the run, with as many waiting batches as the loader
/// keeps, and measures the memory of the process, or of tensors on the device of the parameters. Nothing is written; `parameters` are
/// changed. If a part of the batch shows that the whole would need more than is available (`usable` bytes of the machine's memory, or the
/// device's memory), the rest is left out. If the device is full even earlier, the plan says so.
///
/// # Errors
/// Errors of the task and the data; [`TrainError::Config`] if the system or the driver does not report the memory in use.
pub fn plan_memory<T, D>(
    task: &T,
    parameters: &mut Parameters,
    data: &D,
    config: &TrainConfig,
    usable: Option<u64>,
    observer: &mut dyn Observer,
) -> Result<MemoryPlan, TrainError>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    config.check()?;
    freeze(&config.optim, parameters)?;
    let meter = Meter::of(parameters.device());
    let usable = meter.usable(usable);
    let batch = largest(data, config)?;
    observer.message(&describe(&batch));
    match measure(task, parameters, data, config, (&meter, usable), &batch) {
        Err(error) if is_out_of_memory(&error) => Ok(MemoryPlan {
            source: Source::Full,
            peak: usable.unwrap_or_default(),
            kinds: vec![("weights", weights(parameters, false))],
            batch,
            usable,
        }),
        plan => plan,
    }
}

/// Trains on the largest batch, after a part of it.
fn measure<T, D>(
    task: &T,
    parameters: &mut Parameters,
    data: &D,
    config: &TrainConfig,
    (meter, usable): (&Meter, Option<u64>),
    batch: &LargestBatch,
) -> Result<MemoryPlan, TrainError>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    let plan = loader::plan(data, batch.epoch)?;
    let items = &plan[batch.index as usize];
    let load = |items: &[u32]| loader::load(data, config.seed, (batch.epoch, batch.index), items);
    let part = load(part(data, &plan, items))?;
    // As many as exist at a time: the waiting ones, the one on its way into the queue, and those of the step itself.
    let waiting = (0..=config.prefetch).map(|_| load(items)).collect::<Result<Vec<_>, _>>()?;
    let group = (0..config.accum_grad).map(|_| load(items)).collect::<Result<Vec<_>, _>>()?;
    let program = required(meter.now())?.saturating_sub(weights(parameters, false));

    own_weights(parameters)?;
    let optimizer = config.optim.build(parameters)?;
    let ema = config.ema_decay.map(|decay| Ema::new(decay, parameters)).transpose()?;
    let mut run = Run { task, config, optimizer, ema };
    meter.reset_peak();
    let share = data.cost(items).padded as f64 / data.cost(&part.items).padded.max(1) as f64;
    run.step(parameters, std::slice::from_ref(&part))?;
    let kinds = run.kinds(parameters, program);
    let certain: u64 = kinds.iter().map(|(_, bytes)| bytes).sum();
    // Known from the utterances read so far.
    let to_come = meter.to_come(data);
    let estimate = certain + (required(meter.peak())?.saturating_sub(certain) as f64 * share) as u64;
    if usable.is_some_and(|usable| estimate + to_come > usable) {
        return Ok(MemoryPlan {
            usable,
            ..MemoryPlan::new(batch.clone(), Source::Estimated, estimate, kinds, to_come)
        });
    }
    meter.reset_peak();
    for _ in 0..STEPS {
        run.step(parameters, &group)?;
    }
    drop(black_box(waiting));
    run.rehearse(parameters, data, batch)?;
    for _ in 0..STEPS {
        run.step(parameters, &group)?;
    }
    let peak = required(meter.peak())?;
    Ok(MemoryPlan { usable, ..MemoryPlan::new(batch.clone(), Source::Measured, peak, kinds, meter.to_come(data)) })
}

/// Returns what is tried first, to see whether the whole would fit: some items of the largest batch, or if it has only one, the smallest
/// batch of its epoch.
fn part<'a, D: DataSource>(data: &D, plan: &'a [Vec<u32>], items: &'a [u32]) -> &'a [u32] {
    if items.len() > 1 {
        return &items[..items.len().div_ceil(PROBE)];
    }
    plan.iter().map(Vec::as_slice).min_by_key(|items| data.cost(items).padded).unwrap_or(items)
}

/// The participants of a step.
struct Run<'a, T> {
    task: &'a T,
    config: &'a TrainConfig,
    optimizer: Box<dyn Optimizer>,
    ema: Option<Ema>,
}

impl<T: Task> Run<'_, T> {
    fn step(&mut self, parameters: &mut Parameters, group: &[Loaded<T::Batch>]) -> Result<(), TrainError> {
        let pass = pass::forward_backward(self.task, parameters, self.config, 1.0, group)?;
        let norms = gradient_norms(parameters, &pass.gradients, 1.0 / pass.divisor)?;
        let update = Update::clipped(self.config, &norms, pass.divisor, 0.0);
        self.optimizer.step(parameters, &pass.gradients, update)?;
        self.ema.as_mut().map_or(Ok(()), |ema| ema.update(parameters))
    }

    /// Runs the steps after the largest batch, loaded as in training, and reads the validation split, because memory that was freed on
    /// another thread, or by a batch of another length, is not always reused.
    fn rehearse<D: DataSource<Batch = T::Batch>>(
        &mut self,
        parameters: &mut Parameters,
        data: &D,
        batch: &LargestBatch,
    ) -> Result<(), TrainError> {
        thread::scope(|scope| {
            let ahead = Ahead { prefetch: self.config.prefetch, workers: self.config.num_workers };
            let from = (batch.epoch, batch.index);
            let loader = Loader::start(scope, data, self.config.seed, from, None, (ahead, Share::whole()));
            for _ in 0..REHEARSED {
                let group = loader.group(self.config.accum_grad)?;
                self.step(parameters, &group.own)?;
            }
            Ok(())
        })?;
        let largest = data.validation().into_iter().max_by_key(|items| data.cost(items).padded);
        let Some(items) = largest else { return Ok(()) };
        pass::validate_batch(self.task, parameters, data, self.config.seed, (0, &items)).map(drop)
    }

    /// Returns the memory that is constant over the steps or has a known size; `program` is the memory without a model.
    fn kinds(&self, parameters: &Parameters, program: u64) -> Vec<(&'static str, u64)> {
        let mut kinds = constant(parameters, self.config, &*self.optimizer, self.ema.is_some());
        let rest = if parameters.device().is_cpu() { "program, data, waiting batches" } else { "other tensors" };
        kinds.push((rest, program));
        kinds
    }
}

/// Returns the memory that training uses throughout, by kind.
pub(crate) fn constant(
    parameters: &Parameters,
    config: &TrainConfig,
    optimizer: &dyn Optimizer,
    averages: bool,
) -> Vec<(&'static str, u64)> {
    let state: usize = optimizer.state().iter().map(|(_, tensor)| tensor.elem_count()).sum();
    let trainable = weights(parameters, true);
    let mut kinds = vec![("weights", weights(parameters, false))];
    if config.precision != Precision::Fp32 {
        // On the CPU rounded numbers are stored in single precision.
        let share = if parameters.device().is_cpu() { 1 } else { 2 };
        kinds.push(("rounded weights", weights(parameters, false) / share));
    }
    // Gradients of further batches are added in place.
    kinds.push(("gradients", trainable));
    kinds.push(("optimizer state", ELEMENT * state as u64));
    if averages {
        kinds.push(("moving average", trainable));
    }
    kinds
}

/// Returns the batch with the largest cost after padding, among equal ones the one with the most valid data, then the first.
pub(crate) fn largest<D: DataSource>(data: &D, config: &TrainConfig) -> Result<LargestBatch, TrainError> {
    let (epochs, steps) = (config.max_epochs.unwrap_or(EPOCHS).min(EPOCHS), config.max_steps.unwrap_or(u64::MAX));
    let (mut largest, mut looked, mut done) = (None::<LargestBatch>, 0, 0u64);
    while looked < epochs && done < steps {
        let batches = loader::plan(data, looked)?;
        let left = usize::try_from(steps - done).unwrap_or(usize::MAX).saturating_mul(config.accum_grad);
        for (index, items) in batches.iter().enumerate().take(left) {
            let cost = data.cost(items);
            let more = |than: &LargestBatch| (cost.padded, cost.valid) > (than.cost.padded, than.cost.valid);
            if largest.as_ref().is_none_or(more) {
                let batch = LargestBatch { epoch: looked, index: index as u64, items: items.len(), cost, epochs: 0 };
                largest = Some(batch);
            }
        }
        done += batches.len().div_ceil(config.accum_grad) as u64;
        looked += 1;
    }
    let found = largest.ok_or(TrainError::NoData { epoch: 0 })?;
    Ok(LargestBatch { epochs: looked, ..found })
}

pub(crate) fn describe(batch: &LargestBatch) -> String {
    let LargestBatch { epoch, index, items, cost, epochs } = batch;
    format!("the largest batch of {epochs} epochs is number {index} of epoch {epoch}: {}", sizes(*items, *cost))
}

fn weights(parameters: &Parameters, only_trainable: bool) -> u64 {
    let count = if only_trainable { parameters.element_count(true) } else { parameters.elements_in_memory() };
    ELEMENT * count as u64
}

fn required(figure: Option<u64>) -> Result<u64, TrainError> {
    figure.ok_or_else(|| TrainError::Config {
        key: "--plan-memory",
        reason: "this system (no /proc/self/status) or the device's driver does not report how much memory is in use"
            .to_owned(),
    })
}

impl MemoryPlan {
    /// Creates a plan; `peak` was measured, `to_come` will additionally be read and kept.
    fn new(batch: LargestBatch, source: Source, peak: u64, mut kinds: Vec<(&'static str, u64)>, to_come: u64) -> Self {
        let known: u64 = kinds.iter().map(|(_, bytes)| bytes).sum();
        // Freed memory that is counted with the program can be reused; then the known kinds alone are the peak.
        let peak = peak.max(known);
        kinds.push(("activations, work space", peak - known));
        kinds.push(("utterances still to be read and kept", to_come));
        Self { batch, source, peak: peak + to_come, kinds, usable: None }
    }
}
