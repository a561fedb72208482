//! `rejected.parquet`: every rejected row of a stage, with its reason.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::StageError;
use crate::receipt::{PartDone, Rejection};

/// The number of rows encoded at a time. It bounds the size of an Arrow array whatever the length of the reasons.
const BATCH: usize = 4096;

/// Encodes the file: columns `id`, `reason`, `part`, in the order of the parts. Returns none if no row was rejected.
pub(crate) fn encode(parts: &[PartDone]) -> Result<Option<Vec<u8>>, StageError> {
    let all = parts.iter().flat_map(|part| part.rejected.iter().map(move |row| (row, part.key.as_str())));
    let rows: Vec<(&Rejection, &str)> = all.collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let field = |name: &str| Field::new(name, DataType::Utf8, false);
    let schema = Arc::new(Schema::new(vec![field("id"), field("reason"), field("part")]));
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(Default::default())).build();
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, Arc::clone(&schema), Some(properties)).map_err(StageError::other)?;
    for chunk in rows.chunks(BATCH) {
        let ids: ArrayRef = Arc::new(StringArray::from_iter_values(chunk.iter().map(|(row, _)| &row.id)));
        let reasons: ArrayRef = Arc::new(StringArray::from_iter_values(chunk.iter().map(|(row, _)| &row.reason)));
        let keys: ArrayRef = Arc::new(StringArray::from_iter_values(chunk.iter().map(|(_, key)| key)));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![ids, reasons, keys]);
        writer.write(&batch.map_err(StageError::other)?).map_err(StageError::other)?;
    }
    writer.close().map_err(StageError::other)?;
    Ok(Some(bytes))
}

/// A kind of rejection: the text of the reasons before the first `:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectionKind {
    /// The reason without the details of a row.
    pub reason: String,
    /// The number of rows.
    pub rows: u64,
    /// Some of their ids.
    pub examples: Vec<String>,
    /// The full reason of the first of them.
    pub example_reason: String,
    /// True if a whole source is rejected.
    pub of_source: bool,
}

/// Returns the part of a reason that similar rejections share: the text before the first `: `.
pub(crate) fn kind(reason: &str) -> &str {
    reason.split(": ").next().unwrap_or_default()
}

/// Returns the kinds of rejections with up to three examples each: whole sources first, then the most frequent.
pub(crate) fn kinds(parts: &[PartDone]) -> Vec<RejectionKind> {
    let mut places = std::collections::HashMap::new();
    let mut kinds: Vec<RejectionKind> = Vec::new();
    for row in parts.iter().flat_map(|part| &part.rejected) {
        let reason = kind(&row.reason);
        let at = *places.entry((reason, row.of_source)).or_insert(kinds.len());
        if at == kinds.len() {
            let example_reason = row.reason.clone();
            let (reason, of_source) = (reason.to_owned(), row.of_source);
            kinds.push(RejectionKind { reason, rows: 0, examples: Vec::new(), example_reason, of_source });
        }
        kinds[at].rows += 1;
        if kinds[at].examples.len() < 3 {
            kinds[at].examples.push(row.id.clone());
        }
    }
    kinds.sort_by(|a, b| (b.of_source, b.rows, &a.reason).cmp(&(a.of_source, a.rows, &b.reason)));
    kinds
}
