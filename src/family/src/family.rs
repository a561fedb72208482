//! The traits that a family implements.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use flowmill_audio::features::MelConfig;
use flowmill_corpus::shard::{RowSizes, ShardIndex};
use flowmill_corpus::{ColumnSpec, Row};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters};
use flowmill_train::metrics::Reference;
use flowmill_train::{BoxError, LoraConfig, Loss, LossScaleConfig};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Card, ExplainedScore, KeyError, Loaded, Made, Scorer, Synthesizer};

/// Settings of a recipe: a struct whose `Default` is the published model or the recommended choice.
pub trait Settings:
    Serialize + DeserializeOwned + JsonSchema + Default + Clone + Debug + PartialEq + Send + Sync + 'static
{
}

impl<T> Settings for T where
    T: Serialize + DeserializeOwned + JsonSchema + Default + Clone + Debug + PartialEq + Send + Sync + 'static
{
}

/// The options of a family without options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoOptions {}

/// The settings of a training that belong to the family.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainSettings<F: Family> {
    /// `train.model`.
    pub config: F::Config,
    /// The family's own keys of the section `train`.
    pub options: F::TrainOptions,
}

/// A column that stages 1 to 3 will provide, known from the recipe before anything runs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Provided {
    /// A vector for each row.
    Embedding {
        /// The vector's length.
        dimensions: usize,
    },
    /// A sequence of indices for each row.
    Tokens {
        /// The kind of the extractor.
        extractor: &'static str,
        /// Number of different indices.
        vocabulary: usize,
        /// True if there may be more indices than that: it is known from a few rows.
        at_least: bool,
        /// Indices per second.
        rate: f64,
        /// True if the extractor has a vector for each index.
        has_centers: bool,
    },
    /// Several sequences of indices of equal length for each row: the levels of a codec.
    Codes {
        /// The kind of the extractor.
        extractor: &'static str,
        /// The number of levels.
        levels: usize,
        /// Number of different indices of each level.
        vocabulary: usize,
        /// Frames per second.
        rate: f64,
    },
    /// A mel spectrogram for each row.
    Mel {
        /// The definition.
        config: MelConfig,
        /// True if shards contain it; otherwise it is computed from the recording.
        stored: bool,
    },
    /// Any other array for each row.
    Other {
        /// The type and axes.
        spec: ColumnSpec,
    },
}

/// The columns that the sections of a recipe provide, by name; without those of stages that the recipe leaves out.
pub type Columns = BTreeMap<String, Provided>;

/// Files of earlier stages that a training reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// The folder of the recipe, from which its relative paths start.
    pub root: PathBuf,
    /// The folder of stage 3.
    pub packed: PathBuf,
    /// The fitted extractor of stage 1.
    pub embed: PathBuf,
    /// The fitted extractor of stage 2.
    pub tokens: PathBuf,
    /// The split for training.
    pub train_split: String,
}

/// A fitted extractor that belongs to an exported model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FittedExtractor {
    /// The stage that fitted it: 1 or 2.
    pub stage: u8,
    /// The file in the folder of the model.
    pub file: &'static str,
}

/// The files of a training's fitted extractors, by their name in an exported folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtractorFiles(Vec<(PathBuf, &'static str)>);

impl ExtractorFiles {
    /// Creates a list of files, each with its name in an exported folder.
    pub fn new(files: Vec<(PathBuf, &'static str)>) -> Self {
        Self(files)
    }

    /// Iterates over the files and their names.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &'static str)> {
        self.0.iter().map(|(path, name)| (path.as_path(), *name))
    }

    /// Returns the path of the file with this name.
    ///
    /// # Errors
    /// Returns an error if the family has no such extractor.
    pub fn path(&self, name: &str) -> Result<&Path, BoxError> {
        let found = self.iter().find(|(_, own)| *own == name);
        Ok(found.ok_or_else(|| format!("no fitted extractor is called {name}"))?.0)
    }
}

/// A part of examples that is computed during training instead of being read, with everything that determines it.
#[derive(Debug, Clone, PartialEq)]
pub struct Derived {
    /// The computed part, such as `mels`.
    pub what: &'static str,
    /// Everything except the columns that determines it.
    pub by: Value,
}

