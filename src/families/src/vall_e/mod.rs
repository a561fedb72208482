//! VALL-E: a language model over the codes of an audio codec, which speaks phonemes in the voice of a prompt.
//!
//! | file | content |
//! |---|---|
//! | [`tokenizer`] | phonemes as the numbers of symbols |
//! | [`prompts`] | the choice of the utterances that show the network a speaker's voice |
//! | `rows`, `voices`, `example` | from the columns of a row to the sample of a task |
//! | `options`, `description` | the keys of a recipe, and the description of a model |
//! | `network`, `parts`, `training`, `adapters` | loss, metrics, previews and adapters |
//! | `voice`, `synthesizer` | the use of a model |
//! | `recognizer`, `speaker`, `scores`, `scorer`, `card`, `explanation` | the scores |

mod adapters;
mod card;
mod columns;
mod description;
mod discrimination;
mod example;
mod explanation;
mod network;
mod options;
mod parts;
pub mod prompts;
mod recognizer;
mod rows;
mod scorer;
mod scores;
mod speaker;
mod synthesizer;
pub mod tokenizer;
mod training;
mod voice;
mod voices;
mod warping;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use flowmill_corpus::shard::{RowSizes, ShardIndex, speech};
use flowmill_corpus::{ColumnSpec, Row};
use flowmill_extract::extractors::phonemes;
use flowmill_extract::{CODES, NOISE_CODES, NOISY_CODES};
use flowmill_family::{
    Artifacts, BoxError, Card, Columns, ExplainedScore, Family, FittedExtractor, KeyError, Loaded, LoraConfig,
    LossScaleConfig, Reference, Scorer, Synthesizer, TrainSettings,
};
use flowmill_networks::vall_e::{VallE as VallENetwork, VallEConfig};
use flowmill_nn::Parameters;
use flowmill_nn::random::RngKey;
use flowmill_train::lora::{PUBLIC_ADAPTER, write_public_adapter};
use serde_json::Value;

pub use adapters::NamedLora;
pub use description::Description;
pub use example::{Example, ExampleBatch, Reader};
pub use network::Network;
pub use options::{ExportOptions, TaskWeights, TrainOptions};
use prompts::{Similarities, WithoutPrompt};
pub use synthesizer::SynthOptions;
use voices::Voices;

/// The fitted extractor of phonemes in the folder of a model.
const PHONEMES: &str = "phonemes.safetensors";
/// The codec in the folder of a model.
const CODEC: &str = "codec.safetensors";
/// The weights under the file name that the public code reads.
const PUBLIC_WEIGHTS: &str = "fp32.sft";

/// The family.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct VallE;

type Settings = TrainSettings<VallE>;

