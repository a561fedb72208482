//! The families of networks that a recipe can name.

use std::fmt;

use flowmill_models::TokenToMel;
use flowmill_models::flow::{Flow, FlowConfig, FlowError, StepAudioConfig};
use flowmill_models::sfm::{Sfm, SfmConfig};
use flowmill_nn::Parameters;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

/// A network: its family, and the dimensions of that family. The family comes first.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "family")]
#[non_exhaustive]
pub enum ModelConfig {
    /// The token-to-mel flow of CosyVoice 2: conformer encoder with upsampling, causal U-Net, conditional flow
    /// matching.
    #[serde(rename = "cosyvoice2-flow")]
    Flow(FlowConfig),
    /// Shallow flow matching (RWKVTTS): the flow starts from a point that a head on the encoder predicts.
    #[serde(rename = "sfm-flow")]
    Sfm(SfmConfig),
    /// The token-to-mel flow of Step-Audio: two codebooks, conformer encoder with upsampling, diffusion transformer.
    #[serde(rename = "step-audio-flow", serialize_with = "as_step_audio")]
    #[schemars(with = "StepAudioConfig")]
    StepAudio(FlowConfig),
}

/// Writes the settings as the family names them.
fn as_step_audio<S: Serializer>(flow: &FlowConfig, serializer: S) -> Result<S::Ok, S::Error> {
    let settings = StepAudioConfig::of(flow);
    settings.ok_or_else(|| serde::ser::Error::custom("not a Step-Audio flow"))?.serialize(serializer)
}

/// The families' names.
#[derive(Deserialize)]
enum Family {
    #[serde(rename = "cosyvoice2-flow")]
    Flow,
    #[serde(rename = "sfm-flow")]
    Sfm,
    #[serde(rename = "step-audio-flow")]
    StepAudio,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self::Flow(FlowConfig::default())
    }
}

impl ModelConfig {
    /// The family's name.
    pub fn family(&self) -> &'static str {
        match self {
            Self::Flow(_) => "cosyvoice2-flow",
            Self::Sfm(_) => "sfm-flow",
            Self::StepAudio(_) => "step-audio-flow",
        }
    }

    /// The settings of its encoder, estimator and mel.
    pub fn flow(&self) -> &FlowConfig {
        match self {
            Self::Flow(flow) | Self::StepAudio(flow) => flow,
            Self::Sfm(sfm) => &sfm.flow,
        }
    }

    /// As [`flow`](Self::flow), to change.
    pub fn flow_mut(&mut self) -> &mut FlowConfig {
        match self {
            Self::Flow(flow) | Self::StepAudio(flow) => flow,
            Self::Sfm(sfm) => &mut sfm.flow,
        }
    }

    /// Where a recipe has a setting of [`flow`](Self::flow): its path below `model`.
    pub fn flow_key(&self, field: &str) -> String {
        match self {
            Self::Flow(_) | Self::StepAudio(_) => field.to_owned(),
            Self::Sfm(_) => format!("flow.{field}"),
        }
    }

    /// Whether it is a shallow flow, whose inference has a strength.
    pub fn has_strength(&self) -> bool {
        matches!(self, Self::Sfm(_))
    }

    /// Checks that the settings fit together.
    ///
    /// # Errors
    /// The first that does not, as its path below `model` and what is wrong.
    pub fn check(&self) -> Result<(), (String, String)> {
        let told = |error: FlowError, key: &dyn Fn(&str) -> String| match error {
            FlowError::Config { field, message } => (key(field), message),
            other => (String::new(), other.to_string()),
        };
        self.flow().check().map_err(|error| told(error, &|field| self.flow_key(field)))?;
        match self {
            Self::Flow(_) | Self::StepAudio(_) => Ok(()),
            Self::Sfm(sfm) => sfm.check().map_err(|error| told(error, &str::to_owned)),
        }
    }

    /// The settings without the family's name.
    pub fn settings(&self) -> Value {
        match self {
            Self::Flow(flow) => json!(flow),
            Self::Sfm(sfm) => json!(sfm),
            Self::StepAudio(flow) => json!(StepAudioConfig::of(flow)),
        }
    }

    /// The opposite of [`family`](Self::family) and [`settings`](Self::settings).
    ///
    /// # Errors
    /// When there is no such family, or it has other settings.
    pub fn described(family: &str, settings: Value) -> Result<Self, serde_json::Error> {
        match Family::deserialize(Value::from(family))? {
            Family::Flow => serde_json::from_value(settings).map(Self::Flow),
            Family::Sfm => serde_json::from_value(settings).map(Self::Sfm),
            Family::StepAudio => serde_json::from_value::<StepAudioConfig>(settings).map(Self::step_audio),
        }
    }

    fn step_audio(settings: StepAudioConfig) -> Self {
        Self::StepAudio(FlowConfig::from(&settings))
    }

    /// The network, with freshly drawn weights.
    ///
    /// # Errors
    /// When the settings do not fit together.
    pub fn build(&self, seed: u64) -> Result<(Box<dyn TokenToMel>, Parameters), FlowError> {
        Ok(match self {
            Self::Flow(config) | Self::StepAudio(config) => {
                let (flow, parameters) = Flow::new(config, seed)?;
                (Box::new(flow), parameters)
            }
            Self::Sfm(config) => {
                let (sfm, parameters) = Sfm::new(config, seed)?;
                (Box::new(sfm), parameters)
            }
        })
    }
}

/// Reads the family, then its settings straight from the same map, so that the reader of a recipe can still tell on which line
/// a wrong setting stands.
impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ByFamily)
    }
}

struct ByFamily;

impl<'de> Visitor<'de> for ByFamily {
    type Value = ModelConfig;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a model, such as {family: cosyvoice2-flow}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ModelConfig, A::Error> {
        if map.next_key::<String>()?.as_deref() != Some("family") {
            return Err(A::Error::custom("a model begins with its `family`, such as {family: cosyvoice2-flow}"));
        }
        match map.next_value()? {
            Family::Flow => FlowConfig::deserialize(MapAccessDeserializer::new(map)).map(ModelConfig::Flow),
            Family::Sfm => SfmConfig::deserialize(MapAccessDeserializer::new(map)).map(ModelConfig::Sfm),
            Family::StepAudio => {
                StepAudioConfig::deserialize(MapAccessDeserializer::new(map)).map(ModelConfig::step_audio)
            }
        }
    }
}
