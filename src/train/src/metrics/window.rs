//! Means over the steps since the last metrics line, stored bit for bit in checkpoints.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Sums since the last metrics line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Steps that were not skipped.
    pub steps: u64,
    weight: Exact,
    loss: Exact,
    grad_norm: Exact,
    parts: Vec<(String, Exact)>,
    /// The weight of the steps without a part, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    absent: BTreeMap<String, Exact>,
}

/// Measurements of one step or of a validation: means over its batches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// The loss.
    pub loss: f64,
    /// The parts; NaN for one that no batch has.
    pub parts: Vec<(String, f64)>,
    /// Sum of the batches' weights.
    pub weight: f64,
    /// The weight of the batches that have a part, in the order of the parts.
    present: Vec<f64>,
}

impl Measured {
    /// Adds another batch to the means, by weight.
    pub fn add(&mut self, loss: f64, parts: &[(impl AsRef<str>, f64)], weight: f64) {
        self.weight += weight;
        let share = weight / self.weight;
        self.loss += share * (loss - self.loss);
        if self.parts.is_empty() {
            self.parts = parts.iter().map(|(name, _)| (name.as_ref().to_owned(), f64::NAN)).collect();
            self.present = vec![0.0; parts.len()];
        }
        for (((_, mean), present), (_, part)) in self.parts.iter_mut().zip(&mut self.present).zip(parts) {
            if part.is_nan() {
                continue;
            }
            *present += weight;
            let before = if mean.is_nan() { 0.0 } else { *mean };
            *mean = before + weight / *present * (part - before);
        }
    }

    /// Returns the parts that at least one batch has, with their means.
    pub fn present_parts(&self) -> impl Iterator<Item = (&str, f64)> {
        self.parts.iter().filter(|(_, mean)| !mean.is_nan()).map(|(name, mean)| (name.as_str(), *mean))
    }
}

impl Window {
    /// Adds a step to the sums.
    pub fn add(&mut self, step: &Measured, grad_norm: f64) {
        self.steps += 1;
        self.weight.0 += step.weight;
        self.loss.0 += step.loss * step.weight;
        self.grad_norm.0 += grad_norm;
        if self.parts.is_empty() {
            self.parts = step.parts.iter().map(|(name, _)| (name.clone(), Exact(0.0))).collect();
        }
        for (at, ((name, sum), (_, part))) in self.parts.iter_mut().zip(&step.parts).enumerate() {
            let present = step.present.get(at).copied().unwrap_or(step.weight);
            if !part.is_nan() {
                sum.0 += part * present;
            }
            if present < step.weight {
                self.absent.entry(name.clone()).or_default().0 += step.weight - present;
            }
        }
    }

    /// Returns the means, and the mean gradient norm; `None` if every step was skipped.
    pub fn means(&self) -> Option<(Measured, f64)> {
        if self.steps == 0 {
            return None;
        }
        let mean = |sum: &Exact| sum.0 / self.weight.0;
        let absent = |name: &String| self.absent.get(name).map_or(0.0, |weight| weight.0);
        let part = |(name, sum): &(String, Exact)| (name.clone(), sum.0 / (self.weight.0 - absent(name)));
        let parts = self.parts.iter().map(part).collect();
        let measured = Measured { loss: mean(&self.loss), parts, weight: self.weight.0, ..Measured::default() };
        Some((measured, self.grad_norm.0 / self.steps as f64))
    }
}

/// A double stored as the hexadecimal digits of its bits, because decimal text may lose the last bit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Exact(pub(crate) f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0.to_bits()))
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bits = u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)?;
        Ok(Self(f64::from_bits(bits)))
    }
}
