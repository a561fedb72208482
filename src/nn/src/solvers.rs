//! Solvers of ordinary differential equations, each in a file of its own, and the schedules of their steps.

mod dormand_prince;
mod euler;
mod schedule;

pub use dormand_prince::{Tolerances, dormand_prince};
pub use euler::euler;
pub use schedule::TimeSchedule;

use crate::NnError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a solver arrived, and what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// The state at the last time.
    pub state: Vec<f32>,
    /// How often the velocity was asked for.
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

/// How a path from time 0 to 1 is followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Solver {
    /// Which method.
    pub method: Method,
    /// How many steps Euler makes.
    pub steps: usize,
    /// When the adaptive method is content.
    pub tolerances: Tolerances,
}

impl Default for Solver {
    fn default() -> Self {
        Self { method: Method::Euler, steps: 10, tolerances: Tolerances::default() }
    }
}

impl Solver {
    /// Follows `velocity(state, time)` from time 0 to 1. Euler's steps are spread by the schedule.
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

/// A velocity must have as many elements as the state.
fn check_length(operation: &'static str, state: &[f32], velocity: &[f32]) -> crate::Result<()> {
    if velocity.len() == state.len() {
        return Ok(());
    }
    Err(NnError::shape(operation, format!("[{}]", state.len()), &[velocity.len()]))
}
