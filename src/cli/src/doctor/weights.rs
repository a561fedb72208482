//! The weight files that a recipe names, collected from its resolved form.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Extensions of files that contain weights.
const ENDINGS: [&str; 9] = ["safetensors", "onnx", "pt", "pth", "ckpt", "bin", "npy", "npz", "mvn"];

/// A weight file named by a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights {
    /// The key that names it, `embed.extractors.0.weights`.
    pub key: String,
    /// The path.
    pub path: PathBuf,
    /// The size, if it exists.
    pub size: Option<u64>,
    /// True if the recipe uses random weights instead of a file.
    pub random: bool,
}

/// Returns all weight files that `resolved` names, in order, with paths relative to `folder`.
///
/// Texts under a key `weights`, and all texts with the extension of a weight file, count as weight files. Entries
/// next to random weights do not, because nothing reads them.
pub fn named_in(resolved: &Value, folder: &Path) -> Vec<Weights> {
    let mut found = Vec::new();
    collect(resolved, String::new(), folder, &mut found);
    found
}

/// Collects the weight files in one value.
fn collect(value: &Value, key: String, folder: &Path, found: &mut Vec<Weights>) {
    match value {
        Value::Object(fields) => {
            let random = fields.get("weights").is_some_and(|weights| weights == "random");
            for (name, field) in fields.iter().filter(|(name, _)| !random || *name == "weights") {
                collect(field, join(&key, name), folder, found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, join(&key, &index.to_string()), folder, found);
            }
        }
        Value::String(text) if is_weights(&key, text) => {
            let path = folder.join(text);
            let size = std::fs::metadata(&path).ok().map(|about| about.len());
            let random = size.is_none() && text == "random";
            found.push(Weights { key, path, size, random });
        }
        _ => {}
    }
}

/// Returns whether `text` under `key` names a weight file.
fn is_weights(key: &str, text: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key);
    let ending = Path::new(text).extension().and_then(|ending| ending.to_str());
    !text.is_empty() && (name == "weights" || ending.is_some_and(|ending| ENDINGS.contains(&ending)))
}

/// Returns `outer.inner`.
fn join(outer: &str, inner: &str) -> String {
    if outer.is_empty() { inner.to_string() } else { format!("{outer}.{inner}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_found_by_key_and_by_ending() {
        let resolved = serde_json::json!({
            "embed": {"extractors": [{"kind": "campplus", "weights": "models/campplus"}]},
            "tokens": {"extractor": {"kind": "paraformer-units", "weights": "random", "centres": "centres.npy"}},
            "train": {"init": "flow.pt", "optim": {"kind": "adamw"}, "note": ""},
        });
        let found = named_in(&resolved, Path::new("here"));
        let keys: Vec<&str> = found.iter().map(|weights| weights.key.as_str()).collect();
        assert_eq!(keys, ["embed.extractors.0.weights", "tokens.extractor.weights", "train.init"]);
        assert_eq!(found[2].path, Path::new("here/flow.pt"));
        assert_eq!(found[2].size, None);
        assert_eq!(found.iter().map(|weights| weights.random).collect::<Vec<_>>(), [false, true, false]);
    }
}
