//! The factor on the loss that keeps half-precision gradients in range (Micikevicius et al., "Mixed precision training", arXiv
//! 1710.03740).
//!
//! Gradients are computed from the loss times the scale, and divided by it in single precision before they are measured, clipped or used.
//! If a gradient is not finite although the loss is, it has left the range of the format: its step is skipped and counted as an overflow.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::metrics::Exact;

/// Factor by which a scale grows and shrinks.
const STEP: f64 = 2.0;

/// Settings of the factor on the loss with `precision: fp16`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LossScaleConfig {
    /// Adjusts the scale to the gradients; otherwise it stays at `initial`.
    ///
    /// Counterparts: `fp16.loss_scale: 0` (dynamic).
    pub dynamic: bool,
    /// The scale of the first step.
    ///
    /// Counterparts: `initial_scale_power: 16`, `init_scale`.
    pub initial: f64,
    /// Steps in a row without an overflow that double the scale.
    ///
    /// Counterparts: `loss_scale_window`, `growth_interval`.
    pub window: u64,
    /// Number of consecutive overflows at which the scale is halved; each further one halves it again. A single overflow may be due to one
    /// batch.
    ///
    /// Counterparts: `hysteresis`.
    pub hysteresis: u64,
    /// Smallest scale: training stops instead of going below. For fine-tuning public weights, 8192 or more is recommended.
    ///
    /// Counterparts: `min_loss_scale`.
    pub floor: f64,
    /// Largest scale.
    ///
    /// Counterparts: VALL-E's ceiling of 2^20.
    pub ceiling: f64,
}

impl Default for LossScaleConfig {
    fn default() -> Self {
        Self { dynamic: true, initial: 65536.0, window: 2000, hysteresis: 2, floor: 1.0, ceiling: 16_777_216.0 }
    }
}

impl LossScaleConfig {
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        let fail = |key, reason: String| Err(TrainError::Config { key, reason });
        for (key, value) in [
            ("loss_scale.floor", self.floor),
            ("loss_scale.initial", self.initial),
            ("loss_scale.ceiling", self.ceiling),
        ] {
            if !(value > 0.0 && value <= f64::from(f32::MAX)) {
                return fail(key, format!("{value} is not a positive number in single precision"));
            }
        }
        if self.floor > self.ceiling {
            return fail("loss_scale.floor", format!("{} is above the ceiling, {}", self.floor, self.ceiling));
        }
        if !(self.floor..=self.ceiling).contains(&self.initial) {
            let reason = format!("{} is not between floor {} and ceiling {}", self.initial, self.floor, self.ceiling);
            return fail("loss_scale.initial", reason);
        }
        if self.window == 0 {
            return fail("loss_scale.window", "must be at least 1".to_owned());
        }
        if self.hysteresis == 0 {
            return fail("loss_scale.hysteresis", "must be at least 1".to_owned());
        }
        Ok(())
    }
}

/// The scale between two steps, and the history that determines it; stored in checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    scale: Exact,
    /// Steps since the scale last changed or overflowed.
    steady: u64,
    /// Overflows since the last step without one.
    overflows_in_a_row: u64,
    /// Total number of overflows.
    overflows: u64,
}

/// Effect of an overflow on the scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Overflow {
    /// The scale is unchanged for now.
    Kept,
    /// The scale was halved.
    Halved,
    /// The scale may not change or be lowered, and this number of consecutive overflows is more than chance.
    Stuck,
}

impl LossScale {
    /// The scale of the first step.
    pub fn new(config: &LossScaleConfig) -> Self {
        Self { scale: Exact(config.initial), steady: 0, overflows_in_a_row: 0, overflows: 0 }
    }

    /// Returns the factor on the loss.
    pub fn scale(&self) -> f64 {
        self.scale.0
    }

    /// Returns the total number of steps skipped because their gradient overflowed.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Returns the number of consecutive overflows up to now.
    pub fn overflows_in_a_row(&self) -> u64 {
        self.overflows_in_a_row
    }

    /// Records a step whose gradient was finite: enough of them in a row double a dynamic scale.
    pub fn fitted(&mut self, config: &LossScaleConfig) {
        self.overflows_in_a_row = 0;
        self.steady += 1;
        if config.dynamic && self.steady >= config.window {
            self.scale.0 = (self.scale.0 * STEP).min(config.ceiling);
            self.steady = 0;
        }
    }

    /// Records a step whose gradient overflowed. A fixed scale is stuck after `patience` consecutive overflows.
    pub fn overflowed(&mut self, config: &LossScaleConfig, patience: u64) -> Overflow {
        self.overflows += 1;
        self.overflows_in_a_row += 1;
        self.steady = 0;
        if !config.dynamic {
            return if self.overflows_in_a_row >= patience { Overflow::Stuck } else { Overflow::Kept };
        }
        if self.overflows_in_a_row < config.hysteresis {
            return Overflow::Kept;
        }
        if self.scale.0 / STEP < config.floor {
            return Overflow::Stuck;
        }
        self.scale.0 /= STEP;
        Overflow::Halved
    }

