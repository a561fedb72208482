//! A golden file: tensors by name and the configuration of the model that made them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use flowmill_nn::Parameters;
use flowmill_weights::{WeightError, WeightFile};
use serde_json::Value;

use super::{ParityError, Result};

/// A golden file in memory.
#[derive(Debug, Clone)]
pub struct GoldenFile {
    path: PathBuf,
    file: WeightFile,
    config: Value,
    model: String,
    device: Device,
}

impl GoldenFile {
    /// Reads a golden file.
    ///
    /// # Errors
    /// Returns an error if it cannot be read, is damaged, contains a number that is not finite, or names no model.
    pub fn read(path: &Path) -> Result<Self> {
        let read = flowmill_weights::read(path).map_err(|error| match error {
            WeightError::File { message, .. } => ParityError::Unreadable(message),
            other => ParityError::Unreadable(other.to_string()),
        });
        Self::new(path, read?)
    }

    fn new(path: &Path, file: WeightFile) -> Result<Self> {
        let text = file.metadata.get("config");
        let text = text.ok_or_else(|| ParityError::NotGolden("its metadata has no `config`".to_owned()))?;
        let config: Value = serde_json::from_str(text)
            .map_err(|error| ParityError::NotGolden(format!("its `config` is not JSON: {error}")))?;
        let model = model(&config)
            .ok_or_else(|| ParityError::NotGolden("its `config` does not say which `model` made it".to_owned()))?;
        Ok(Self { path: path.to_owned(), file, config, model, device: Device::Cpu })
    }

    /// Sets the device of the model. The inputs stay on the host, like data in training.
    #[must_use]
    pub fn on(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Returns the device of the model.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the path of the file with this name in the folder of the golden file.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// Returns `config.model`, the origin of the file. Files about an objective, features or optimizers have no
    /// model; they are named after those.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The whole configuration.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The tensors of floats.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.file.tensors
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names: BTreeSet<&str> =
            self.file.tensors.keys().chain(self.file.integers.keys()).map(String::as_str).collect();
        names.into_iter()
    }

