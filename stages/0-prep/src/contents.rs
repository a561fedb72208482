//! The content of rows that later stages read, independent of its location: the same data at another path are the
//! same data.
//!
//! A part names its recordings by their position among its rows. It depends on the [digest](Contents::digest) of the
//! columns that it reads instead of on the table, because the table contains paths.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use flowmill_corpus::source::Source;
use flowmill_corpus::table::RowColumns;
use flowmill_runner::{Part, StageError};
use serde_json::{Value, json};

use crate::columns;

/// The role of a part's recordings among its inputs.
const RECORDING: &str = "recording";

/// The content of rows of stage 0's tables.
pub struct Contents {
    hasher: blake3::Hasher,
    rows: usize,
    /// Files that contain recordings, in the order in which rows name them.
    files: Vec<PathBuf>,
    places: HashMap<PathBuf, usize>,
    root: PathBuf,
}

impl Contents {
    /// Creates a content without rows; `root` is the recipe's folder.
    pub fn new(root: &Path) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            rows: 0,
            files: Vec::new(),
            places: HashMap::new(),
            root: root.to_owned(),
        }
    }

    /// Adds rows of a table, or all of them: the given columns, as far as the table has them, and the recording that
    /// each row is cut from.
    ///
    /// # Errors
    /// Returns an error if the table cannot be read.
    pub fn add(&mut self, table: &Path, columns: &[&str], rows: Option<Range<usize>>) -> Result<(), StageError> {
        let read = RowColumns::read(table, columns).map_err(StageError::other)?;
        let rows = rows.unwrap_or(0..read.len());
        self.rows += rows.len();
        read.hash(rows.clone(), &mut self.hasher).map_err(StageError::other)?;
        for wav in read.wavs(rows) {
            self.add_recording(wav);
        }
        Ok(())
    }

    /// Adds the given columns of all rows of a table, as far as the table has them, without the recordings.
    ///
    /// # Errors
    /// Returns an error if the table cannot be read.
    pub fn add_columns(&mut self, table: &Path, columns: &[&str]) -> Result<(), StageError> {
        let read = RowColumns::read(table, columns).map_err(StageError::other)?;
        self.rows += read.len();
        read.hash(0..read.len(), &mut self.hasher).map_err(StageError::other)
    }

    /// Adds the media of a table's rows except their recordings.
    ///
    /// # Errors
    /// Returns an error if they cannot be read.
    pub fn add_media(&mut self, table: &Path) -> Result<(), StageError> {
        for (id, media) in columns::read_media(table)? {
            self.text(&id);
            for (role, media) in &media {
                self.text(role.name());
                self.hasher.update(&(media.len() as u64).to_le_bytes());
                media.iter().for_each(|medium| self.add_recording(&medium.0));
            }
        }
        Ok(())
    }

    /// Adds columns of a table's rows beyond those of an utterance, as far as the rows have them.
    ///
    /// # Errors
    /// Returns an error if they cannot be read.
    pub fn add_extra_columns(&mut self, table: &Path, names: &[&str]) -> Result<(), StageError> {
        for (id, columns) in columns::read_columns(table, names)? {
            self.text(&id);
            for (name, array) in &columns {
                self.text(name);
                self.text(&format!("{array:?}"));
            }
        }
        Ok(())
    }

    fn add_recording(&mut self, wav: &str) {
        if wav.is_empty() {
            // A row of other media.
            return;
        }
        let source = Source::of(wav);
        let Some(file) = source.file(&self.root) else {
            // A command is identified by its text alone.
            return self.text(wav);
        };
        let next = self.files.len();
        let place = *self.places.entry(file).or_insert_with_key(|file| {
            self.files.push(file.clone());
            next
        });
        self.hasher.update(&(place as u64).to_le_bytes());
        // A decoder may depend on the extension of a name.
        let name = match &source {
            Source::Member(member) => {
                self.hasher.update(&member.offset.to_le_bytes());
                self.hasher.update(&member.length.to_le_bytes());
                member.name
            }
            Source::Cell(cell) => {
                self.text(cell.column);
                self.hasher.update(&cell.row.to_le_bytes());
                cell.name
            }
            Source::Group(group) => {
                self.text(group.group);
                ""
            }
            _ => wav,
        };
        let ending = Path::new(name).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        self.text(ending);
    }

    fn text(&mut self, text: &str) {
        self.hasher.update(&(text.len() as u64).to_le_bytes());
        self.hasher.update(text.as_bytes());
    }

    /// Returns the number of rows and a hash of them, for a part's configuration.
    pub fn digest(&self) -> Value {
        let hash = self.hasher.finalize().to_hex();
        json!(format!("{} rows, {}", self.rows, &hash[..32]))
    }

    /// Adds the recordings as inputs of a part.
    pub fn declare(self, part: Part) -> Part {
        part.inputs_as(RECORDING, self.files)
    }
}

