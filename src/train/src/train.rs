//! The training loop, readable from top to bottom.

use std::path::Path;
use std::thread;
use std::time::Instant;

use flowmill_collective::Collective;
use flowmill_nn::Parameters;

use crate::checkpoint::{self, Contents, State};
use crate::coverage::health::Health;
use crate::disk_full::missed;
use crate::ema::Ema;
use crate::identity::Identity;
use crate::interval::Interval;
use crate::last_save::amount;
use crate::loader::{Ahead, Group, Loader, Planned};
use crate::metrics::{Clock, Measured, Metrics, WandbRun, shorten};
use crate::optimizer::{GradientNorms, Optimizer, Update, gradient_norms};
use crate::overflow::Computed;
use crate::pass::Pass;
use crate::ranks::{self, Changing, Order, Ranks};
use crate::schedule::{Horizon, Schedule};
use crate::setup::{self, check_validation, horizon};
use crate::skipped::{self, Dump};
use crate::steering::{Positive, Steering};
use crate::stopping::{Deadline, Limits};
use crate::summary::Summary;
use crate::waiting::Waiting;
use crate::{
    CheckpointStore, DataSource, LossScale, Observer, Progress, RunLength, Task, TrainConfig, TrainError, coverage,
    device, extend, process_memory,
};

/// Trains `parameters` in place until the configured end or an interruption, resuming from the newest intact checkpoint in `store`; a run
/// that ended before the configured end is extended. Metrics and dumps of skipped steps go to `folder`. Stopping and resuming a run,
/// anywhere, changes nothing in weights, checkpoints or metrics.
pub fn train<T, D>(
    task: &T,
    parameters: &mut Parameters,
    data: &D,
    config: &TrainConfig,
    folder: &Path,
    store: &dyn CheckpointStore,
    observer: &mut dyn Observer,
) -> Result<Summary, TrainError>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    lead(task, parameters, data, config, (folder, store), observer, Ranks::alone())
}

/// Trains like [`train`] as rank 0 of several ranks; the others [follow](crate::follow). The ranks divide the batches of every step, so
/// their number changes the results within rounding errors only, and it may change when a run is resumed.
///
/// # Errors
/// Those of [`train`], and the errors of the other ranks.
pub fn train_with<T, D>(
    task: &T,
    parameters: &mut Parameters,
    data: &D,
    config: &TrainConfig,
    (folder, store): (&Path, &dyn CheckpointStore),
    observer: &mut dyn Observer,
    engine: &dyn Collective,
) -> Result<Summary, TrainError>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    let ranks = Ranks::new(engine);
    ranks.announce(lead(task, parameters, data, config, (folder, store), observer, ranks))
}

fn lead<T, D>(
    task: &T,
    parameters: &mut Parameters,
    data: &D,
    config: &TrainConfig,
    (folder, store): (&Path, &dyn CheckpointStore),
    observer: &mut dyn Observer,
    ranks: Ranks<'_>,
) -> Result<Summary, TrainError>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    config.check()?;
    let mut run = Run::start(task, parameters, data, config, (folder, store), observer, ranks)?;
    run.close()?;
    let (mut interrupted, deadline, mut waiting) = (run.catch_up(), Deadline::starting_now(config), Waiting::default());
    thread::scope(|scope| {
        let from = (run.state.epoch, run.state.position);
        let ahead = Ahead { prefetch: config.prefetch, workers: config.num_workers };
        let share = ranks.share(config.accum_grad);
        let loader = Loader::start(scope, data, config.seed, from, config.max_epochs, (ahead, share));
        while !run.finished() && !interrupted {
            let started = Instant::now();
            run.order_step()?;
            let group = loader.group(config.accum_grad)?;
            if group.planned.is_empty() {
                break;
            }
            let data_wait = started.elapsed().as_secs_f64();
            let mut progress = run.step(&group).map_err(|error| run.explained(error, &group.own))?;
            (progress.data_wait, progress.seconds) = (data_wait, started.elapsed().as_secs_f64());
            waiting.add(&progress);
            progress.items = group.planned.iter().map(|batch| batch.items.len() as u64).sum();
            run.observer.step(&progress);
            let asked_to_stop = !run.finished() && (run.observer.interrupted() || deadline.is_over(run.observer));
            run.record(&progress, asked_to_stop)?;
            run.tell_troubles();
            interrupted = asked_to_stop && !run.finished();
            interrupted |= run.apply_commands(&progress)?;
        }
        Ok(())
    })?;
    waiting.tell(run.observer);
    run.end_of_ranks()?;
    if !interrupted {
        run.metrics.finish(run.state.step)?;
    }
    Ok(Summary::new(&run.state, run.resumed_from, interrupted))
}

