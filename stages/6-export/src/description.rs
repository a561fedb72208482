//! `config.json`: stage 4's description of the model, and what exporting adds to it.

use std::fs;
use std::path::Path;

use flowmill_runner::StageError;
use serde_json::Value;

/// Where the adapters of an exported model are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapters {
    /// In the weights, or there are none.
    Merged,
    /// Beside the weights.
    Apart,
}

/// Writes the description `source` of stage 4 as that of the exported model, which is sampled as `sampling` says unless one says otherwise.
///
/// # Errors
/// When it cannot be read or written.
pub fn write(source: &Path, target: &Path, sampling: &Value, adapters: Adapters) -> Result<(), StageError> {
    let text = fs::read_to_string(source).map_err(|error| StageError::file(source, error))?;
    let read = serde_json::from_str(&text);
    let mut described: Value = read.map_err(|error| StageError::new(format!("{}: {error}", source.display())))?;
    if !sampling.is_null() {
        described["sampling"] = sampling.clone();
    }
    if adapters == Adapters::Apart {
        described["lora"]["merged"] = Value::Bool(false);
    }
    fs::write(target, format!("{described:#}\n")).map_err(|error| StageError::file(target, error))
}
