//! Writing a shard.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryBuilder, Float64Builder, Int32Builder, ListBuilder, PrimitiveBuilder,
    RecordBatch, StringBuilder,
};
use arrow::datatypes::{Float16Type, Float32Type, Int64Type, Schema};
use arrow::error::ArrowError;
use half::f16;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::columns::{list_item, schema};
use super::tallying::Tallying;
use super::{MelStore, ShardRow};
use crate::{Checksum, CorpusError};

/// A row group is closed when it has this many rows …
const ROW_GROUP_ROWS: usize = 50;
/// … or about this many bytes before compression.
const ROW_GROUP_BYTES: usize = 8 << 20;
/// Rows that are handed to a page at once; a page of a large column holds no more, so this is the grain of random access.
const PAGE_ROWS: usize = 2;
/// The largest `audio_data` of one row.
const MAX_AUDIO_BYTES: usize = 1 << 30;

/// How a shard is written.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Whether and how the mel is stored.
    pub mel: MelStore,
    /// The zstd level, 1 to 22.
    pub compression_level: i32,
    /// Key-value pairs for the file's footer (the mel's definition and the like).
    pub metadata: Vec<(String, String)>,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self { mel: MelStore::default(), compression_level: 3, metadata: Vec::new() }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardSummary {
    /// Rows.
    pub rows: u64,
    /// The file's size.
    pub bytes: u64,
    /// The file's checksum.
    pub checksum: Checksum,
}

/// Writes one shard, row by row, in bounded memory. The same rows and options give the same bytes.
pub struct ShardWriter {
    path: PathBuf,
    schema: Arc<Schema>,
    mel: MelStore,
    writer: ArrowWriter<Tallying<BufWriter<File>>>,
    pending: Vec<ShardRow>,
    pending_bytes: usize,
    rows: u64,
}

