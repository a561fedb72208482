//! Parquet files of tables: batches of columns, read and written whole.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::CorpusError;

/// Rows of a batch: an Arrow array of strings holds at most 2 GiB.
pub(super) const BATCH_ROWS: usize = 1 << 16;
/// Rows of a row group.
const ROW_GROUP_ROWS: usize = 1 << 18;
/// The zstd level.
const LEVEL: i32 = 3;

/// A table in memory, in the batches in which it was read. Columns have the types of Parquet, whatever those were in the memory of who
/// wrote them.
pub(super) struct Table {
    path: PathBuf,
    batches: Vec<RecordBatch>,
}

impl Table {
    /// Reads all columns, or those of the named ones that the file has.
    ///
    /// # Errors
    /// [`CorpusError::Io`] and [`CorpusError::Table`].
    pub(super) fn read(path: &Path, names: Option<&[&str]>) -> Result<Self, CorpusError> {
        let file = File::open(path).map_err(|e| CorpusError::io("read", path, e))?;
        // The reader panics on some damaged files. Its state is its own and is thrown away.
        let batches = catch_unwind(AssertUnwindSafe(|| batches(file, names)))
            .unwrap_or_else(|_| Err(ParquetError::General("its content contradicts itself".to_owned())))
            .map_err(|e| CorpusError::table(path, e))?;
        Ok(Self { path: path.to_path_buf(), batches })
    }

    pub(super) fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The batches in order; there is at least one, which may be empty.
    pub(super) fn batches(&self) -> impl Iterator<Item = Batch<'_>> {
        self.batches.iter().map(|batch| Batch { path: &self.path, batch })
    }

    /// All values of a column of strings without a missing one.
    ///
    /// # Errors
    /// As [`Batch::required`].
    pub(super) fn strings(&self, name: &str) -> Result<Vec<String>, CorpusError> {
        let mut strings = Vec::with_capacity(self.rows());
        for batch in self.batches() {
            strings.extend(batch.required(name)?.iter().flatten().map(str::to_owned));
        }
        Ok(strings)
    }
}

fn batches(file: File, names: Option<&[&str]>) -> Result<Vec<RecordBatch>, ParquetError> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let mut builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)?;
    if let Some(names) = names {
        let fields = builder.schema().fields();
        let wanted: Vec<usize> = (0..fields.len()).filter(|&at| names.contains(&fields[at].name().as_str())).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        builder = builder.with_projection(mask);
    }
    let reader = builder.with_batch_size(BATCH_ROWS).build()?;
    let schema = arrow::array::RecordBatchReader::schema(&reader);
    let mut batches = reader.collect::<Result<Vec<_>, _>>()?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema));
    }
    Ok(batches)
}

/// Some rows of a table.
#[derive(Clone, Copy)]
pub(super) struct Batch<'t> {
    path: &'t Path,
    batch: &'t RecordBatch,
}

impl<'t> Batch<'t> {
    pub(super) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// A column of any type, where there is one of this name.
    pub(super) fn any(&self, name: &str) -> Option<&'t ArrayRef> {
        self.batch.column_by_name(name)
    }

    /// A column of the type of `A`, where there is one of this name.
    ///
    /// # Errors
    /// [`CorpusError::Structure`] for a column of another type.
    pub(super) fn optional<A: Array + 'static>(&self, name: &str) -> Result<Option<&'t A>, CorpusError> {
        let Some(column) = self.any(name) else { return Ok(None) };
        column.as_any().downcast_ref().map(Some).ok_or_else(|| self.mistyped(name, column.data_type()))
    }

    /// A column of the type of `A`.
    ///
    /// # Errors
    /// [`CorpusError::Structure`] when there is none, or one of another type.
    pub(super) fn column<A: Array + 'static>(&self, name: &str) -> Result<&'t A, CorpusError> {
        self.optional(name)?.ok_or_else(|| CorpusError::structure(self.path, format!("there is no column `{name}`")))
    }

    /// A column of strings without a missing one.
    ///
    /// # Errors
    /// As [`Batch::column`]; [`CorpusError::Structure`] when a value is missing.
    pub(super) fn required(&self, name: &str) -> Result<&'t StringArray, CorpusError> {
        let column: &StringArray = self.column(name)?;
        if column.null_count() > 0 {
            let problem = format!("a row has no `{name}`; the file was not written by Flowmill");
            return Err(CorpusError::structure(self.path, problem));
        }
        Ok(column)
    }

    /// The error of a column of another type than the one it should have.
    pub(super) fn mistyped(&self, name: &str, found: &DataType) -> CorpusError {
        CorpusError::structure(self.path, format!("column `{name}` has the type {found}"))
    }
}

/// Writes columns, which every batch has in this order, as Parquet with zstd and without anything that differs from run to run.
///
/// # Errors
/// [`CorpusError::Io`] and [`CorpusError::Table`].
pub(super) fn write(
    path: &Path,
    columns: &[(&str, DataType)],
    batches: impl IntoIterator<Item = Vec<ArrayRef>>,
) -> Result<(), CorpusError> {
    let fail = |e: ParquetError| CorpusError::table(path, e);
    let fields = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL).map_err(fail)?))
        .set_created_by("flowmill".to_owned())
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    let file = File::create(path).map_err(|e| CorpusError::io("write", path, e))?;
    let out = BufWriter::with_capacity(1 << 17, file);
    let mut writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties)).map_err(fail)?;
    for columns in batches {
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|e| CorpusError::table(path, e))?;
        writer.write(&batch).map_err(fail)?;
    }
    let mut out = writer.into_inner().map_err(fail)?;
    out.flush().map_err(|e| CorpusError::io("write", path, e))
}
