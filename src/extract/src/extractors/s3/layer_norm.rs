//! The epsilons of the layer normalizations of a block.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::Version;

/// The value of s3tokenizer 0.3.0 for both.
const CURRENT: f64 = 1e-5;

/// The epsilons of a block's layer normalizations. In a recipe one number, for both, or `{attn_ln: 1e-6, mlp_ln: 1e-5}`, of which
/// either may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LayerNormEpsilon {
    /// Epsilon in front of the attention.
    pub attn_ln: f64,
    /// Epsilon in front of the feed-forward layers.
    pub mlp_ln: f64,
}

impl Default for LayerNormEpsilon {
    /// Returns the epsilons of s3tokenizer 0.3.0, in all its versions of the model.
    fn default() -> Self {
        Self { attn_ln: CURRENT, mlp_ln: CURRENT }
    }
}

impl LayerNormEpsilon {
    /// Returns the epsilons of s3tokenizer before 0.3.0; states and golden files that do not say any have these.
    pub fn before_0_3(version: Version) -> Self {
        match version {
            Version::V1 | Version::V3 => Self::default(),
            Version::V2 => Self { attn_ln: 1e-6, ..Self::default() },
        }
    }

    /// Converts epsilons in single precision to the shortest decimal numbers that give them.
    pub(super) fn of_floats([attn_ln, mlp_ln]: [f32; 2]) -> Self {
        // A float's own text is a number.
        let shortest = |value: f32| value.to_string().parse().unwrap_or_else(|_| f64::from(value));
        Self { attn_ln: shortest(attn_ln), mlp_ln: shortest(mlp_ln) }
    }

    /// Returns true if both can be used.
    pub(super) fn is_usable(&self) -> bool {
        [self.attn_ln, self.mlp_ln].iter().all(|epsilon| (0.0..1.0).contains(epsilon))
    }
}

impl JsonSchema for LayerNormEpsilon {
    fn schema_name() -> Cow<'static, str> {
        "LayerNormEpsilon".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "number", "description": "The epsilon of all of them." },
                generator.subschema_for::<Each>(),
            ],
        })
    }
}

impl<'de> Deserialize<'de> for LayerNormEpsilon {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrMap)
    }
}

struct NumberOrMap;

/// The epsilons one by one.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Each {
    /// In front of the attention.
    attn_ln: f64,
    /// In front of the feed-forward layers.
    mlp_ln: f64,
}

impl Default for Each {
    fn default() -> Self {
        Self { attn_ln: CURRENT, mlp_ln: CURRENT }
    }
}

impl<'de> Visitor<'de> for NumberOrMap {
    type Value = LayerNormEpsilon;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a number such as 1e-5, or {attn_ln: 1e-6, mlp_ln: 1e-5}")
    }

    fn visit_f64<E>(self, both: f64) -> Result<LayerNormEpsilon, E> {
        Ok(LayerNormEpsilon { attn_ln: both, mlp_ln: both })
    }

    fn visit_u64<E: serde::de::Error>(self, both: u64) -> Result<LayerNormEpsilon, E> {
        self.visit_f64(both as f64)
    }

    fn visit_i64<E: serde::de::Error>(self, both: i64) -> Result<LayerNormEpsilon, E> {
        self.visit_f64(both as f64)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LayerNormEpsilon, A::Error> {
        let Each { attn_ln, mlp_ln } = Each::deserialize(MapAccessDeserializer::new(map))?;
        Ok(LayerNormEpsilon { attn_ln, mlp_ln })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_for_both_and_a_map_for_each() {
        let read = |value: serde_json::Value| serde_json::from_value::<LayerNormEpsilon>(value);
        let both = read(serde_json::json!(1e-6)).unwrap();
        assert_eq!((both.attn_ln, both.mlp_ln), (1e-6, 1e-6));
        let one = read(serde_json::json!({"attn_ln": 1e-6})).unwrap();
        assert_eq!((one.attn_ln, one.mlp_ln), (1e-6, 1e-5));
        assert_eq!(read(serde_json::json!(one)).unwrap(), one);
        assert!(read(serde_json::json!({"attn": 1e-6})).is_err() && read(serde_json::json!("1e-6")).is_err());
        assert_eq!(LayerNormEpsilon::of_floats([1e-6, 1e-2]), LayerNormEpsilon { attn_ln: 1e-6, mlp_ln: 1e-2 });
    }
}
