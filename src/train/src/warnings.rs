//! Warnings about valid settings with unexpected effects, issued before the first step.

use crate::interval::{Epochs, Interval};
use crate::schedule::{Horizon, Per, Schedule, ScheduleName};
use crate::{EarlyStopping, TrainConfig};

/// Share above which the averaged weights consist mostly of the initial ones.
const MOSTLY_FIRST_WEIGHTS: f64 = 0.5;

/// The known length of a run: the limits before the data are read, the exact length afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLength {
    /// Steps, at most.
    pub steps: Option<u64>,
    /// Passes over the data, at most.
    pub epochs: Option<u64>,
}

impl RunLength {
    /// The limits that the configuration sets.
    pub fn limits(config: &TrainConfig) -> Self {
        Self { steps: config.max_steps, epochs: config.max_epochs }
    }

    /// Returns how often an interval is due at most; `None` if unknown.
    pub fn times(self, interval: Interval) -> Option<u64> {
        match interval {
            Interval::Steps(0) | Interval::Epochs(Epochs { epochs: 0 }) => Some(0),
            Interval::Steps(every) => Some(self.steps? / every),
            Interval::Epochs(Epochs { epochs: every }) => Some(self.epochs? / every),
        }
    }

    /// Returns whether a configured action never happens.
    fn never(self, interval: Interval) -> bool {
        let asked_for = !matches!(interval, Interval::Steps(0) | Interval::Epochs(Epochs { epochs: 0 }));
        asked_for && self.times(interval) == Some(0)
    }

    /// Returns the length in the interval's unit, for people.
    fn told(self, interval: Interval) -> String {
        match interval {
            Interval::Steps(_) => format!("{} steps", self.steps.unwrap_or(0)),
            Interval::Epochs(_) => format!("{} epochs", self.epochs.unwrap_or(0)),
        }
    }
}

impl TrainConfig {
    /// Returns warnings about a run of this length at most; `validates` is true if there is data to validate on.
    pub fn warnings(&self, length: RunLength, validates: bool) -> Vec<String> {
        let mut found = Vec::new();
        found.extend(self.warm_up(length));
        found.extend(self.never_saved(length));
        if validates {
            found.extend(self.never_validated(length));
            found.extend(self.early_stopping.and_then(|rule| self.never_stops_early(rule, length)));
            if self.keep.best == 0 {
                found.push(format!(
                    "train.keep.best is 0: the best step by validation loss has a checkpoint only while it is among the last {}",
                    self.keep.last
                ));
            }
        }
        found.extend(self.never_sampled(length, validates));
        found.extend(self.never_logged(length));
        found.extend(self.never_kept(length));
        found.extend(self.average_of_first_weights(length));
        found
    }

    /// Warns about a warm-up or hold that the run ends before.
    fn warm_up(&self, length: RunLength) -> Option<String> {
        let (total, unit) = match self.schedule.per {
            Per::Step => (length.steps?, "steps"),
            Per::Epoch => (length.epochs?, "epochs"),
        };
        if !self.schedule.has("schedule.warmup_steps") {
            return None;
        }
        let (warmup, base) = (self.schedule.warmup_steps, self.optim.lr);
        if warmup >= total {
            let schedule = Schedule::new(&self.schedule, base, Horizon { steps: total, epochs: total });
            let last = schedule.rate(total.saturating_sub(1), total.saturating_sub(1));
            return Some(format!(
                "train.schedule.warmup_steps: the warm-up takes {warmup} {unit} and the run has {total}: the learning rate is still \
                 rising when it ends, at {last:.2e} of {base:e}; set a shorter warm-up, or `name: constant`"
            ));
        }
        let hold = self.schedule.hold_steps.unwrap_or(0);
        let held = self.schedule.name == ScheduleName::NoamHoldAnnealing && warmup.saturating_add(hold) >= total;
        held.then(|| {
            format!(
                "train.schedule.hold_steps: warm-up and hold take {} {unit} and the run has {total}: the learning rate never falls",
                warmup.saturating_add(hold)
            )
        })
    }

    fn never_saved(&self, length: RunLength) -> Option<String> {
        length.never(self.save_every).then(|| {
            format!(
                "train.save_every: the run ends before ({}): its only checkpoint of the schedule is made at the end, and a crash before \
                 loses everything",
                length.told(self.save_every)
            )
        })
    }

