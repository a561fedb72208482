//! Sums over the steps between two reports.

use flowmill_train::Progress;

/// Sums over steps.
#[derive(Debug, Default)]
pub struct Totals {
    /// Steps.
    pub steps: u64,
    /// Sum of the losses.
    pub loss: f64,
    /// Sums of the losses' parts, each with the number of steps that have it.
    parts: Vec<(String, f64, u64)>,
    /// Samples.
    pub items: u64,
    /// Sum of the losses' weights.
    pub weight: f64,
    /// Seconds.
    pub seconds: f64,
    /// Seconds of these spent waiting for batches.
    pub data_wait: f64,
}

impl Totals {
    /// Adds a step.
    pub fn add(&mut self, progress: &Progress) {
        self.steps += 1;
        self.loss += progress.loss;
        if self.parts.is_empty() {
            self.parts = progress.parts.iter().map(|(name, _)| (name.clone(), 0.0, 0)).collect();
        }
        for ((_, sum, count), (_, part)) in
            self.parts.iter_mut().zip(&progress.parts).filter(|(_, part)| !part.1.is_nan())
        {
            *sum += part;
            *count += 1;
        }
        self.items += progress.items;
        self.weight += progress.weight;
        self.seconds += progress.seconds;
        self.data_wait += progress.data_wait;
    }

    /// Returns the means of the parts that any step has.
    pub fn part_means(&self) -> Vec<(&str, f64)> {
        let present = self.parts.iter().filter(|(.., count)| *count > 0);
        present.map(|(name, sum, count)| (name.as_str(), sum / *count as f64)).collect()
    }
}
