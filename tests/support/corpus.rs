//! Sources of any format in a folder of their own, and stage 0's output for them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::{Outcome, flowmill, parquet};

/// A recipe's folder with one source below it.
pub struct Corpus {
    /// The folder.
    pub folder: tempfile::TempDir,
}

impl Corpus {
    /// An empty folder.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the source.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Runs stage 0 on the source.
    pub fn prepare(&self, source: &str, more: &str) -> Outcome {
        let recipe =
            format!("name: c\n{more}\nprep:\n  data: [{source}]\n  split: {{by: fraction, fractions: {{}}}}\n");
        self.write("recipe.yaml", recipe);
        flowmill(self.folder.path(), &["run", ".", "--stop-stage", "0"])
    }

    /// The table of rows.
    pub fn table(&self) -> PathBuf {
        self.path("exp/c/0-prep/train/part-00000.parquet")
    }

    /// The rows: id to one of their columns.
    pub fn rows(&self, column: &str) -> BTreeMap<String, String> {
        parquet::texts(&self.table(), "utt").into_iter().zip(parquet::texts(&self.table(), column)).collect()
    }

    /// The ids of the rows.
    pub fn ids(&self) -> Vec<String> {
        if self.table().exists() { parquet::texts(&self.table(), "utt") } else { Vec::new() }
    }

    /// The rejected rows of the last run in order of their ids, each with its reason.
    pub fn rejected(&self) -> Vec<(String, String)> {
        // Of an attempt that failed over a good result, or of the result.
        let tables =
            [".staging/%rejected.parquet", "rejected.parquet"].map(|name| self.path("exp/c/0-prep").join(name));
        let Some(table) = tables.into_iter().find(|table| table.exists()) else { return Vec::new() };
        let mut rows: Vec<_> = parquet::texts(&table, "id").into_iter().zip(parquet::texts(&table, "reason")).collect();
        rows.sort();
        rows
    }

    /// Checks the one rejection of an id: the kind of its reason, which stands before the first `: `, and what the reason names.
    #[track_caller]
    pub fn expect_rejected(&self, id: &str, kind: &str, values: &[&str]) {
        let reason = self.reason(id);
        assert_eq!(reason.split(": ").next(), Some(kind), "{id}: {reason}");
        assert!(values.iter().all(|value| reason.contains(value)), "{id}: {values:?}: {reason}");
    }

    /// The reason of the one rejection of an id.
    #[track_caller]
    pub fn reason(&self, id: &str) -> String {
        let rejected = self.rejected();
        let found: Vec<&str> = rejected.iter().filter(|row| row.0 == id).map(|row| row.1.as_str()).collect();
        assert_eq!(found.len(), 1, "{id} is rejected {} times: {rejected:#?}", found.len());
        found[0].to_owned()
    }
}

/// Half a second of a tone as 16-bit WAV at 8 kHz, of one or more channels.
pub fn wav_of(channels: u16) -> Vec<u8> {
    let frames = 4000u32;
    let size = frames * u32::from(channels) * 2;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + size).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0");
    bytes.extend(channels.to_le_bytes());
    bytes.extend(8000u32.to_le_bytes());
    bytes.extend((8000 * u32::from(channels) * 2).to_le_bytes());
    bytes.extend((channels * 2).to_le_bytes());
    bytes.extend(b"\x10\0data");
    bytes.extend(size.to_le_bytes());
    for frame in 0..frames {
        let sample = (8000.0 * (f64::from(frame) * 0.3).sin()) as i16;
        (0..channels).for_each(|_| bytes.extend(sample.to_le_bytes()));
    }
    bytes
}

/// [`wav_of`] one channel.
pub fn wav() -> Vec<u8> {
    wav_of(1)
}
