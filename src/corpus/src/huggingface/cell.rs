//! The place of a recording in a Parquet file.

use std::fmt;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use parquet::errors::ParquetError;

use crate::CorpusError;
use crate::source::MAX_MEMBER_BYTES;

/// The separators between a Parquet file and the column in it. CosyVoice names Parquet files `.tar`.
const IN_FILE: [&str; 2] = [".parquet#", ".tar#"];

/// The bytes of a row in a column of a Parquet file, written as `train-00000.parquet#COLUMN/NAME@ROW`. The name is for
/// people and decoders; column and row determine the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParquetCell<'a> {
    /// The file's path, relative to the recipe's folder or absolute.
    pub file: &'a str,
    /// The column, with dots between the names of its levels.
    pub column: &'a str,
    /// The name of the recording.
    pub name: &'a str,
    /// The row in the file, from 0.
    pub row: u64,
}

impl<'a> ParquetCell<'a> {
    /// Parses the cell that a text names, if it names one.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (rest, row) = text.rsplit_once('@')?;
        let at = IN_FILE.iter().filter_map(|separator| Some(rest.find(separator)? + separator.len())).min()?;
        let (column, name) = rest[at..].split_once('/')?;
        let is_number = !row.is_empty() && row.bytes().all(|byte| byte.is_ascii_digit());
        Some(Self { file: &rest[..at - 1], column, name, row: row.parse().ok().filter(|_| is_number)? })
    }

    /// Reads the bytes. Of the column, only the page that holds them is decompressed.
    ///
    /// # Errors
    /// [`CorpusError::Io`] and [`CorpusError::Table`] if the file cannot be read; [`CorpusError::Structure`] if it has no
    /// such row.
    pub(crate) fn read(&self, root: &Path) -> Result<Vec<u8>, CorpusError> {
        let path = root.join(self.file);
        let file = File::open(&path).map_err(|e| CorpusError::io("read", &path, e))?;
        // The reader panics on some damaged files. Its state is its own and is thrown away.
        let read = catch_unwind(AssertUnwindSafe(|| self.find(file)))
            .unwrap_or_else(|_| Err(ParquetError::General("its content contradicts itself".to_owned())))
            .map_err(|e| CorpusError::table(&path, e))?;
        let (row, name) = (self.row, self.name);
        match read {
            None => Err(CorpusError::structure(
                &path,
                format!("has no row {row} with a recording in {}; run stage 0 again", self.column),
            )),
            Some(bytes) if bytes.is_empty() => {
                Err(CorpusError::structure(&path, format!("row {row} has no bytes of {name}")))
            }
            Some(bytes) if bytes.len() as u64 > MAX_MEMBER_BYTES => {
                let problem = format!("row {row} has {} bytes, more than {MAX_MEMBER_BYTES}", bytes.len());
                Err(CorpusError::structure(&path, problem))
            }
            Some(bytes) => Ok(bytes),
        }
    }

    fn find(&self, file: File) -> Result<Option<Vec<u8>>, ParquetError> {
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)?;
        let mut row = self.row;
        let groups = builder.metadata().row_groups();
        let sizes = groups.iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0));
        let Some(group) = sizes.into_iter().position(|size| match row.checked_sub(size) {
            Some(rest) => {
                row = rest;
                false
            }
            None => true,
        }) else {
            return Ok(None);
        };
        let leaves = builder.parquet_schema().columns();
        let Some(leaf) = leaves.iter().position(|leaf| leaf.path().string() == self.column) else { return Ok(None) };
        let mask = ProjectionMask::leaves(builder.parquet_schema(), [leaf]);
        let selection = RowSelection::from(vec![RowSelector::skip(row as usize), RowSelector::select(1)]);
        let reader = builder.with_projection(mask).with_row_groups(vec![group]).with_row_selection(selection);
        let Some(batch) = reader.with_batch_size(1).build()?.next().transpose()? else { return Ok(None) };
        let mut array = batch.columns().first().cloned();
        while let Some(outer) = array.as_ref().and_then(|array| array.as_struct_opt().cloned()) {
            array = outer.columns().first().cloned();
        }
        let array = array.filter(|array| array.len() == 1 && array.is_valid(0));
        Ok(array.and_then(|array| match array.data_type() {
            DataType::Binary => Some(array.as_binary::<i32>().value(0).to_vec()),
            DataType::LargeBinary => Some(array.as_binary::<i64>().value(0).to_vec()),
            _ => None,
        }))
    }
}

impl fmt::Display for ParquetCell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}/{}@{}", self.file, self.column, self.name, self.row)
    }
}
