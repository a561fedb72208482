//! An exported model and its uses.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use flowmill_corpus::{ColumnSpec, Row};
use flowmill_nn::Parameters;
use flowmill_train::BoxError;
use serde_json::Value;

use crate::{Audio, Family, FamilyError, Made, MelOutput, Output};

/// A model with its weights, as it was loaded.
pub struct Loaded<F: Family> {
    /// The settings.
    pub config: F::Config,
    /// The family's part of `config.json`.
    pub description: F::Description,
    /// The network.
    pub model: F::Model,
    /// The weights, on `device`.
    pub parameters: Parameters,
    /// The folder that it was loaded from, which has the extractors.
    pub folder: PathBuf,
    /// The device that computes it.
    pub device: Device,
}

/// A request to a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A recording.
    Audio(PathBuf),
    /// A picture.
    Image(PathBuf),
    /// A text.
    Text(String),
    /// A row with columns that another program extracted, such as speech tokens.
    Row(Box<Row>),
    /// The speaker embedding of the voice to use instead of that of the other inputs.
    Voice(Vec<f32>),
}

/// One use of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The inputs, in order.
    pub inputs: Vec<Input>,
    /// The name of the output.
    pub name: String,
}

/// The result of a request.
#[derive(Debug, Clone)]
pub struct Synthesis {
    /// The output.
    pub made: Made,
    /// Figures about it, in words: `2.50 s`, `10 evaluations`.
    pub figures: Vec<String>,
}

const NO_VOICE: &str = "this model has no speaker embeddings";

/// A function that gets the next samples of a sound, and their number per second.
pub type Play<'a> = dyn FnMut(&[f32], u32) -> Result<(), BoxError> + 'a;

/// A use of a model on inputs of a user.
pub trait Synthesizer: Send + Sync {
    /// Does one request.
    ///
    /// # Errors
    /// Returns an error if an input is missing or cannot be read, or the model fails.
    fn run(&self, request: &Request) -> Result<Synthesis, BoxError>;

    /// Does one request like [`run`](Self::run), and calls `progress` with the numbers of steps that are done and of
    /// those there are at most. A model whose work has no steps does not call it.
    ///
    /// # Errors
    /// See [`run`](Self::run).
    fn run_observed(&self, request: &Request, progress: &mut dyn FnMut(usize, usize)) -> Result<Synthesis, BoxError> {
        let _ = progress;
        self.run(request)
    }

    /// Does one request, and passes its sound to `play` in parts as it is made: mono samples and their number per second. A model that makes
    /// its sound at once plays it once.
    ///
    /// # Errors
    /// See [`run`](Self::run); those of `play`.
    fn stream(&self, request: &Request, play: &mut Play<'_>) -> Result<Synthesis, BoxError> {
        let synthesis = self.run(request)?;
        match &synthesis.made.output {
            Output::Mel(MelOutput { waveform, config, .. }) => play(waveform, config.sample_rate)?,
            Output::Audio(Audio { samples, sample_rate }) => play(samples, *sample_rate)?,
            Output::Video { .. } | Output::Images(_) => return Err("this model makes no sound to stream".into()),
        }
        Ok(synthesis)
    }

    /// Returns the speaker embedding of a recording.
    ///
    /// # Errors
    /// Returns an error if the recording cannot be read, or the model has no speaker embeddings.
    fn voice(&self, recording: &Path) -> Result<Vec<f32>, BoxError> {
        let _ = recording;
        Err(NO_VOICE.into())
    }

    /// Checks that a speaker embedding is one for this model.
    ///
    /// # Errors
    /// Returns the difference, or an error if the model has no speaker embeddings.
    fn check_voice(&self, embedding: &[f32]) -> Result<(), BoxError> {
        let _ = embedding;
        Err(NO_VOICE.into())
    }

    /// Returns the text, or its phonemes, that is spoken in a recording.
    ///
    /// # Errors
    /// Returns an error if the recording cannot be read, or the model does not transcribe.
    fn transcribe(&self, recording: &Path) -> Result<String, BoxError> {
        let _ = recording;
        Err("this model does not transcribe recordings".into())
    }
}

