//! The extractors that a recipe can name.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use candle_core::Device;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{
    Column, ConfigError, Extractor, Fit, State, StateError, Weights,
    campplus::{self, CampplusConfig, CampplusExtractor},
    dual_kmeans::{self, DualKmeans, DualKmeansConfig, DualKmeansFit},
    import::{self, Import, ImportConfig},
    kmeans::{self, Kmeans, KmeansConfig, KmeansFit},
    paraformer::{self, ParaformerConfig, ParaformerUnits},
    s3::{self, S3Config, S3Extractor},
    statistics::{self, Statistics, StatisticsConfig, StatisticsFit},
    step_audio::{self, StepAudioConfig, StepAudioDual},
};

/// An extractor: its kind, and the settings of that kind. The kind comes first.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExtractorConfig {
    /// Speaker embeddings without any weights: mean and deviation of log-mel bands and of their slopes, whitened on
    /// the training split, at unit length.
    Statistics(StatisticsConfig),
    /// Tokens without any weights: the nearest centers of log-mel, level and pitch at 25 Hz, one for every 40 ms that
    /// a recording begins.
    Kmeans(KmeansConfig),
    /// Embeddings or tokens that another tool extracted, looked up by id in files of `torch.save` or `pickle.dump`;
    /// nothing in them is executed. Utterances that a file lacks are rejected, ids of no utterance are counted. A
    /// wrong size, a token beyond the vocabulary or NaN stops the stage and names the id.
    Import(ImportConfig),
    /// Speaker embeddings of the published CAM++ encoder.
    Campplus(CampplusConfig),
    /// The supervised semantic tokens of CosyVoice at 25 Hz.
    #[serde(rename = "s3-tokenizer")]
    S3Tokenizer(S3Config),
    /// The linguistic tokens of Step-Audio at 16.7 Hz: nearest centers of the online Paraformer's encoder.
    #[serde(rename = "paraformer-units")]
    ParaformerUnits(ParaformerConfig),
    /// Both codebooks of Step-Audio as its mixed sequence: the groups of 120 ms that both streams fill, of which the
    /// last needs more than 80 ms.
    #[serde(rename = "step-audio-dual")]
    StepAudioDual(StepAudioConfig),
    /// Tokens of two codebooks without any weights, at 16.7 and 25 Hz, as the mixed sequence of Step-Audio.
    #[serde(rename = "dual-kmeans")]
    DualKmeans(DualKmeansConfig),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Statistics,
    Kmeans,
    Import,
    Campplus,
    #[serde(rename = "s3-tokenizer")]
    S3Tokenizer,
    #[serde(rename = "paraformer-units")]
    ParaformerUnits,
    #[serde(rename = "step-audio-dual")]
    StepAudioDual,
    #[serde(rename = "dual-kmeans")]
    DualKmeans,
}

/// Reads the kind, then the settings straight from the same map: without a copy in between, so that whoever reads a
/// recipe can still tell on which line a wrong setting stands.
impl<'de> Deserialize<'de> for ExtractorConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ByKind)
    }
}

struct ByKind;

impl<'de> Visitor<'de> for ByKind {
    type Value = ExtractorConfig;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an extractor, such as {kind: statistics}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ExtractorConfig, A::Error> {
        if map.next_key::<String>()?.as_deref() != Some("kind") {
            return Err(A::Error::custom("an extractor begins with its `kind`, such as {kind: statistics}"));
        }
        let kind = map.next_value()?;
        let settings = MapAccessDeserializer::new(map);
        match kind {
            Kind::Statistics => StatisticsConfig::deserialize(settings).map(ExtractorConfig::Statistics),
            Kind::Kmeans => KmeansConfig::deserialize(settings).map(ExtractorConfig::Kmeans),
            Kind::Import => ImportConfig::deserialize(settings).map(ExtractorConfig::Import),
            Kind::Campplus => CampplusConfig::deserialize(settings).map(ExtractorConfig::Campplus),
            Kind::S3Tokenizer => S3Config::deserialize(settings).map(ExtractorConfig::S3Tokenizer),
            Kind::ParaformerUnits => ParaformerConfig::deserialize(settings).map(ExtractorConfig::ParaformerUnits),
            Kind::StepAudioDual => StepAudioConfig::deserialize(settings).map(ExtractorConfig::StepAudioDual),
            Kind::DualKmeans => DualKmeansConfig::deserialize(settings).map(ExtractorConfig::DualKmeans),
        }
    }
}

impl ExtractorConfig {
    /// Whether it is a network, which a device computes.
    pub fn is_network(&self) -> bool {
        matches!(self, Self::Campplus(_) | Self::S3Tokenizer(_) | Self::ParaformerUnits(_) | Self::StepAudioDual(_))
    }

