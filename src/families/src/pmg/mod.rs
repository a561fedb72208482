//! PMG (arXiv 2404.08677): images to the taste of a person, by soft prompts through a frozen language model into a frozen diffusion model.
//!
//! | file | content |
//! |---|---|
//! | `rows`, `prompt` | from the columns of a row, or a user's JSON, to tokens and latents |
//! | `config`, `options` | the keys of a recipe, and the description of a model |
//! | `frozen` | the folders of the frozen networks, their check and checksum |
//! | `network` | the loss |
//! | `imagination` | images from conditions |
//! | `synthesizer` | the use of a model on a user |
//! | `measures`, `scores`, `scorer` | the scores |

mod config;
mod frozen;
mod imagination;
mod measures;
mod network;
mod options;
mod prompt;
mod rows;
mod scorer;
mod scores;
mod synthesizer;

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use flowmill_corpus::shard::{RowSizes, ShardIndex};
use flowmill_corpus::{ColumnSpec, Row};
use flowmill_family::{
    Artifacts, BoxError, Card, Columns, ExplainedScore, Family, FittedExtractor, KeyError, Loaded, Scorer, Synthesizer,
    TrainSettings,
};
use flowmill_networks::pmg::PmgError;
use flowmill_nn::Parameters;
use flowmill_nn::random::RngKey;
use serde_json::Value;

pub use config::{FrozenSettings, PmgModelConfig};
pub use network::{Example, ExampleBatch, Network};
pub use options::{Description, ExportOptions, TinyLlama, TrainOptions};
pub use synthesizer::SynthOptions;

use frozen::Folders;

/// The soft prompts in the form of the public code.
const PUBLIC_WEIGHTS: &str = "pytorch_model.bin";
/// The name of the positions of the prefix there.
const PUBLIC_POSITIONS: &str = "prefix_tokens";

/// The family.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pmg;

type Settings = TrainSettings<Pmg>;