/// Returns a configuration in which files are named by their roles, `weights 0`, `weights 1` …, instead of by their
/// paths.
pub fn without_paths(mut config: Value, role: &str, files: &[&Path]) -> Value {
    replace(&mut config, &|text| {
        files.iter().position(|file| file.to_str() == Some(text)).map(|place| format!("{role} {place}"))
    });
    config
}

fn replace(value: &mut Value, by: &impl Fn(&str) -> Option<String>) {
    match value {
        Value::String(text) => {
            if let Some(new) = by(text) {
                *text = new;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, by)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, by)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_corpus::{Utterance, table};

    fn digest_and_files(rows: &[(&str, &str, &str)], columns: &[&str]) -> (Value, usize) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let rows: Vec<Utterance> = rows
            .iter()
            .map(|(utt, spk, wav)| Utterance {
                utt: (*utt).to_owned(),
                spk: (*spk).to_owned(),
                wav: (*wav).to_owned(),
                ..Utterance::default()
            })
            .collect();
        table::write_utterances(&path, &rows).unwrap();
        let mut contents = Contents::new(Path::new("/recipe"));
        contents.add(&path, columns, None).unwrap();
        (contents.digest(), contents.files.len())
    }

    #[test]
    fn a_path_changes_nothing_and_which_recording_a_row_is_cut_from_does() {
        let of = |rows: &[(&str, &str, &str)]| digest_and_files(rows, &["utt"]);
        let (here, files) = of(&[("a", "s", "x/1.wav"), ("b", "s", "x/1.wav"), ("c", "s", "x/2.wav")]);
        assert_eq!(files, 2);
        assert_eq!(of(&[("a", "s", "/far/9.wav"), ("b", "s", "/far/9.wav"), ("c", "s", "y/0.wav")]).0, here);
        assert_ne!(of(&[("a", "s", "x/1.wav"), ("b", "s", "x/2.wav"), ("c", "s", "x/2.wav")]).0, here);
        assert_ne!(of(&[("a", "s", "x/1.wav"), ("b", "s", "x/1.wav"), ("c", "s", "x/2.flac")]).0, here);
        assert_ne!(of(&[("a", "s", "x/1.wav"), ("b", "s", "x/1.wav"), ("d", "s", "x/2.wav")]).0, here);
        assert_eq!(of(&[("a", "t", "x/1.wav"), ("b", "s", "x/1.wav"), ("c", "s", "x/2.wav")]).0, here, "not read");
    }

    #[test]
    fn columns_alone_do_not_depend_on_recordings() {
        let folder = tempfile::tempdir().unwrap();
        let of = |wav: &str, text: &str| {
            let path = folder.path().join("t.parquet");
            let (utt, text, wav) = ("a".to_owned(), text.to_owned(), wav.to_owned());
            table::write_utterances(&path, &[Utterance { utt, text, wav, ..Utterance::default() }]).unwrap();
            let mut contents = Contents::new(Path::new("/recipe"));
            contents.add_columns(&path, &["utt", "text"]).unwrap();
            assert!(contents.files.is_empty());
            contents.digest()
        };
        assert_eq!(of("x/1.wav", "one"), of("y/2.flac", "one"));
        assert_ne!(of("x/1.wav", "one"), of("x/1.wav", "two"));
    }

    #[test]
    fn members_are_told_by_their_place_and_commands_by_their_words() {
        let of = |wav: &str| digest_and_files(&[("a", "s", wav)], &["utt", "spk"]);
        assert_eq!(of("d/a.tar#x.wav@512+7"), of("/e/b.tar#y.wav@512+7"));
        assert_ne!(of("d/a.tar#x.wav@512+7").0, of("d/a.tar#x.wav@1024+7").0);
        assert_ne!(of("sox a.wav |").0, of("sox b.wav |").0);
        assert_eq!(of("sox a.wav |").1, 0);
    }

    #[test]
    fn files_of_a_configuration_are_named_by_their_roles() {
        let config = json!({"kind": "x", "weights": "a/w.onnx", "more": {"files": ["b.npy", "a/w.onnx"]}});
        let files = [Path::new("a/w.onnx"), Path::new("b.npy")];
        let expected = json!({"kind": "x", "weights": "weights 0", "more": {"files": ["weights 1", "weights 0"]}});
        assert_eq!(without_paths(config, "weights", &files), expected);
    }
}
