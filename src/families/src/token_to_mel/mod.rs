//! Token-to-mel flows: from speech tokens and a speaker embedding to a log-mel spectrogram. This is the common part
//! of CosyVoice 2's, Step-Audio's and the shallow flow: everything except their settings and networks, which [`Kind`]
//! provides.

mod baselines;
mod card;
mod codebook;
mod columns;
mod error;
mod evaluation;
mod example;
mod explanation;
mod exported;
mod kind;
mod measures;
mod network;
mod options;
pub mod public;
mod scorer;
mod statistics;
mod synthesizer;
mod waveform;

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use candle_core::Device;
use flowmill_audio::features::MelConfig;
use flowmill_corpus::shard::ShardIndex;
use flowmill_corpus::{ColumnSpec, Row};
use flowmill_family::{
    Artifacts, BoxError, Card, Columns, Derived, ExplainedScore, Family, FittedExtractor, HubMetadata, KeyError,
    Loaded, Scorer, Synthesizer, TrainSettings,
};
use flowmill_networks::flow::{FlowBatch, FlowItem, write_estimator};
use flowmill_nn::Parameters;
use flowmill_nn::random::RngKey;
use flowmill_weights::{Archive, Target, write_archive};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use error::UseError;
use exported::ExportedModel;
pub use kind::Kind;
pub use network::Network;
pub use options::{
    ExportOptions, Sampling, SpeakerEmbedding, SynthOptions, TokenEmbedding, TrainOptions, VocoderOptions,
};

/// The fitted extractor of speaker embeddings in the folder of a model.
const SPEAKER_EXTRACTOR: &str = "speaker_embedding.safetensors";
/// The fitted extractor of speech tokens in the folder of a model.
const TOKEN_EXTRACTOR: &str = "speech_token.safetensors";
/// The weights as a PyTorch state dict, as public inference code loads them.
const TORCH_WEIGHTS: &str = "flow.pt";
/// The estimator as a graph, under the name that CosyVoice's runtime looks for.
const ONNX_ESTIMATOR: &str = "flow.decoder.estimator.fp32.onnx";

/// The family of one kind of flow.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TokenToMelFamily<K>(PhantomData<fn() -> K>);

/// The description of a model's mel, speaker and sampling.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Description {
    /// The definition of its mel.
    pub mel: MelDescription,
    /// The speaker embedding that it was trained with.
    pub speaker_embedding: SpeakerEmbedding,
    /// Settings of sampling; absent in trainings and older folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
}

/// The mel of a model, in the description of shards.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct MelDescription {
    /// The whole description, which is written back unchanged.
    whole: Value,
    /// The definition.
    pub config: MelConfig,
}

impl TryFrom<Value> for MelDescription {
    type Error = serde_json::Error;

    fn try_from(whole: Value) -> Result<Self, serde_json::Error> {
        Ok(Self { config: MelConfig::deserialize(&whole["config"])?, whole })
    }
}

impl From<MelDescription> for Value {
    fn from(description: MelDescription) -> Self {
        description.whole
    }
}

type FlowSettings<K> = TrainSettings<TokenToMelFamily<K>>;

impl<K: Kind> Family for TokenToMelFamily<K> {
    const NAME: &'static str = K::NAME;
    const EXTRACTORS: &'static [FittedExtractor] =
        &[FittedExtractor { stage: 1, file: SPEAKER_EXTRACTOR }, FittedExtractor { stage: 2, file: TOKEN_EXTRACTOR }];