impl Family for VallE {
    const NAME: &'static str = "vall-e";
    const RECIPES: &'static [&'static str] = &[include_str!("../../../../recipes/vall-e/recipe.yaml")];
    const SHARD_COLUMNS: Option<&'static [&'static str]> = Some(&[
        speech::WAV,
        speech::AUDIO_DATA,
        speech::TEXT,
        speech::DURATION,
        speech::SAMPLE_RATE,
        CODES,
        phonemes::PHONEMES,
        phonemes::LANGUAGE,
    ]);
    const OPTIONAL_COLUMNS: &'static [&'static str] = &[NOISY_CODES, NOISE_CODES];
    const EXTRACTORS: &'static [FittedExtractor] =
        &[FittedExtractor { stage: 1, file: PHONEMES }, FittedExtractor { stage: 2, file: CODEC }];
    const PATHS: &'static [&'static str] = &["tokenizer", "similarities", "loras.[].path"];
    const WORDS: &'static [&'static str] = &[options::BYTES];
    const ADAPTED_LAYERS: &'static [&'static str] = &adapters::LAYERS;

    const SPEAKS: bool = true;
    const USED_BY: Option<(&'static str, &'static str)> = Some(("speak", "--text 'a few words' --prompt voice.wav"));
    const REFERENCES: &'static [Reference] = &training::GOOD_SIGNS;
    const LEAST_LOSS_SCALE: f64 = training::LEAST_LOSS_SCALE;

    type Config = VallEConfig;
    type TrainOptions = TrainOptions;
    type ExportOptions = ExportOptions;
    type SynthOptions = SynthOptions;
    type Description = Description;
    type Reader = Reader;
    type Example = Example;
    type Batch = ExampleBatch;
    type Model = Network;

    fn check(settings: &Settings) -> Result<(), KeyError> {
        let config = &settings.config;
        config.check().map_err(|error| options::key_error("train.model", error))?;
        if config.levels > parts::MOST_LEVELS {
            let reason = format!("{} is more than {}", config.levels, parts::MOST_LEVELS);
            return Err(KeyError::new("train.model.levels", reason));
        }
        Ok(())
    }

    fn check_columns(settings: &Settings, columns: &Columns) -> Result<(), KeyError> {
        // Options belong to recipes: an exported model is checked without them.
        settings.options.check(settings.config.levels, settings.config.languages)?;
        columns::check(settings, columns)
    }

    fn loss_scale() -> LossScaleConfig {
        training::loss_scale()
    }

    fn adapters(options: &TrainOptions) -> Result<Option<LoraConfig>, KeyError> {
        adapters::trained(&options.loras)
    }

    fn check_export(config: &VallEConfig, options: &ExportOptions) -> Result<(), KeyError> {
        options.check(config)
    }

    fn inputs(settings: &Settings, artifacts: &Artifacts) -> Vec<(String, PathBuf)> {
        let TrainOptions { tokenizer, similarities, .. } = &settings.options;
        let tokenizer = (tokenizer != options::BYTES).then(|| ("tokenizer".to_owned(), artifacts.root.join(tokenizer)));
        let similarities = similarities.iter().flat_map(|path| voices::similarity_files(&artifacts.root.join(path)));
        let similarities = similarities.enumerate().map(|(at, path)| (format!("similarities {at}"), path));
        tokenizer.into_iter().chain(similarities).collect()
    }

    fn complete(settings: &mut Settings, artifacts: &Artifacts) -> Result<(), BoxError> {
        let resolved = |path: &str| artifacts.root.join(path).display().to_string();
        let options = &mut settings.options;
        if options.tokenizer != options::BYTES {
            options.tokenizer = resolved(&options.tokenizer);
        }
        options.similarities = options.similarities.as_deref().map(resolved);
        let symbols = description::tokenizer(options)?.size();
        if symbols > settings.config.phoneme_tokens {
            let reason =
                format!("{} is less than the {symbols} symbols of train.tokenizer", settings.config.phoneme_tokens);
            return Err(KeyError::new("train.model.phoneme_tokens", reason).into());
        }
        Ok(())
    }

    fn columns(settings: &Settings, _: &ShardIndex) -> Result<Vec<ColumnSpec>, BoxError> {
        let levels = settings.config.levels;
        let noise = if settings.options.tasks.needs_noise() { rows::noise_columns(levels) } else { Vec::new() };
        Ok([rows::columns(levels), noise].concat())
    }

    fn reader(settings: &Settings, path: &Path, index: &ShardIndex) -> Result<Reader, BoxError> {
        let options = &settings.options;
        let similarities = options.similarities.as_deref().map(|path| Similarities::read(Path::new(path)));
        let similarities = similarities.transpose().map_err(|error| format!("train.similarities: {error}"))?;
        let codes = rows::codes_column(settings.config.levels);
        let voices = Voices::open(path, index, codes, options.prompt_rule(), similarities.as_ref())?;
        Ok(Reader { voices, tokenizer: description::tokenizer(options)? })
    }

    fn notes(settings: &Settings, reader: &Reader) -> Vec<String> {
        let mut notes = Vec::new();
        let WithoutPrompt { speakers, of_speakers } = reader.voices.without_prompt();
        if speakers > 0 {
            notes.push(format!(
                "WARNING: {speakers} of {of_speakers} speakers have a single utterance, which is trained without a prompt"
            ));
        }
        if settings.options.similarities.is_some() {
            notes.push(format!("{} utterances have similar ones (train.similarities)", reader.voices.with_similar()));
        }
        notes
    }

    fn cost(_: &Settings, sizes: &RowSizes<'_>) -> u32 {
        sizes.axis(rows::FRAME).unwrap_or_else(|| sizes.frames())
    }

    fn example(settings: &Settings, reader: &Reader, row: &Row, _: u64, rng_key: RngKey) -> Result<Example, BoxError> {
        reader.example(&settings.options, settings.config.levels, row, rng_key)
    }

    fn variants(settings: &Settings) -> Vec<Settings> {
        training::variants(settings)
    }

    fn take_text(example: &mut Example, other: &Example) -> bool {
        example.sample.phonemes.clone_from(&other.sample.phonemes);
        example.sample.language = other.sample.language;
        true
    }

    fn collate(settings: &Settings, examples: Vec<Example>, _: &Device) -> Result<ExampleBatch, BoxError> {
        example::collate(&settings.options.draws, &settings.config, examples)
    }

    fn build(config: &VallEConfig, seed: u64) -> Result<(Network, Parameters), BoxError> {
        let (network, parameters) = VallENetwork::new(config, seed)?;
        Ok((Network(network), parameters))
    }

    fn initialize(settings: &Settings, parameters: &mut Parameters, _: &Artifacts, _: u64) -> Result<(), BoxError> {
        training::freeze_unused(parameters, &settings.config, &settings.options);
        Ok(())
    }

    fn describe(settings: &Settings, _: &ShardIndex) -> Result<Description, BoxError> {
        Description::new(&settings.options)
    }

    fn sampling(options: &ExportOptions) -> Value {
        serde_json::json!(options.speech)
    }

    fn export(
        _: &VallEConfig,
        weights: &Path,
        file: &mut dyn FnMut(&str) -> Result<PathBuf, BoxError>,
    ) -> Result<(), BoxError> {
        std::fs::copy(weights, file(PUBLIC_WEIGHTS)?)?;
        Ok(())
    }

    fn export_adapters(
        adapters: &BTreeMap<String, Tensor>,
        lora: &LoraConfig,
        file: &mut dyn FnMut(&str) -> Result<PathBuf, BoxError>,
    ) -> Result<(), BoxError> {
        Ok(write_public_adapter(adapters, lora, &file(PUBLIC_ADAPTER)?)?)
    }

    fn scorer(loaded: Loaded<Self>, options: ExportOptions, seed: u64) -> Result<Box<dyn Scorer>, BoxError> {
        Ok(Box::new(scorer::SpeechScorer::new(loaded, options, seed)?))
    }

    fn synthesizer(loaded: Loaded<Self>, options: SynthOptions, seed: u64) -> Result<Box<dyn Synthesizer>, BoxError> {
        Ok(Box::new(synthesizer::SpeechSynthesizer::new(loaded, options, seed)?))
    }

    fn explain(scores: &Value) -> Result<Vec<ExplainedScore>, BoxError> {
        Ok(explanation::of(&serde_json::from_value(scores.clone())?))
    }

    fn card(loaded: &Loaded<Self>, scores: &Value) -> Result<Card, BoxError> {
        let scores = serde_json::from_value(scores.clone())?;
        Ok(card::card(&loaded.config, &loaded.description, &scores))
    }
}
