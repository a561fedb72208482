//! Means over the steps since the last metrics line, stored bit for bit in checkpoints.

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
}

/// Measurements of one step or of a validation: means over its batches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// The loss.
    pub loss: f64,
    /// The parts.
    pub parts: Vec<(String, f64)>,
    /// Sum of the batches' weights.
    pub weight: f64,
}

impl Measured {
    /// Adds another batch to the means, by weight.
    pub fn add(&mut self, loss: f64, parts: &[(&'static str, f64)], weight: f64) {
        self.weight += weight;
        let share = weight / self.weight;
        self.loss += share * (loss - self.loss);
        if self.parts.is_empty() {
            self.parts = parts.iter().map(|(name, _)| ((*name).to_owned(), 0.0)).collect();
        }
        for (mean, (_, part)) in self.parts.iter_mut().zip(parts) {
            mean.1 += share * (part - mean.1);
        }
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
        for ((_, sum), (_, part)) in self.parts.iter_mut().zip(&step.parts) {
            sum.0 += part * step.weight;
        }
    }

    /// Returns the means, and the mean gradient norm; `None` if every step was skipped.
    pub fn means(&self) -> Option<(Measured, f64)> {
        if self.steps == 0 {
            return None;
        }
        let mean = |sum: &Exact| sum.0 / self.weight.0;
        let parts = self.parts.iter().map(|(name, sum)| (name.clone(), mean(sum))).collect();
        let measured = Measured { loss: mean(&self.loss), parts, weight: self.weight.0 };
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
