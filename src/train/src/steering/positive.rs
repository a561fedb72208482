//! A positive number that is written and read back without a change.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A positive, finite number, such as a learning rate. Stored as the text of its shortest decimal, which Rust reads back to the same bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Positive(f64);

impl Positive {
    /// The number.
    pub fn value(self) -> f64 {
        self.0
    }
}

impl FromStr for Positive {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(value) if value > 0.0 && value.is_finite() => Ok(Self(value)),
            _ => Err(format!("{text:?} is not a positive number")),
        }
    }
}

impl fmt::Display for Positive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both forms give back the same bits.
        if self.0 < 1e-4 { write!(f, "{:e}", self.0) } else { write!(f, "{}", self.0) }
    }
}

impl Serialize for Positive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Positive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_survives_text() {
        for value in [1e-4, 0.1 + 0.2, 3e-7, f64::MIN_POSITIVE, 1.0 / 3.0, 12345.678] {
            let text = serde_json::to_string(&Positive(value)).unwrap();
            assert_eq!(serde_json::from_str::<Positive>(&text).unwrap().value().to_bits(), value.to_bits(), "{text}");
        }
        assert!(serde_json::from_str::<Positive>("\"-1\"").is_err());
    }
}