    /// The name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Statistics(_) => statistics::KIND,
            Self::Kmeans(_) => kmeans::KIND,
            Self::Import(_) => import::KIND,
            Self::Campplus(_) => campplus::KIND,
            Self::S3Tokenizer(_) => s3::KIND,
            Self::ParaformerUnits(_) => paraformer::KIND,
            Self::StepAudioDual(_) => step_audio::KIND,
            Self::DualKmeans(_) => dual_kmeans::KIND,
        }
    }

    /// The column that the extractor fills.
    pub fn column(&self) -> Column {
        match self {
            Self::Statistics(config) => config.column(),
            Self::Kmeans(config) => config.column(),
            Self::Import(config) => config.column(),
            Self::Campplus(config) => config.column(),
            Self::S3Tokenizer(config) => config.column(),
            Self::ParaformerUnits(config) => config.column(),
            Self::StepAudioDual(config) => config.column(),
            Self::DualKmeans(config) => config.column(),
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// The field that cannot be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        match self {
            Self::Statistics(config) => config.check(),
            Self::Kmeans(config) => config.check(),
            Self::Import(config) => config.check(),
            Self::Campplus(config) => config.check(),
            Self::S3Tokenizer(config) => config.check(),
            Self::ParaformerUnits(config) => config.check(),
            Self::StepAudioDual(config) => config.check(),
            Self::DualKmeans(config) => config.check(),
        }
    }

    /// The settings that measuring reads: of two configurations that agree in them, what parts accumulated is the same.
    pub fn measuring(&self) -> serde_json::Value {
        match self {
            Self::Statistics(config) => config.measuring(),
            Self::Kmeans(config) => config.measuring(),
            Self::Import(_) => serde_json::Value::Null,
            Self::Campplus(_) | Self::S3Tokenizer(_) | Self::ParaformerUnits(_) | Self::StepAudioDual(_) => {
                serde_json::Value::Null
            }
            Self::DualKmeans(config) => config.measuring(),
        }
    }

    /// Whether the extractor learns from the corpus. One with weights of its own measures nothing.
    pub fn learns(&self) -> bool {
        matches!(self, Self::Statistics(_) | Self::Kmeans(_) | Self::DualKmeans(_))
    }

    /// The weights that the extractor takes over.
    fn weights(&self) -> Vec<&Weights> {
        match self {
            Self::Statistics(_) | Self::Kmeans(_) | Self::Import(_) | Self::DualKmeans(_) => Vec::new(),
            Self::Campplus(config) => config.weights(),
            Self::S3Tokenizer(config) => config.weights(),
            Self::ParaformerUnits(config) => config.weights().into_iter().collect(),
            Self::StepAudioDual(config) => config.weights(),
        }
    }

    /// The files beside the weights that the extractor takes over.
    fn other_files(&self) -> Vec<&Path> {
        match self {
            Self::Statistics(_)
            | Self::Kmeans(_)
            | Self::Import(_)
            | Self::Campplus(_)
            | Self::DualKmeans(_)
            | Self::S3Tokenizer(_) => Vec::new(),
            Self::ParaformerUnits(config) => config.other_files(),
            Self::StepAudioDual(config) => config.other_files(),
        }
    }

    /// The weight files that fitting reads, relative to the recipe's folder.
    pub fn weight_files(&self) -> Vec<&Path> {
        self.weights().into_iter().filter_map(Weights::file).chain(self.other_files()).collect()
    }

    /// All files that fitting reads below `root`, the recipe's folder: the weight files, and those that they keep tensors in.
    pub fn files_read(&self, root: &Path) -> Vec<PathBuf> {
        let weights = self.weights().into_iter().filter_map(Weights::file);
        let files = weights.flat_map(|file| flowmill_weights::files(&root.join(file)));
        files.chain(self.other_files().into_iter().map(|file| root.join(file))).collect()
    }

    /// Whether fitting draws random numbers, so that the result depends on the seed.
    pub fn reads_seed(&self) -> bool {
        matches!(self, Self::Kmeans(_) | Self::DualKmeans(_)) || self.weights().contains(&&Weights::Random)
    }

    /// How to fit the extractor. A kind with published weights reads them in [`Fit::finish`], relative to `root`, the recipe's
    /// folder, and measures nothing.
    ///
    /// # Errors
    /// The field that cannot be used.
    pub fn fit(&self, seed: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        Ok(match self {
            Self::Statistics(config) => Box::new(StatisticsFit::new(config.clone())?),
            Self::Kmeans(config) => Box::new(KmeansFit::new(config.clone(), seed)?),
            Self::Import(_) => return Err(ConfigError::new("kind", "what is imported is looked up, not fitted")),
            Self::Campplus(config) => Box::new(config.fit(seed, root)?),
            Self::S3Tokenizer(config) => Box::new(config.fit(seed, root)?),
            Self::ParaformerUnits(config) => Box::new(config.fit(seed, root)?),
            Self::StepAudioDual(config) => Box::new(config.fit(seed, root)?),
            Self::DualKmeans(config) => Box::new(DualKmeansFit::new(config.clone(), seed)?),
        })
    }
}

/// The extractor that a fitted state describes, whatever its kind: the state alone is enough to use it elsewhere. Networks run on the
/// device.
///
/// # Errors
/// When the state is of no known kind, or incomplete.
pub fn from_state(state: &State, device: &Device) -> Result<Box<dyn Extractor>, StateError> {
    match state.kind() {
        statistics::KIND => Ok(Box::new(Statistics::from_state(state)?)),
        kmeans::KIND => Ok(Box::new(Kmeans::from_state(state)?)),
        import::KIND => Ok(Box::new(Import::from_state(state)?)),
        campplus::KIND => Ok(Box::new(CampplusExtractor::from_state(state, device)?)),
        s3::KIND => Ok(Box::new(S3Extractor::from_state(state, device)?)),
        paraformer::KIND => Ok(Box::new(ParaformerUnits::from_state(state, device)?)),
        step_audio::KIND => Ok(Box::new(StepAudioDual::from_state(state, device)?)),
        dual_kmeans::KIND => Ok(Box::new(DualKmeans::from_state(state)?)),
        other => {
            let known = [
                statistics::KIND,
                kmeans::KIND,
                import::KIND,
                dual_kmeans::KIND,
                campplus::KIND,
                s3::KIND,
                paraformer::KIND,
                step_audio::KIND,
            ];
            Err(StateError::Foreign { wanted: known.join(" or "), found: other.to_owned() })
        }
    }
}
