//! One embedding of a file.

use std::path::Path;

use super::value::{self, Value};
use super::{listed, table, unknown_id};
use crate::{CorpusError, packed};

/// Names of the embedding in an entry of several values, such as those of CosyVoice's `spk2info.pt`.
const NAMES: [&str; 4] = ["flow_embedding", "embedding", "spk_embedding", "utt_embedding"];

/// Extensions of files of embeddings.
const EXTENSIONS: [&str; 9] = ["pt", "pth", "pkl", "npy", "safetensors", "json", "jsonl", "ndjson", "parquet"];

/// Returns whether a file has embeddings rather than sound: by its extension, or if it is Parquet by its content.
pub fn is_embedding_file(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str())) || packed::is_parquet(path)
}

/// Reads an embedding: that of an utterance or a speaker, or without an id the only one of the file. All values are finite.
///
/// # Errors
/// [`CorpusError::Io`]; [`CorpusError::Structure`] if the file is damaged, has no such id, several embeddings for no id, or a value that is no
/// embedding.
pub fn read_embedding(path: &Path, id: Option<&str>) -> Result<Vec<f32>, CorpusError> {
    let values = match table::open(path)? {
        Some(table) => table.embedding(id)?,
        None => chosen(path, &value::read(path)?, id)?,
    };
    let named = id.map(|id| format!("`{id}`: ")).unwrap_or_default();
    if values.is_empty() {
        return Err(CorpusError::structure(path, format!("{named}the embedding has no values")));
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(CorpusError::structure(path, format!("{named}value {at} of the embedding is {}", values[at]))),
        None => Ok(values),
    }
}

fn chosen(path: &Path, value: &Value, id: Option<&str>) -> Result<Vec<f32>, CorpusError> {
    let value = value.unwrapped();
    let bad = |problem: String| CorpusError::structure(path, problem);
    let (name, value) = match (value, id) {
        (Value::Integers(_) | Value::Numbers(_), Some(id)) => {
            return Err(bad(format!("has one embedding without an id, so there is no `{id}`")));
        }
        (Value::Entries(entries), Some(id)) => match entries.get(id) {
            Some(value) => (id, value),
            None => return Err(unknown_id(path, id, entries.keys().map(String::as_str))),
        },
        (Value::Entries(entries), None) => match (value.entry(&NAMES), entries.len()) {
            (Some(_), _) => ("", value),
            (None, 1) => entries.iter().next().map_or(("", value), |(id, value)| (id.as_str(), value)),
            (None, _) => return Err(several(path, entries.keys().map(String::as_str))),
        },
        (value, _) => ("", value),
    };
    let value = value.entry(&NAMES).unwrap_or(value).unwrapped();
    let named = if name.is_empty() { String::new() } else { format!("`{name}`: ") };
    match value {
        Value::Numbers(values) => Ok(values.iter().map(|value| *value as f32).collect()),
        Value::Integers(values) => Ok(values.iter().map(|value| *value as f32).collect()),
        other => Err(bad(format!("{named}a list of numbers is expected, not {}", other.summary()))),
    }
}

/// Returns the error of a file of several embeddings.
pub(super) fn several<'a>(path: &Path, ids: impl ExactSizeIterator<Item = &'a str>) -> CorpusError {
    CorpusError::structure(path, format!("has several embeddings; name one as {}:ID; {}", path.display(), listed(ids)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embedding_is_chosen_by_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let read = |content: &str, id: Option<&str>| {
            std::fs::write(&path, content).unwrap();
            read_embedding(&path, id).map_err(|error| error.to_string())
        };
        let two = r#"{"x": [1, 2], "y": {"embedding": [[0.5]], "speech_feat": "none"}, "z": [1, "a"]}"#;
        assert_eq!(read(two, Some("x")).unwrap(), [1.0, 2.0]);
        assert_eq!(read(two, Some("y")).unwrap(), [0.5]);
        assert_eq!(read("[0.25, 1]", None).unwrap(), [0.25, 1.0]);
        assert_eq!(read(r#"{"x": [3]}"#, None).unwrap(), [3.0]);
        assert!(read(two, Some("w")).unwrap_err().contains("`w`; its ids: `x`, `y`, `z`"));
        assert!(read(two, None).unwrap_err().contains("a.json:ID"));
        assert!(read(two, Some("z")).unwrap_err().contains("`z`"));
        assert!(read("[1]", Some("x")).unwrap_err().contains("`x`"));
        assert!(read("[1e999]", None).is_err());
        assert!(read("[]", None).unwrap_err().contains("no values"));
        assert!(read("[1e200, 1.5]", None).unwrap_err().contains("value 0"));
    }
}
