//! First and second moments of what the training rows measure: all that whitening needs, in bounded memory.

use super::{KIND, StatisticsConfig};
use crate::{Accumulator, Matrix, State, StateError};

/// Count, sum and sum of outer products.
pub(super) struct Moments {
    settings: serde_json::Value,
    dimensions: usize,
    count: u64,
    sum: Vec<f64>,
    products: Vec<f64>,
}

impl Moments {
    pub(super) fn new(config: &StatisticsConfig) -> Self {
        let dimensions = config.dimensions();
        Self {
            settings: config.measuring(),
            dimensions,
            count: 0,
            sum: vec![0.0; dimensions],
            products: vec![0.0; dimensions * dimensions],
        }
    }

    pub(super) fn from_state(config: &StatisticsConfig, state: &State) -> Result<Self, StateError> {
        let mut moments = Self::new(config);
        moments.absorb(state)?;
        Ok(moments)
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// The mean of every dimension.
    pub(super) fn mean(&self) -> Vec<f64> {
        self.sum.iter().map(|sum| sum / self.count.max(1) as f64).collect()
    }

    /// The covariance matrix, `[dimension][dimension]`.
    pub(super) fn covariance(&self) -> Vec<f64> {
        let mean = self.mean();
        let count = self.count.max(1) as f64;
        let entry =
            |(i, product): (usize, &f64)| product / count - mean[i / self.dimensions] * mean[i % self.dimensions];
        self.products.iter().enumerate().map(entry).collect()
    }
}

impl Accumulator for Moments {
    fn add(&mut self, _id: &str, measured: &Matrix) -> Result<(), StateError> {
        if measured.columns() != self.dimensions {
            let reason = format!("a row measures {} values, not {}", measured.columns(), self.dimensions);
            return Err(StateError::NotEnough { kind: KIND, reason });
        }
        for row in measured.iter() {
            let row: Vec<f64> = row.iter().map(|&value| f64::from(value)).collect();
            self.count += 1;
            add_scaled(&mut self.sum, &row, 1.0);
            for (products, &left) in self.products.chunks_exact_mut(self.dimensions).zip(&row) {
                add_scaled(products, &row, left);
            }
        }
        Ok(())
    }

    fn absorb(&mut self, state: &State) -> Result<(), StateError> {
        state.expect_kind(KIND)?;
        let dimensions = Some(self.dimensions);
        let count = state.u64("count", &[Some(1)])?[0];
        let sum = state.f64("sum", &[dimensions])?;
        let products = state.f64("products", &[dimensions, dimensions])?;
        self.count = self.count.saturating_add(count);
        add_scaled(&mut self.sum, sum, 1.0);
        add_scaled(&mut self.products, products, 1.0);
        Ok(())
    }

    fn into_state(self: Box<Self>) -> State {
        let mut state = State::new(KIND, self.settings);
        state.set_u64("count", &[1], vec![self.count]);
        state.set_f64("sum", &[self.dimensions], self.sum);
        state.set_f64("products", &[self.dimensions, self.dimensions], self.products);
        state
    }
}

fn add_scaled(sums: &mut [f64], values: &[f64], scale: f64) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += scale * value;
    }
}
