//! Reading a tar shard: any few of its rows.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sidecar::Sidecar;
use super::{JSON, MEL, npy};
use crate::CorpusError;
use crate::shard::{Column, ShardRow};
use crate::source::MAX_MEMBER_BYTES;
use crate::tar::{Member, MemberKind, Members};

/// Where a member's bytes are.
#[derive(Clone, Copy, Debug)]
struct Span {
    offset: u64,
    size: u64,
}

/// The members of one row.
#[derive(Debug, Default)]
struct Places {
    json: Option<Span>,
    audio: Option<Span>,
    mel: Option<Span>,
}

/// A tar shard's rows by their places; the file itself is opened for each read.
#[derive(Clone, Debug)]
pub(in crate::shard) struct TarShardReader {
    path: PathBuf,
    rows: Arc<[Places]>,
}

impl TarShardReader {
    /// Reads a shard's headers.
    ///
    /// # Errors
    /// [`CorpusError::Io`] when it cannot be read, [`CorpusError::Structure`] when it is no tar file or not of this form.
    pub(in crate::shard) fn open(path: &Path) -> Result<Self, CorpusError> {
        let file = File::open(path).map_err(|e| CorpusError::io("read", path, e))?;
        let mut rows: Vec<Places> = Vec::new();
        let mut current: Option<String> = None;
        for member in Members::of(&file).map_err(|e| CorpusError::io("read", path, e))? {
            let member = member
                .map_err(|damage| CorpusError::structure(path, format!("at byte {}: {}", damage.at, damage.problem)))?;
            let Some((key, extension)) = parts(&member) else {
                let name = String::from_utf8_lossy(&member.name).into_owned();
                return Err(CorpusError::structure(path, format!("holds `{name}`, which no packed shard does")));
            };
            if current.as_deref() != Some(key) {
                current = Some(key.to_owned());
                rows.push(Places::default());
            }
            // A row was pushed just above or before.
            if let Some(row) = rows.last_mut() {
                let place = match extension {
                    JSON => &mut row.json,
                    MEL => &mut row.mel,
                    _ => &mut row.audio,
                };
                *place = Some(Span { offset: member.offset, size: member.size });
            }
        }
        Ok(Self { path: path.to_path_buf(), rows: rows.into() })
    }

    /// The rows with the given numbers, with the given columns (of the small ones, all).
    ///
    /// # Errors
    /// [`CorpusError::Structure`] for a row that does not exist or is not of this form, [`CorpusError::Io`].
    pub(in crate::shard) fn fetch(&self, rows: &[usize], columns: &[Column]) -> Result<Vec<ShardRow>, CorpusError> {
        let file = File::open(&self.path).map_err(|e| CorpusError::io("read", &self.path, e))?;
        rows.iter().map(|&row| self.row(&file, row, columns)).collect()
    }

    fn row(&self, file: &File, number: usize, columns: &[Column]) -> Result<ShardRow, CorpusError> {
        let fail = |problem: String| CorpusError::structure(&self.path, problem);
        let have = self.rows.len();
        let places =
            self.rows.get(number).ok_or_else(|| fail(format!("has {have} rows, row {number} was asked for")))?;
        let json = places.json.ok_or_else(|| fail(format!("row {number} has no .{JSON}")))?;
        let sidecar: Sidecar = serde_json::from_slice(&self.bytes(file, json)?)
            .map_err(|e| fail(format!("row {number}: its .{JSON} is not of a packed shard: {e}")))?;
        let mut row = ShardRow::from(sidecar);
        if columns.contains(&Column::AudioData) {
            let audio = places.audio.ok_or_else(|| fail(format!("row {number} ({}) has no recording", row.utt)))?;
            row.audio_data = self.bytes(file, audio)?;
        }
        if let Some(mel) = places.mel.filter(|_| columns.contains(&Column::Mel)) {
            let bytes = self.bytes(file, mel)?;
            row.mel =
                Some(npy::decode(&bytes).map_err(|problem| fail(format!("row {number} ({}): {problem}", row.utt)))?);
        }
        Ok(row)
    }

    /// A member's bytes; opening made sure that they are there.
    fn bytes(&self, file: &File, span: Span) -> Result<Vec<u8>, CorpusError> {
        if span.size > MAX_MEMBER_BYTES {
            return Err(CorpusError::structure(&self.path, format!("has a member of {} bytes", span.size)));
        }
        let mut bytes = vec![0; span.size as usize];
        file.read_exact_at(&mut bytes, span.offset).map_err(|e| CorpusError::io("read", &self.path, e))?;
        Ok(bytes)
    }
}

/// The key and what is behind its dot.
fn parts(member: &Member) -> Option<(&str, &str)> {
    let name = std::str::from_utf8(&member.name).ok().filter(|_| member.kind == MemberKind::File)?;
    name.split_once('.').filter(|(key, _)| !key.contains('/'))
}
