//! The extractor itself: one value per row and column.

use rayon::prelude::*;

use crate::{Column, ExtractError, Extracted, Media};

/// Turns a row's media into values, one for each column. Pure: the same media give the same values, on any thread.
pub trait Extractor: Send + Sync {
    /// The name that a recipe selects it by.
    fn kind(&self) -> &'static str;

    /// The columns that it fills.
    fn columns(&self) -> Vec<Column>;

    /// The values of one row.
    ///
    /// # Errors
    /// The reason why the row cannot be used; the row is then rejected, the others continue.
    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError>;

    /// The number of rows that the extractor sees at the same time; more than one for networks, which are faster on batches.
    fn rows_per_batch(&self) -> usize {
        1
    }

    /// The values of several rows, in their order. An implementation for batches uses the current threads itself.
    fn extract_batch(&self, rows: &[Media]) -> Vec<Result<Extracted, ExtractError>> {
        rows.par_iter().map(|media| self.extract(media)).collect()
    }
}
