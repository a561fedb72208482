//! A single process.

use crate::{Collective, CollectiveError, check_counts};

/// The only rank: every exchange is with itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn engine(&self) -> &'static str {
        "none"
    }

    fn all_gather_bytes(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        Ok(vec![own.to_vec()])
    }

    fn exchange(&self, values: &[f32], counts: &[usize]) -> Result<Vec<f32>, CollectiveError> {
        check_counts(values.len(), counts, 1)?;
        Ok(values.to_vec())
    }

    fn all_gather(&self, values: &mut [f32], counts: &[usize]) -> Result<(), CollectiveError> {
        check_counts(values.len(), counts, 1)
    }

    fn broadcast(&self, _: usize, _: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn call(&self, _: &[u8]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn await_call(&self) -> Result<Vec<u8>, CollectiveError> {
        Err(CollectiveError::NobodyCalls)
    }

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}
