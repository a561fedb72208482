//! Identity of a run: the settings that determine its weights. A checkpoint continues only a run with the same identity.
//!
//! The list is explicit. A setting that does not change the weights (the intervals of logging, validation and saving, what is kept,
//! loading ahead) is not in it, nor is the end of the run, because a run can be extended. The default of a setting that is added to the
//! list must be the old behavior, because older checkpoints count as having the default.

use flowmill_nn::{Parameters, Precision};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::loss_scale::LossScaleConfig;
use crate::optimizer::OptimConfig;
use crate::schedule::ScheduleConfig;
use crate::{TrainConfig, TrainError};

/// The settings that decide the weights after every step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Key of every random draw.
    pub seed: u64,
    /// The optimizer.
    pub optim: OptimConfig,
    /// The learning rate over the steps.
    pub schedule: ScheduleConfig,
    /// Batches averaged into one step.
    pub accum_grad: usize,
    /// Largest gradient norm.
    pub grad_clip: Option<f64>,
    /// Largest gradient value.
    pub grad_clip_value: Option<f64>,
    /// The number format of forward and backward passes.
    pub precision: Precision,
    /// The factor on the loss in half precision.
    pub loss_scale: Option<LossScaleConfig>,
    /// Decay of the moving average of the weights.
    pub ema_decay: Option<f64>,
    /// Hash of the names, shapes and trainability of the parameters.
    pub parameters: String,
}

impl Default for Identity {
    fn default() -> Self {
        Self::listed(&TrainConfig::default(), String::new())
    }
}

impl Identity {
    /// Returns the identity of a run with these settings and parameters.
    pub(crate) fn of(config: &TrainConfig, parameters: &Parameters) -> Self {
        let mut hasher = blake3::Hasher::new();
        for id in parameters.ids() {
            let (name, dims) = (parameters.name(id), parameters.tensor(id).dims());
            hasher.update(format!("\n{name} {dims:?} {}", parameters.trainable(id)).as_bytes());
        }
        Self::listed(config, hasher.finalize().to_hex().to_string())
    }

    fn listed(config: &TrainConfig, parameters: String) -> Self {
        Self {
            seed: config.seed,
            optim: config.optim.clone(),
            schedule: config.schedule.clone(),
            accum_grad: config.accum_grad,
            grad_clip: config.grad_clip,
            grad_clip_value: config.grad_clip_value,
            precision: config.precision,
            loss_scale: config.loss_scale(),
            ema_decay: config.ema_decay,
            parameters,
        }
    }

    /// Returns a hash of all settings.
    pub(crate) fn hash(&self) -> String {
        blake3::hash(self.value().to_string().as_bytes()).to_hex().to_string()
    }

    /// Returns every setting that differs from `now`, as `optim.lr: 0.001 → 0.0005`.
    pub(crate) fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        differences("", &self.value(), &now.value(), &mut found);
        found
    }

    /// Returns the settings as they would be read back from a file, so that writing and reading numbers cannot cause a difference.
    fn value(&self) -> Value {
        let text = serde_json::to_string(self).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }
}

fn differences(path: &str, then: &Value, now: &Value, found: &mut Vec<String>) {
    match (then, now) {
        (Value::Object(then), Value::Object(now)) => {
            let gone = then.keys().filter(|key| !now.contains_key(*key));
            for key in now.keys().chain(gone) {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let of = |object: &serde_json::Map<String, Value>| object.get(key).cloned().unwrap_or(Value::Null);
                differences(&below, &of(then), &of(now), found);
            }
        }
        _ if then == now => {}
        _ if path == "parameters" => found.push("the names, shapes or trainability of the parameters".to_owned()),
        _ => found.push(format!("{path}: {then} → {now}")),
    }
}

/// The identity stored in a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RunIdentity {
    /// The list of settings.
    Listed(Box<Identity>),
    /// A hash over everything, in checkpoints of the first format. It covers settings that do not change weights and cannot be compared
    /// one by one: the owner of the checkpoints knows the settings that they were made with.
    Hashed(String),
}

impl RunIdentity {
    /// Fails if a checkpoint belongs to a run with other settings than `now`.
    pub(crate) fn check(&self, checkpoint: &str, now: &Identity) -> Result<(), TrainError> {
        let changes = match self {
            Self::Listed(then) => then.differences(now),
            Self::Hashed(_) => Vec::new(),
        };
        if changes.is_empty() { Ok(()) } else { Err(TrainError::OtherRun { name: checkpoint.to_owned(), changes }) }
    }

    /// Returns a short text that is the same for equal identities.
    pub(crate) fn hash(&self) -> String {
        match self {
            Self::Listed(identity) => identity.hash(),
            Self::Hashed(hash) => hash.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_change_no_weights_are_not_in_the_list() {
        let config = TrainConfig { max_steps: Some(10), ..TrainConfig::default() };
        let other = TrainConfig {
            max_steps: Some(20),
            max_epochs: Some(3),
            max_seconds: Some(5),
            log_every: 3,
            log_groups: true,
            log_gradients: 4,
            sample_every: 2,
            skipped_weights: 9,
            max_skipped_in_a_row: 1,
            prefetch: 0,
            num_workers: 9,
            gradient_checkpointing: true,
            zero: 1,
            keep: crate::KeepConfig { last: 1, best: 0, every: 7 },
            save_every: crate::Interval::Steps(7),
            validate_every: crate::Interval::Steps(7),
            early_stopping: Some(crate::EarlyStopping { patience: 1, min_delta: 0.0 }),
            ..config.clone()
        };
        let parameters = Parameters::new();
        assert_eq!(Identity::of(&config, &parameters), Identity::of(&other, &parameters));
    }

    #[test]
    fn what_differs_is_named_and_a_setting_that_an_older_list_lacks_has_its_default() {
        let then = Identity::default();
        let mut now = then.clone();
        now.optim.lr = 0.5;
        now.ema_decay = Some(0.9);
        assert_eq!(then.differences(&now), ["optim.lr: 0.001 → 0.5", "ema_decay: null → 0.9"]);
        let mut older = then.value();
        older.as_object_mut().unwrap().remove("grad_clip_value");
        older["optim"].as_object_mut().unwrap().remove("decay_matrices_only");
        let older: Identity = serde_json::from_value(older).unwrap();
        assert_eq!(older.differences(&then), Vec::<String>::new());
        assert_eq!(older.hash(), then.hash());
    }
}