    fn never_validated(&self, length: RunLength) -> Option<String> {
        let saved = length.times(self.save_every).is_none_or(|times| times > 0);
        let when = if saved { "with the checkpoints" } else { "at the end" };
        length.never(self.validate_every).then(|| {
            let told = length.told(self.validate_every);
            format!("train.validate_every: the run ends before ({told}): the validation loss is measured only {when}")
        })
    }

    fn never_stops_early(&self, rule: EarlyStopping, length: RunLength) -> Option<String> {
        let most = self.validations(length)?;
        // The first one sets the reference; one that ends the run at its end changes nothing.
        (most <= rule.patience.saturating_add(1)).then(|| {
            format!(
                "train.early_stopping: patience {} needs {} validations before the end, and there are {most} in all: it cannot end the \
                 run early; lower patience or validate_every",
                rule.patience,
                rule.patience.saturating_add(1)
            )
        })
    }

    /// Returns the largest number of validations: at their own interval, with every checkpoint, and at the end.
    fn validations(&self, length: RunLength) -> Option<u64> {
        let (own, saved) = (length.times(self.validate_every)?, length.times(self.save_every)?);
        let (Interval::Steps(a), Interval::Steps(b), Some(steps)) =
            (self.validate_every, self.save_every, length.steps)
        else {
            return Some(own + saved + 1);
        };
        let both = common_multiple(a, b).map_or(0, |both| steps / both);
        let at_end = [a, b].iter().any(|&every| every > 0 && steps.is_multiple_of(every));
        Some(own + saved - both + u64::from(!at_end))
    }

    fn never_sampled(&self, length: RunLength, validates: bool) -> Option<String> {
        if self.sample_every == 0 {
            return None;
        }
        if !validates {
            let text = "train.sample_every: samples are made of validation utterances, and there are none: nothing is generated";
            return Some(text.to_owned());
        }
        let every = Interval::Steps(self.sample_every);
        let text = || format!("train.sample_every: the run ends before ({}): nothing is generated", length.told(every));
        length.never(every).then(text)
    }

    fn never_logged(&self, length: RunLength) -> Vec<String> {
        let (lines, histograms) = (Interval::Steps(self.log_every), Interval::Steps(self.log_gradients));
        let mut found = Vec::new();
        if length.never(lines) {
            let told = length.told(lines);
            found.push(format!("train.log_every: the run ends before ({told}): the metrics have one line, at the end"));
        }
        if length.never(histograms) {
            let told = length.told(histograms);
            found.push(format!("train.log_gradients: the run ends before ({told}): there is no histogram"));
        }
        found
    }

    /// Warns about checkpoints to be kept at multiples where none is made.
    fn never_kept(&self, length: RunLength) -> Option<String> {
        let every = self.keep.every;
        let made_at = match self.save_every {
            Interval::Steps(saved) if saved > 0 => common_multiple(saved, every)?,
            // Only the end is certain to have one.
            _ => every,
        };
        let never = every > 0 && length.steps.is_some_and(|steps| steps < made_at && !steps.is_multiple_of(every));
        never.then(|| {
            format!("train.keep.every: no checkpoint is made at a multiple of {every} steps, so it keeps none")
        })
    }

    fn average_of_first_weights(&self, length: RunLength) -> Option<String> {
        let (decay, steps) = (self.ema_decay?, length.steps?);
        let share = decay.powf(steps as f64);
        (share >= MOSTLY_FIRST_WEIGHTS).then(|| {
            format!(
                "train.ema_decay: {decay} averages over some {:.0} steps and the run has {steps}: {:.0} % of what is validated and exported \
                 are still the first weights; set a lower decay",
                1.0 / (1.0 - decay),
                100.0 * share
            )
        })
    }
}

