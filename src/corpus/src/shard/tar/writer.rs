//! Writing a tar shard.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use super::sidecar::Sidecar;
use super::{BIN, JSON, NPY, key, npy};
use crate::shard::tallying::Tallying;
use crate::shard::writer::{check, without_keys};
use crate::shard::{ShardSummary, speech};
use crate::tar::TarWriter;
use crate::{ArrayData, ColumnSpec, CorpusError, Row};

/// Writes one shard as a WebDataset tar file, row by row. The same rows give the same bytes.
pub struct TarShardWriter {
    path: PathBuf,
    columns: Vec<ColumnSpec>,
    out: TarWriter<Tallying<BufWriter<File>>>,
    rows: u64,
}

impl TarShardWriter {
    /// Starts a shard with these columns.
    ///
    /// # Errors
    /// [`CorpusError::Io`] if the file cannot be created, [`CorpusError::Structure`] for a column whose name cannot
    /// be part of a member's name.
    pub fn create(path: &Path, columns: &[ColumnSpec]) -> Result<Self, CorpusError> {
        if let Some(column) = columns.iter().find(|column| !is_plain(&column.name)) {
            let problem =
                format!("column `{}`: names in tar shards may contain only letters, digits, `_` and `-`", column.name);
            return Err(CorpusError::structure(path, problem));
        }
        let file = File::create(path).map_err(|e| CorpusError::io("write", path, e))?;
        let out = TarWriter::new(Tallying::new(BufWriter::with_capacity(1 << 18, file)));
        Ok(Self { path: path.to_path_buf(), columns: without_keys(columns), out, rows: 0 })
    }

    /// Appends a row; `extension` is that of its recording, if it has one.
    ///
    /// # Errors
    /// [`CorpusError::Structure`] for a row that does not fit the shard, [`CorpusError::Io`] when writing fails.
    pub fn push(&mut self, row: &Row, extension: &str) -> Result<(), CorpusError> {
        check(&self.path, &self.columns, row)?;
        let fail = |e| CorpusError::io("write", &self.path, e);
        let key = key(&row.id);
        let (sidecar, in_json) = Sidecar::of(row);
        let json = serde_json::to_vec(&sidecar).map_err(|e| fail(e.into()))?;
        self.out.append(&format!("{key}.{JSON}"), &json).map_err(fail)?;
        for column in self.columns.iter().filter(|column| !in_json.contains(&column.name.as_str())) {
            let name = &column.name;
            let Some(array) = row.columns.get(name) else { continue };
            match array.data() {
                ArrayData::Bytes(values) if name == speech::AUDIO_DATA && column.axes.is_empty() => {
                    // `check` found no axes, so there is exactly one value.
                    self.out.append(&format!("{key}.{extension}"), &values[0]).map_err(fail)?;
                }
                ArrayData::Bytes(values) if array.shape().len() < 2 => {
                    for (number, value) in values.iter().enumerate() {
                        self.out.append(&format!("{key}.{name}.{number}{BIN}"), value).map_err(fail)?;
                    }
                }
                _ => {
                    let bytes = npy::encode(array).ok_or_else(|| {
                        let problem = format!("row `{}` column `{name}`: a tar shard cannot store {column}", row.id);
                        CorpusError::structure(&self.path, problem)
                    })?;
                    self.out.append(&format!("{key}.{name}{NPY}"), &bytes).map_err(fail)?;
                }
            }
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

/// Returns whether a column's name can be part of a member's name.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}
