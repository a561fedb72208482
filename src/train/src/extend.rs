//! Continuation of a run to another end than the one it was started for.

use crate::checkpoint::{FORMAT, State};
use crate::identity::{Identity, RunIdentity};
use crate::schedule::{Horizon, Schedule};
use crate::steering::Positive;
use crate::stopping::Limits;
use crate::{Observer, TrainConfig, TrainError};

/// Sets the end of a loaded state to the configured one, and reports what that changes.
///
/// # Errors
/// When the run is beyond that end.
pub(crate) fn to(
    mut state: State,
    identity: Identity,
    config: &TrainConfig,
    horizon: Horizon,
    observer: &mut dyn Observer,
) -> Result<State, TrainError> {
    let (before, after) = (state.steps, horizon.steps);
    if state.step > after {
        let key = if config.max_steps == Some(after) { "max_steps" } else { "max_epochs" };
        let reason = format!(
            "{} steps are done, so the run cannot end at step {after}: set it back, or go back to a checkpoint at or before that step \
             with `flowmill train RECIPE --rollback STEP`",
            state.step
        );
        return Err(TrainError::Config { key, reason });
    }
    let was_over = state.step >= before || state.patience.exhausted;
    state.patience.judge(config.early_stopping.as_ref());
    let is_over = state.step >= after || state.patience.exhausted;
    if before != after {
        let what = if was_over && !is_over { "the finished run is extended: it" } else { "the run" };
        observer.message(&format!("{what} ends at step {after} instead of {before}"));
        tell_schedule(&state, config, horizon, observer);
    } else if was_over && !is_over {
        observer.message(&format!("the run had stopped early at step {}; it continues to step {after}", state.step));
    }
    // New checkpoints have the current layout.
    (state.format, state.run) = (FORMAT, RunIdentity::Listed(Box::new(identity)));
    (state.steps, state.limits) = (after, Some(Limits::of(config)));
    Ok(state)
}

/// Reports how another end changes the learning rate, if the schedule depends on it.
fn tell_schedule(state: &State, config: &TrainConfig, horizon: Horizon, observer: &mut dyn Observer) {
    let name = config.schedule.name;
    if !name.has_horizon() {
        let told =
            format!("the learning rate is that of a run of this length from the start: {name} does not depend on it");
        return observer.message(&told);
    }
    let base = state.lr.map_or(config.optim.lr, Positive::value);
    let rate = Schedule::new(&config.schedule, base, horizon).rate(state.step, state.epoch);
    observer.message(&format!(
        "the schedule {name} is now spread over {} steps: from step {} on the learning rate is {rate:.3e}, falling to its end at the new \
         last step. What was trained before followed the old schedule, so the result is not that of a run of this length from the start",
        horizon.steps,
        state.step + 1
    ));
}
