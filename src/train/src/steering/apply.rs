//! Execution of commands between two steps.

use std::path::{Path, PathBuf};

use flowmill_nn::Parameters;

use super::{Answer, Change, Command, Order, Positive};
use crate::checkpoint::State;
use crate::train::{Run, SaveReason};
use crate::{DataSource, Progress, Task, TrainError, checkpoint, samples};

impl<T, D> Run<'_, T, D>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    /// Applies the stored changes for the current step, unless they are in effect already.
    pub(crate) fn apply_logged(&mut self) -> Result<(), TrainError> {
        self.apply_logged_scale()?;
        match self.steering.log.rate(self.state.step) {
            Some(rate) if self.state.lr != Some(rate) => {
                self.state.lr = Some(rate);
                self.schedule.set_base(rate.value());
                self.metrics.command(self.state.step, self.state.epoch, &Command::Lr(rate))
            }
            _ => Ok(()),
        }
    }

    fn apply_logged_scale(&mut self) -> Result<(), TrainError> {
        let kept = self.steering.log.loss_scale(self.state.step);
        let (Some(kept), Some(scale), Some(settings)) = (kept, &mut self.state.loss_scale, self.config.loss_scale())
        else {
            return Ok(());
        };
        let before = scale.clone();
        // The stored value was valid under the same settings when it was given.
        match scale.set(kept.value(), &settings) {
            Ok(()) if *scale != before => {
                self.metrics.command(self.state.step, self.state.epoch, &Command::LossScale(kept))
            }
            _ => Ok(()),
        }
    }

    /// Executes commands scheduled for a step that is done but that an earlier process could not execute; returns whether to stop the
    /// run.
    pub(crate) fn catch_up(&mut self) -> bool {
        if let Some(told) = self.steering.put_off.told() {
            self.observer.message(&format!("put off before this process began: {told}"));
        }
        let State { step, steps, epoch, loss, .. } = self.state;
        let (loss, rate) = (loss.unwrap_or(f64::NAN), self.schedule.rate(step, epoch));
        let stop = self.carry_out_due(&Progress { step, steps, epoch, loss, rate, ..Progress::default() });
        stop && !self.finished()
    }

    /// Executes what is due and what was requested since the last step; returns whether to stop the run. A command that fails
    /// does not end the run.
    pub(crate) fn apply_commands(&mut self, progress: &Progress) -> Result<bool, TrainError> {
        let mut stop = self.carry_out_due(progress);
        for request in self.observer.requests() {
            let answer = match request.text.parse::<Order>() {
                Ok(order) => self.accept(order, progress, &mut stop),
                Err(error) => Err(error.to_string()),
            };
            self.observer.answer(&request, &answer);
        }
        self.apply_logged()?;
        Ok(stop && !self.finished())
    }

    /// Executes commands scheduled for this step; returns whether to stop the run. The execution is recorded afterwards: if the process
    /// dies in between, the next one repeats it; if it dies before, the next one does it.
    fn carry_out_due(&mut self, progress: &Progress) -> bool {
        let mut stop = false;
        for order in self.steering.put_off.due(progress.step) {
            let answer = self.carry_out(order.command, progress, &mut stop);
            let told = answer.unwrap_or_else(|reason| format!("not done: {reason}"));
            self.observer.message(&format!("{order}: {told}"));
            if let Err(error) = self.steering.put_off.done(order) {
                self.observer
                    .message(&format!("WARNING: {order} will be carried out again when the run is resumed: {error}"));
            }
        }
        stop
    }

    /// Executes a command now, or schedules it for its step.
    fn accept(&mut self, order: Order, progress: &Progress, stop: &mut bool) -> Answer {
        let (now, last) = (progress.step, progress.steps);
        match (order.command, order.at) {
            (_, Some(at)) if at < now => Err(format!("step {at} is over: {now} steps are done")),
            (_, Some(at)) if at > last => Err(format!("there will be no step {at}: the run ends at {last}")),
            (Command::Lr(rate), at) => self.set_rate(at.unwrap_or(now), rate),
            (Command::LossScale(scale), at) => self.set_scale(at.unwrap_or(now), scale),
            (command, Some(at)) if at > now => {
                self.steering.put_off.add(order).map_err(|error| error.to_string())?;
                Ok(format!("step {now}: `{command}` comes after step {at}, also if the run is resumed before"))
            }
            (command, _) => self.carry_out(command, progress, stop),
        }
    }

    fn carry_out(&mut self, command: Command, progress: &Progress, stop: &mut bool) -> Answer {
        let step = progress.step;
        let done = match command {
            Command::Save => self.save_by_command()?,
            Command::Quit => {
                let saved = self.save_by_command()?;
                *stop = true;
                format!("{saved}; stopping here, the same command continues the run")
            }
            Command::Lr(rate) => return self.set_rate(step, rate),
            Command::Eval => self.eval()?,
            Command::Sample => self.make_aside("samples", |task, parameters, folder| {
                let made = task.samples(parameters).map_err(|error| error.to_string())?;
                samples::write(folder, &made).map_err(|error| error.to_string())
            })?,
            Command::Export => self.make_aside("export", |task, parameters, folder| {
                task.export(parameters, folder).map_err(|error| error.to_string())
            })?,
            Command::Status => self.describe(progress),
            Command::LossScale(scale) => return self.set_scale(step, scale),
        };
        Ok(format!("step {step}: {done}"))
    }

    fn set_rate(&mut self, step: u64, rate: Positive) -> Answer {
        if step >= self.state.steps {
            return Err(format!("no step comes after {step}: the run ends there"));
        }
        let before = self.state.lr.map_or_else(|| self.config.optim.lr.to_string(), |rate| rate.to_string());
        self.steering.log.add(step, Change::Lr(rate)).map_err(|error| error.to_string())?;
        Ok(format!(
            "step {}: the full learning rate is {rate} from step {} on; now {before}",
            self.state.step,
            step + 1
        ))
    }

    fn set_scale(&mut self, step: u64, scale: Positive) -> Answer {
        let (Some(present), Some(settings)) = (&self.state.loss_scale, self.config.loss_scale()) else {
            let precision = serde_json::json!(self.config.precision);
            return Err(format!("precision is {}: there is no loss scale", precision.as_str().unwrap_or("another")));
        };
        if step >= self.state.steps {
            return Err(format!("no step comes after {step}: the run ends there"));
        }
        // This checks whether it may be set; its value at that step does not matter.
        present.clone().set(scale.value(), &settings)?;
        let before = present.scale();
        self.steering.log.add(step, Change::LossScale(scale)).map_err(|error| error.to_string())?;
        Ok(format!("step {}: the loss scale is {scale} in step {}; now {before}", self.state.step, step + 1))
    }

    /// Saves, unless the schedule has just saved.
    fn save_by_command(&mut self) -> Answer {
        let name = checkpoint::name(self.state.step);
        let names = checkpoint::names(self.store).map_err(|error| error.to_string())?;
        if names.contains(&name) {
            return Ok(format!("{name} is saved already"));
        }
        self.save(SaveReason::Request).map_err(|error| error.to_string())?;
        Ok(format!("saved {name}, which stays until the next checkpoint of the schedule"))
    }

    /// Validates without changing metrics or checkpoints, which contain only what the recipe configures.
    fn eval(&mut self) -> Answer {
        let means = self.validation_means();
        match means.map_err(|error| error.to_string())? {
            Some(means) => {
                let parts =
                    means.present_parts().map(|(name, value)| format!(", {name} {value:.6}")).collect::<String>();
                Ok(format!("validation loss {:.6}{parts}", means.loss))
            }
            None => Err("there is no validation split".to_owned()),
        }
    }

    /// Creates a folder outside of the results, completely or not at all.
    fn make_aside(&mut self, kind: &str, make: impl Fn(&T, &Parameters, &Path) -> Result<(), String>) -> Answer {
        let Some(aside) = self.observer.aside() else {
            return Err("there is no place to write to".to_owned());
        };
        let (task, folder) = (self.task, aside.join(kind).join(checkpoint::name(self.state.step)));
        let made = self.averaged(|parameters| Ok(whole_folder(&folder, |temporary| make(task, parameters, temporary))));
        made.map_err(|error| error.to_string())??;
        Ok(format!("wrote {}", folder.display()))
    }

    fn describe(&self, progress: &Progress) -> String {
        let Progress { steps, epoch, loss, rate, grad_norm, .. } = progress;
        let mut text = format!("of {steps}, epoch {epoch}, loss {loss:.4}, lr {rate:.3e}, gradient {grad_norm:.3}");
        if let Some(best) = self.state.best {
            let kept = if self.config.keep.best > 0 { "" } else { " (keep.best is 0: its checkpoint may be gone)" };
            text += &format!(", best validation {:.4} at step {}{kept}", best.loss, best.step);
        }
        if self.state.skipped > 0 {
            text += &format!(", {} steps skipped", self.state.skipped);
        }
        if let Some(seconds) = self.steering.seconds_per_step(progress.step) {
            let left = seconds * steps.saturating_sub(progress.step) as f64;
            text += &format!(", {:.2} steps/s, {} left", 1.0 / seconds.max(1e-9), minutes(left));
        }
        text
    }

    /// Calls `with` with the averaged weights in place, if there are any.
    pub(crate) fn averaged<R>(
        &mut self,
        with: impl FnOnce(&Parameters) -> Result<R, TrainError>,
    ) -> Result<R, TrainError> {
        if let Some(ema) = &mut self.ema {
            ema.swap(self.parameters)?;
        }
        let result = with(self.parameters);
        if let Some(ema) = &mut self.ema {
            ema.swap(self.parameters)?;
        }
        result
    }
}

/// Creates a folder that appears under its name when it is complete; an existing one of that name is replaced.
fn whole_folder(folder: &Path, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
    let fail = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("{path}: {error}")
    };
    let temporary = PathBuf::from(format!("{}.tmp", folder.display()));
    remove(&temporary).map_err(fail(&temporary))?;
    std::fs::create_dir_all(&temporary).map_err(fail(&temporary))?;
    let made = make(&temporary)
        .and_then(|()| remove(folder).and_then(|()| std::fs::rename(&temporary, folder)).map_err(fail(folder)));
    if made.is_err() {
        // The error to report is the one already here.
        let _already_failing = remove(&temporary);
    }
    made
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Formats a duration for people: `40 s`, `12 min`, `5 h 10 min`.
fn minutes(seconds: f64) -> String {
    // A float to integer cast saturates.
    let whole = seconds.round() as u64;
    match whole {
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min", (whole + 30) / 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}
