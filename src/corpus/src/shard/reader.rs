//! Reading of a shard: all its rows in order, or selected ones.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::file::metadata::PageIndexPolicy;

use super::schema::{columns_of, size_names};
use super::{GROUP, ID, decode};
use crate::{ColumnSpec, CorpusError, Row};

/// The number of rows that are decoded together.
const BATCH_ROWS: usize = 64;

/// A shard's footer. The file itself is opened for each read, so that any number of shards can be open.
#[derive(Clone, Debug)]
pub struct ShardReader {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
}

impl ShardReader {
    /// Reads a shard's footer. Columns have the types of Parquet, whatever those of the program that wrote it were.
    ///
    /// # Errors
    /// [`CorpusError::Io`] if it cannot be opened, [`CorpusError::Shard`] if it is not a Parquet file.
    pub fn open(path: &Path) -> Result<Self, CorpusError> {
        let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Optional);
        Self::with(path, options.with_skip_arrow_metadata(true))
    }

    /// Reads the footer of a table that the same library or another one wrote: columns have the types of Parquet, whatever those were in memory.
    ///
    /// # Errors
    /// See [`ShardReader::open`].
    pub fn open_table(path: &Path) -> Result<Self, CorpusError> {
        Self::with(path, ArrowReaderOptions::new().with_skip_arrow_metadata(true))
    }

    fn with(path: &Path, options: ArrowReaderOptions) -> Result<Self, CorpusError> {
        let file = File::open(path).map_err(|e| CorpusError::io("read", path, e))?;
        let metadata = ArrowReaderMetadata::load(&file, options).map_err(|e| CorpusError::shard(path, e))?;
        Ok(Self { path: path.to_path_buf(), metadata })
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.row_groups().iter().sum()
    }

    /// Returns the number of rows in each row group.
    pub fn row_groups(&self) -> Vec<usize> {
        self.metadata
            .metadata()
            .row_groups()
            .iter()
            .map(|group| usize::try_from(group.num_rows()).unwrap_or(0))
            .collect()
    }

    /// Returns its columns, as far as shards have such columns, and the names of its other fields. The file does not
    /// record which axes have a fixed size.
    pub fn columns(&self) -> (Vec<ColumnSpec>, Vec<String>) {
        columns_of(self.metadata.schema())
    }

    /// The names and Arrow types of its fields.
    pub fn schema(&self) -> Vec<(String, String)> {
        let fields = self.metadata.schema().fields().iter();
        fields.map(|field| (field.name().clone(), field.data_type().to_string())).collect()
    }

    /// Returns the key-value pairs of its footer, without Arrow's own.
    pub fn key_values(&self) -> Vec<(String, String)> {
        let pairs = self.metadata.metadata().file_metadata().key_value_metadata().into_iter().flatten();
        pairs
            .filter(|pair| pair.key != "ARROW:schema")
            .map(|pair| (pair.key.clone(), pair.value.clone().unwrap_or_default()))
            .collect()
    }

    /// Iterates over all rows in order, with the given columns, in bounded memory.
    ///
    /// # Errors
    /// [`CorpusError::Io`] when the file cannot be opened; [`CorpusError::Structure`] when it lacks a column or has it in
    /// another type; each row may fail with [`CorpusError::Shard`] or [`CorpusError::Structure`].
    pub fn iter(
        &self,
        columns: &[ColumnSpec],
    ) -> Result<impl Iterator<Item = Result<Row, CorpusError>> + use<>, CorpusError> {
        let batches = self.batches(columns, None)?;
        let (path, columns) = (self.path.clone(), columns.to_vec());
        let rows = move |batch: Result<RecordBatch, ArrowError>| {
            let batch = batch.map_err(|e| CorpusError::shard(&path, e))?;
            decode::rows(&batch, &columns).map_err(|problem| CorpusError::structure(&path, problem))
        };
        Ok(batches.flat_map(move |batch| match rows(batch) {
            Ok(rows) => rows.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        }))
    }

    /// Returns the rows with the given numbers, which must ascend, with the given columns. Reads only the pages of
    /// these rows.
    ///
    /// # Errors
    /// [`CorpusError::Structure`] for a row that does not exist, or a column that does not or is of another type; [`CorpusError::Io`] and [`CorpusError::Shard`].
    pub fn fetch(&self, rows: &[usize], columns: &[ColumnSpec]) -> Result<Vec<Row>, CorpusError> {
        let have = self.rows();
        if let Some(row) = rows.iter().find(|row| **row >= have) {
            return Err(CorpusError::structure(&self.path, format!("has {have} rows, but row {row} was requested")));
        }
        if rows.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(CorpusError::structure(&self.path, "rows were not requested in ascending order"));
        }
        let mut found = Vec::with_capacity(rows.len());
        for batch in self.batches(columns, Some(rows))? {
            let batch = batch.map_err(|e| CorpusError::shard(&self.path, e))?;
            let rows = decode::rows(&batch, columns);
            found.extend(rows.map_err(|problem| CorpusError::structure(&self.path, problem))?);
        }
        if found.len() != rows.len() {
            let problem = format!("returned {} rows instead of the requested {}", found.len(), rows.len());
            return Err(CorpusError::structure(&self.path, problem));
        }
        Ok(found)
    }

    /// Record batches with the given columns of all rows or of some.
    fn batches(&self, columns: &[ColumnSpec], rows: Option<&[usize]>) -> Result<ParquetRecordBatchReader, CorpusError> {
        decode::check(self.metadata.schema(), columns)
            .map_err(|problem| CorpusError::structure(&self.path, problem))?;
        let file = File::open(&self.path).map_err(|e| CorpusError::io("read", &self.path, e))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let own = columns.iter().flat_map(|column| std::iter::once(column.name.clone()).chain(size_names(column)));
        let names: BTreeSet<String> = [ID, GROUP].map(str::to_owned).into_iter().chain(own).collect();
        let fields = builder.schema().fields();
        let wanted: Vec<usize> = (0..fields.len()).filter(|&at| names.contains(fields[at].name())).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let mut builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
        if let Some(rows) = rows {
            let ranges = rows.iter().map(|&row| row..row + 1);
            builder = builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges, self.rows()));
        }
        builder.build().map_err(|e| CorpusError::shard(&self.path, e))
    }
}
