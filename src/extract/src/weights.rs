//! The source of a published model's weights, and the "fit" of an extractor that has them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use candle_core::Tensor;
use flowmill_nn::{Parameters, host};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Accumulator, ConfigError, ExtractError, Facts, Fit, Fitted, Matrix, Media, Scope, State, StateError,
    UnusableWeights,
};

/// The name in a recipe of weights that are drawn instead of read.
const RANDOM: &str = "random";

/// The note of runs with random weights.
const RANDOM_NOTE: &str = "RANDOM, for smoke runs only: what comes out means nothing";

/// Weights as a recipe names them: a file, relative to the recipe's folder, or `random`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Weights {
    /// A file of the published model.
    File(PathBuf),
    /// Drawn from the recipe's seed, for runs that only try the machinery.
    Random,
}

impl From<String> for Weights {
    fn from(text: String) -> Self {
        if text == RANDOM { Self::Random } else { Self::File(PathBuf::from(text)) }
    }
}

impl From<Weights> for String {
    fn from(weights: Weights) -> Self {
        match weights {
            // Made from a string, so nothing is lost.
            Weights::File(path) => path.to_string_lossy().into_owned(),
            Weights::Random => RANDOM.to_owned(),
        }
    }
}

impl Weights {
    /// The file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Random => None,
        }
    }

    /// Returns figures about the weights.
    pub(super) fn facts(&self) -> Facts {
        let told = self.file().map_or_else(|| RANDOM_NOTE.to_owned(), |path| path.display().to_string());
        vec![("weights".to_owned(), told.into())]
    }
}

/// Returns the weights that a recipe must name under `field`.
///
/// # Errors
/// When it names none; `published` says which are missing.
pub fn required<'a>(
    field: &'static str,
    weights: Option<&'a Weights>,
    published: &str,
) -> Result<&'a Weights, ConfigError> {
    let missing = || ConfigError::new(field, format!("missing: {published}, or `{RANDOM}` to try a run without any"));
    weights.filter(|weights| weights.file().is_none_or(|path| !path.as_os_str().is_empty())).ok_or_else(missing)
}

/// An error about a weight file.
pub(super) fn unusable(path: &Path, error: UnusableWeights) -> StateError {
    StateError::Format { path: path.to_owned(), reason: error.0 }
}

/// Returns the conversion of an error about the weights in a state into that of a state which is not one of `kind`.
pub(super) fn foreign(kind: &'static str) -> impl Fn(UnusableWeights) -> StateError {
    move |error| StateError::Foreign { wanted: kind.to_owned(), found: error.to_string() }
}

/// Adds a model's parameters to a state, under their names behind `prefix`.
pub(super) fn keep(state: &mut State, prefix: &str, parameters: &Parameters) -> Result<(), UnusableWeights> {
    for id in parameters.ids() {
        let tensor = parameters.tensor(id);
        let elements = host::slice("weights", tensor)?.to_vec();
        state.set_f32(&format!("{prefix}{}", parameters.name(id)), tensor.dims(), elements);
    }
    Ok(())
}

/// The tensors of a state whose names begin with `prefix`, without it.
pub(super) fn kept(state: &State, prefix: &str) -> Result<BTreeMap<String, Tensor>, UnusableWeights> {
    let arrays =
        state.f32_arrays().filter_map(|(name, shape, values)| Some((name.strip_prefix(prefix)?, shape, values)));
    arrays.map(|(name, shape, values)| Ok((name.to_owned(), host::tensor(values.to_vec(), shape)?))).collect()
}

/// The fit of an extractor whose weights are published or random: it measures nothing, finishing takes the weights over.
pub struct Pretrained<F> {
    kind: &'static str,
    load: F,
}

impl<F: Fn() -> Result<Fitted, StateError> + Send + Sync> Pretrained<F> {
    /// Creates the fit of an extractor of this kind; `load` makes the state and its facts.
    pub fn new(kind: &'static str, load: F) -> Self {
        Self { kind, load }
    }
}

impl<F: Fn() -> Result<Fitted, StateError> + Send + Sync> Fit for Pretrained<F> {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn measure(&self, _media: &Media) -> Result<Matrix, ExtractError> {
        Ok(Matrix::new(Vec::new(), 1))
    }

    fn accumulator(&self, _scope: Scope) -> Box<dyn Accumulator> {
        Box::new(Nothing { kind: self.kind })
    }

    fn finish(&self, state: &State) -> Result<Fitted, StateError> {
        state.expect_kind(self.kind)?;
        (self.load)()
    }
}

/// Gathers nothing.
struct Nothing {
    kind: &'static str,
}

impl Accumulator for Nothing {
    fn add(&mut self, _id: &str, _measured: &Matrix) -> Result<(), StateError> {
        Ok(())
    }

    fn absorb(&mut self, state: &State) -> Result<(), StateError> {
        state.expect_kind(self.kind)
    }

    fn into_state(self: Box<Self>) -> State {
        State::new(self.kind, serde_json::json!({}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_a_file_or_random() {
        let read = |text: &str| serde_json::from_value::<Weights>(serde_json::json!(text)).unwrap();
        assert_eq!(read("random"), Weights::Random);
        assert_eq!(read("models/s3.onnx").file(), Some(Path::new("models/s3.onnx")));
        assert_eq!(serde_json::json!(read("models/s3.onnx")), "models/s3.onnx");
        let error = required("weights", None, "the path of s3.onnx").unwrap_err().to_string();
        assert_eq!(error, "weights: missing: the path of s3.onnx, or `random` to try a run without any");
    }

    #[test]
    fn parameters_survive_in_a_state() {
        let mut parameters = Parameters::new();
        let tensor = host::tensor(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]).unwrap();
        parameters.add("layer.weight", tensor).unwrap();
        let mut state = State::new("any", serde_json::json!({}));
        keep(&mut state, "model.", &parameters).unwrap();
        let tensors = kept(&state, "model.").unwrap();
        assert_eq!(tensors["layer.weight"].to_vec2::<f32>().unwrap(), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    }
}
