//! FLOAT: the motion of a talking face from speech, by flow matching.
//!
//! | file | content |
//! |---|---|
//! | `rows`, `emotions`, `example` | from the columns of a row to a window |
//! | `options`, `description` | the keys of a recipe, and the description of a model |
//! | `columns` | the check against what earlier stages give |
//! | `network`, `sampling` | loss, metrics, previews, and motion for whole clips |
//! | `rendering`, `contact_sheet` | from motion to frames and pictures |
//! | `synthesizer` | the use of a model on a portrait and a voice |
//! | `measures`, `scores`, `scorer`, `card`, `explanation` | the scores |

mod card;
mod columns;
mod contact_sheet;
mod description;
mod emotions;
mod example;
mod explanation;
mod measures;
mod network;
mod options;
mod rendering;
mod rows;
mod sampling;
mod scorer;
mod scores;
mod synthesizer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Device;
use flowmill_corpus::shard::{RowSizes, ShardIndex, speech};
use flowmill_corpus::{ColumnSpec, Row};
use flowmill_extract::extractors::registry;
use flowmill_extract::{PORTRAIT, State};
use flowmill_family::{
    Artifacts, BoxError, Card, Columns, ExplainedScore, Family, FittedExtractor, KeyError, Loaded, Scorer, Synthesizer,
    TrainSettings,
};
use flowmill_networks::float::{Float as FloatNetwork, FloatConfig, FloatError};
use flowmill_nn::Parameters;
use flowmill_nn::random::RngKey;
use serde_json::Value;

pub use description::Description;
pub use example::{Example, ExampleBatch};
pub use network::Network;
pub use options::{ExportOptions, TrainOptions};
pub use sampling::Sampling;
pub use synthesizer::SynthOptions;

/// The fitted extractor of motion in the folder of a model.
const MOTION_EXTRACTOR: &str = "motion.safetensors";
/// The fitted extractor of speech features in the folder of a model.
const SPEECH_EXTRACTOR: &str = "speech.safetensors";
/// The weights under the names that the public inference code loads.
const PUBLIC_WEIGHTS: &str = "fmt.pth";
/// The prefix of the transformer's weights in the public file, and that of the projection of speech features.
const PUBLIC_TRANSFORMER: &str = "fmt.";
const PUBLIC_AUDIO: &str = "audio_encoder.";

/// The family.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Float;

type Settings = TrainSettings<Float>;

