//! Resuming of a training: its progress, its settings, and the effect of a different end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowmill_family::Registry;
use flowmill_runner::{End, Reached, Restored, Resumable, StageError, WorkRecord};
use flowmill_train::checkpoint::{State, read_state, step_of};
use flowmill_train::metrics::{EVENTS_FILE, METRICS_FILE, REFERENCES_FILE, WANDB_FOLDER};
use flowmill_train::steering::COMMANDS_FILE;
use flowmill_train::{EarlyStopping, Limits, RunIdentity, SKIPPED_FOLDER, ScheduleConfig, TrainError};
use serde_json::Value;

use crate::evaluate::checkpoints_in;
use crate::{CHECKPOINTS, SAMPLES, identity};

/// Returns the rules for resuming a training from its folder or from its results.
pub fn resumable(registry: &Registry) -> Resumable {
    let registry = registry.clone();
    Resumable {
        reached,
        on_stop: "saving and stopping after the present step; a second Ctrl-C stops immediately and loses the steps after the newest checkpoint",
        recorded: Arc::new(move |then, now| identity::of_record(&registry, then, now)),
        record,
        ends: &identity::ENDS,
        end,
        restored,
    }
}

/// Returns the checkpoints of a training, by step, in its own folder or in a folder of the stage's results.
fn checkpoints(folder: &Path) -> Result<Vec<(u64, PathBuf)>, StageError> {
    let mut found = checkpoints_in(folder)?;
    found.extend(checkpoints_in(&folder.join(CHECKPOINTS))?);
    // Nothing would be lost with an empty folder.
    found.retain(|path| std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_some()));
    let step = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).and_then(step_of);
    let mut found: Vec<(u64, PathBuf)> = found.into_iter().filter_map(|path| Some((step(&path)?, path))).collect();
    found.sort();
    Ok(found)
}

/// Returns the newest checkpoint, in any state: one that cannot be read may still be intact.
fn reached(folder: &Path) -> Result<Option<Reached>, StageError> {
    let found = checkpoints(folder)?;
    let Some((step, newest)) = found.last() else { return Ok(None) };
    let state = read_state(newest).ok();
    // Adapters continue from their exported form, not from a checkpoint.
    let weights = state.as_ref().is_none_or(|state| state.base.is_none());
    let at = newest.display();
    let steps: Vec<String> = found.iter().map(|(step, _)| step.to_string()).collect();
    let many =
        if found.len() == 1 { "1 checkpoint, step".to_owned() } else { format!("{} checkpoints, steps", found.len()) };
    Ok(Some(Reached {
        at: match state {
            Some(state) => format!("step {step} of {}", state.steps),
            None => format!("step {step}"),
        },
        holds: format!("{many} {}", steps.join(", ")),
        reuse: weights.then(|| {
            format!(
                "to start with other settings from its weights, copy {at} elsewhere and set train.init_from to the copy"
            )
        }),
    }))
}

/// The keys of a configuration that determine where a training ends, and how its learning rate depends on that.
#[derive(serde::Deserialize)]
struct Ends {
    max_steps: Option<u64>,
    max_epochs: Option<u64>,
    early_stopping: Option<EarlyStopping>,
    schedule: ScheduleConfig,
}

