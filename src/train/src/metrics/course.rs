//! The course of a number over a training.

use serde::Serialize;

/// Statistics of a number that is measured again and again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Course {
    /// Number of values.
    pub values: u64,
    /// The first value.
    pub first: f64,
    /// The last value.
    pub last: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// The mean.
    pub mean: f64,
}

impl Course {
    /// Creates the statistics of one value.
    pub fn new(value: f64) -> Self {
        Self { values: 1, first: value, last: value, min: value, max: value, mean: value }
    }

    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        self.values += 1;
        self.last = value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.mean += (value - self.mean) / self.values as f64;
    }
}