/// A run between two steps.
pub(crate) struct Run<'a, T, D> {
    pub(crate) task: &'a T,
    pub(crate) parameters: &'a mut Parameters,
    pub(crate) data: &'a D,
    pub(crate) config: &'a TrainConfig,
    pub(crate) folder: &'a Path,
    pub(crate) store: &'a dyn CheckpointStore,
    pub(crate) observer: &'a mut dyn Observer,
    pub(crate) optimizer: Box<dyn Optimizer + 'a>,
    pub(crate) schedule: Schedule,
    health: Health,
    pub(crate) ema: Option<Ema>,
    pub(crate) metrics: Metrics,
    pub(crate) state: State,
    pub(crate) steering: Steering,
    ranks: Ranks<'a>,
    resumed_from: Option<u64>,
}

impl<'a, T, D> Run<'a, T, D>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    fn start(
        task: &'a T,
        parameters: &'a mut Parameters,
        data: &'a D,
        config: &'a TrainConfig,
        (folder, store): (&'a Path, &'a dyn CheckpointStore),
        observer: &'a mut dyn Observer,
        ranks: Ranks<'a>,
    ) -> Result<Self, TrainError> {
        checkpoint::check_writable(store)?;
        check_validation(data, config)?;
        let (mut optimizer, mut ema) = setup::trained(config, parameters, ranks)?;
        let identity = Identity::of(config, parameters);
        let contents = Contents { parameters, optimizer: &mut *optimizer, ema: ema.as_mut() };
        let resumed = checkpoint::resume(store, &identity, &config.keep, contents, observer)?;
        let resumed_from = resumed.as_ref().map(|state| state.step);
        let limits = Limits::of(config);
        let known = resumed.as_ref().filter(|state| state.limits == Some(limits)).map(|state| state.steps);
        let horizon = horizon(data, config, known)?;
        let mut state = match resumed {
            Some(state) => extend::to(state, identity, config, horizon, observer)?,
            None => {
                let mut state = State::new(identity, limits, horizon.steps);
                state.loss_scale = config.loss_scale().as_ref().map(LossScale::new);
                state.base = checkpoint::base::checksum(parameters)?;
                state
            }
        };
        device::note(&mut state, parameters, resumed_from.is_some(), observer);
        state.record = store.record();
        keep_best_to_what_is_there(&mut state, store, config)?;
        tell_warnings(data, config, horizon, observer);
        let mut metrics = Metrics::open(folder, &state.metrics, Clock::of(config.wall_clock), config.references)?
            .with_plain_tags(config.plain_tags);
        if let Some(settings) = config.wandb.clone() {
            let run = WandbRun { settings, config: config.described.clone() };
            metrics.open_wandb(folder, &run)?;
        }
        let mut steering = Steering::open(folder, state.step)?;
        let troubles = [metrics.troubles(), std::mem::take(&mut steering.troubles)].concat();
        if !troubles.is_empty() {
            observer.message(&format!(
                "WARNING: {}. Logs are not needed to go on: weights and checkpoints are not affected",
                troubles.join("; ")
            ));
        }
        // With a divided optimizer, that of rank 0 has not all of the state.
        let whole = |step| checkpoint::optimizer_state(store, step);
        let in_parts = config.zero > 0 && !ranks.is_alone();
        let stored = in_parts.then(|| resumed_from.map_or(Ok(Vec::new()), whole)).transpose()?;
        let changing = Changing { parameters, optimizer: &mut *optimizer, ema: ema.as_mut(), stored };
        ranks::begin(changing, data, (state.epoch, state.position), ranks)?;
        let rate = state.lr.map_or(config.optim.lr, Positive::value);
        let schedule = Schedule::new(&config.schedule, rate, horizon);
        let health = Health::new(&config.optim, parameters);
        let (step, position, seed) = (state.step, state.position, config.seed);
        tracing::info!(step, steps = state.steps, epoch = state.epoch, position, seed, resumed_from, "training begins");
        let mut run = Self {
            task,
            parameters,
            data,
            config,
            folder,
            store,
            observer,
            optimizer,
            schedule,
            health,
            ema,
            metrics,
            state,
            steering,
            ranks,
            resumed_from,
        };
        run.apply_logged()?;
        Ok(run)
    }

    pub(crate) fn finished(&self) -> bool {
        self.state.step >= self.state.steps || self.state.patience.exhausted
    }

    /// Completes a run whose configured end was moved to the current step with what every run has at its end: a validation, and a
    /// checkpoint of the schedule.
    fn close(&mut self) -> Result<(), TrainError> {
        let has_it = self.state.scheduled && !self.state.for_best;
        if !self.finished() || has_it || self.state.step == 0 {
            return Ok(());
        }
        self.validate(self.state.epoch)?;
        self.save_or_wait(SaveReason::Schedule)
    }

    /// Reports problems with the logs since the last step.
    fn tell_troubles(&mut self) {
        for trouble in self.metrics.troubles() {
            self.observer.message(&format!("WARNING: {trouble}; training continues"));
        }
    }

    /// Returns whether the current step has a metrics line.
    fn logs(&self) -> bool {
        self.state.step.is_multiple_of(self.config.log_every) || self.finished()
    }

    /// Returns the learning rate of the next step and the factor on its loss.
    fn rate_and_scale(&self) -> (f64, f64) {
        let scale = self.state.loss_scale.as_ref().map_or(1.0, LossScale::scale);
        (self.schedule.rate(self.state.step, self.state.epoch), scale)
    }

    /// Lets the other ranks take part in the next step.
    fn order_step(&self) -> Result<(), TrainError> {
        let (rate, scale) = self.rate_and_scale();
        let next = self.state.step + 1;
        let measure = next.is_multiple_of(self.config.log_every) || next >= self.state.steps;
        self.ranks.order(&Order::Step { rate: rate.to_bits(), scale: scale.to_bits(), measure })
    }

    /// Ends the other ranks, and reports the memory of all.
    fn end_of_ranks(&mut self) -> Result<(), TrainError> {
        if self.ranks.is_alone() {
            return Ok(());
        }
        self.ranks.order(&Order::End)?;
        let peaks = self.ranks.exchange(&process_memory::peak())?;
        let peaks = peaks.iter().map(|peak| peak.map_or("?".to_owned(), amount)).collect::<Vec<_>>().join(", ");
        self.observer.message(&format!("largest memory of ranks 0 to {}: {peaks}", self.ranks.engine.size() - 1));
        Ok(())
    }

    /// Runs one step over its batches: gradient, check, update.
    fn step(&mut self, group: &Group<T::Batch>) -> Result<Progress, TrainError> {
        let (rate, scale) = self.rate_and_scale();
        let pass = ranks::gradient(self.task, self.parameters, self.config, scale, &group.own, self.ranks)?;
        let norms = gradient_norms(self.parameters, &pass.gradients, 1.0 / pass.divisor)?;
        self.log_gradients(&pass)?;
        let computed = Computed { step: self.state.step + 1, rate, pass: &pass, norms: &norms };
        let overflowed =
            computed.overflowed(&mut self.state.loss_scale, self.config, self.parameters, self.observer)?;
        if self.optimizer.updates() == 0 && !overflowed {
            let task = self.task;
            coverage::check_first_step(self.parameters, &norms, &|name| task.is_optional(name), self.observer)?;
        }
        self.state.step += 1;
        if overflowed {
            // Counted with the loss scale; the weights are unchanged.
        } else if pass.means.loss.is_finite() && norms.total.is_finite() {
            let update = Update { measure: self.logs(), ..Update::clipped(self.config, &norms, pass.divisor, rate) };
            let changes = self.optimizer.step(self.parameters, &pass.gradients, update)?;
            if update.measure {
                let messages = self.health.look(self.state.step, rate, &norms, &changes);
                messages.iter().for_each(|message| self.observer.message(message));
            }
            if let Some(ema) = &mut self.ema {
                ema.update(self.parameters)?;
            }
            self.state.window.add(&pass.means, norms.total);
            self.state.skipped_in_a_row = 0;
        } else {
            self.skip(&group.planned, &pass, &norms, rate)?;
        }
        let progress = self.progress(&pass, &norms, rate);
        let Progress { step, epoch, loss, grad_norm, rate, .. } = progress;
        tracing::trace!(step, epoch, loss, grad_norm, rate, batches = group.planned.len(), overflowed, "step");
        self.advance(&group.planned);
        Ok(progress)
    }

    /// Skips a step: leaves the weights unchanged, counts, dumps; stops after too many.
    fn skip(&mut self, batches: &[Planned], pass: &Pass, norms: &GradientNorms, rate: f64) -> Result<(), TrainError> {
        self.state.skipped += 1;
        self.state.skipped_in_a_row += 1;
        let (step, loss, in_a_row) = (self.state.step, pass.means.loss, self.state.skipped_in_a_row);
        let batches = batches.iter().map(|batch| (batch.index, &*batch.items));
        let batches = skipped::describe(self.data, batches, &pass.losses);
        let mut dump = Dump::new(&self.state, rate, batches, norms, self.parameters);
        dump.write(self.folder, self.parameters, in_a_row, self.config.skipped_weights)
            .or_else(|error| missed(error, "the dump of a skipped step is not written", self.observer))?;
        let dump = dump.path(self.folder);
        let (norm, later) = (norms.total, self.observer.final_place(&dump));
        let later = later.map_or(String::new(), |place| format!(", and in {} once training is done", place.display()));
        self.observer.message(&format!(
            "step {step} is skipped: loss {loss}, gradient norm {norm}; details in {}{later}",
            dump.display()
        ));
        if in_a_row < self.config.max_skipped_in_a_row {
            return Ok(());
        }
        let parameters = coverage::shorten(&norms.not_finite(self.parameters));
        Err(TrainError::Diverged { in_a_row, step, loss, rate, parameters, dump })
    }

    fn progress(&self, pass: &Pass, norms: &GradientNorms, rate: f64) -> Progress {
        let State { step, steps, epoch, .. } = self.state;
        Progress { step, steps, epoch, rate, ..Progress::measured(&pass.means, norms) }
    }

    fn advance(&mut self, batches: &[Planned]) {
        if let Some(batch) = batches.last() {
            (self.state.epoch, self.state.position) =
                if batch.last { (batch.epoch + 1, 0) } else { (batch.epoch, batch.index + 1) };
        }
    }

    /// Writes metrics, validation and checkpoint, each if it is due.
    fn record(&mut self, progress: &Progress, interrupted: bool) -> Result<(), TrainError> {
        let State { step, epoch, position, .. } = self.state;
        let due = |interval: Interval| interval.due(step, epoch, position);
        let log = self.logs();
        if log {
            self.log(progress)?;
        }
        self.state.validation = None;
        let best_before = self.state.best;
        if due(self.config.save_every) || due(self.config.validate_every) || self.finished() {
            self.validate(progress.epoch)?;
        }
        if self.finished() && !log {
            // Validation has just ended the run.
            self.log(progress)?;
        }
        if self.config.sample_every > 0 && step.is_multiple_of(self.config.sample_every) {
            let sampled = self.sample();
            sampled.or_else(|error| missed(error, "these samples are not kept", self.observer))?;
        }
        let improved = self.state.best != best_before;
        let reason = match improved && self.config.keep.best > 0 {
            _ if due(self.config.save_every) || self.finished() => SaveReason::Schedule,
            true => SaveReason::Best,
            false if interrupted => SaveReason::Request,
            false => return Ok(()),
        };
        if self.finished() || interrupted {
            return self.save_or_wait(reason);
        }
        self.save(reason).or_else(|error| {
            // The best validation must have a checkpoint, and this one could not be saved.
            self.state.best = best_before;
            missed(error, "this checkpoint is not saved, the previous one stays", self.observer)
        })
    }

    fn log(&mut self, progress: &Progress) -> Result<(), TrainError> {
        let window = std::mem::take(&mut self.state.window);
        self.state.loss = window.means().map(|(means, _)| shorten(means.loss));
        let State { skipped, loss_scale, .. } = &self.state;
        self.metrics.train(progress.step, progress.epoch, &window, progress.rate, *skipped, loss_scale.as_ref())?;
        match self.health.take().filter(|_| self.config.log_groups) {
            Some(groups) => self.metrics.groups(progress.step, progress.epoch, &groups),
            None => Ok(()),
        }
    }

    /// Writes histograms of the gradients, if they are due.
    fn log_gradients(&mut self, pass: &Pass) -> Result<(), TrainError> {
        let step = self.state.step + 1;
        match self.config.log_gradients {
            every if every > 0 && step.is_multiple_of(every) => {
                self.metrics.gradients(step, self.parameters, &pass.gradients, 1.0 / pass.divisor)
            }
            _ => Ok(()),
        }
    }

    /// Returns the means over the validation batches, which the ranks share.
    pub(crate) fn validation_means(&mut self) -> Result<Option<Measured>, TrainError> {
        self.ranks.order(&Order::Validate)?;
        let (task, data, seed, ranks) = (self.task, self.data, self.config.seed, self.ranks);
        self.averaged(|parameters| ranks::validate(task, parameters, data, seed, ranks))
    }

    fn validate(&mut self, epoch: u64) -> Result<(), TrainError> {
        let Some(means) = self.validation_means()? else { return Ok(()) };
        self.state.validated(shorten(means.loss), self.config.early_stopping.as_ref());
        tracing::debug!(step = self.state.step, loss = means.loss, best = ?self.state.best, "validated");
        self.metrics.validation(self.state.step, epoch, &means)?;
        self.observer.validated(self.state.step, means.loss);
        Ok(())
    }

    pub(crate) fn save(&mut self, reason: SaveReason) -> Result<(), TrainError> {
        self.state.metrics = self.metrics.sync()?;
        self.state.scheduled = reason != SaveReason::Request;
        self.state.for_best = reason == SaveReason::Best;
        if self.config.zero > 0 {
            self.ranks.order(&Order::State)?;
        }
        let contents =
            Contents { parameters: self.parameters, optimizer: &mut *self.optimizer, ema: self.ema.as_mut() };
        checkpoint::save(self.store, &self.state, contents)?;
        let pruned = checkpoint::prune(self.store, &self.config.keep, self.observer);
        pruned.or_else(|error| missed(error, "older checkpoints are not removed", self.observer))
    }
}

