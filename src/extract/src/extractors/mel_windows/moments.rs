//! Mean and deviation of each band over the training frames.

use super::KIND;
use crate::{Accumulator, Matrix, State, StateError};

/// The smallest deviation that bands are divided by.
const LEAST_DEVIATION: f64 = 1e-3;

/// Count, sum and sum of squares of each band.
pub(super) struct Moments {
    settings: serde_json::Value,
    count: u64,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    pub(super) fn new(settings: serde_json::Value, bands: usize) -> Self {
        Self { settings, count: 0, sums: vec![0.0; bands], squares: vec![0.0; bands] }
    }

    /// Returns the number of frames.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the mean and the deviation of each band.
    ///
    /// # Errors
    /// [`StateError::NotEnough`] without a frame, [`StateError::NotFinite`].
    pub(super) fn finish(self) -> Result<(Vec<f32>, Vec<f32>), StateError> {
        if self.count == 0 {
            let reason = "the training split has no sound".to_owned();
            return Err(StateError::NotEnough { kind: KIND, reason });
        }
        let count = self.count as f64;
        let mean: Vec<f64> = self.sums.iter().map(|sum| sum / count).collect();
        let variance = self.squares.iter().zip(&mean).map(|(square, mean)| square / count - mean * mean);
        let deviation: Vec<f32> = variance.map(|value| value.max(0.0).sqrt().max(LEAST_DEVIATION) as f32).collect();
        let mean: Vec<f32> = mean.into_iter().map(|value| value as f32).collect();
        let is_finite = mean.iter().chain(&deviation).all(|value| value.is_finite());
        if is_finite { Ok((mean, deviation)) } else { Err(StateError::NotFinite { kind: KIND }) }
    }
}

impl Accumulator for Moments {
    fn add(&mut self, _: &str, measured: &Matrix) -> Result<(), StateError> {
        if measured.columns() != self.sums.len() {
            let reason = format!("a frame measures {} values, not {}", measured.columns(), self.sums.len());
            return Err(StateError::NotEnough { kind: KIND, reason });
        }
        self.count += measured.rows() as u64;
        for frame in measured.iter() {
            for ((sum, square), value) in self.sums.iter_mut().zip(&mut self.squares).zip(frame) {
                let value = f64::from(*value);
                *sum += value;
                *square += value * value;
            }
        }
        Ok(())
    }

    fn absorb(&mut self, state: &State) -> Result<(), StateError> {
        state.expect_kind(KIND)?;
        let bands = Some(self.sums.len());
        let (sums, squares) = (state.f64("sums", &[bands])?, state.f64("squares", &[bands])?);
        self.count = self.count.saturating_add(state.u64("count", &[Some(1)])?[0]);
        self.sums.iter_mut().zip(sums).for_each(|(own, other)| *own += other);
        self.squares.iter_mut().zip(squares).for_each(|(own, other)| *own += other);
        Ok(())
    }

    fn into_state(self: Box<Self>) -> State {
        let mut state = State::new(KIND, self.settings);
        state.set_u64("count", &[1], vec![self.count]);
        state.set_f64("sums", &[self.sums.len()], self.sums);
        state.set_f64("squares", &[self.squares.len()], self.squares);
        state
    }
}
