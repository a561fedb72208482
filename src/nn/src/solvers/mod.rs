//! Solvers of ordinary differential equations, one file each, and the schedules of their steps.

mod dormand_prince;
mod euler;
mod schedule;

pub use dormand_prince::{Tolerances, dormand_prince};
pub use euler::euler;
pub use schedule::TimeSchedule;

use crate::NnError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Result of a solver, and its cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// The state at the last time.
    pub state: Vec<f32>,
    /// Number of evaluations of the velocity.
    pub evaluations: usize,
}

/// A solver of ordinary differential equations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Euler's method on the schedule's steps.
    #[default]
    Euler,
    /// The adaptive method of Dormand and Prince of order 5 (`ode45`): as many steps as the tolerances need.
    Dopri5,
}

/// Method and settings to follow a path from time 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Solver {
    /// The method.
    pub method: Method,
    /// Number of Euler's steps.
    pub steps: usize,
    /// Tolerances of the adaptive method.
    pub tolerances: Tolerances,
}

impl Default for Solver {
    fn default() -> Self {
        Self { method: Method::Euler, steps: 10, tolerances: Tolerances::default() }
    }
}

impl Solver {
    /// Follows `velocity(state, time)` from time 0 to 1. The schedule spaces Euler's steps.
    ///
    /// # Errors
    /// Those of `velocity` and of the method.
    pub fn solve<E: From<NnError>>(
        &self,
        schedule: TimeSchedule,
        start: Vec<f32>,
        velocity: impl FnMut(&[f32], f32) -> Result<Vec<f32>, E>,
    ) -> Result<Solution, E> {
        match self.method {
            Method::Euler => euler(start, &schedule.times(self.steps), velocity),
            Method::Dopri5 => dormand_prince(start, [0.0, 1.0], &self.tolerances, velocity),
        }
    }
}

/// Checks that a velocity has as many elements as the state.
fn check_length(operation: &'static str, state: &[f32], velocity: &[f32]) -> crate::Result<()> {
    if velocity.len() == state.len() {
        return Ok(());
    }
    Err(NnError::shape(operation, format!("[{}]", state.len()), &[velocity.len()]))
}
