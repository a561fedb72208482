//! `config.json`: stage 4's description of the model, and the additions of the export.

use std::fs;
use std::path::Path;

use flowmill_runner::StageError;
use serde_json::Value;

/// The place of the adapters of an exported model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapters {
    /// In the weights, or there are none.
    Merged,
    /// Next to the weights.
    Apart,
}

/// Writes stage 4's description `source` as that of the exported model. Its default settings of sampling are
/// `sampling`.
///
/// # Errors
/// Returns an error if it cannot be read or written.
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
