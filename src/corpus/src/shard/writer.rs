//! Writing a shard.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::Schema;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::schema::{repeated, schema, with_keys};
use super::tallying::Tallying;
use super::{GROUP, ID, encode, speech};
use crate::{Array, ArrayData, Checksum, ColumnSpec, CorpusError, DType, Row, column};

/// The number of rows at which a row group is closed …
const ROW_GROUP_ROWS: usize = 50;
/// … and the approximate number of bytes before compression.
const ROW_GROUP_BYTES: usize = 8 << 20;
/// The number of rows that are passed to a page together. A page of a large column has no more, so this is the
/// granularity of random access.
const PAGE_ROWS: usize = 2;
/// The largest recording, picture or the like of one row.
const MAX_BYTES: usize = 1 << 30;

/// The options for writing a shard.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// The columns in the order of the file. The id and the group come first unless [`ID`] and [`GROUP`] are listed.
    pub columns: Vec<ColumnSpec>,
    /// The zstd level, 1 to 22.
    pub compression_level: i32,
    /// Key-value pairs for the file's footer (the mel's definition and the like).
    pub metadata: Vec<(String, String)>,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self { columns: Vec::new(), compression_level: 3, metadata: Vec::new() }
    }
}

/// The result of writing a shard.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardSummary {
    /// The number of rows.
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
    columns: Vec<ColumnSpec>,
    /// The columns except the id and the group.
    own: Vec<ColumnSpec>,
    writer: ArrowWriter<Tallying<BufWriter<File>>>,
    pending: Vec<Row>,
    pending_bytes: usize,
    rows: u64,
}

impl ShardWriter {
    /// Starts a shard.
    ///
    /// # Errors
    /// [`CorpusError::Io`] if the file cannot be created, [`CorpusError::Structure`] for two columns with one name,
    /// [`CorpusError::Shard`] for a compression level that zstd does not have.
    pub fn create(path: &Path, options: &ShardOptions) -> Result<Self, CorpusError> {
        let columns = with_keys(&options.columns);
        if let Some(name) = repeated(&columns) {
            return Err(CorpusError::structure(path, format!("would have the field `{name}` twice; rename a column")));
        }
        let schema = schema(&columns);
        let properties = properties(options, &columns).map_err(|e| CorpusError::shard(path, e))?;
        let file = File::create(path).map_err(|e| CorpusError::io("write", path, e))?;
        let out = Tallying::new(BufWriter::with_capacity(1 << 18, file));
        let writer =
            ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(|e| CorpusError::shard(path, e))?;
        let path = path.to_path_buf();
        let own = without_keys(&columns);
        Ok(Self { path, schema, columns, own, writer, pending: Vec::new(), pending_bytes: 0, rows: 0 })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// [`CorpusError::Structure`] for a row that does not fit the shard (a column missing or of another type or shape, a gigabyte of audio);
    /// [`CorpusError::Shard`] when writing fails.
    pub fn push(&mut self, row: Row) -> Result<(), CorpusError> {
        check(&self.path, &self.own, &row)?;
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
        let batch = encode::batch(&self.schema, &self.columns, &rows).map_err(|e| CorpusError::shard(&self.path, e))?;
        self.writer.write(&batch).and_then(|()| self.writer.flush()).map_err(|e| CorpusError::shard(&self.path, e))
    }
}

/// Returns the columns except the id and the group, which every row has in any case.
pub fn without_keys(columns: &[ColumnSpec]) -> Vec<ColumnSpec> {
    columns.iter().filter(|column| column.name != ID && column.name != GROUP).cloned().collect()
}

/// Returns an error for rows that cannot be stored, whatever the shard's format.
pub(super) fn check(path: &Path, columns: &[ColumnSpec], row: &Row) -> Result<(), CorpusError> {
    let fail = |problem: String| CorpusError::structure(path, format!("row `{}` {problem}", row.id));
    column::check_row(columns, row).map_err(|error| fail(error.to_string()))?;
    for column in columns {
        let Some(array) = row.columns.get(&column.name) else { continue };
        let name = &column.name;
        if array.dtype() != column.dtype {
            return Err(fail(format!(
                "column `{name}` has type {}, but the shard stores {}",
                array.dtype(),
                column.dtype
            )));
        }
        if let Some(size) = largest(array).filter(|size| *size > MAX_BYTES) {
            return Err(fail(format!("column `{name}` has {size} bytes; split recordings larger than 1 GiB")));
        }
    }
    Ok(())
}

/// The size of the largest byte string.
fn largest(array: &Array) -> Option<usize> {
    match array.data() {
        ArrayData::Bytes(values) => values.iter().map(Vec::len).max(),
        _ => None,
    }
}

/// Returns the layout of the file.
fn properties(
    options: &ShardOptions,
    columns: &[ColumnSpec],
) -> Result<WriterProperties, parquet::errors::ParquetError> {
    let level = ZstdLevel::try_new(options.compression_level)?;
    let metadata = options.metadata.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by("flowmill".to_owned())
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_statistics_enabled(ColumnPath::from(ID), EnabledStatistics::Chunk)
        .set_key_value_metadata(Some(metadata))
        .set_write_batch_size(PAGE_ROWS)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    for column in columns {
        if column.dtype == DType::Bytes || column.axes.len() > 1 {
            properties = properties.set_column_data_page_row_count_limit(path(column), PAGE_ROWS);
        }
        if !repeats(column) {
            properties = properties.set_column_dictionary_enabled(path(column), false);
        }
    }
    Ok(properties.build())
}

/// Returns whether rows are likely to have equal values, so that a dictionary of them saves space.
fn repeats(column: &ColumnSpec) -> bool {
    match column.name.as_str() {
        ID | speech::WAV | speech::TEXT => false,
        speech::SPK_EMBEDDING => true,
        _ => column.axes.is_empty() && column.dtype != DType::Bytes,
    }
}

/// The path of a column's values in the file.
fn path(column: &ColumnSpec) -> ColumnPath {
    let list = if column.axes.is_empty() { &[][..] } else { &["list", "element"] };
    let parts = std::iter::once(column.name.as_str()).chain(list.iter().copied());
    ColumnPath::new(parts.map(str::to_owned).collect())
}
