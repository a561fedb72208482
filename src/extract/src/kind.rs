//! The contract of a kind of extractor: its settings, and all that follows from them.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use candle_core::Device;
use flowmill_corpus::Role;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::extractors::import::ImportConfig;
use crate::weights::Pretrained;
use crate::{Codec, Column, ConfigError, Extractor, Fit, Fitted, Renderer, State, StateError, Weights};

/// A kind of extractor, implemented by its settings. It comes into a [`Registry`](crate::Registry) with one line; recipes, their schema and
/// reference, and stages 1 and 2 take it from there.
pub trait Kind:
    Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static
{
    /// The name that a recipe selects it by.
    const NAME: &'static str;
    /// The description for those who choose it, in the recipe's reference.
    const ABOUT: &'static str;
    /// The keys of the settings that hold paths, as [`StagePaths`](flowmill_runner::StagePaths) writes them: `weights`, `files.[]`.
    const PATHS: &'static [&'static str] = &[];
    /// Words that may be in the place of a path: `random`.
    const WORDS: &'static [&'static str] = &[];
    /// The media of a row that it reads.
    const MEDIA: &'static [Role] = &[Role::Audio];
    /// True if it reads the text of a row and its language, in addition to the media.
    const TEXT: bool = false;
    /// The columns of stage 0 that it reads, as far as the rows have them.
    const COLUMNS: &'static [&'static str] = &[];
    /// True if it is a network, which a device computes.
    const NETWORK: bool = false;

    /// The columns that it gives.
    fn columns(&self) -> Vec<Column>;

    /// The extractor that a fitted state describes. Networks run on the device.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    fn open(state: &State, device: &Device) -> Result<Box<dyn Extractor>, StateError>;

    /// Opens the decoder that a fitted state describes, which turns codes into sound; none if the extractor's values are not
    /// [codes](crate::ValueType::Codes). Networks run on the device.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    fn codec(_state: &State, _device: &Device) -> Result<Option<Box<dyn Codec>>, StateError> {
        Ok(None)
    }

    /// Opens the renderer that a fitted state describes, which turns motion into frames; none if the extractor's values are no motion
    /// that can be rendered. Networks run on the device.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    fn renderer(_state: &State, _device: &Device) -> Result<Option<Box<dyn Renderer>>, StateError> {
        Ok(None)
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// The field that cannot be used.
    fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// The settings that measuring a row reads, of an extractor that learns from rows: of two configurations that agree in them, what parts
    /// accumulate is the same. None of an extractor that measures nothing.
    fn learning(&self) -> Option<Value> {
        None
    }

    /// Prepares to fit the extractor. A kind with published weights reads them in [`Fit::finish`], relative to `root`, the recipe's folder,
    /// and measures nothing. By default the state is the settings.
    ///
    /// # Errors
    /// The field that cannot be used.
    fn fit(&self, _seed: u64, _root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        let state = State::new(Self::NAME, json!(self));
        Ok(Box::new(Pretrained::new(Self::NAME, move || Ok(Fitted { state: state.clone(), facts: Vec::new() }))))
    }

    /// The weights that fitting takes over.
    fn weights(&self) -> Vec<&Weights> {
        Vec::new()
    }

    /// The files other than weights that fitting reads, relative to the recipe's folder.
    fn other_files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// Returns those of the [other files](Kind::other_files) that are read below `root`, the recipe's folder, where a setting may name a
    /// folder.
    fn other_files_read(&self, root: &Path) -> Vec<PathBuf> {
        self.other_files().into_iter().map(|file| root.join(file)).collect()
    }

    /// Returns true if fitting draws random numbers, so that the result depends on the seed.
    fn reads_seed(&self) -> bool {
        self.weights().contains(&&Weights::Random)
    }

    /// Returns true if its tokens are centers of log-mel, from which an embedding of tokens can start.
    fn has_centers(&self) -> bool {
        false
    }

    /// The settings of values that another tool made. A stage looks them up instead of extracting.
    fn import(&self) -> Option<&ImportConfig> {
        None
    }
}
