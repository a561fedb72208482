//! Rows of speech tokens.

use std::path::Path;

use super::value::{self, Value};
use super::{listed, table};
use crate::shard::speech::{SPEECH_TOKEN, SPK_EMBEDDING, UTT_EMBEDDING};
use crate::{Array, CorpusError, Row};

/// The column of the linguistic tokens of two codebooks, without the semantic ones.
pub const LINGUISTIC_TOKEN: &str = "vq02";
/// The column of the semantic tokens of two codebooks, without the linguistic ones.
pub const SEMANTIC_TOKEN: &str = "vq06";

/// Names of the entry with the tokens of an object: of one codebook, or the mixed sequence of two.
const TOKENS: [&str; 4] = [SPEECH_TOKEN, "speech_tokens", "tokens", "vq0206"];
/// Names of the entry with the id of an object.
const IDS: [&str; 4] = ["utt", "id", "key", "name"];

/// A row of a file, or the reason why it cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtractedRow {
    /// The id, or the name of the file where it has none.
    pub id: String,
    /// The row with the column `speech_token`, or [`LINGUISTIC_TOKEN`] and [`SEMANTIC_TOKEN`]; and with `utt_embedding` and `spk_embedding` as
    /// far as the file has them. Its tokens are those of the file, whatever the vocabulary of a model is.
    pub row: Result<Row, String>,
}

impl ExtractedRow {
    pub(super) fn new(id: String, row: Result<Row, String>) -> Self {
        let row = row.map(|row| Row { id: id.clone(), ..row });
        Self { id, row }
    }
}

/// Reads the rows of a file of speech tokens, in the order of the file, or sorted by id where the order has no meaning.
///
/// # Errors
/// [`CorpusError`] if the file cannot be read, or has no rows.
pub fn read_tokens(path: &Path) -> Result<Vec<ExtractedRow>, CorpusError> {
    let rows = match table::open(path)? {
        Some(table) => table.tokens()?,
        None => rows_of(path, &value::read(path)?)?,
    };
    match rows.is_empty() {
        true => Err(CorpusError::structure(path, "has no rows")),
        false => Ok(rows),
    }
}

/// Returns the rows of a value: a list of tokens is one row, a dictionary has one for each id, a list one for each item.
fn rows_of(path: &Path, value: &Value) -> Result<Vec<ExtractedRow>, CorpusError> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    match value {
        Value::Integers(_) | Value::Numbers(_) => Ok(vec![ExtractedRow::new(stem, row(value))]),
        Value::Entries(entries) if !is_row(value) => {
            Ok(entries.iter().map(|(id, value)| ExtractedRow::new(id.clone(), row(value))).collect())
        }
        Value::Entries(_) => Ok(vec![of_object(value, stem)]),
        Value::List(items) => {
            let numbered = (1..).zip(items).flat_map(|(number, item)| match item {
                // A line `{"a": [1, 2]}` has an id for each of its entries.
                Value::Entries(entries) if !is_row(item) && !entries.is_empty() => {
                    entries.iter().map(|(id, value)| ExtractedRow::new(id.clone(), row(value))).collect::<Vec<_>>()
                }
                item => vec![of_object(item, format!("{stem}-{number}"))],
            });
            Ok(numbered.collect())
        }
        Value::Text(_) | Value::Other(_) | Value::Unreadable(_) => {
            let problem =
                format!("a list of tokens, or a dictionary from ids to lists is expected, not {}", value.summary());
            Err(CorpusError::structure(path, problem))
        }
    }
}

/// Returns whether a dictionary is a row rather than one of rows by their ids.
fn is_row(value: &Value) -> bool {
    value.entry(&TOKENS).is_some() || value.entry(&[LINGUISTIC_TOKEN, SEMANTIC_TOKEN]).is_some()
}

/// Returns the row of an object, with the id that it has.
fn of_object(value: &Value, id: String) -> ExtractedRow {
    let own = match value.entry(&IDS) {
        Some(Value::Text(id)) if !id.is_empty() => id.clone(),
        _ => id,
    };
    ExtractedRow::new(own, row(value))
}