/// A family of models. Everything is a pure function of its arguments.
pub trait Family: Sized + Debug + Clone + PartialEq + Default + Send + Sync + 'static {
    /// The name in recipes (`train.model.family`) and exported folders.
    const NAME: &'static str;
    /// Unit of costs, in the plural: `frames`, `tokens`, `pixels`.
    const COST_UNIT: &'static str = "frames";
    /// Names of the columns that stage 3 packs if the recipe has no `pack.columns`; `None` for those of the speech flows.
    const SHARD_COLUMNS: Option<&'static [&'static str]> = None;
    /// Names of columns that stage 3 packs in addition if a stage provides them.
    const OPTIONAL_COLUMNS: &'static [&'static str] = &[];
    /// The extractors that an exported model needs.
    const EXTRACTORS: &'static [FittedExtractor] = &[];

    /// The family's own keys of the section `train` that hold paths, as [`StagePaths`](flowmill_runner::StagePaths)
    /// writes them. They are relative to [`Artifacts::root`].
    const PATHS: &'static [&'static str] = &[];
    /// True if models of this family speak texts: `flowmill speak` uses them, and `flowmill train --eval` and `--overfit`
    /// write speech to listen to.
    const SPEAKS: bool = false;
    /// Command that uses models of this family, and its arguments after `--model`; `None` if no command does.
    const USED_BY: Option<(&'static str, &'static str)> = Some(("synth", "--wav speech.wav"));
    /// Values of metrics that are shown next to those of a training.
    const REFERENCES: &'static [Reference] = &[];
    /// The texts of the recipe at the published setting, those that it is laid over first. `flowmill init` writes it for other data.
    const RECIPES: &'static [&'static str] = &[];
    /// The smallest loss scale in half precision.
    const LEAST_LOSS_SCALE: f64 = 0.0;

    /// Words that may be in the place of a path.
    const WORDS: &'static [&'static str] = &[];
    /// The linear layers that get adapters if `train.lora.targets` names none; empty if they must be named.
    const ADAPTED_LAYERS: &'static [&'static str] = &[];

    /// `train.model` without `family`. The default is the published model.
    type Config: Settings;
    /// The family's own keys of the section `train`.
    type TrainOptions: Settings;
    /// The family's own keys of the section `export`, for sampling and scoring the model.
    type ExportOptions: Settings;
    /// Options of `flowmill synth`; by default the model's own.
    type SynthOptions: Settings;
    /// Part of a model's `config.json` after family, settings and adapters. Unknown keys are ignored.
    type Description: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;
    /// Converter of one split's rows to examples.
    type Reader: Send + Sync + 'static;
    /// The example of one row, ready to be collated.
    type Example: Send + Sync + 'static;
    /// A batch of examples, the input of the loss.
    type Batch: Send + 'static;
    /// The network, without its weights, which are in the parameters.
    type Model: Model<Self>;

    /// Checks that the settings are consistent.
    ///
    /// # Errors
    /// Returns the first invalid key.
    fn check(settings: &TrainSettings<Self>) -> Result<(), KeyError>;

    /// Compares the settings with the columns that the recipe provides.
    ///
    /// # Errors
    /// Returns the key that does not match, with the value that would.
    fn check_columns(settings: &TrainSettings<Self>, columns: &Columns) -> Result<(), KeyError>;

    /// Checks that weights from a file (`train.init_from`) do not overwrite settings.
    ///
    /// # Errors
    /// Returns the key of the setting.
    fn check_initial_weights(settings: &TrainSettings<Self>) -> Result<(), KeyError> {
        let _ = settings;
        Ok(())
    }

    /// Returns the loss scale in half precision, as far as the recipe does not set it.
    fn loss_scale() -> LossScaleConfig {
        LossScaleConfig::default()
    }

    /// Returns the adapters that the family's own options describe, as an alternative to `train.lora`.
    ///
    /// # Errors
    /// Returns the invalid key.
    fn adapters(options: &Self::TrainOptions) -> Result<Option<LoraConfig>, KeyError> {
        let _ = options;
        Ok(None)
    }

    /// Checks the options of the section `export`.
    ///
    /// # Errors
    /// Returns the invalid key.
    fn check_export(config: &Self::Config, options: &Self::ExportOptions) -> Result<(), KeyError>;

    /// Checks the files that the family's own keys of the section `train` name, before any stage runs; relative paths are from `root` on.
    ///
    /// # Errors
    /// Returns the key of a file that is missing or cannot be used.
    fn check_files(settings: &TrainSettings<Self>, root: &Path) -> Result<(), KeyError> {
        let _ = (settings, root);
        Ok(())
    }

    /// Returns the files that a training reads in addition to the shards, each with its role in the receipt.
    fn inputs(settings: &TrainSettings<Self>, artifacts: &Artifacts) -> Vec<(String, PathBuf)> {
        let _ = (settings, artifacts);
        Vec::new()
    }

    /// Completes the settings of the model with measurements of earlier stages.
    ///
    /// # Errors
    /// Returns an error if they cannot be read or do not match.
    fn complete(settings: &mut TrainSettings<Self>, artifacts: &Artifacts) -> Result<(), BoxError> {
        let _ = (settings, artifacts);
        Ok(())
    }

    /// Returns the columns from which examples of a split are made.
    ///
    /// # Errors
    /// Returns an error if the split does not have them.
    fn columns(settings: &TrainSettings<Self>, index: &ShardIndex) -> Result<Vec<ColumnSpec>, BoxError>;

    /// Returns the part of examples that is not a column of the split, if there is one.
    fn derived(settings: &TrainSettings<Self>, index: &ShardIndex) -> Option<Derived> {
        let _ = (settings, index);
        None
    }

    /// Checks the splits of a training, each with the path of its index.
    ///
    /// # Errors
    /// Returns a mismatch with the model or the other splits.
    fn check_splits(settings: &TrainSettings<Self>, splits: &[(&Path, &ShardIndex)]) -> Result<(), BoxError> {
        let _ = (settings, splits);
        Ok(())
    }

    /// Prepares reading the split whose index is in the file `path`. The reader may read other rows of the split, such
    /// as a recording of the same speaker.
    ///
    /// # Errors
    /// Returns an error if its index does not describe everything that the family needs.
    fn reader(settings: &TrainSettings<Self>, path: &Path, index: &ShardIndex) -> Result<Self::Reader, BoxError>;

    /// Returns what a person should know about a split before training, such as the number of rows with a shortcoming.
    fn notes(settings: &TrainSettings<Self>, reader: &Self::Reader) -> Vec<String> {
        let _ = (settings, reader);
        Vec::new()
    }

    /// Returns the cost of a row with these sizes, in [`Family::COST_UNIT`]s. The cost of a batch is that of its most
    /// expensive row times its number of rows, at most `train.batch.max_frames_in_batch`.
    fn cost(settings: &TrainSettings<Self>, sizes: &RowSizes<'_>) -> u32 {
        let _ = settings;
        sizes.frames()
    }

    /// Returns the number of elements of the loss per unit of cost.
    fn elements_per_cost(settings: &TrainSettings<Self>) -> usize {
        let _ = settings;
        1
    }

    /// Makes the example of a row. `sample` identifies it in random draws of the loss. Random choices of the example
    /// itself come from `rng_key`, which is a function of the seed, the epoch, the batch and the sample.
    ///
    /// # Errors
    /// Returns a problem with the row, with its id.
    fn example(
        settings: &TrainSettings<Self>,
        reader: &Self::Reader,
        row: &Row,
        sample: u64,
        rng_key: RngKey,
    ) -> Result<Self::Example, BoxError>;

    /// Returns the settings under which each thing that a sample can be drawn for, such as a level of codes, is drawn alone. A test
    /// of overfitting trains on all of them. The first are also those of previews.
    fn variants(settings: &TrainSettings<Self>) -> Vec<TrainSettings<Self>> {
        vec![settings.clone()]
    }

    /// Gives an example the text of another one. Returns whether examples have a text.
    fn take_text(example: &mut Self::Example, other: &Self::Example) -> bool {
        let _ = (example, other);
        false
    }

    /// Makes a batch of examples. Tensors may be on the CPU: they move to the device of the parameters at the first
    /// operation that reads both.
    ///
    /// # Errors
    /// Returns an error if the examples are inconsistent.
    fn collate(
        settings: &TrainSettings<Self>,
        examples: Vec<Self::Example>,
        device: &Device,
    ) -> Result<Self::Batch, BoxError>;

    /// Builds the network with random weights, under the names of the public `state_dict`.
    ///
    /// # Errors
    /// Returns an error if the settings are inconsistent.
    fn build(config: &Self::Config, seed: u64) -> Result<(Self::Model, Parameters), BoxError>;

    /// Replaces random weights by better ones from results of earlier stages.
    ///
    /// # Errors
    /// Returns an error if they cannot be read or do not match.
    fn initialize(
        settings: &TrainSettings<Self>,
        parameters: &mut Parameters,
        artifacts: &Artifacts,
        seed: u64,
    ) -> Result<(), BoxError> {
        let _ = (settings, parameters, artifacts, seed);
        Ok(())
    }

    /// Describes a training on the split of this index.
    ///
    /// # Errors
    /// Returns an error if the index lacks information for the description.
    fn describe(settings: &TrainSettings<Self>, index: &ShardIndex) -> Result<Self::Description, BoxError>;

    /// Returns the settings of sampling for an exported model's description (`sampling`); null for none.
    fn sampling(options: &Self::ExportOptions) -> Value {
        let _ = options;
        Value::Null
    }

    /// Writes exported weights in the formats that public code reads; `file` returns the path for a file name.
    ///
    /// # Errors
    /// Returns an error if they cannot be read or written.
    fn export(
        config: &Self::Config,
        weights: &Path,
        file: &mut dyn FnMut(&str) -> Result<PathBuf, BoxError>,
    ) -> Result<(), BoxError> {
        let _ = (config, weights, file);
        Ok(())
    }

    /// The file of a graph that [`export_onnx`](Self::export_onnx) writes, if the family can export one.
    const ONNX_FILE: Option<&'static str> = None;

    /// Writes the network that inference runs most often, with exported weights, as an ONNX graph to `path`.
    ///
    /// # Errors
    /// Returns an error if the weights cannot be read or the graph cannot be written.
    fn export_onnx(config: &Self::Config, weights: &Path, path: &Path) -> Result<(), BoxError> {
        let _ = (config, weights, path);
        Ok(())
    }

    /// Writes trained adapters, by the names of PEFT, in the formats that public code reads; `file` returns the path
    /// for a file name.
    ///
    /// # Errors
    /// Returns an error if they cannot be written.
    fn export_adapters(
        adapters: &BTreeMap<String, Tensor>,
        lora: &LoraConfig,
        file: &mut dyn FnMut(&str) -> Result<PathBuf, BoxError>,
    ) -> Result<(), BoxError> {
        let _ = (adapters, lora, file);
        Ok(())
    }

    /// Prepares sampling and scoring a split with a model.
    ///
    /// # Errors
    /// Returns an error if the options do not match the model.
    fn scorer(loaded: Loaded<Self>, options: Self::ExportOptions, seed: u64) -> Result<Box<dyn Scorer>, BoxError>;

    /// Prepares the use of a model on inputs of a user.
    ///
    /// # Errors
    /// Returns an error if the options do not match the model, or its folder is incomplete.
    fn synthesizer(
        loaded: Loaded<Self>,
        options: Self::SynthOptions,
        seed: u64,
    ) -> Result<Box<dyn Synthesizer>, BoxError>;

    /// The scores that its [`Scorer`] reported, explained, the most important one first. None by default.
    ///
    /// # Errors
    /// When these are no such scores.
    fn explain(scores: &Value) -> Result<Vec<ExplainedScore>, BoxError> {
        let _ = scores;
        Ok(Vec::new())
    }

    /// The card of a model with the scores that its [`Scorer`] reported.
    ///
    /// # Errors
    /// Returns an error if these are not such scores.
    fn card(loaded: &Loaded<Self>, scores: &Value) -> Result<Card, BoxError>;
}