    /// A tensor by its full name, such as `in.t`: `f32` or `i64`.
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.file.tensors.get(name).or_else(|| self.file.integers.get(name))
    }

    /// Returns a tensor like [`find`](Self::find); it is required.
    ///
    /// # Errors
    /// Returns an error if it does not exist.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.find(name).ok_or_else(|| ParityError::Missing(name.to_owned()))
    }

    /// Returns a tensor of floats with this number of axes.
    ///
    /// # Errors
    /// Returns an error if it does not exist, contains integers, or has another number of axes.
    pub fn floats(&self, name: &str, axes: usize) -> Result<&Tensor> {
        let tensor = self.tensor(name)?;
        if tensor.dtype() == DType::F32 && tensor.rank() == axes {
            return Ok(tensor);
        }
        Err(ParityError::tensor(name, described(tensor), format!("f32 with {axes} axes")))
    }

    /// Returns a tensor of floats with this shape.
    ///
    /// # Errors
    /// Returns an error if it does not exist, contains integers, or has another shape.
    pub fn shaped(&self, name: &str, shape: &[usize]) -> Result<&Tensor> {
        let tensor = self.tensor(name)?;
        if tensor.dtype() == DType::F32 && tensor.dims() == shape {
            return Ok(tensor);
        }
        Err(ParityError::tensor(name, described(tensor), format!("f32 {shape:?}")))
    }

    /// The elements of a tensor of integers, row-major.
    ///
    /// # Errors
    /// Returns an error if it does not exist or contains floats.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let tensor = self.tensor(name)?;
        match tensor.dtype() {
            DType::I64 => Ok(tensor.flatten_all()?.to_vec1()?),
            _ => Err(ParityError::tensor(name, described(tensor), "integers")),
        }
    }

    /// The elements of a tensor of lengths.
    ///
    /// # Errors
    /// Returns an error if it does not exist, or a length is negative.
    pub fn lengths(&self, name: &str) -> Result<Vec<usize>> {
        let length = |value: i64| {
            usize::try_from(value)
                .map_err(|_| ParityError::tensor(name, format!("holding {value}"), "lengths of at least 0"))
        };
        self.integers(name)?.into_iter().map(length).collect()
    }

    /// The value of the configuration at a path.
    pub fn value(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(&self.config, |value, key| value.get(key)).filter(|value| !value.is_null())
    }

    fn needed(&self, path: &[&str]) -> Result<&Value> {
        self.value(path).ok_or_else(|| ParityError::config(path, "is missing"))
    }

    /// A size of the configuration.
    ///
    /// # Errors
    /// Returns an error if it does not exist or is not a whole number of at least 0.
    pub fn size(&self, path: &[&str]) -> Result<usize> {
        let value = self.needed(path)?;
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        size.ok_or_else(|| ParityError::config(path, format!("is {value}, not a size")))
    }

    /// A number of the configuration.
    ///
    /// # Errors
    /// Returns an error if it does not exist or is not a number.
    pub fn number(&self, path: &[&str]) -> Result<f64> {
        let value = self.needed(path)?;
        value.as_f64().ok_or_else(|| ParityError::config(path, format!("is {value}, not a number")))
    }

    /// Returns a boolean of the configuration.
    ///
    /// # Errors
    /// Returns an error if it does not exist or is neither true nor false.
    pub fn flag(&self, path: &[&str]) -> Result<bool> {
        let value = self.needed(path)?;
        value.as_bool().ok_or_else(|| ParityError::config(path, format!("is {value}, neither true nor false")))
    }

    /// Returns the weights, under their names without `param.`. Integer buffers, such as the counters of batch norms,
    /// are not included.
    pub fn parameters(&self) -> BTreeMap<String, Tensor> {
        let weight =
            |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix("param.")?.to_owned(), tensor.clone()));
        self.file.tensors.iter().filter_map(weight).collect()
    }

    /// Returns the names of the parameters whose gradients are in the file (`grad.NAME` without `grad.`).
    pub fn gradient_names(&self) -> impl Iterator<Item = &str> {
        self.file.tensors.keys().filter_map(|name| name.strip_prefix("grad."))
    }

    /// Loads the file's weights into a model's parameters, which move to the device of the model.
    ///
    /// # Errors
    /// Returns an error if names or shapes differ; it lists all differences.
    pub fn load(&self, parameters: &mut Parameters) -> Result<()> {
        let report = parameters.load(&self.parameters())?;
        if !report.is_exact() {
            return Err(ParityError::Weights(report));
        }
        Ok(parameters.to_device(&self.device)?)
    }

    /// Returns an error unless the weight `name` (without `param.`) has the shape that follows from the
    /// configuration. Called before a model is built, so that wrong sizes cannot require more memory than the file
    /// itself.
    ///
    /// # Errors
    /// Returns an error if the weight is missing or has another shape.
    pub fn expect_weight(&self, name: &str, shape: &[usize]) -> Result<()> {
        let name = format!("param.{name}");
        let found = self.tensor(&name)?;
        if found.dims() == shape {
            return Ok(());
        }
        Err(ParityError::tensor(&name, described(found), format!("{shape:?} by its `config`")))
    }

    /// Compares sizes of the configuration with those of the weights.
    ///
    /// # Errors
    /// Returns an error for the first size that is missing or differs.
    pub fn expect_sizes(&self, sizes: &[(&str, usize)]) -> Result<()> {
        for &(key, found) in sizes {
            let wanted = self.size(&[key])?;
            if wanted != found {
                return Err(ParityError::config(&[key], format!("is {wanted}, but the weights are those of {found}")));
            }
        }
        Ok(())
    }

    /// Returns an error for weights that the model does not have, for models that are not loaded with
    /// [`load`](Self::load).
    ///
    /// # Errors
    /// Returns an error for the first weight that is not in `known`.
    pub fn expect_only(&self, known: &[&str]) -> Result<()> {
        let mut weights = self.names().filter_map(|name| name.strip_prefix("param."));
        match weights.find(|name| !known.contains(name)) {
            None => Ok(()),
            Some(name) => Err(ParityError::Unchecked { name: format!("param.{name}"), model: self.model.clone() }),
        }
    }

    /// Checks a list of modules like [`expect_weight`](Self::expect_weight): the last of `count` must exist.
    ///
    /// # Errors
    /// Returns an error if there are fewer.
    pub fn expect_modules(&self, list: &str, count: usize) -> Result<()> {
        let Some(last) = count.checked_sub(1) else { return Ok(()) };
        let prefix = format!("param.{list}.{last}.");
        if self.file.tensors.range(prefix.clone()..).next().is_some_and(|(name, _)| name.starts_with(&prefix)) {
            return Ok(());
        }
        Err(ParityError::Missing(format!("{prefix}*")))
    }
}

/// Returns the subject of the file according to its configuration.
fn model(config: &Value) -> Option<String> {
    if let Some(model) = config.get("model").and_then(Value::as_str) {
        return Some(model.to_owned());
    }
    if let Some(objective) = config.get("objective").and_then(Value::as_str) {
        return Some(format!("{objective}_objective"));
    }
    if config.get("optimisers").or(config.get("schedules")).is_some_and(Value::is_object) {
        return Some("optimizers".to_owned());
    }
    (config.get("features") == Some(&Value::Bool(true))).then(|| "features".to_owned())
}

/// Type and shape, for messages.
fn described(tensor: &Tensor) -> String {
    format!("{} {:?}", tensor.dtype().as_str(), tensor.dims())
}
