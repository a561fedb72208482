//! Reading the records in a stage's folder.

use std::io::ErrorKind;

use rayon::prelude::*;

use crate::layout::StageDir;
use crate::receipt::{Receipt, StageSummary};
use crate::{StageError, checksummed_json};

/// Returns the receipts of these parts, all of which must exist.
pub(crate) fn read_receipts(dir: &StageDir, keys: &[String]) -> Result<Vec<Receipt>, StageError> {
    keys.par_iter().map(|key| Ok(Receipt::read(&dir.receipt(key))?.within(&dir.path))).collect()
}

/// Returns the summary of a stage; none if it is not finished or the summary is damaged.
pub(crate) fn read_summary(dir: &StageDir) -> Result<Option<StageSummary>, StageError> {
    let path = dir.summary();
    match std::fs::read(&path) {
        Ok(bytes) => Ok(checksummed_json::open(&bytes).ok()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StageError::file(path, e)),
    }
}
