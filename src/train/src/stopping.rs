//! Stopping before the last step: when validation no longer improves, or the time is up.

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Observer, TrainConfig, TrainError};

/// The rule that ends training when validation stops improving.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// Number of consecutive validations without an improvement that end the run.
    ///
    /// Counterparts: `patience`.
    pub patience: u64,
    /// Smallest decrease of the validation loss that counts as an improvement.
    #[serde(default)]
    pub min_delta: f64,
}

impl EarlyStopping {
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        let fail = |key, reason: &str| Err(TrainError::Config { key, reason: reason.to_owned() });
        if self.patience == 0 {
            return fail("early_stopping.patience", "must be at least 1");
        }
        if !(self.min_delta >= 0.0 && self.min_delta.is_finite()) {
            return fail("early_stopping.min_delta", "must be a number, 0 or more");
        }
        Ok(())
    }
}

/// End of a run: a number of steps or passes over the data, whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Steps.
    pub max_steps: Option<u64>,
    /// Passes over the data.
    pub max_epochs: Option<u64>,
}

impl Limits {
    /// The limits that a configuration sets.
    pub fn of(config: &TrainConfig) -> Self {
        Self { max_steps: config.max_steps, max_epochs: config.max_epochs }
    }

    /// Returns whether a run has reached a limit after `step` steps and `epoch` passes.
    pub fn reached(&self, step: u64, epoch: u64) -> bool {
        self.max_steps.is_some_and(|limit| step >= limit) || self.max_epochs.is_some_and(|limit| epoch >= limit)
    }

    /// Returns whether a run is beyond a limit after `step` steps, `epoch` passes and `position` batches of the next pass.
    pub fn passed(&self, step: u64, epoch: u64, position: u64) -> bool {
        self.max_steps.is_some_and(|limit| step > limit)
            || self.max_epochs.is_some_and(|limit| epoch > limit || (epoch == limit && position > 0))
    }
}

/// Progress without an improvement of validation: part of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patience {
    /// The loss to improve upon.
    reference: Option<f64>,
    /// Number of validations since then.
    pub waited: u64,
    /// True if the run has ended for this reason.
    pub exhausted: bool,
}

impl Patience {
    /// Decides whether the run has ended, by a rule that may have changed.
    pub fn judge(&mut self, rule: Option<&EarlyStopping>) {
        self.exhausted = rule.is_some_and(|rule| self.waited >= rule.patience);
    }

    /// Takes a validation loss into account. One that is not finite is not an improvement.
    pub(crate) fn validated(&mut self, loss: f64, rule: &EarlyStopping) {
        let improved = loss.is_finite() && self.reference.is_none_or(|best| loss < best - rule.min_delta);
        if improved {
            (self.reference, self.waited) = (Some(loss), 0);
        } else {
            self.waited += 1;
        }
        self.exhausted |= self.waited >= rule.patience;
    }
}

/// Time limit of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    started: Instant,
    limit: Option<Duration>,
}

impl Deadline {
    pub(crate) fn starting_now(config: &TrainConfig) -> Self {
        Self { started: Instant::now(), limit: config.max_seconds.map(Duration::from_secs) }
    }

    /// Returns whether the time is up, and reports it.
    pub(crate) fn is_over(&self, observer: &mut dyn Observer) -> bool {
        let limit = self.limit.filter(|limit| self.started.elapsed() >= *limit);
        if let Some(limit) = limit {
            let seconds = limit.as_secs();
            observer.message(&format!(
                "max_seconds: {seconds} seconds are over; saving and stopping; the same command continues the run"
            ));
        }
        limit.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_counts_validations_without_an_improvement() {
        let rule = EarlyStopping { patience: 2, min_delta: 0.1 };
        let mut patience = Patience::default();
        let mut after = |loss| {
            patience.validated(loss, &rule);
            (patience.waited, patience.exhausted)
        };
        assert_eq!(after(1.0), (0, false));
        assert_eq!(after(0.95), (1, false), "less than min_delta is no improvement");
        assert_eq!(after(0.8), (0, false));
        assert_eq!(after(f64::NAN), (1, false));
        assert_eq!(after(0.75), (2, true));
        assert_eq!(after(0.1), (0, true), "what has ended stays ended");
    }

    #[test]
    fn another_rule_judges_the_same_wait_anew() {
        let mut patience = Patience { reference: Some(1.0), waited: 3, exhausted: true };
        patience.judge(Some(&EarlyStopping { patience: 4, min_delta: 0.0 }));
        assert!(!patience.exhausted);
        patience.judge(Some(&EarlyStopping { patience: 3, min_delta: 0.0 }));
        assert!(patience.exhausted);
        patience.judge(None);
        assert!(!patience.exhausted);
    }

    #[test]
    fn limits_are_reached_at_their_step_and_passed_after_it() {
        let limits = Limits { max_steps: Some(10), max_epochs: Some(3) };
        assert!(!limits.reached(9, 2) && limits.reached(10, 0) && limits.reached(1, 3));
        assert!(!limits.passed(10, 3, 0) && limits.passed(11, 0, 0) && limits.passed(5, 3, 1));
        assert!(!Limits { max_steps: None, max_epochs: None }.reached(u64::MAX, u64::MAX));
    }

    #[test]
    fn rules_that_cannot_be_used_are_refused() {
        assert!(EarlyStopping { patience: 0, min_delta: 0.0 }.check().is_err());
        assert!(EarlyStopping { patience: 1, min_delta: f64::NAN }.check().is_err());
        EarlyStopping { patience: 1, min_delta: 0.0 }.check().unwrap();
    }
}
