//! Reading JSON files that the program wrote.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Reads a JSON file.
pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}