/// Returns the effect of the end in a configuration on a training that started with another.
fn end(folder: &Path, then: &Value, now: &Value) -> Result<End, StageError> {
    if identity::ENDS.iter().all(|key| then.get(*key) == now.get(*key)) {
        return Ok(End::Same);
    }
    let ends: Ends = serde_json::from_value(now.clone()).map_err(StageError::other)?;
    let limits = Limits { max_steps: ends.max_steps, max_epochs: ends.max_epochs };
    let found = checkpoints(folder)?;
    let Some(mut state) = newest_sound(&found)? else { return Ok(End::Same) };
    let changes: Vec<String> = identity::ENDS
        .iter()
        .filter(|key| then.get(**key) != now.get(**key))
        .map(|key| format!("train.{key}: {} → {}", shown(then.get(*key)), shown(now.get(*key))))
        .collect();
    let changes = changes.join("; ");
    if limits.passed(state.step, state.epoch, state.position) {
        let steps: Vec<String> = found.iter().map(|(step, _)| step.to_string()).collect();
        return Ok(End::Passed(format!(
            "{changes}, but {} steps are done: to end earlier, go back first with `flowmill train RECIPE --rollback STEP` (there \
             are checkpoints of step {})",
            state.step,
            steps.join(", ")
        )));
    }
    state.patience.judge(ends.early_stopping.as_ref());
    if limits.reached(state.step, state.epoch) {
        return Ok(End::Same);
    }
    if state.patience.exhausted {
        let State { step, steps, .. } = state;
        return Ok(End::Stays(format!(
            "stopped early at step {step} of {steps}: {} nothing; raise train.early_stopping.patience or set it to null to continue ({changes})",
            if then.get("max_steps") == now.get("max_steps") { "this change changes" } else { "max_steps changes" }
        )));
    }
    let name = ends.schedule.name;
    let spread =
        if name.has_horizon() { format!("; the schedule {name} is spread over the new length") } else { String::new() };
    Ok(End::Further(format!("{changes}{spread}")))
}

/// Returns the conditions under which a training started, from its newest intact checkpoint.
fn record(folder: &Path, now: &Value) -> Result<Option<WorkRecord>, StageError> {
    let Some(state) = newest_sound(&checkpoints(folder)?)? else { return Ok(None) };
    let kept = state.record.and_then(|record| serde_json::from_value(record).ok());
    // Earlier versions stored only the settings of the loop.
    Ok(kept.or_else(|| {
        let RunIdentity::Listed(run) = state.run else { return None };
        let config = identity::of_run(now, &run, state.limits.as_ref());
        Some(WorkRecord { version: None, config, inputs: None })
    }))
}

/// Returns the state of the newest checkpoint with an undamaged state, from which a training continues.
fn newest_sound(found: &[(u64, PathBuf)]) -> Result<Option<State>, StageError> {
    for (_, folder) in found.iter().rev() {
        match read_state(folder) {
            Ok(state) => return Ok(Some(state)),
            Err(TrainError::Damaged { .. }) => {}
            Err(error) => return Err(StageError::other(error)),
        }
    }
    Ok(None)
}

fn shown(value: Option<&Value>) -> String {
    value.unwrap_or(&Value::Null).to_string()
}

/// Returns the place of an output in the folder of a training that continues from its results.
fn restored(output: &str) -> Option<Restored> {
    if let Some(name) = output.strip_prefix(CHECKPOINTS).and_then(|rest| rest.strip_prefix('/')) {
        return Some(Restored::Linked(name.to_owned()));
    }
    if let Some(name) = output.strip_prefix(SAMPLES).and_then(|rest| rest.strip_prefix('/')) {
        return Some(Restored::Linked(name.replacen("step-", "samples-", 1)));
    }
    let is_log = [METRICS_FILE, EVENTS_FILE, REFERENCES_FILE, COMMANDS_FILE].contains(&output)
        || [WANDB_FOLDER, SKIPPED_FOLDER]
            .iter()
            .any(|folder| output.strip_prefix(*folder).is_some_and(|rest| rest.starts_with('/')));
    is_log.then(|| Restored::Copied(output.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_training_goes_on_from_is_restored_and_logs_are_copies() {
        let linked = |name: &str| Some(Restored::Linked(name.to_owned()));
        let copied = |name: &str| Some(Restored::Copied(name.to_owned()));
        assert_eq!(restored("checkpoints/step-000060/state.json"), linked("step-000060/state.json"));
        assert_eq!(restored("samples/step-000060/a.wav"), linked("samples-000060/a.wav"));
        for log in [
            "metrics.jsonl",
            EVENTS_FILE,
            REFERENCES_FILE,
            "commands.jsonl",
            "wandb/offline-run-1/run-1.wandb",
            "skipped/step-000001.json",
        ] {
            assert_eq!(restored(log), copied(log));
        }
        assert_eq!((restored("config.json"), restored("base.safetensors"), restored("wandbx/a")), (None, None, None));
    }
}
