//! Learning-rate schedules: the rate of every step as a pure function of the step.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The shape of the learning rate over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleName {
    /// The same rate at every step.
    Constant,
    /// Linear warm-up, then falling with the inverse square root of the step: `WarmupLR` of ESPnet, WeNet and CosyVoice.
    WarmupLr,
    /// Linear warm-up from the final ratio to the full rate, then half a cosine down to the final ratio at the horizon.
    WarmupCosine,
}

/// The recipe's `schedule` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Which shape.
    pub name: ScheduleName,
    /// Steps until the full rate is reached (`warmup_lr`, `warmup_cosine`).
    pub warmup_steps: u64,
    /// The rate at the start and at the end as a fraction of the full rate (`warmup_cosine`).
    pub final_ratio: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { name: ScheduleName::WarmupLr, warmup_steps: 2500, final_ratio: 0.01 }
    }
}

impl ScheduleConfig {
    /// Whether the shape depends on the number of steps of the whole run.
    pub fn needs_horizon(&self) -> bool {
        self.name == ScheduleName::WarmupCosine
    }

    pub(crate) fn check(&self) -> Result<(), TrainError> {
        if self.name != ScheduleName::Constant && self.warmup_steps == 0 {
            let reason = "must be at least 1 for a schedule with warm-up; use `name: constant` for none".to_owned();
            return Err(TrainError::Config { key: "schedule.warmup_steps", reason });
        }
        if !(0.0..=1.0).contains(&self.final_ratio) {
            let reason = format!("{} is not between 0 and 1", self.final_ratio);
            return Err(TrainError::Config { key: "schedule.final_ratio", reason });
        }
        Ok(())
    }
}

/// A schedule with its base rate and horizon.
#[derive(Debug, Clone)]
pub struct Schedule {
    config: ScheduleConfig,
    base: f64,
    horizon: u64,
}

impl Schedule {
    /// `base`: the full learning rate; `horizon`: steps of the whole run, used by shapes that end somewhere.
    pub fn new(config: &ScheduleConfig, base: f64, horizon: u64) -> Self {
        Self { config: config.clone(), base, horizon }
    }

    /// The learning rate of the update number `step`, from 0.
    pub fn rate(&self, step: u64) -> f64 {
        match self.config.name {
            ScheduleName::Constant => self.base,
            ScheduleName::WarmupLr => self.warmup_lr(step),
            ScheduleName::WarmupCosine => self.warmup_cosine(step),
        }
    }

    fn warmup_lr(&self, step: u64) -> f64 {
        let (number, warmup) = ((step + 1) as f64, self.config.warmup_steps as f64);
        self.base * warmup.sqrt() * number.powf(-0.5).min(number * warmup.powf(-1.5))
    }

    fn warmup_cosine(&self, step: u64) -> f64 {
        let (warmup, low) = (self.config.warmup_steps, self.config.final_ratio);
        if step < warmup {
            return self.base * (low + (1.0 - low) * step as f64 / warmup as f64);
        }
        let span = self.horizon.saturating_sub(warmup).max(1) as f64;
        let progress = ((step - warmup) as f64 / span).min(1.0);
        self.base * (low + (1.0 - low) * 0.5 * (1.0 + (PI * progress).cos()))
    }
}
