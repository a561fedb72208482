//! Rows of an Arrow file as `save_to_disk` writes it, with the places of their recordings.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;

use super::{BYTES, TableFile, json};
use crate::arrow_file::{ArrowBatches, Place};
use crate::fields::is_name_of;
use crate::manifest::Parsed;
use crate::source::TarMember;
use crate::{CorpusError, Rejection};

/// Reads the rows of a file, one batch at a time.
pub(super) fn read(table: &TableFile<'_>) -> Result<Parsed, CorpusError> {
    let mut batches = ArrowBatches::open(&table.full)?;
    let mut parsed = Parsed::new();
    while let Some((batch, place)) = batches.next_placed()? {
        // Arrays of damaged files may panic when they are read.
        let read = catch_unwind(AssertUnwindSafe(|| rows(table, &batch, &place, &mut parsed)));
        let contradicts = || CorpusError::structure(&table.full, "a batch contradicts itself".to_owned());
        read.unwrap_or_else(|_| Err(contradicts()))?;
    }
    Ok(parsed)
}

/// Adds the rows of a batch.
fn rows(table: &TableFile<'_>, batch: &RecordBatch, place: &Place, parsed: &mut Parsed) -> Result<(), CorpusError> {
    let Some((column, outer, bytes)) = audio(batch) else {
        let names = batch.schema_ref().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        if !names.iter().any(|name| is_name_of("audio", name)) {
            return Err(table.without_recordings(&names));
        }
        for at in 0..batch.num_rows() {
            let number = parsed.len();
            parsed.push(table.row(json::row(batch, at), "", number, None));
        }
        return Ok(());
    };
    for at in 0..batch.num_rows() {
        let (number, object) = (parsed.len(), json::row(batch, at));
        let value = Some(bytes).filter(|bytes| outer.is_none_or(|outer| outer.is_valid(at)) && bytes.is_valid(at));
        let value = value.and_then(|bytes| match bytes.data_type() {
            DataType::Binary => Some(bytes.as_binary::<i32>().value(at)),
            _ => bytes.as_binary_opt::<i64>().map(|bytes| bytes.value(at)),
        });
        parsed.push(match (value, value.and_then(|value| Some((place.of(value)?, value.len())))) {
            (None, _) => table.row(object, &column, number, None),
            (Some(_), None) => {
                let id = format!("{}[{number}]", table.name);
                let reason = format!("bad row: {id} is compressed; save the dataset again without compression");
                Err(Rejection { id, reason })
            }
            (Some(_), Some((offset, length))) => {
                let place =
                    |name: &str| TarMember { archive: table.path, name, offset, length: length as u64 }.to_string();
                table.row(object, &column, number, Some(&place))
            }
        });
    }
    Ok(())
}

/// Returns the column with recordings: its name, the outer level if it has two, and the bytes.
fn audio(batch: &RecordBatch) -> Option<(String, Option<&dyn Array>, &dyn Array)> {
    let is_bytes = |array: &dyn Array| matches!(array.data_type(), DataType::Binary | DataType::LargeBinary);
    let schema = batch.schema_ref().fields();
    let found = schema.iter().zip(batch.columns()).filter_map(|(field, array)| {
        let name = field.name();
        let inner = array.as_struct_opt().and_then(|outer| outer.column_by_name("bytes"));
        match inner.filter(|inner| is_bytes(inner)) {
            Some(inner) => Some((u8::from(!is_name_of("audio", name)), name, Some(array.as_ref()), inner.as_ref())),
            None => (is_bytes(array) && BYTES.contains(&name.as_str())).then_some((2, name, None, array.as_ref())),
        }
    });
    let (_, name, outer, bytes) = found.min_by_key(|(rank, ..)| *rank)?;
    Some((name.clone(), outer, bytes))
}
