//! `config.json`: stage 4's description of the model, and what exporting adds to it.

use std::fs;
use std::path::Path;

use flowmill_nn::solvers::{Method, Solver, Tolerances};
use flowmill_runner::StageError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How a model is sampled unless one says otherwise: as its scores were made.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Sampling {
    /// How the flow's ODE is solved.
    pub solver: Method,
    /// Euler's steps.
    pub n_timesteps: usize,
    /// How exact `dopri5` is.
    pub tolerances: Tolerances,
}

impl Sampling {
    /// Of these settings.
    pub fn of(solver: Solver) -> Self {
        Self { solver: solver.method, n_timesteps: solver.steps, tolerances: solver.tolerances }
    }

    /// The solver that it describes.
    ///
    /// # Errors
    /// Steps and tolerances that cannot be met.
    pub fn solver(&self) -> Result<Solver, String> {
        if self.n_timesteps == 0 {
            return Err("sampling.n_timesteps: is 0; it must be at least 1".to_owned());
        }
        self.tolerances.check().map_err(|error| format!("sampling.tolerances: {error}"))?;
        Ok(Solver { method: self.solver, steps: self.n_timesteps, tolerances: self.tolerances })
    }
}

/// Where the adapters of an exported model are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapters {
    /// In the weights, or there are none.
    Merged,
    /// Beside the weights.
    Apart,
}

/// Writes the description `source` of stage 4 as that of the exported model.
///
/// # Errors
/// When it cannot be read or written.
pub fn write(source: &Path, target: &Path, sampling: &Sampling, adapters: Adapters) -> Result<(), StageError> {
    let text = fs::read_to_string(source).map_err(|error| StageError::file(source, error))?;
    let read = serde_json::from_str(&text);
    let mut described: Value = read.map_err(|error| StageError::new(format!("{}: {error}", source.display())))?;
    described["sampling"] = json!(sampling);
    if adapters == Adapters::Apart {
        described["lora"]["merged"] = Value::Bool(false);
    }
    fs::write(target, format!("{described:#}\n")).map_err(|error| StageError::file(target, error))
}
