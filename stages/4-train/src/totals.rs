//! Sums over the steps between two reports.

use flowmill_train::Progress;

/// Sums over steps.
#[derive(Debug, Default)]
pub struct Totals {
    /// Steps.
    pub steps: u64,
    /// Sum of the losses.
    pub loss: f64,
    /// Sums of the losses' parts.
    pub parts: Vec<(String, f64)>,
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
            self.parts = progress.parts.iter().map(|(name, _)| (name.clone(), 0.0)).collect();
        }
        self.parts.iter_mut().zip(&progress.parts).for_each(|((_, sum), (_, part))| *sum += part);
        self.items += progress.items;
        self.weight += progress.weight;
        self.seconds += progress.seconds;
        self.data_wait += progress.data_wait;
    }
}
