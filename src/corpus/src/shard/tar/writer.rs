//! Writing a tar shard.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::sidecar::Sidecar;
use super::{JSON, MEL, key, npy};
use crate::CorpusError;
use crate::shard::tallying::Tallying;
use crate::shard::writer::check;
use crate::shard::{MelStore, ShardRow, ShardSummary};
use crate::tar::TarWriter;

/// Writes one shard as a WebDataset tar file, row by row. The same rows give the same bytes.
pub struct TarShardWriter {
    path: PathBuf,
    mel: MelStore,
    out: TarWriter<Tallying<BufWriter<File>>>,
    rows: u64,
}

impl TarShardWriter {
    /// Starts a shard.
    ///
    /// # Errors
    /// [`CorpusError::Io`] when the file cannot be made.
    pub fn create(path: &Path, mel: MelStore) -> Result<Self, CorpusError> {
        let file = File::create(path).map_err(|e| CorpusError::io("write", path, e))?;
        let out = TarWriter::new(Tallying::new(BufWriter::with_capacity(1 << 18, file)));
        Ok(Self { path: path.to_path_buf(), mel, out, rows: 0 })
    }

    /// Appends a row; `extension` is that of its recording.
    ///
    /// # Errors
    /// [`CorpusError::Structure`] for a row that does not fit the shard, [`CorpusError::Io`] when writing fails.
    pub fn push(&mut self, row: &ShardRow, extension: &str) -> Result<(), CorpusError> {
        check(&self.path, row, self.mel)?;
        let fail = |e| CorpusError::io("write", &self.path, e);
        let key = key(&row.utt);
        let json = serde_json::to_vec(&Sidecar::from(row)).map_err(|e| fail(e.into()))?;
        self.out.append(&format!("{key}.{JSON}"), &json).map_err(fail)?;
        self.out.append(&format!("{key}.{extension}"), &row.audio_data).map_err(fail)?;
        if let Some(mel) = row.mel.as_ref().and_then(|mel| npy::encode(mel, self.mel)) {
            self.out.append(&format!("{key}.{MEL}"), &mel).map_err(fail)?;
        }
        self.rows += 1;
        Ok(())
    }

    /// Ends the shard.
    ///
    /// # Errors
    /// [`CorpusError::Io`] when writing fails.
    pub fn finish(self) -> Result<ShardSummary, CorpusError> {
        let out = self.out.finish().map_err(|e| CorpusError::io("write", &self.path, e))?;
        Ok(ShardSummary { rows: self.rows, bytes: out.bytes, checksum: out.checksum() })
    }
}
