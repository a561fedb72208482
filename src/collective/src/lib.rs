//! Several processes that work on one training: their ranks, and the sums and copies that they exchange.
//!
//! [`Collective`] is the interface. [`Alone`] is a single process and costs nothing. MPI is behind the Cargo feature `mpi` and is
//! initialized only in a process that a launcher has started with others ([`world`]). [`threads`] are ranks within one process, for
//! tests. This crate knows neither models nor files.
//!
//! Sums are taken in the order of the ranks, whatever the engine: every rank gets the same bits, and so do two runs with the same number
//! of ranks.

mod alone;
pub mod environment;
mod error;
pub mod launch;
#[cfg(feature = "mpi")]
mod mpi_engine;
pub mod threads;
mod world;

use std::fmt::Debug;

pub use alone::Alone;
pub use environment::Environment;
pub use error::CollectiveError;
pub use world::{World, leave, world};

/// The ranks of a computation, seen from one of them. Every rank must call the same functions in the same order; each call waits for the
/// other ranks.
pub trait Collective: Debug + Send + Sync {
    /// The number of this rank, from 0. Rank 0 leads.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn size(&self) -> usize;

    /// The name of the engine, for people.
    fn engine(&self) -> &'static str;

    /// Returns the bytes that every rank gives, in the order of the ranks. They may differ in length.
    ///
    /// # Errors
    /// When the engine cannot exchange that much.
    fn all_gather_bytes(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// Sends each rank its part of `values`, which are cut by `counts` in the order of the ranks. Returns the parts that the ranks have
    /// for this rank, `[rank, value]`.
    ///
    /// # Errors
    /// When the counts do not match the values, or the engine cannot exchange that much.
    fn exchange(&self, values: &[f32], counts: &[usize]) -> Result<Vec<f32>, CollectiveError>;

    /// Fills in the parts of the other ranks: `values` are cut by `counts` in the order of the ranks, and this rank has its own.
    ///
    /// # Errors
    /// When the counts do not match the values, or the engine cannot exchange that much.
    fn all_gather(&self, values: &mut [f32], counts: &[usize]) -> Result<(), CollectiveError>;

    /// Replaces the values of every rank by those of rank `root`.
    ///
    /// # Errors
    /// When the engine cannot exchange that much.
    fn broadcast(&self, root: usize, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// Waits until every rank is here.
    ///
    /// # Errors
    /// When the engine fails.
    fn barrier(&self) -> Result<(), CollectiveError>;

    /// Calls all other ranks, which [wait](Self::await_call) for it. For rank 0.
    ///
    /// # Errors
    /// When the engine fails.
    fn call(&self, message: &[u8]) -> Result<(), CollectiveError>;

    /// Waits for a [call](Self::call) of rank 0, for hours if need be: without using the processor.
    ///
    /// # Errors
    /// When the engine fails.
    fn await_call(&self) -> Result<Vec<u8>, CollectiveError>;

    /// Ends all ranks immediately with an exit code.
    fn abort(&self, code: i32) -> !;

    /// Returns this rank's part of the sum of all ranks' values, which are cut by `counts` in the order of the ranks.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange).
    fn reduce_scatter(&self, values: &[f32], counts: &[usize]) -> Result<Vec<f32>, CollectiveError> {
        let mut parts = self.exchange(values, counts)?;
        let own = counts[self.rank()];
        let (sum, others) = parts.split_at_mut(own.min(counts.iter().sum()));
        for part in others.chunks_exact(own.max(1)) {
            sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
        parts.truncate(own);
        Ok(parts)
    }

    /// Replaces the values of every rank by the sum over the ranks.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange).
    fn all_reduce(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        if self.size() == 1 {
            return Ok(());
        }
        let counts = even_counts(values.len(), self.size());
        let sum = self.reduce_scatter(values, &counts)?;
        let start: usize = counts[..self.rank()].iter().sum();
        values[start..start + sum.len()].copy_from_slice(&sum);
        self.all_gather(values, &counts)
    }
}

/// Cuts `total` values into `parts` parts that differ by at most one value.
#[must_use]
pub fn even_counts(total: usize, parts: usize) -> Vec<usize> {
    (0..parts).map(|part| total / parts + usize::from(part < total % parts)).collect()
}

/// Fails unless there is a count for each rank and they add up to the values.
fn check_counts(values: usize, counts: &[usize], size: usize) -> Result<(), CollectiveError> {
    let sum: usize = counts.iter().sum();
    if counts.len() == size && sum == values {
        return Ok(());
    }
    Err(CollectiveError::Counts { values, counts: counts.to_vec(), size })
}
