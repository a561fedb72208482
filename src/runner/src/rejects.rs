//! `rejected.parquet`: every row a stage set aside, with its reason.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::StageError;
use crate::receipt::{PartDone, Rejection};

/// Rows encoded at a time, which bounds the size of an Arrow array whatever the reasons' lengths.
const BATCH: usize = 4096;

/// The file's bytes: columns `id`, `reason`, `part`, in the order of the parts; none when no row was rejected.
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

/// A kind of rejection: what stands before the first `:` of the reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectionKind {
    /// The reason without what is particular to a row.
    pub reason: String,
    /// How many rows.
    pub rows: u64,
    /// Some of their ids.
    pub examples: Vec<String>,
    /// The whole reason of the first of them.
    pub example_reason: String,
    /// Whether it is of a whole source.
    pub of_source: bool,
}

/// What a reason has in common with its like: what stands before the first `: `.
pub(crate) fn kind(reason: &str) -> &str {
    reason.split(": ").next().unwrap_or_default()
}

/// Kinds of rejections, whole sources first and then the commonest, with up to three examples each.
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