/// The result of a row: outputs, or the reason of its rejection.
pub type Scored = Result<Vec<Made>, String>;

/// A sampler and scorer of a split, which also scores the trivial answers that a model must beat.
pub trait Scorer: Send {
    /// The columns that rows need.
    fn columns(&self) -> Vec<ColumnSpec>;

    /// Learns the trivial answers from a training row.
    ///
    /// # Errors
    /// Returns an error if the row cannot be used.
    fn learn(&mut self, row: &Row) -> Result<(), BoxError>;

    /// Samples and scores rows. Returns a result for each row, or only for the first ones if `interrupted` returns
    /// true.
    ///
    /// # Errors
    /// Returns an error that is not caused by a row.
    fn score(&mut self, rows: &[Arc<Row>], interrupted: &dyn Fn() -> bool) -> Result<Vec<Scored>, BoxError>;

    /// Returns the scores of all rows.
    fn finish(self: Box<Self>, split: &str) -> Report;
}

/// The scores of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The content of `scores.json`.
    pub scores: Value,
    /// The same as lines for a terminal.
    pub lines: Vec<String>,
    /// The figures that the receipt records, by name.
    pub facts: Vec<(&'static str, f64)>,
    /// The number of scored rows.
    pub rows: u64,
}

/// A score for people who have not seen it before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedScore {
    /// Name of the score.
    pub name: String,
    /// The value with its unit.
    pub value: String,
    /// A sentence on what it measures and which values are good.
    pub meaning: String,
}

/// A family's part of a model card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Term for the model, such as `token-to-mel flow`.
    pub kind: String,
    /// A sentence on its purpose.
    pub does: String,
    /// The scores, as Markdown.
    pub scores: String,
    /// Notes for users of public code, as Markdown; may be empty.
    pub public_code: String,
    /// The metadata for model hubs.
    pub hub: HubMetadata,
}

/// Metadata by which a model hub (huggingface.co) finds and files a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HubMetadata {
    /// The task, by the hub's name: `text-to-speech`.
    pub pipeline_tag: Option<&'static str>,
    /// Tags in addition to the family's name.
    pub tags: &'static [&'static str],
}

/// A [`Loaded`] model of any family.
pub trait AnyExported: Send + Sync {
    /// The family's name, and whether it speaks texts ([`Family::SPEAKS`]).
    fn family(&self) -> (&'static str, bool);

    /// Number of weights.
    fn parameter_count(&self) -> usize;

    /// See [`Family::scorer`]; `options` are those of [`Configured::export_options`](crate::Configured::export_options).
    ///
    /// # Errors
    /// See [`Family::scorer`].
    fn scorer(self: Box<Self>, options: &Value, seed: u64) -> Result<Box<dyn Scorer>, BoxError>;

    /// See [`Family::synthesizer`]; `options` is a mapping with some of [`Family::SynthOptions`].
    ///
    /// # Errors
    /// See [`Family::synthesizer`]; also an error for an unknown option.
    fn synthesizer(self: Box<Self>, options: Value, seed: u64) -> Result<Box<dyn Synthesizer>, BoxError>;

    /// See [`Family::card`].
    ///
    /// # Errors
    /// See [`Family::card`].
    fn card(&self, scores: &Value) -> Result<Card, BoxError>;
}

impl<F: Family> AnyExported for Loaded<F> {
    fn family(&self) -> (&'static str, bool) {
        (F::NAME, F::SPEAKS)
    }

    fn parameter_count(&self) -> usize {
        self.parameters.element_count(true)
    }

    fn scorer(self: Box<Self>, options: &Value, seed: u64) -> Result<Box<dyn Scorer>, BoxError> {
        let options = serde_json::from_value(options.clone()).map_err(FamilyError::Options)?;
        F::scorer(*self, options, seed)
    }

    fn synthesizer(self: Box<Self>, options: Value, seed: u64) -> Result<Box<dyn Synthesizer>, BoxError> {
        let options = serde_json::from_value(options).map_err(FamilyError::Options)?;
        F::synthesizer(*self, options, seed)
    }

    fn card(&self, scores: &Value) -> Result<Card, BoxError> {
        F::card(self, scores)
    }
}