/// Returns the lowest common multiple; `None` if there is none or it exceeds any run.
fn common_multiple(a: u64, b: u64) -> Option<u64> {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a.checked_div(x)?.checked_mul(b).filter(|multiple| *multiple > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeepConfig, ScheduleConfig};

    fn steps(steps: u64) -> RunLength {
        RunLength { steps: Some(steps), epochs: None }
    }

    /// A run of 60 steps without warnings.
    fn quiet() -> TrainConfig {
        TrainConfig {
            schedule: ScheduleConfig { name: ScheduleName::Constant, ..ScheduleConfig::default() },
            validate_every: Interval::Steps(10),
            save_every: Interval::Steps(20),
            max_steps: Some(60),
            ..TrainConfig::default()
        }
    }

    /// Returns the keys with warnings.
    fn keys(config: &TrainConfig, length: RunLength, validates: bool) -> Vec<String> {
        let warnings = config.warnings(length, validates);
        warnings.iter().map(|text| text.split([':', ' ']).next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn a_sensible_run_has_no_warning() {
        assert_eq!(keys(&quiet(), steps(60), true), [""; 0]);
        assert_eq!(keys(&quiet(), RunLength { steps: None, epochs: None }, true), [""; 0], "nothing is known");
    }

    #[test]
    fn a_warm_up_that_outlasts_the_run_is_told_with_the_rate_that_it_gets_to() {
        let warm = |name, warmup_steps, per| ScheduleConfig { name, warmup_steps, per, ..ScheduleConfig::default() };
        let with = |schedule| TrainConfig { schedule, ..quiet() };
        let long = with(warm(ScheduleName::WarmupLr, 120, Per::Step));
        assert_eq!(keys(&long, steps(60), true), ["train.schedule.warmup_steps"]);
        let told = &long.warnings(steps(60), true)[0];
        assert!(["5.00e-4", "1e-3"].iter().all(|rate| told.contains(rate)), "{told}");
        assert!(keys(&long, steps(121), true).is_empty());
        let epochs = with(warm(ScheduleName::WarmupCosine, 5, Per::Epoch));
        let length = |epochs| RunLength { steps: None, epochs: Some(epochs) };
        assert_eq!(keys(&epochs, length(3), true), ["train.schedule.warmup_steps"]);
        assert!(keys(&epochs, length(6), true).is_empty());
        let mut held = warm(ScheduleName::NoamHoldAnnealing, 10, Per::Step);
        held.hold_steps = Some(50);
        assert_eq!(keys(&with(held), steps(60), true), ["train.schedule.hold_steps"]);
    }

    #[test]
    fn what_the_run_is_too_short_for_is_told() {
        let far = TrainConfig {
            save_every: Interval::Steps(100),
            validate_every: Interval::Steps(61),
            sample_every: 70,
            log_every: 80,
            log_gradients: 90,
            ..quiet()
        };
        let expected = ["save_every", "validate_every", "sample_every", "log_every", "log_gradients"];
        assert_eq!(keys(&far, steps(60), true), expected.map(|key| format!("train.{key}")));
        assert!(keys(&far, steps(1000), true).is_empty());
        let epochs = Interval::Epochs(Epochs { epochs: 4 });
        let far = TrainConfig { save_every: epochs, ..quiet() };
        assert_eq!(keys(&far, RunLength { steps: Some(60), epochs: Some(3) }, true), ["train.save_every"]);
    }

    #[test]
    fn early_stopping_needs_one_validation_more_than_its_patience() {
        let with = |patience, validate_every, save_every| TrainConfig {
            early_stopping: Some(EarlyStopping { patience, min_delta: 0.0 }),
            validate_every: Interval::Steps(validate_every),
            save_every: Interval::Steps(save_every),
            ..quiet()
        };
        // Validations at 10, 20 .. 60, and at 20 and 40 with checkpoints.
        assert_eq!(with(1, 10, 20).validations(steps(60)), Some(6));
        assert_eq!(with(1, 25, 20).validations(steps(60)), Some(5), "20, 25, 40, 50, 60");
        assert_eq!(with(1, 25, 0).validations(steps(60)), Some(3), "25, 50, 60");
        assert!(keys(&with(4, 10, 20), steps(60), true).is_empty());
        assert_eq!(keys(&with(5, 10, 20), steps(60), true), ["train.early_stopping"]);
        assert!(keys(&with(5, 10, 20), steps(60), false).is_empty(), "that is refused elsewhere");
    }

    #[test]
    fn retention_and_averages_that_do_nothing_are_told() {
        let keep = |best, every| TrainConfig { keep: KeepConfig { best, every, ..KeepConfig::default() }, ..quiet() };
        assert_eq!(keys(&keep(0, 0), steps(60), true), ["train.keep.best"]);
        assert!(keys(&keep(0, 0), steps(60), false).is_empty());
        assert_eq!(keys(&keep(1, 50), steps(60), true), ["train.keep.every"], "20, 40 and 60 are no multiples of 50");
        assert!(keys(&keep(1, 30), steps(60), true).is_empty(), "60 is one of 30");
        let averaged = |decay| TrainConfig { ema_decay: Some(decay), ..quiet() };
        assert_eq!(keys(&averaged(0.9999), steps(60), true), ["train.ema_decay"]);
        assert!(keys(&averaged(0.9), steps(60), true).is_empty());
        let sampled = TrainConfig { sample_every: 10, ..quiet() };
        assert_eq!(keys(&sampled, steps(60), false), ["train.sample_every"]);
    }
}
