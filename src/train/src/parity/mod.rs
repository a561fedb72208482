//! Comparison of optimizers, clipping and schedules with the public libraries: a golden file holds parameters, gradients, and the
//! libraries' results.
//!
//! Its configuration (a JSON object) has `steps`, `kept_steps`, and under `optimisers` and `schedules` the settings of each, under the
//! libraries' names. Tensors: `in.NAME` an initial parameter, `in.grad_NAME` `[step, ..]` its gradients, `out.OPTIMIZER.NAME`
//! `[kept step, ..]` the parameter after each of the kept steps, `out.clip_norm_X.NAME` and `out.clip_value_X.NAME` the gradients of the
//! first step clipped to X, `out.clip_norm_X.norm` their norm before, `out.schedule.NAME` `[step]` learning rates. Shapes,
//! settings and numbers of steps are free.

mod clipping;
mod optimizers;
mod schedules;
mod settings;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use flowmill_nn::{Context, Gradients, NnError, Parameters, Tape, Value, host, random::RngKey};

use crate::TrainError;

/// Largest allowed difference: max |a - b| / (max |b| + 1e-6).
pub const TOLERANCE: f64 = 2e-5;

/// The tensors of a golden file.
pub type Tensors = BTreeMap<String, Tensor>;

/// Result of comparing one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// "optimizer", "clipping" or "schedule".
    pub group: &'static str,
    /// The tensor's full name in the file.
    pub name: String,
    /// The largest difference relative to the largest expected element; infinite if a number is not finite.
    pub error: f64,
}

/// Reason why a file cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// The configuration lacks a value, or has one that cannot be used.
    #[error("`config.{key}` {problem}")]
    Config {
        /// The value, as a dotted path.
        key: String,
        /// The problem.
        problem: String,
    },
    /// A tensor is missing, or its shape does not fit the others.
    #[error("tensor `{name}` {problem}")]
    Tensor {
        /// The tensor.
        name: String,
        /// The problem.
        problem: String,
    },
    /// The trainer reported an error.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A tensor operation failed.
    #[error(transparent)]
    Nn(#[from] NnError),
}

impl From<candle_core::Error> for ParityError {
    fn from(error: candle_core::Error) -> Self {
        Self::Nn(error.into())
    }
}

type Result<T> = std::result::Result<T, ParityError>;

/// Returns whether a configuration belongs to a file about optimizers or schedules.
pub fn recognizes(config: &serde_json::Value) -> bool {
    ["optimisers", "schedules"].iter().any(|key| config.get(key).is_some_and(serde_json::Value::is_object))
}

/// Compares everything that the file expects: optimizers and clipping compute on a device, schedules on the host.
///
/// # Errors
/// When settings are not supported, tensors are missing or do not fit each other, or the device fails.
pub fn check(config: &serde_json::Value, tensors: &Tensors, device: &Device) -> Result<Vec<Compared>> {
    let mut compared = optimizers::check(config, tensors, device)?;
    compared.extend(clipping::check(tensors, device)?);
    compared.extend(schedules::check(config, tensors)?);
    Ok(compared)
}

fn bad_tensor(name: &str, problem: impl Into<String>) -> ParityError {
    ParityError::Tensor { name: name.to_owned(), problem: problem.into() }
}

fn bad_config(key: impl Into<String>, problem: impl Into<String>) -> ParityError {
    ParityError::Config { key: key.into(), problem: problem.into() }
}

fn tensor<'a>(tensors: &'a Tensors, name: &str) -> Result<&'a Tensor> {
    let tensor = tensors.get(name).ok_or_else(|| bad_tensor(name, "is missing"))?;
    if tensor.dtype() == DType::F32 { Ok(tensor) } else { Err(bad_tensor(name, "does not hold floats")) }
}

/// Returns the names of the parameters with gradients.
fn parameter_names(tensors: &Tensors) -> impl Iterator<Item = &str> {
    tensors.keys().filter_map(|name| name.strip_prefix("in.grad_"))
}

/// Returns the gradients of a parameter, `[step, ..]`.
fn given_gradients<'a>(tensors: &'a Tensors, parameter: &str) -> Result<&'a Tensor> {
    let name = format!("in.grad_{parameter}");
    let gradients = tensor(tensors, &name)?;
    let start = tensor(tensors, &format!("in.{parameter}"))?;
    if gradients.dims().split_first().is_none_or(|(_, dims)| dims != start.dims()) {
        return Err(bad_tensor(&name, format!("is {:?}, not steps of {:?}", gradients.dims(), start.dims())));
    }
    Ok(gradients)
}

/// Creates parameters with their initial values on a device.
fn parameters<'a>(tensors: &Tensors, names: impl IntoIterator<Item = &'a str>, device: &Device) -> Result<Parameters> {
    let mut parameters = Parameters::new();
    for name in names {
        parameters.add(name, tensor(tensors, &format!("in.{name}"))?.copy()?)?;
    }
    parameters.to_device(device)?;
    Ok(parameters)
}

/// Returns the gradients of all parameters at a step, from 0: those of a loss that is linear in the parameters, on the same device.
fn gradients(tensors: &Tensors, parameters: &Parameters, step: usize) -> Result<Gradients> {
    let tape = Tape::new();
    let context = Context::training(parameters, &tape, RngKey::new(0));
    let mut loss: Option<Value> = None;
    for id in parameters.ids() {
        let name = parameters.name(id);
        let given = given_gradients(tensors, name)?;
        if step >= given.dim(0)? {
            return Err(bad_tensor(&format!("in.grad_{name}"), format!("has no step {}", step + 1)));
        }
        let term = context.parameter(id).multiply(&Value::plain(given.get(step)?)?)?.sum()?;
        loss = Some(match loss {
            Some(loss) => loss.add(&term)?,
            None => term,
        });
    }
    match loss {
        Some(loss) => Ok(tape.backward(&loss)?),
        None => Ok(Gradients::default()),
    }
}

/// Compares elements with those of an expected tensor.
fn compare(group: &'static str, name: &str, found: &[f64], expected: &Tensor) -> Result<Compared> {
    let expected: Vec<f64> = expected.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    if found.len() != expected.len() {
        return Err(bad_tensor(name, format!("has {} elements where {} are computed", expected.len(), found.len())));
    }
    let size = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let difference = found.iter().zip(&expected).fold(0.0, |largest: f64, (a, b)| match (a - b).abs() {
        difference if difference.is_nan() => f64::INFINITY,
        difference => largest.max(difference),
    });
    Ok(Compared { group, name: name.to_owned(), error: difference / (size + 1e-6) })
}

/// Returns the elements of a tensor on any device.
fn elements(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(host::read(tensor)?.into_iter().map(f64::from).collect())
}