impl Family for Float {
    const NAME: &'static str = "float";
    const RECIPES: &'static [&'static str] = &[include_str!("../../../../recipes/float/recipe.yaml")];
    const USED_BY: Option<(&'static str, &'static str)> =
        Some(("talk", "--portrait face.png --audio voice.wav --out talk.mp4"));
    const SHARD_COLUMNS: Option<&'static [&'static str]> = Some(&[
        speech::WAV,
        speech::AUDIO_DATA,
        speech::DURATION,
        speech::SAMPLE_RATE,
        rows::MOTION,
        rows::REFERENCE,
        rows::SPEECH_FEATURES,
    ]);
    const OPTIONAL_COLUMNS: &'static [&'static str] = &[PORTRAIT, emotions::EMOTION];
    const EXTRACTORS: &'static [FittedExtractor] =
        &[FittedExtractor { stage: 1, file: MOTION_EXTRACTOR }, FittedExtractor { stage: 2, file: SPEECH_EXTRACTOR }];

    type Config = FloatConfig;
    type TrainOptions = TrainOptions;
    type ExportOptions = ExportOptions;
    type SynthOptions = SynthOptions;
    type Description = Description;
    type Reader = ();
    type Example = Example;
    type Batch = ExampleBatch;
    type Model = Network;

    fn check(settings: &Settings) -> Result<(), KeyError> {
        settings.config.check().map_err(|error| match error {
            FloatError::Config { field, message } => KeyError::new(format!("train.model.{field}"), message),
            other => KeyError::new("train.model", other.to_string()),
        })?;
        if settings.config.dim_e != emotions::EMOTIONS.len() {
            let reason =
                format!("{} is not the number of emotions, {}", settings.config.dim_e, emotions::EMOTIONS.len());
            return Err(KeyError::new("train.model.dim_e", reason));
        }
        Ok(())
    }

    fn check_columns(settings: &Settings, columns: &Columns) -> Result<(), KeyError> {
        // Options belong to recipes: an exported model is checked without them.
        settings.options.check()?;
        columns::check(&settings.config, columns)
    }

    fn check_export(_: &FloatConfig, options: &ExportOptions) -> Result<(), KeyError> {
        options.motion.check().map_err(|(key, reason)| KeyError::new(format!("export.motion.{key}"), reason))
    }

    fn complete(settings: &mut Settings, artifacts: &Artifacts) -> Result<(), BoxError> {
        if settings.options.mouth.is_empty() && artifacts.embed.exists() {
            let renderer = registry().renderer(&State::load(&artifacts.embed)?, &Device::Cpu)?;
            let mouth = renderer.and_then(|renderer| renderer.mouth().map(<[f32]>::to_vec));
            settings.options.mouth = mouth.unwrap_or_default();
        }
        Ok(())
    }

    fn columns(settings: &Settings, _: &ShardIndex) -> Result<Vec<ColumnSpec>, BoxError> {
        Ok(rows::columns(&settings.config))
    }

    fn reader(_: &Settings, _: &Path, _: &ShardIndex) -> Result<(), BoxError> {
        Ok(())
    }

    fn cost(settings: &Settings, sizes: &RowSizes<'_>) -> u32 {
        let config = &settings.config;
        let frames = sizes.axis(rows::FRAME).unwrap_or(0).min(config.num_frames as u32);
        frames + config.num_prev_frames as u32
    }

    fn elements_per_cost(settings: &Settings) -> usize {
        settings.config.dim_w
    }

    fn example(settings: &Settings, (): &(), row: &Row, sample: u64, rng_key: RngKey) -> Result<Example, BoxError> {
        let about = |fault: rows::RowFault| format!("clip {}: {fault}", row.id);
        let clip = rows::Clip::of(row, &settings.config).map_err(about)?;
        Ok(Example { window: example::window(&clip, &settings.config, sample, rng_key), clip })
    }

    fn collate(settings: &Settings, examples: Vec<Example>, _: &Device) -> Result<ExampleBatch, BoxError> {
        example::collate(settings, examples)
    }

    fn build(config: &FloatConfig, seed: u64) -> Result<(Network, Parameters), BoxError> {
        let (network, parameters) = FloatNetwork::new(config, seed)?;
        Ok((Network(network), parameters))
    }

    fn describe(settings: &Settings, _: &ShardIndex) -> Result<Description, BoxError> {
        Ok(Description::new(&settings.options))
    }

    fn sampling(options: &ExportOptions) -> Value {
        serde_json::json!(options.motion)
    }

    fn export(
        _: &FloatConfig,
        weights: &Path,
        file: &mut dyn FnMut(&str) -> Result<PathBuf, BoxError>,
    ) -> Result<(), BoxError> {
        let public = |name: String| match name.starts_with("audio_projection.") {
            true => format!("{PUBLIC_AUDIO}{name}"),
            false => format!("{PUBLIC_TRANSFORMER}{name}"),
        };
        let tensors = flowmill_weights::read(weights)?.tensors;
        let tensors: Vec<_> = tensors.into_iter().map(|(name, tensor)| (public(name), tensor)).collect();
        Ok(flowmill_weights::write(&file(PUBLIC_WEIGHTS)?, &tensors, &BTreeMap::new())?)
    }

    fn scorer(loaded: Loaded<Self>, options: ExportOptions, seed: u64) -> Result<Box<dyn Scorer>, BoxError> {
        Ok(Box::new(scorer::MotionScorer::new(loaded, options, seed)?))
    }

    fn synthesizer(loaded: Loaded<Self>, options: SynthOptions, seed: u64) -> Result<Box<dyn Synthesizer>, BoxError> {
        Ok(Box::new(synthesizer::FaceSynthesizer::new(loaded, options, seed)?))
    }

    fn explain(scores: &Value) -> Result<Vec<ExplainedScore>, BoxError> {
        Ok(explanation::of(&serde_json::from_value(scores.clone())?))
    }

    fn card(loaded: &Loaded<Self>, scores: &Value) -> Result<Card, BoxError> {
        let scores = serde_json::from_value(scores.clone())?;
        Ok(card::card(&loaded.config, &scores))
    }
}
