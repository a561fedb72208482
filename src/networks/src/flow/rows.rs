//! The rows of a batch that are computed, and those that may be attended to.

use super::Result;
use flowmill_nn::Ragged;

/// The rows of the items of a batch: all that are computed, and those that may be attended to.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    pub(super) all: Ragged,
    pub(super) valid: Ragged,
}

impl Rows {
    /// Creates the rows of concatenated items of `all` rows each, of which the first `valid` may be attended to.
    pub(super) fn new(all: &[usize], valid: &[usize]) -> Result<Self> {
        let all = Ragged::packed(all);
        let valid = all.shortened(valid)?;
        Ok(Self { all, valid })
    }

    pub(super) fn repeated(&self, factor: usize) -> Self {
        Self { all: self.all.repeated(factor), valid: self.valid.repeated(factor) }
    }
}
