//! Latent diffusion (Rombach et al., arXiv 2112.10752): an autoencoder of images and a U-Net that predicts noise in its latents, under
//! captions. The exported folder is one of the package diffusers, which the family `pmg` builds on.
//!
//! | file | content |
//! |---|---|
//! | `config`, `options` | the keys of a recipe, and the description of a model |
//! | `tokenizer` | CLIP's tokenizer, read from files or fitted to captions |
//! | `example` | from the columns of a row to a batch |
//! | `network`, `sampling` | loss, previews, and images from noise |
//! | `files` | published models: folders of the package diffusers, and single files |
//! | `folder` | a folder of the package diffusers, written |
//! | `scorer`, `scores` | the scores |
//! | `synthesizer` | the use of a model on a caption |

mod config;
mod example;
pub(crate) mod files;
mod folder;
mod network;
mod options;
pub(crate) mod sampling;
mod scorer;
mod scores;
mod synthesizer;
mod tokenizer;

use std::path::{Path, PathBuf};

use candle_core::Device;
use flowmill_corpus::shard::{RowSizes, ShardIndex, Shards};
use flowmill_corpus::{ColumnSpec, DType, Row};
use flowmill_family::{
    Artifacts, BoxError, Card, Columns, ExplainedScore, Family, KeyError, Loaded, Provided, Scorer, Synthesizer,
    TrainSettings,
};
use flowmill_nn::Parameters;
use flowmill_nn::random::RngKey;
use serde_json::Value;

pub use config::{AutoencoderSettings, StableDiffusionConfig, TextEncoderSettings, UNetSettings};
pub use example::{Example, ExampleBatch};
pub use network::Network;
pub use options::{Description, ExportOptions, TrainOptions};
pub use sampling::Sampling;
pub use synthesizer::SynthOptions;

use folder::FolderContent;
use tokenizer::ClipTokenizer;

/// Memory for the captions that the tokenizer is fitted to, in bytes.
const CACHE_BYTES: usize = 16 << 20;
/// Rows whose captions are read at a time.
const ROWS_AT_ONCE: usize = 256;

/// The family.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StableDiffusion;

type Settings = TrainSettings<StableDiffusion>;

impl Family for StableDiffusion {
    const NAME: &'static str = "stable-diffusion";
    const USED_BY: Option<(&'static str, &'static str)> = None;
    const COST_UNIT: &'static str = "images";
    const SHARD_COLUMNS: Option<&'static [&'static str]> = Some(&[example::PIXELS, example::TEXT]);

    type Config = StableDiffusionConfig;
    type TrainOptions = TrainOptions;
    type ExportOptions = ExportOptions;
    type SynthOptions = SynthOptions;
    type Description = Description;
    type Reader = ();
    type Example = Example;
    type Batch = ExampleBatch;
    type Model = Network;

    fn check(settings: &Settings) -> Result<(), KeyError> {
        settings.config.check()
    }

    fn check_columns(settings: &Settings, columns: &Columns) -> Result<(), KeyError> {
        // Options belong to recipes: an exported model is checked without them.
        settings.options.check()?;
        let wanted = settings.config.image_size;
        if let Some(Provided::Other { spec }) = columns.get(example::PIXELS) {
            let sizes: Vec<usize> = spec.axes.iter().filter_map(|axis| axis.size).collect();
            if !sizes.is_empty() && sizes != [wanted, wanted, 3] && sizes != [3] {
                let reason = format!("{wanted} does not match: earlier stages give images of {sizes:?}");
                return Err(KeyError::new("train.model.image_size", reason));
            }
        }
        Ok(())
    }

    fn check_export(_: &StableDiffusionConfig, options: &ExportOptions) -> Result<(), KeyError> {
        options.images.check().map_err(|(key, reason)| KeyError::new(format!("export.images.{key}"), reason))
    }

    fn complete(settings: &mut Settings, artifacts: &Artifacts) -> Result<(), BoxError> {
        if !settings.config.merges.is_empty() {
            return Ok(());
        }
        let index = artifacts.packed.join(&artifacts.train_split).join("index.json");
        let shards = Shards::open(&index, &[ColumnSpec::new(example::TEXT, DType::Text)], CACHE_BYTES)?;
        let rows: Vec<u32> = (0..shards.len() as u32).collect();
        let mut captions = Vec::new();
        for rows in rows.chunks(ROWS_AT_ONCE) {
            for row in shards.fetch(rows)? {
                captions.push(row.text(example::TEXT)?.to_owned());
            }
        }
        let captions = captions.iter().map(String::as_str);
        settings.config.merges = ClipTokenizer::fit(captions, settings.config.text_encoder.max_merges);
        Ok(())
    }

    fn columns(settings: &Settings, _: &ShardIndex) -> Result<Vec<ColumnSpec>, BoxError> {
        Ok(example::columns(&settings.config))
    }

    fn reader(_: &Settings, _: &Path, _: &ShardIndex) -> Result<(), BoxError> {
        Ok(())
    }

    fn cost(_: &Settings, _: &RowSizes<'_>) -> u32 {
        1
    }

    fn elements_per_cost(settings: &Settings) -> usize {
        3 * settings.config.image_size * settings.config.image_size
    }

    fn example(settings: &Settings, (): &(), row: &Row, sample: u64, rng_key: RngKey) -> Result<Example, BoxError> {
        let example =
            Example::of(row, &settings.config, sample).map_err(|fault| format!("image {}: {fault}", row.id))?;
        Ok(example.mirrored(settings.options.flip, settings.config.image_size, rng_key))
    }

    fn collate(settings: &Settings, examples: Vec<Example>, _: &Device) -> Result<ExampleBatch, BoxError> {
        Ok(example::collate(settings, examples))
    }

    fn build(config: &StableDiffusionConfig, seed: u64) -> Result<(Network, Parameters), BoxError> {
        Network::new(config, seed)
    }

    fn describe(settings: &Settings, _: &ShardIndex) -> Result<Description, BoxError> {
        Ok(Description { sampling: settings.options.sampling })
    }

    fn sampling(options: &ExportOptions) -> Value {
        serde_json::json!(options.images)
    }

    fn export(
        config: &StableDiffusionConfig,
        weights: &Path,
        file: &mut dyn FnMut(&str) -> Result<PathBuf, BoxError>,
    ) -> Result<(), BoxError> {
        let tensors = flowmill_weights::read(weights)?.tensors;
        // The recipe's settings have no tokenizer, the description next to the weights does.
        let described = weights.with_file_name("config.json");
        let described: Value = serde_json::from_slice(&std::fs::read(&described)?)?;
        let merges: Vec<String> = serde_json::from_value(described["model"]["merges"].clone())?;
        let tokenizer = ClipTokenizer::new(&merges)?;
        let log_scale = tensors.get(network::LOG_SCALE).ok_or("the weights have no scaling factor")?;
        let scale = f64::from(network::scaling_factor(log_scale)?);
        FolderContent {
            tensors: &tensors,
            unet: &config.unet_config(),
            autoencoder: &config.autoencoder_config(scale),
            text: &config.text_config(&tokenizer),
            schedule: &config.schedule_config(),
            tokenizer: &tokenizer,
            image_size: config.image_size,
        }
        .write(file)
    }

    fn scorer(loaded: Loaded<Self>, options: ExportOptions, seed: u64) -> Result<Box<dyn Scorer>, BoxError> {
        Ok(Box::new(scorer::ImageScorer::new(loaded, options, seed)))
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
