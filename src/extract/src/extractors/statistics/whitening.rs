//! The affine map that makes the training rows white.

use super::{KIND, StatisticsConfig, moments::Moments};
use crate::{
    State, StateError,
    linear_algebra::{dot, inverse_square_root},
};

/// Deviations below this (nepers) are taken for it, so that a dimension that never varies is not blown up.
const LEAST_DEVIATION: f64 = 1e-3;

/// x ↦ W (x − mean).
pub(super) struct Whitening {
    mean: Vec<f64>,
    /// W, `[output][input]`.
    matrix: Vec<f64>,
}

impl Whitening {
    pub(super) fn fit(moments: &Moments, shrinkage: f64) -> Result<Self, StateError> {
        if moments.count() < 2 {
            let reason = format!("the training split has {} usable rows, two are the least", moments.count());
            return Err(StateError::NotEnough { kind: KIND, reason });
        }
        let size = moments.dimensions();
        let mut correlation = moments.covariance();
        let deviation: Vec<f64> =
            (0..size).map(|i| correlation[i * size + i].max(0.0).sqrt().max(LEAST_DEVIATION)).collect();
        for (i, value) in correlation.iter_mut().enumerate() {
            let (row, column) = (i / size, i % size);
            *value *= (1.0 - shrinkage) / (deviation[row] * deviation[column]);
            *value += if row == column { shrinkage } else { 0.0 };
        }
        let mut matrix = inverse_square_root(&correlation, size).ok_or(StateError::NotFinite { kind: KIND })?;
        for row in matrix.chunks_exact_mut(size) {
            row.iter_mut().zip(&deviation).for_each(|(value, deviation)| *value /= deviation);
        }
        Ok(Self { mean: moments.mean(), matrix })
    }

    pub(super) fn from_state(state: &State, dimensions: usize) -> Result<Self, StateError> {
        let mean = state.f64("mean", &[Some(dimensions)])?.to_vec();
        let matrix = state.f64("whitening", &[Some(dimensions), Some(dimensions)])?.to_vec();
        Ok(Self { mean, matrix })
    }

    pub(super) fn to_state(&self, config: &StatisticsConfig) -> State {
        let size = self.mean.len();
        let mut state = State::new(KIND, serde_json::json!(config));
        state.set_f64("mean", &[size], self.mean.clone());
        state.set_f64("whitening", &[size, size], self.matrix.clone());
        state
    }

    pub(super) fn apply(&self, measured: &[f32]) -> Vec<f32> {
        let centered: Vec<f64> =
            measured.iter().zip(&self.mean).map(|(&value, mean)| f64::from(value) - mean).collect();
        self.matrix.chunks_exact(self.mean.len()).map(|row| dot(row, &centered) as f32).collect()
    }
}