impl Family for Pmg {
    const NAME: &'static str = "pmg";
    const RECIPES: &'static [&'static str] = &[include_str!("../../../../recipes/pmg/recipe.yaml")];
    const USED_BY: Option<(&'static str, &'static str)> = Some(("imagine", "--user user.json --out images"));
    const COST_UNIT: &'static str = "users";
    const SHARD_COLUMNS: Option<&'static [&'static str]> =
        Some(&[rows::TOKENS, rows::LENGTH, rows::LATENT_MEAN, rows::LATENT_DEVIATION, rows::IMAGES, rows::TEXT]);
    const EXTRACTORS: &'static [FittedExtractor] = &[prompt::FITTED];
    const PATHS: &'static [&'static str] = &["llama", "stable_diffusion", "clip", "lpips"];
    const WORDS: &'static [&'static str] = &[options::TINY];

    type Config = PmgModelConfig;
    type TrainOptions = TrainOptions;
    type ExportOptions = ExportOptions;
    type SynthOptions = SynthOptions;
    type Description = Description;
    type Reader = ();
    type Example = Example;
    type Batch = ExampleBatch;
    type Model = Network;

    fn check(settings: &Settings) -> Result<(), KeyError> {
        settings.config.prompts().check().map_err(|error| match error {
            PmgError::Config { field, message } => KeyError::new(format!("train.model.{field}"), message),
            other => KeyError::new("train.model", other.to_string()),
        })
    }

    fn check_columns(settings: &Settings, _: &Columns) -> Result<(), KeyError> {
        // Options belong to recipes: an exported model is checked without them.
        settings.options.check()
    }

    fn check_export(_: &PmgModelConfig, options: &ExportOptions) -> Result<(), KeyError> {
        options.check()
    }

    fn check_files(settings: &Settings, root: &Path) -> Result<(), KeyError> {
        frozen::check(&settings.config, &settings.options, root)
    }

    fn inputs(settings: &Settings, artifacts: &Artifacts) -> Vec<(String, PathBuf)> {
        let files = Folders::of(&settings.options, &artifacts.root).files();
        files.into_iter().enumerate().map(|(at, path)| (format!("frozen network, file {at}"), path)).collect()
    }

    fn complete(settings: &mut Settings, artifacts: &Artifacts) -> Result<(), BoxError> {
        frozen::complete(&mut settings.config, &settings.options, artifacts)
    }

    fn columns(_: &Settings, _: &ShardIndex) -> Result<Vec<ColumnSpec>, BoxError> {
        Ok(rows::columns())
    }

    fn reader(_: &Settings, _: &Path, _: &ShardIndex) -> Result<(), BoxError> {
        Ok(())
    }

    fn cost(_: &Settings, _: &RowSizes<'_>) -> u32 {
        1
    }

    fn example(settings: &Settings, (): &(), row: &Row, sample: u64, _: RngKey) -> Result<Example, BoxError> {
        let user = rows::User::of(row, &settings.config).map_err(|fault| format!("user {}: {fault}", row.id))?;
        Ok(Example { user, sample })
    }

    fn collate(settings: &Settings, examples: Vec<Example>, _: &Device) -> Result<ExampleBatch, BoxError> {
        Ok(ExampleBatch { examples, draws: settings.options.draws_per_user })
    }

    fn build(config: &PmgModelConfig, seed: u64) -> Result<(Network, Parameters), BoxError> {
        let (pmg, parameters) = frozen::build(config, seed)?;
        let scaling_factor = config.frozen()?.autoencoder.scaling_factor as f32;
        Ok((Network { pmg, scaling_factor, latent_size: config.latent_size() }, parameters))
    }

    fn initialize(
        settings: &Settings,
        parameters: &mut Parameters,
        artifacts: &Artifacts,
        _: u64,
    ) -> Result<(), BoxError> {
        Folders::of(&settings.options, &artifacts.root).map(parameters)
    }

    fn describe(_: &Settings, _: &ShardIndex) -> Result<Description, BoxError> {
        Ok(Description::default())
    }

    fn sampling(options: &ExportOptions) -> Value {
        let ExportOptions { images, negative_prompt, .. } = options;
        serde_json::json!(options::Use { images: *images, negative_prompt: negative_prompt.clone() })
    }

    fn export(
        config: &PmgModelConfig,
        weights: &Path,
        file: &mut dyn FnMut(&str) -> Result<PathBuf, BoxError>,
    ) -> Result<(), BoxError> {
        let mut tensors: Vec<(String, Tensor)> = flowmill_weights::read(weights)?.tensors.into_iter().collect();
        let positions: Vec<f32> = (0..config.num_prefix_prompt).map(|position| position as f32).collect();
        // Integers there; loading a state converts.
        tensors
            .push((PUBLIC_POSITIONS.to_owned(), Tensor::from_vec(positions, config.num_prefix_prompt, &Device::Cpu)?));
        Ok(flowmill_weights::write_torch(&file(PUBLIC_WEIGHTS)?, &tensors, &[])?)
    }

    fn scorer(loaded: Loaded<Self>, options: ExportOptions, seed: u64) -> Result<Box<dyn Scorer>, BoxError> {
        Ok(Box::new(scorer::UserScorer::new(loaded, options, seed)?))
    }

    fn synthesizer(loaded: Loaded<Self>, options: SynthOptions, seed: u64) -> Result<Box<dyn Synthesizer>, BoxError> {
        Ok(Box::new(synthesizer::ImageSynthesizer::new(loaded, options, seed)?))
    }

    fn explain(scores: &Value) -> Result<Vec<ExplainedScore>, BoxError> {
        Ok(serde_json::from_value::<scores::Scores>(scores.clone())?.explain())
    }

    fn card(loaded: &Loaded<Self>, scores: &Value) -> Result<Card, BoxError> {
        Ok(serde_json::from_value::<scores::Scores>(scores.clone())?.card(loaded.config.image_size))
    }
}