impl ShardWriter {
    /// Starts a shard.
    ///
    /// # Errors
    /// [`CorpusError::Io`] when the file cannot be made, [`CorpusError::Shard`] for a compression level zstd does not have.
    pub fn create(path: &Path, options: &ShardOptions) -> Result<Self, CorpusError> {
        let schema = schema(options.mel);
        let properties = properties(options).map_err(|e| CorpusError::shard(path, e))?;
        let file = File::create(path).map_err(|e| CorpusError::io("write", path, e))?;
        let out = Tallying::new(BufWriter::with_capacity(1 << 18, file));
        let writer =
            ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(|e| CorpusError::shard(path, e))?;
        let path = path.to_path_buf();
        Ok(Self { path, schema, mel: options.mel, writer, pending: Vec::new(), pending_bytes: 0, rows: 0 })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// [`CorpusError::Structure`] for a row that does not fit the shard (a mel missing or of the wrong size, a gigabyte of audio);
    /// [`CorpusError::Shard`] when writing fails.
    pub fn push(&mut self, row: ShardRow) -> Result<(), CorpusError> {
        check(&self.path, &row, self.mel)?;
        self.pending_bytes += row.size();
        self.pending.push(row);
        self.rows += 1;
        if self.pending.len() >= ROW_GROUP_ROWS || self.pending_bytes >= ROW_GROUP_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Ends the shard.
    ///
    /// # Errors
    /// [`CorpusError::Shard`] and [`CorpusError::Io`] when writing fails.
    pub fn finish(mut self) -> Result<ShardSummary, CorpusError> {
        self.flush()?;
        let mut out = self.writer.into_inner().map_err(|e| CorpusError::shard(&self.path, e))?;
        out.flush().map_err(|e| CorpusError::io("write", &self.path, e))?;
        Ok(ShardSummary { rows: self.rows, bytes: out.bytes, checksum: out.checksum() })
    }

    /// Writes the pending rows as a row group.
    fn flush(&mut self) -> Result<(), CorpusError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let batch = batch(&self.schema, &rows, self.mel).map_err(|e| CorpusError::shard(&self.path, e))?;
        self.writer.write(&batch).and_then(|()| self.writer.flush()).map_err(|e| CorpusError::shard(&self.path, e))
    }
}

/// Refuses rows that cannot be stored, whatever the shard's format.
pub(super) fn check(path: &Path, row: &ShardRow, mel: MelStore) -> Result<(), CorpusError> {
    let fail = |problem: String| Err(CorpusError::structure(path, format!("utterance `{}`: {problem}", row.utt)));
    if row.audio_data.len() > MAX_AUDIO_BYTES {
        return fail(format!(
            "its audio has {} bytes; cut recordings of more than 1 GiB into segments",
            row.audio_data.len()
        ));
    }
    match (&row.mel, mel) {
        (None, MelStore::None) => Ok(()),
        (None, _) => fail("it has no mel, but the shard stores one".into()),
        (Some(_), MelStore::None) => fail("it has a mel, but the shard stores none".into()),
        (Some(mel), _) if mel.data.len() != mel.frames * mel.bins => {
            fail(format!("its mel has {} values for {} frames of {} bins", mel.data.len(), mel.frames, mel.bins))
        }
        (Some(mel), MelStore::Float16) if mel.data.iter().any(|v| !f16::from_f32(*v).is_finite()) => {
            fail("its mel has a value beyond half precision; store it as float32".into())
        }
        _ => Ok(()),
    }
}

/// How the file is laid out.
fn properties(options: &ShardOptions) -> Result<WriterProperties, parquet::errors::ParquetError> {
    let level = ZstdLevel::try_new(options.compression_level)?;
    let metadata = options.metadata.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    let plain = |path: &[&str]| ColumnPath::new(path.iter().map(|part| (*part).to_owned()).collect());
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by("flowmill".to_owned())
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_statistics_enabled(plain(&["utt"]), EnabledStatistics::Chunk)
        .set_key_value_metadata(Some(metadata))
        .set_column_data_page_row_count_limit(plain(&["audio_data"]), PAGE_ROWS)
        .set_column_data_page_row_count_limit(plain(&["mel", "list", "element"]), PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    let lists = ["utt_embedding", "speech_token", "mel"].map(|name| plain(&[name, "list", "element"]));
    for column in [plain(&["audio_data"]), plain(&["utt"]), plain(&["wav"]), plain(&["text"])].into_iter().chain(lists)
    {
        properties = properties.set_column_dictionary_enabled(column, false);
    }
    Ok(properties.build())
}

/// Rows as Arrow columns.
fn batch(schema: &Arc<Schema>, rows: &[ShardRow], mel: MelStore) -> Result<RecordBatch, ArrowError> {
    let mut columns: Vec<ArrayRef> = vec![
        strings(rows.iter().map(|row| Some(row.utt.as_str()))),
        strings(rows.iter().map(|row| Some(row.wav.as_str()))),
        binary(rows),
        strings(rows.iter().map(|row| Some(row.text.as_str()))),
        strings(rows.iter().map(|row| Some(row.spk.as_str()))),
        lists::<Float32Type>(rows.iter().map(|row| row.utt_embedding.iter().copied())),
        lists::<Float32Type>(rows.iter().map(|row| row.spk_embedding.iter().copied())),
        lists::<Int64Type>(rows.iter().map(|row| row.speech_token.iter().copied())),
        strings(rows.iter().map(|row| row.lang.as_deref())),
        durations(rows),
        counts(rows.iter().map(|row| row.sample_rate as usize))?,
    ];
    let values = |row: &ShardRow| row.mel.clone().map(|mel| mel.data).unwrap_or_default().into_iter();
    match mel {
        MelStore::None => {}
        MelStore::Float16 => columns.push(lists::<Float16Type>(rows.iter().map(|row| values(row).map(f16::from_f32)))),
        MelStore::Float32 => columns.push(lists::<Float32Type>(rows.iter().map(values))),
    }
    if mel != MelStore::None {
        columns.push(counts(rows.iter().map(|row| row.mel.as_ref().map_or(0, |mel| mel.frames)))?);
        columns.push(counts(rows.iter().map(|row| row.mel.as_ref().map_or(0, |mel| mel.bins)))?);
    }
    RecordBatch::try_new(schema.clone(), columns)
}

/// A column of strings.
fn strings<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    let mut builder = StringBuilder::new();
    values.for_each(|value| builder.append_option(value));
    Arc::new(builder.finish())
}

/// The column of audio bytes.
fn binary(rows: &[ShardRow]) -> ArrayRef {
    let bytes = rows.iter().map(|row| row.audio_data.len()).sum();
    let mut builder = BinaryBuilder::with_capacity(rows.len(), bytes);
    rows.iter().for_each(|row| builder.append_value(&row.audio_data));
    Arc::new(builder.finish())
}

/// The column of durations.
fn durations(rows: &[ShardRow]) -> ArrayRef {
    let mut builder = Float64Builder::with_capacity(rows.len());
    rows.iter().for_each(|row| builder.append_value(row.duration));
    Arc::new(builder.finish())
}

/// A column of counts.
fn counts(values: impl Iterator<Item = usize>) -> Result<ArrayRef, ArrowError> {
    let mut builder = Int32Builder::new();
    for value in values {
        let value = i32::try_from(value).map_err(|_| ArrowError::CastError(format!("{value} is too large a count")))?;
        builder.append_value(value);
    }
    Ok(Arc::new(builder.finish()))
}

/// A column of lists of numbers.
fn lists<T: ArrowPrimitiveType>(rows: impl Iterator<Item = impl Iterator<Item = T::Native>>) -> ArrayRef {
    let mut builder = ListBuilder::new(PrimitiveBuilder::<T>::new()).with_field(list_item(T::DATA_TYPE));
    for row in rows {
        row.for_each(|value| builder.values().append_value(value));
        builder.append(true);
    }
    Arc::new(builder.finish())
}
