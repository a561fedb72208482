//! The differences between the token-to-mel flows.

use std::borrow::Cow;
use std::fmt::Debug;

use flowmill_audio::features::MelConfig;
use flowmill_family::{KeyError, Settings};
use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{FlowConfig, FlowError, MelNormalization};
use flowmill_nn::Parameters;

use super::public::PublicConfig;

/// One of the token-to-mel flows.
pub trait Kind: Debug + Clone + Default + PartialEq + Send + Sync + 'static {
    /// The family's name.
    const NAME: &'static str;
    /// See [`Family::RECIPES`](flowmill_family::Family::RECIPES).
    const RECIPES: &'static [&'static str];
    /// True if inference has a strength, as that of shallow flows.
    const HAS_STRENGTH: bool = false;
    /// The settings, with the names of recipes and files.
    type Config: Settings;

    /// The settings of its encoder, estimator and mel.
    fn flow(config: &Self::Config) -> Cow<'_, FlowConfig>;

    /// The key of a setting of [`flow`](Self::flow) below `train.model`.
    fn flow_key(field: &str) -> String {
        field.to_owned()
    }

    /// Checks settings other than those of the flow.
    ///
    /// # Errors
    /// [`FlowError::Config`] names the first invalid setting, below `train.model`.
    fn check_own(config: &Self::Config) -> Result<(), FlowError> {
        let _ = config;
        Ok(())
    }

    /// Returns the configuration with which public inference code loads `flow.pt`; `departures` are settings that it does not implement.
    fn public_config(config: &Self::Config, mel: &MelConfig, departures: &[String]) -> PublicConfig;

    /// Makes the flow work on mels with this normalization.
    fn normalize(config: &mut Self::Config, normalization: MelNormalization);

    /// Builds the network with freshly drawn weights.
    ///
    /// # Errors
    /// Returns an error if the settings are inconsistent.
    fn build(config: &Self::Config, seed: u64) -> Result<(Box<dyn TokenToMel>, Parameters), FlowError>;
}

/// Returns the error about a setting of the flow.
pub(super) fn flow_error<K: Kind>(field: &str, reason: impl Into<String>) -> KeyError {
    KeyError::new(format!("train.model.{}", K::flow_key(field)), reason)
}

/// Checks all settings of a model.
pub(super) fn check<K: Kind>(config: &K::Config) -> Result<(), KeyError> {
    let located = |error: FlowError, key: &dyn Fn(&str) -> String| match error {
        FlowError::Config { field, message } => KeyError::new(format!("train.model.{}", key(field)), message),
        other => KeyError::new("train.model", other.to_string()),
    };
    K::flow(config).check().map_err(|error| located(error, &K::flow_key))?;
    K::check_own(config).map_err(|error| located(error, &str::to_owned))
}