    /// Sets the scale from now on.
    ///
    /// # Errors
    /// A description of what is wrong with the number.
    pub fn set(&mut self, scale: f64, config: &LossScaleConfig) -> Result<(), String> {
        let LossScaleConfig { floor, ceiling, .. } = config;
        if !(*floor..=*ceiling).contains(&scale) {
            return Err(format!(
                "a loss scale of {scale} is not between the floor, {floor}, and the ceiling, {ceiling}"
            ));
        }
        self.scale.0 = scale;
        self.steady = 0;
        self.overflows_in_a_row = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LossScaleConfig {
        LossScaleConfig { initial: 8.0, window: 3, hysteresis: 2, floor: 2.0, ceiling: 24.0, dynamic: true }
    }

    #[test]
    fn it_doubles_after_a_window_of_finite_gradients_up_to_the_ceiling() {
        let config = config();
        let mut scale = LossScale::new(&config);
        let scales: Vec<f64> = (0..9)
            .map(|_| {
                scale.fitted(&config);
                scale.scale()
            })
            .collect();
        assert_eq!(scales, [8.0, 8.0, 16.0, 16.0, 16.0, 24.0, 24.0, 24.0, 24.0]);
    }

    #[test]
    fn it_halves_from_the_second_overflow_in_a_row_on_and_is_stuck_at_the_floor() {
        let config = config();
        let mut scale = LossScale::new(&config);
        assert_eq!(scale.overflowed(&config, 9), Overflow::Kept);
        scale.fitted(&config);
        assert_eq!(scale.overflowed(&config, 9), Overflow::Kept, "a finite step in between: the row starts anew");
        assert_eq!((scale.overflowed(&config, 9), scale.scale()), (Overflow::Halved, 4.0));
        assert_eq!((scale.overflowed(&config, 9), scale.scale()), (Overflow::Halved, 2.0));
        assert_eq!((scale.overflowed(&config, 9), scale.scale()), (Overflow::Stuck, 2.0));
        assert_eq!((scale.overflows(), scale.overflows_in_a_row()), (5, 4));
        scale.fitted(&config);
        scale.fitted(&config);
        assert_eq!(scale.scale(), 2.0, "an overflow starts the window anew");
        scale.fitted(&config);
        assert_eq!(scale.scale(), 4.0);
    }

    #[test]
    fn a_fixed_scale_stays_until_patience_ends() {
        let config = LossScaleConfig { dynamic: false, window: 1, ..config() };
        let mut scale = LossScale::new(&config);
        scale.fitted(&config);
        assert_eq!(scale.overflowed(&config, 2), Overflow::Kept);
        assert_eq!(scale.overflowed(&config, 2), Overflow::Stuck);
        assert_eq!(scale.scale(), 8.0);
    }

    #[test]
    fn a_scale_set_by_hand_stays_within_floor_and_ceiling() {
        let config = config();
        let mut scale = LossScale::new(&config);
        scale.set(3.7, &config).unwrap();
        assert_eq!(scale.scale(), 3.7);
        for bad in [1.0, 25.0, f64::NAN, f64::INFINITY, -4.0] {
            let error = scale.set(bad, &config).unwrap_err();
            let range = [config.floor, config.ceiling].map(|bound| bound.to_string());
            assert!(range.iter().all(|bound| error.contains(bound)), "{bad}: {error}");
        }
        assert_eq!(scale.scale(), 3.7);
    }

    #[test]
    fn a_state_survives_text_bit_for_bit() {
        let config = config();
        let mut scale = LossScale::new(&config);
        scale.set(23.456_789_012_345_67, &config).unwrap();
        scale.overflowed(&config, 9);
        let text = serde_json::to_string(&scale).unwrap();
        assert_eq!(serde_json::from_str::<LossScale>(&text).unwrap(), scale);
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let refused = |config: LossScaleConfig| match config.check() {
            Err(TrainError::Config { key, .. }) => key,
            other => panic!("{other:?}"),
        };
        assert!(config().check().is_ok() && LossScaleConfig::default().check().is_ok());
        assert_eq!(refused(LossScaleConfig { floor: 0.0, ..config() }), "loss_scale.floor");
        assert_eq!(refused(LossScaleConfig { floor: 30.0, ..config() }), "loss_scale.floor");
        assert_eq!(refused(LossScaleConfig { initial: 1.0, ..config() }), "loss_scale.initial");
        assert_eq!(refused(LossScaleConfig { initial: f64::NAN, ..config() }), "loss_scale.initial");
        assert_eq!(refused(LossScaleConfig { ceiling: f64::INFINITY, ..config() }), "loss_scale.ceiling");
        assert_eq!(refused(LossScaleConfig { window: 0, ..config() }), "loss_scale.window");
        assert_eq!(refused(LossScaleConfig { hysteresis: 0, ..config() }), "loss_scale.hysteresis");
    }
}
