//! Loading of a model's parameters from named tensors, with a report of what fits.

use crate::{ParameterId, Parameters, Result};
use candle_core::Tensor;
use flowmill_weights::MappedTensor;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Number of names of each kind that a message shows.
const SHOWN: usize = 3;

/// Comparison of a weight file with a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Names that were loaded.
    pub matched: Vec<String>,
    /// Names in the model that the file lacks.
    pub missing: Vec<String>,
    /// Names whose elements are integers in the file but floats in the model.
    pub integers: Vec<String>,
    /// Names in the file that the model lacks.
    pub extra: Vec<String>,
    /// Names whose shapes differ: name, shape in the model, shape in the file.
    pub mismatched: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl LoadReport {
    /// Returns whether file and model have the same names and shapes.
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.integers.is_empty() && self.extra.is_empty() && self.mismatched.is_empty()
    }
}

impl LoadReport {
    /// Moves missing names that the file has in `integers` to the list of integers.
    pub fn with_integers(mut self, integers: &BTreeMap<String, Tensor>) -> Self {
        let (integers, missing) = self.missing.into_iter().partition(|name| integers.contains_key(name));
        (self.integers, self.missing) = (integers, missing);
        self
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} tensors matched", self.matched.len())?;
        for (what, names) in
            [("missing", &self.missing), ("integers, not floats", &self.integers), ("extra", &self.extra)]
        {
            if !names.is_empty() {
                let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
                let rest = if names.len() > SHOWN { " and others" } else { "" };
                write!(formatter, "; {} {what} ({}{rest})", names.len(), shown.join(", "))?;
            }
        }
        if let [(name, model, file), ..] = self.mismatched.as_slice() {
            let count = self.mismatched.len();
            write!(formatter, "; {count} of another shape (`{name}`: model {model:?}, file {file:?})")?;
        }
        Ok(())
    }
}

impl Parameters {
    /// All parameters and buffers by name, in order of registration.
    pub fn named_tensors(&self) -> Vec<(String, Tensor)> {
        self.ids().map(|id| (self.name(id).to_owned(), self.tensor(id).clone())).collect()
    }

    /// The parameters that are this model's own, not [external](Self::set_external), by name, in order of registration.
    pub fn own_tensors(&self) -> Vec<(String, Tensor)> {
        let own = self.ids().filter(|id| !self.is_external(*id));
        own.map(|id| (self.name(id).to_owned(), self.tensor(id).clone())).collect()
    }

    /// Copies the tensors of the same name and shape, and reports what fits. Only matching parameters are changed; the
    /// caller decides whether a report that is not [exact](LoadReport::is_exact) is an error. [External](Self::set_external) parameters
    /// are not missing: they come from elsewhere.
    ///
    /// # Errors
    /// When a tensor cannot be copied.
    pub fn load(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<LoadReport> {
        let mut report = LoadReport::default();
        let known: HashMap<&str, ParameterId> =
            tensors.keys().filter_map(|name| self.find(name).map(|id| (name.as_str(), id))).collect();
        report.extra = tensors.keys().filter(|name| !known.contains_key(name.as_str())).cloned().collect();
        for id in self.ids() {
            let name = self.name(id).to_owned();
            let shape = self.tensor(id).dims().to_vec();
            match tensors.get(&name) {
                None if self.is_external(id) => {}
                None => report.missing.push(name),
                Some(tensor) if tensor.dims() != shape => {
                    report.mismatched.push((name, shape, tensor.dims().to_vec()));
                }
                Some(tensor) => {
                    self.set(id, tensor.clone())?;
                    report.matched.push(name);
                }
            }
        }
        Ok(report)
    }

    /// Gives the parameters whose names begin with `prefix` the weights of mapped files ([`set_mapped`](Self::set_mapped)), and reports
    /// what fits. Only matching parameters are changed.
    ///
    /// # Errors
    /// When the elements cannot be copied to the device of the parameters.
    pub fn load_mapped(&mut self, prefix: &str, mut weights: BTreeMap<String, MappedTensor>) -> Result<LoadReport> {
        let mut report = LoadReport::default();
        for id in self.ids() {
            let name = self.name(id).to_owned();
            if !name.starts_with(prefix) {
                continue;
            }
            let shape = self.tensor(id).dims().to_vec();
            match weights.remove(&name) {
                None => report.missing.push(name),
                Some(weight) if weight.shape() != shape => {
                    report.mismatched.push((name, shape, weight.shape().to_vec()));
                }
                Some(weight) => {
                    self.set_mapped(id, weight)?;
                    report.matched.push(name);
                }
            }
        }
        report.extra = weights.into_keys().collect();
        Ok(report)
    }
}