/// Reason for a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaveReason {
    /// The schedule has one at this step, or the run ends.
    Schedule,
    /// The validation is the best so far.
    Best,
    /// A person asked for it, or the run is interrupted.
    Request,
}

/// Sets the best validation to one that has a checkpoint, if the checkpoint of the best is gone: damaged, or rolled back.
fn keep_best_to_what_is_there(
    state: &mut State,
    store: &dyn CheckpointStore,
    config: &TrainConfig,
) -> Result<(), TrainError> {
    let names = checkpoint::names(store)?;
    let gone = state.best.is_some_and(|best| !names.contains(&checkpoint::name(best.step)));
    if gone && config.keep.best > 0 {
        state.best = checkpoint::best(store)?;
    }
    Ok(())
}

/// Reports warnings that became known with the length of the run, which was unknown before the data were read.
fn tell_warnings<D: DataSource>(data: &D, config: &TrainConfig, horizon: Horizon, observer: &mut dyn Observer) {
    let validates = !data.validation().is_empty();
    let epochs = if horizon.epochs > 0 { Some(horizon.epochs) } else { config.max_epochs };
    let length = RunLength { steps: Some(horizon.steps), epochs };
    let before = config.warnings(RunLength::limits(config), validates);
    let news = config.warnings(length, validates).into_iter().filter(|warning| !before.contains(warning));
    news.for_each(|warning| observer.message(&format!("WARNING: {warning}")));
}
