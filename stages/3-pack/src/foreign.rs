//! Shards that another program packed, which training reads where they are: their entries in an index.

use std::path::Path;

use flowmill_audio::Decoder;
use flowmill_audio::features::MelConfig;
use flowmill_corpus::shard::{AnyShard, ShardEntry, speech, without_keys};
use flowmill_corpus::{ColumnSpec, CorpusError, DType, Row, file_checksum};

use crate::lengths::Lengths;
use crate::record::ShardRecord;
use crate::utterance::PackedRow;
use crate::wanted::is_of_speech;

/// The number of rows that are read at a time.
const WINDOW: usize = 32;

/// The id of a row that is left out, and the reason.
pub type Rejected = (String, String);

/// The columns of shards that training reads, and the rates from which the lengths of rows follow.
#[derive(Debug, Clone)]
pub struct ForeignColumns {
    /// The columns.
    pub columns: Vec<ColumnSpec>,
    /// The mel that training computes from recordings.
    pub mel: MelConfig,
    /// The tokens per second of the shards, if training reads tokens.
    pub token_rate: Option<f64>,
}

/// A shard as its index describes it, and what was left out.
#[derive(Debug, Clone, Default)]
pub struct ForeignShard {
    /// The entry.
    pub entry: ShardEntry,
    /// The rows that training cannot use, with their reasons.
    pub rejected: Vec<Rejected>,
    /// The largest token.
    pub most: Option<i64>,
}

impl ForeignColumns {
    /// Reads a whole shard, a few rows at a time, and describes it; `tell` takes the number of rows that were read.
    ///
    /// # Errors
    /// [`CorpusError`] if the shard cannot be read or lacks a column.
    pub fn describe(&self, path: &Path, tell: &dyn Fn(u64)) -> Result<ForeignShard, CorpusError> {
        let shard = AnyShard::open(path)?;
        let lengths = self.token_rate.map(|rate| Lengths::at(rate, &self.mel));
        let others: Vec<ColumnSpec> =
            without_keys(&self.columns).into_iter().filter(|column| !is_of_speech(&column.name)).collect();
        let (mut record, mut found) = (ShardRecord::default(), ForeignShard::default());
        let mut kept: Vec<u32> = Vec::new();
        let all = shard.rows();
        for first in (0..all).step_by(WINDOW) {
            let numbers: Vec<usize> = (first..all.min(first + WINDOW)).collect();
            for (number, row) in numbers.iter().zip(self.rows(&shard, &numbers)?) {
                match row.and_then(|row| self.packed(row, lengths, &mut found.most)) {
                    Ok(made) => {
                        record.add(&made, &others);
                        kept.push(u32::try_from(*number).unwrap_or(u32::MAX));
                    }
                    Err((id, reason)) => found.rejected.push((id, reason)),
                }
            }
            tell(numbers.len() as u64);
        }
        let bytes = path.metadata().map_or(0, |metadata| metadata.len());
        let (file, blake3) = (path.display().to_string(), file_checksum(path)?.to_string());
        let rows = kept.len() as u64;
        let kept = if kept.len() == all { Vec::new() } else { kept };
        found.entry = ShardEntry { file, rows, bytes, blake3, kept, ..record.entry };
        Ok(found)
    }

    /// Reads rows. If one of them is damaged, each is read on its own.
    fn rows(&self, shard: &AnyShard, numbers: &[usize]) -> Result<Vec<Result<Row, Rejected>>, CorpusError> {
        if let Ok(rows) = shard.fetch(numbers, &self.columns) {
            return Ok(rows.into_iter().map(Ok).collect());
        }
        let one = |number: &usize| match shard.fetch(&[*number], &self.columns) {
            Ok(mut rows) => Ok(rows.pop().ok_or_else(|| (format!("row {number}"), "is not there".to_owned()))),
            Err(CorpusError::Structure { problem, .. }) => {
                let id = shard.fetch(&[*number], &[]).ok().and_then(|mut rows| rows.pop()).map(|row| row.id);
                Ok(Err((id.unwrap_or_else(|| format!("row {number}")), format!("bad row in its shard: {problem}"))))
            }
            Err(error) => Err(error),
        };
        numbers.iter().map(one).collect()
    }

    /// Returns a row with its lengths, or its id and the reason why training cannot use it.
    fn packed(&self, mut row: Row, lengths: Option<Lengths>, most: &mut Option<i64>) -> Result<PackedRow, Rejected> {
        let id = row.id.clone();
        let fail = |reason: String| (id.clone(), reason);
        for column in &self.columns {
            let array = row.columns.get(&column.name);
            if array
                .and_then(|array| array.values::<f32>().ok())
                .is_some_and(|values| values.iter().any(|v| !v.is_finite()))
            {
                return Err(fail(format!("bad row in its shard: `{}` has a value that is not finite", column.name)));
            }
        }
        let (mut frames, mut seconds) = (0, 0.0);
        if let Some(bytes) = row.columns.remove(speech::AUDIO_DATA) {
            let bytes = bytes.value::<Vec<u8>>().map_err(|error| fail(error.to_string()))?;
            let info = Decoder::builtin()
                .probe_bytes(bytes, &id)
                .map_err(|error| fail(format!("unreadable recording: {error}")))?;
            seconds = info.seconds();
            frames = self.mel.frames((seconds * f64::from(self.mel.sample_rate)).ceil() as usize);
        }
        if let Some(tokens) = row.columns.get(speech::SPEECH_TOKEN).and_then(|array| array.values::<i64>().ok()) {
            if let Some(reason) = lengths.and_then(|lengths| lengths.refuses(tokens.len(), frames)) {
                return Err(fail(reason));
            }
            if tokens.iter().any(|token| *token < 0) {
                return Err(fail("bad row in its shard: `speech_token` has a negative token".to_owned()));
            }
            *most = (*most).max(tokens.iter().copied().max());
        }
        Ok(PackedRow { row, frames, seconds, moments: None })
    }
}

/// Returns the columns of shards as training needs them to be described: those that it reads, and the recording.
pub fn with_recording(mut columns: Vec<ColumnSpec>) -> Vec<ColumnSpec> {
    if !columns.iter().any(|column| column.name == speech::AUDIO_DATA) {
        columns.push(ColumnSpec::new(speech::AUDIO_DATA, DType::Bytes));
    }
    columns
}