/// Returns a row with the columns of a value.
fn row(value: &Value) -> Result<Row, String> {
    let mut row = Row::default();
    let mut set = |name: &str, array: Array| row.columns.insert(name.to_owned(), array);
    let value = value.unwrapped();
    let Value::Entries(entries) = value else {
        set(SPEECH_TOKEN, tokens(value)?);
        return Ok(row);
    };
    if let Some(mixed) = value.entry(&TOKENS) {
        set(SPEECH_TOKEN, tokens(mixed)?);
    } else {
        for name in [LINGUISTIC_TOKEN, SEMANTIC_TOKEN] {
            let Some(stream) = entries.get(name) else {
                let have = listed(entries.keys().map(String::as_str));
                return Err(format!("has neither `{SPEECH_TOKEN}` nor `{name}`; {have}"));
            };
            set(name, tokens(stream).map_err(|problem| format!("`{name}`: {problem}"))?);
        }
    }
    for name in [UTT_EMBEDDING, SPK_EMBEDDING] {
        let values = match entries.get(name).map(Value::unwrapped) {
            Some(Value::Numbers(values)) => values.iter().map(|value| *value as f32).collect(),
            Some(Value::Integers(values)) => values.iter().map(|value| *value as f32).collect(),
            _ => continue,
        };
        set(name, Array::vector::<f32>(values));
    }
    Ok(row)
}

/// Returns a list of tokens, of which there must be some.
fn tokens(value: &Value) -> Result<Array, String> {
    match value.unwrapped() {
        Value::Integers(tokens) if tokens.is_empty() => Err("has no tokens".to_owned()),
        Value::Integers(tokens) => Ok(Array::vector(tokens.clone())),
        Value::Unreadable(reason) => Err(reason.clone()),
        other => Err(format!("a list of integers is expected, not {}", other.summary())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &str) -> Result<Vec<ExtractedRow>, CorpusError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        read_tokens(&path)
    }

    fn ids(rows: &[ExtractedRow]) -> Vec<(&str, Option<usize>)> {
        rows.iter()
            .map(|row| (row.id.as_str(), row.row.as_ref().ok().map(|row| row.columns[SPEECH_TOKEN].len())))
            .collect()
    }

    #[test]
    fn json_has_one_row_or_a_row_for_each_id() {
        assert_eq!(ids(&read("a.json", "[1, 2, 3]").unwrap()), [("a", Some(3))]);
        assert_eq!(ids(&read("a.json", r#"{"x": [1], "y": [[1, 2]]}"#).unwrap()), [("x", Some(1)), ("y", Some(2))]);
        let objects = r#"[{"id": "x", "tokens": [1]}, {"speech_token": [1, 2]}]"#;
        assert_eq!(ids(&read("a.json", objects).unwrap()), [("x", Some(1)), ("a-2", Some(2))]);
        let embedded = &read("a.json", r#"{"utt": "u", "speech_token": [1], "utt_embedding": [0.5, 1]}"#).unwrap()[0];
        assert_eq!(embedded.id, "u");
        assert_eq!(embedded.row.as_ref().unwrap().values::<f32>(UTT_EMBEDDING).unwrap(), [0.5, 1.0]);
    }

    #[test]
    fn a_bad_line_is_the_problem_of_its_own_row() {
        let lines = "{\"x\": [1, 2]}\n[3]\n{\"utt\": \"y\", \"tokens\": [4, 5\n{\"z\": [1.5]}\n";
        for name in ["a.jsonl", "a.json"] {
            let rows = read(name, lines).unwrap();
            assert_eq!(ids(&rows), [("x", Some(2)), ("a-2", Some(1)), ("a-3", None), ("z", None)]);
            assert!(rows[2].row.as_ref().unwrap_err().contains("line 3"));
        }
        for (name, content) in
            [("a.json", "{\"x\": [1"), ("a.jsonl", "\n"), ("a.json", "{}"), ("a.bin", "tokens"), ("a", "")]
        {
            assert!(matches!(read(name, content), Err(CorpusError::Structure { .. })), "{content}");
        }
    }

    #[test]
    fn two_streams_are_two_columns() {
        let rows = read("a.json", r#"{"x": {"vq02": [1, 2], "vq06": [3, 4, 5]}, "y": {"vq02": [1]}}"#).unwrap();
        let row = rows[0].row.as_ref().unwrap();
        assert_eq!((row.columns[LINGUISTIC_TOKEN].len(), row.columns[SEMANTIC_TOKEN].len()), (2, 3));
        assert!(rows[1].row.as_ref().unwrap_err().contains("vq06"));
    }
}
