//! Spacing of steps over time.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Spacing of steps over the time from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum TimeSchedule {
    /// Steps of equal size.
    #[serde(alias = "linear")]
    Uniform,
    /// `1 - cos(pi s / 2)` for s in equal steps: short steps at the start.
    #[default]
    Cosine,
}

/// Implemented by hand, because a recipe accepts the alias as a name of its own.
impl JsonSchema for TimeSchedule {
    fn schema_name() -> Cow<'static, str> {
        "TimeSchedule".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Spacing of steps over the time from 0 to 1.",
            "oneOf": [
                { "const": "uniform", "description": "Steps of equal size." },
                { "const": "linear", "description": "The same as `uniform`." },
                { "const": "cosine", "description": "`1 - cos(pi s / 2)` for s in equal steps: short steps at the start." },
            ],
        })
    }
}

impl TimeSchedule {
    /// Maps `s` in [0, 1] to its time.
    pub fn warp(self, s: f32) -> f32 {
        match self {
            TimeSchedule::Uniform => s,
            TimeSchedule::Cosine => 1.0 - (s * 0.5 * std::f32::consts::PI).cos(),
        }
    }

    /// Returns the `steps + 1` times from 0 to 1.
    pub fn times(self, steps: usize) -> Vec<f32> {
        (0..=steps).map(|step| self.warp(step as f32 / steps.max(1) as f32)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_schedule_runs_from_zero_to_one_with_growing_steps() {
        let times = TimeSchedule::Cosine.times(10);
        assert_eq!((times.len(), times[0]), (11, 0.0));
        assert!((times[10] - 1.0).abs() < 1e-6);
        let steps: Vec<f32> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.windows(2).all(|pair| pair[0] < pair[1]));
        assert!((times[5] - (1.0 - std::f32::consts::FRAC_1_SQRT_2)).abs() < 1e-6);
    }
}