    const RECIPES: &'static [&'static str] = K::RECIPES;
    const ONNX_FILE: Option<&'static str> = Some(ONNX_ESTIMATOR);

    type Config = K::Config;
    type TrainOptions = TrainOptions;
    type ExportOptions = ExportOptions;
    type SynthOptions = SynthOptions;
    type Description = Description;
    type Reader = example::Mels;
    type Example = FlowItem;
    type Batch = FlowBatch;
    type Model = Network;

    fn check(settings: &FlowSettings<K>) -> Result<(), KeyError> {
        kind::check::<K>(&settings.config)
    }

    fn check_columns(settings: &FlowSettings<K>, columns: &Columns) -> Result<(), KeyError> {
        columns::check(settings, columns)
    }

    fn check_initial_weights(settings: &FlowSettings<K>) -> Result<(), KeyError> {
        if settings.options.token_embedding == TokenEmbedding::Random {
            return Ok(());
        }
        let reason = "`codebook` would be overwritten by `init_from`: set train.token_embedding: random (even if a base recipe sets codebook), \
             remove init_from, or set init_partial: true";
        Err(KeyError::new("train.token_embedding", reason))
    }

    fn check_export(_: &K::Config, options: &ExportOptions) -> Result<(), KeyError> {
        options.check()?;
        if options.sfm_strength.is_some() && !K::HAS_STRENGTH {
            let reason = "only a shallow flow (family: sfm-flow) has a strength";
            return Err(KeyError::new("export.sfm_strength", reason));
        }
        Ok(())
    }

    fn inputs(settings: &FlowSettings<K>, artifacts: &Artifacts) -> Vec<(String, PathBuf)> {
        let statistics = settings.options.normalise_mel.then(|| statistics::file(artifacts));
        let codebook = (settings.options.token_embedding == TokenEmbedding::Codebook).then(|| artifacts.tokens.clone());
        let statistics = statistics.map(|file| ("mel statistics".to_owned(), file));
        statistics.into_iter().chain(codebook.map(|file| ("codebook 0".to_owned(), file))).collect()
    }

    fn complete(settings: &mut FlowSettings<K>, artifacts: &Artifacts) -> Result<(), BoxError> {
        let flow = K::flow(&settings.config);
        if settings.options.normalise_mel && flow.mel_normalisation.is_none() {
            let normalization = statistics::normalization(artifacts, flow.output_size)?;
            K::normalize(&mut settings.config, normalization);
        }
        Ok(())
    }

    fn columns(settings: &FlowSettings<K>, index: &ShardIndex) -> Result<Vec<ColumnSpec>, BoxError> {
        example::columns(index, settings.options.speaker_embedding)
    }

    fn derived(_: &FlowSettings<K>, index: &ShardIndex) -> Option<Derived> {
        example::derived(index)
    }

    fn check_splits(settings: &FlowSettings<K>, splits: &[(&Path, &ShardIndex)]) -> Result<(), BoxError> {
        example::check_mels(splits, &K::flow(&settings.config))
    }

    fn reader(_: &FlowSettings<K>, _: &Path, index: &ShardIndex) -> Result<example::Mels, BoxError> {
        example::Mels::of(index)
    }

    fn elements_per_cost(settings: &FlowSettings<K>) -> usize {
        K::flow(&settings.config).output_size
    }

    fn example(
        settings: &FlowSettings<K>,
        mels: &example::Mels,
        row: &Row,
        sample: u64,
        _: RngKey,
    ) -> Result<FlowItem, BoxError> {
        let flow = K::flow(&settings.config);
        Ok(example::item(row, sample, &flow, settings.options.speaker_embedding, mels)?)
    }

    fn collate(settings: &FlowSettings<K>, items: Vec<FlowItem>, _: &Device) -> Result<FlowBatch, BoxError> {
        // The batch is prepared on the CPU, and follows the parameters to their device.
        Ok(FlowBatch::collate(&items, &K::flow(&settings.config))?)
    }

    fn build(config: &K::Config, seed: u64) -> Result<(Network, Parameters), BoxError> {
        let (network, parameters) = K::build(config, seed)?;
        Ok((Network(network), parameters))
    }

    fn initialize(
        settings: &FlowSettings<K>,
        parameters: &mut Parameters,
        artifacts: &Artifacts,
        seed: u64,
    ) -> Result<(), BoxError> {
        match settings.options.token_embedding {
            TokenEmbedding::Random => Ok(()),
            TokenEmbedding::Codebook => {
                codebook::start_from(parameters, &artifacts.tokens, &K::flow(&settings.config), seed)
            }
        }
    }

    fn describe(settings: &FlowSettings<K>, index: &ShardIndex) -> Result<Description, BoxError> {
        let mel = serde_json::from_value(index.mel.clone())?;
        Ok(Description { mel, speaker_embedding: settings.options.speaker_embedding, sampling: None })
    }

    fn sampling(options: &ExportOptions) -> Value {
        json!(Sampling::of(options.solver()))
    }

    fn export(
        _: &K::Config,
        weights: &Path,
        file: &mut dyn FnMut(&str) -> Result<PathBuf, BoxError>,
    ) -> Result<(), BoxError> {
        let mut archive = Archive::open(weights)?;
        write_archive(&file(TORCH_WEIGHTS)?, &mut archive, Target::Torch)?;
        // The recipe's settings have neither the mel nor its normalization, the description next to the weights does.
        let mut described: Value = serde_json::from_slice(&std::fs::read(weights.with_file_name("config.json"))?)?;
        let config: K::Config = serde_json::from_value(described["model"].take())?;
        let Description { mel, .. } = serde_json::from_value(described)?;
        let public = K::public_config(&config, &mel.config, &card::departures(&K::flow(&config)));
        Ok(std::fs::write(file(public.file)?, public.text)?)
    }

    fn export_onnx(config: &K::Config, weights: &Path, path: &Path) -> Result<(), BoxError> {
        Ok(write_estimator(&K::flow(config), &mut Archive::open(weights)?, path)?)
    }

    fn scorer(loaded: Loaded<Self>, options: ExportOptions, seed: u64) -> Result<Box<dyn Scorer>, BoxError> {
        let model = ExportedModel::new(loaded)?;
        Ok(Box::new(scorer::MelScorer::new(model, options, seed)?))
    }

    fn synthesizer(loaded: Loaded<Self>, options: SynthOptions, seed: u64) -> Result<Box<dyn Synthesizer>, BoxError> {
        let (folder, device) = (loaded.folder.clone(), loaded.device.clone());
        let model = ExportedModel::new(loaded)?;
        Ok(Box::new(synthesizer::Resynthesizer::open(model, &folder, &device, options, seed)?))
    }

    fn explain(scores: &Value) -> Result<Vec<ExplainedScore>, BoxError> {
        Ok(explanation::of(&serde_json::from_value(scores.clone())?))
    }

    fn card(loaded: &Loaded<Self>, scores: &Value) -> Result<Card, BoxError> {
        let scores = serde_json::from_value(scores.clone())?;
        let flow = K::flow(&loaded.config);
        let departures = card::departures(&flow);
        let public = K::public_config(&loaded.config, &loaded.description.mel.config, &departures);
        Ok(Card {
            kind: "token-to-mel flow".to_owned(),
            does: card::does(&flow, &loaded.description.mel.config),
            scores: card::scores_section(&scores),
            public_code: card::public_code(&departures, public.file),
            hub: HubMetadata {
                pipeline_tag: Some("audio-to-audio"),
                tags: &["flow-matching", "speech", "voice-conversion"],
            },
        })
    }
}