/// A network of a family.
pub trait Model<F: Family>: Send + Sync + 'static {
    /// Returns the loss of a batch. Every random number comes from `draw`, keyed by purpose and sample.
    ///
    /// # Errors
    /// Returns an error if the batch does not match the model.
    fn loss(&self, context: &Context<'_>, batch: &F::Batch, rng_key: RngKey) -> Result<Loss, BoxError>;

    /// Returns whether batches may leave a parameter without a gradient, such as the embedding of something that not every batch has.
    fn is_optional(&self, parameter: &str) -> bool {
        let _ = parameter;
        false
    }

    /// Generates outputs for a few examples, given with their ids. The same weights give the same outputs. `extractors`
    /// are the files of [`Family::EXTRACTORS`].
    ///
    /// # Errors
    /// Returns an error if the model fails or outputs a value that is not finite.
    fn preview(
        &self,
        context: &Context<'_>,
        examples: &[(String, F::Example)],
        description: &F::Description,
        extractors: &ExtractorFiles,
        rng_key: RngKey,
    ) -> Result<Vec<Made>, BoxError>;

    /// Returns the distances of generated outputs of a preview from the real ones, each with the id of its example. None by
    /// default.
    ///
    /// # Errors
    /// Returns an error if outputs cannot be compared.
    fn distances(&self, made: &[Made]) -> Result<Vec<(String, f64)>, BoxError> {
        let _ = made;
        Ok(Vec::new())
    }
}
