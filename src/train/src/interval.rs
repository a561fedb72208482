//! Intervals of repeated actions: a number of steps or of epochs.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Interval of an action: a number of steps such as `500`, or `{epochs: 1}`; 0 means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Interval {
    /// A number of steps.
    Steps(u64),
    /// A number of epochs.
    Epochs(Epochs),
}

/// A number of epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Epochs {
    /// Number of epochs.
    pub epochs: u64,
}

impl Interval {
    /// Returns whether the action is due after `step` steps, with `epochs` passes done and `position` batches of the next one.
    pub fn due(self, step: u64, epochs: u64, position: u64) -> bool {
        match self {
            Self::Steps(every) => every > 0 && step.is_multiple_of(every),
            Self::Epochs(Epochs { epochs: every }) => every > 0 && position == 0 && epochs.is_multiple_of(every),
        }
    }
}

/// Implemented by hand so that errors refer to the form that was written.
impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Form)
    }
}

struct Form;

impl<'de> Visitor<'de> for Form {
    type Value = Interval;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number of steps such as 500, or {epochs: 1}")
    }

    fn visit_u64<E: Error>(self, steps: u64) -> Result<Interval, E> {
        Ok(Interval::Steps(steps))
    }

    fn visit_f64<E: Error>(self, steps: f64) -> Result<Interval, E> {
        // YAML reads 1e4 as a float, but people mean a whole number.
        let whole = steps.fract() == 0.0 && (0.0..9e15).contains(&steps);
        if whole {
            Ok(Interval::Steps(steps as u64))
        } else {
            Err(E::invalid_type(serde::de::Unexpected::Float(steps), &self))
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Interval, A::Error> {
        Epochs::deserialize(MapAccessDeserializer::new(map)).map(Interval::Epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_epochs_are_due_at_their_multiples() {
        let steps = Interval::Steps(3);
        assert!(steps.due(6, 0, 5) && !steps.due(7, 1, 0) && !Interval::Steps(0).due(0, 0, 0));
        let epochs = Interval::Epochs(Epochs { epochs: 2 });
        assert!(epochs.due(11, 4, 0), "the fourth epoch has just ended");
        assert!(!epochs.due(11, 4, 1) && !epochs.due(8, 3, 0));
        assert!(!Interval::Epochs(Epochs { epochs: 0 }).due(1, 1, 0));
    }

    #[test]
    fn both_forms_are_read_and_written() {
        for text in ["500", "{\"epochs\":1}"] {
            let interval: Interval = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&interval).unwrap(), text);
        }
        for wrong in ["-1", "0.5", "\"often\"", "{\"epoch\":1}", "{}"] {
            assert!(serde_json::from_str::<Interval>(wrong).is_err(), "{wrong}");
        }
        let said = serde_json::from_str::<Interval>("\"often\"").unwrap_err().to_string();
        assert!(said.contains("{epochs: 1}"), "{said}");
    }
}
