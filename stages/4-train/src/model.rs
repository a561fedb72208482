//! The families of networks that a recipe can name.

use std::fmt;

use flowmill_models::flow::FlowConfig;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A network as a recipe describes it: `{family: cosyvoice2-flow, …}`, the family first.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "family")]
#[non_exhaustive]
pub enum ModelConfig {
    /// CosyVoice 2's token-to-mel flow: conformer encoder with upsampling, causal estimator, conditional flow matching.
    #[serde(rename = "cosyvoice2-flow")]
    Flow(FlowConfig),
}

/// The families' names.
#[derive(Deserialize)]
enum Family {
    #[serde(rename = "cosyvoice2-flow")]
    Flow,
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
        }
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
        }
    }
}
