//! Rows of a Parquet file, without their recordings.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Type;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use super::cell::ParquetCell;
use super::{BYTES, TableFile, json};
use crate::CorpusError;
use crate::fields::is_name_of;
use crate::manifest::Parsed;

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;

/// The column with recordings.
struct AudioColumn {
    /// Its index among the leaves.
    leaf: usize,
    /// The path of the leaf.
    path: String,
    /// The name of the outermost level.
    name: String,
}

/// Reads the rows of a file. The bytes of recordings are not read.
pub(super) fn read(table: &TableFile<'_>) -> Result<Parsed, CorpusError> {
    let file = File::open(&table.full).map_err(|e| CorpusError::io("read", &table.full, e))?;
    let fail = |e: ParquetError| CorpusError::table(&table.full, e);
    // The reader panics on some damaged files. Its state is its own and is thrown away.
    let guarded = |read: &mut dyn FnMut() -> Result<Option<Parsed>, ParquetError>| {
        catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(ParquetError::General("its content contradicts itself".to_owned())))
    };
    let mut names = Vec::new();
    let mut file = Some(file);
    let parsed = guarded(&mut || {
        let Some(file) = file.take() else { return Ok(None) };
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)?;
        let leaves = builder.parquet_schema().columns();
        names = leaves.iter().map(|leaf| leaf.path().string()).collect();
        let Some(column) = audio_column(builder.metadata()) else {
            // The recordings may be paths.
            let has_path = names.iter().any(|name| is_name_of("audio", name.split('.').next().unwrap_or(name)));
            return if has_path { rows(table, builder, None).map(Some) } else { Ok(None) };
        };
        rows(table, builder, Some(column)).map(Some)
    });
    parsed.map_err(fail)?.ok_or_else(|| table.without_recordings(&names))
}

/// Reads all rows.
fn rows(
    table: &TableFile<'_>,
    builder: ParquetRecordBatchReaderBuilder<File>,
    column: Option<AudioColumn>,
) -> Result<Parsed, ParquetError> {
    let schema = builder.parquet_schema();
    let is_read = |leaf: usize| {
        let (described, Some(fields)) = (schema.column(leaf), &table.fields) else { return true };
        let root = described.path().parts().first().map_or("", String::as_str);
        let is_bytes = described.physical_type() == Type::BYTE_ARRAY && described.logical_type_ref().is_none();
        // The sizes of an axis of a column belong to the column.
        fields.contains(&root) || (described.path().parts().len() == 1 && !is_bytes && !root.starts_with("mel_"))
    };
    let others = (0..schema.num_columns()).filter(|leaf| column.as_ref().is_none_or(|column| column.leaf != *leaf));
    let others = others.filter(|leaf| is_read(*leaf));
    let mask = ProjectionMask::leaves(schema, others);
    let mut parsed = Parsed::new();
    for batch in builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()? {
        let batch: RecordBatch = batch?;
        for at in 0..batch.num_rows() {
            let number = parsed.len();
            let object = json::row(&batch, at);
            parsed.push(match &column {
                None => table.row(object, "", number, None),
                Some(column) => {
                    let place = |name: &str| {
                        ParquetCell { file: table.path, column: &column.path, name, row: number as u64 }.to_string()
                    };
                    table.row(object, &column.name, number, Some(&place))
                }
            });
        }
    }
    Ok(parsed)
}

/// Returns the column that holds recordings: `audio.bytes` before columns of other names. One without a value in the
/// whole file holds none.
fn audio_column(metadata: &ParquetMetaData) -> Option<AudioColumn> {
    let leaves = metadata.file_metadata().schema_descr().columns();
    let found = leaves.iter().enumerate().filter_map(|(leaf, column)| {
        let parts = column.path().parts();
        let name = parts.first()?;
        let rank = match parts {
            [outer, inner] if inner == "bytes" && is_name_of("audio", outer) => 0,
            [_, inner] if inner == "bytes" => 1,
            [outer] if BYTES.contains(&outer.as_str()) => 2,
            _ => return None,
        };
        let is_bytes = column.physical_type() == Type::BYTE_ARRAY && column.logical_type_ref().is_none();
        let is_empty = metadata.row_groups().iter().all(|group| {
            let chunk = group.column(leaf);
            chunk.statistics().and_then(|found| found.null_count_opt()) == u64::try_from(chunk.num_values()).ok()
        });
        let found = AudioColumn { leaf, path: column.path().string(), name: name.clone() };
        (is_bytes && !is_empty).then_some((rank, found))
    });
    found.min_by_key(|(rank, _)| *rank).map(|(_, column)| column)
}
