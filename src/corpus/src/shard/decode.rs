//! Arrow record batches of a shard as rows.

use arrow::array::{
    Array, AsArray, BinaryArray, Float64Array, Int32Array, ListArray, PrimitiveArray, RecordBatch, StringArray,
};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float16Type, Float32Type, Float64Type, Int32Type, Int64Type};
use arrow::error::ArrowError;

use super::{Mel, ShardRow};

/// The columns of a batch; those not read are absent.
struct Fields<'a> {
    utt: Option<&'a StringArray>,
    wav: Option<&'a StringArray>,
    audio_data: Option<&'a BinaryArray>,
    text: Option<&'a StringArray>,
    spk: Option<&'a StringArray>,
    utt_embedding: Option<&'a ListArray>,
    spk_embedding: Option<&'a ListArray>,
    speech_token: Option<&'a ListArray>,
    lang: Option<&'a StringArray>,
    duration: Option<&'a Float64Array>,
    sample_rate: Option<&'a Int32Array>,
    mel: Option<&'a ListArray>,
    mel_frames: Option<&'a Int32Array>,
    mel_bins: Option<&'a Int32Array>,
}

/// The rows of a batch; columns that are not there leave their field empty.
pub(super) fn rows(batch: &RecordBatch) -> Result<Vec<ShardRow>, ArrowError> {
    let fields = Fields {
        utt: strings(batch, "utt")?,
        wav: strings(batch, "wav")?,
        audio_data: typed(batch, "audio_data", |array| array.as_binary_opt())?,
        text: strings(batch, "text")?,
        spk: strings(batch, "spk")?,
        utt_embedding: list(batch, "utt_embedding")?,
        spk_embedding: list(batch, "spk_embedding")?,
        speech_token: list(batch, "speech_token")?,
        lang: strings(batch, "lang")?,
        duration: typed(batch, "duration", |array| array.as_primitive_opt::<Float64Type>())?,
        sample_rate: counts(batch, "sample_rate")?,
        mel: list(batch, "mel")?,
        mel_frames: counts(batch, "mel_frames")?,
        mel_bins: counts(batch, "mel_bins")?,
    };
    (0..batch.num_rows()).map(|row| fields.row(row)).collect()
}

impl Fields<'_> {
    fn row(&self, row: usize) -> Result<ShardRow, ArrowError> {
        Ok(ShardRow {
            utt: string(self.utt, row),
            wav: string(self.wav, row),
            audio_data: self.audio_data.map(|array| array.value(row).to_vec()).unwrap_or_default(),
            text: string(self.text, row),
            spk: string(self.spk, row),
            utt_embedding: numbers::<Float32Type>(self.utt_embedding, row)?,
            spk_embedding: numbers::<Float32Type>(self.spk_embedding, row)?,
            speech_token: numbers::<Int64Type>(self.speech_token, row)?,
            lang: self.lang.filter(|array| array.is_valid(row)).map(|array| array.value(row).to_owned()),
            duration: self.duration.map_or(0.0, |array| array.value(row)),
            sample_rate: count(self.sample_rate, row)? as u32,
            mel: self.mel(row)?,
        })
    }

    fn mel(&self, row: usize) -> Result<Option<Mel>, ArrowError> {
        let Some(lists) = self.mel else { return Ok(None) };
        let data = match lists.value_type() {
            DataType::Float16 => {
                numbers::<Float16Type>(Some(lists), row)?.into_iter().map(half::f16::to_f32).collect::<Vec<f32>>()
            }
            _ => numbers::<Float32Type>(Some(lists), row)?,
        };
        let (frames, bins) = (count(self.mel_frames, row)?, count(self.mel_bins, row)?);
        if frames.checked_mul(bins) != Some(data.len()) {
            let problem =
                format!("row {row}: a mel of {} values cannot have {frames} frames of {bins} bins", data.len());
            return Err(ArrowError::SchemaError(problem));
        }
        Ok(Some(Mel { data, frames, bins }))
    }
}

/// A column by name and type; `None` when it is not in the batch.
fn typed<'a, T>(
    batch: &'a RecordBatch,
    name: &str,
    cast: impl FnOnce(&'a dyn Array) -> Option<&'a T>,
) -> Result<Option<&'a T>, ArrowError> {
    let Some(array) = batch.column_by_name(name) else { return Ok(None) };
    match cast(array.as_ref()) {
        Some(typed) => Ok(Some(typed)),
        None => Err(ArrowError::SchemaError(format!("column `{name}` has the type {}", array.data_type()))),
    }
}

fn strings<'a>(batch: &'a RecordBatch, name: &str) -> Result<Option<&'a StringArray>, ArrowError> {
    typed(batch, name, |array| array.as_string_opt::<i32>())
}

fn counts<'a>(batch: &'a RecordBatch, name: &str) -> Result<Option<&'a Int32Array>, ArrowError> {
    typed(batch, name, |array| array.as_primitive_opt::<Int32Type>())
}

fn list<'a>(batch: &'a RecordBatch, name: &str) -> Result<Option<&'a ListArray>, ArrowError> {
    typed(batch, name, |array| array.as_list_opt::<i32>())
}

/// A string of a column that may be absent.
fn string(array: Option<&StringArray>, row: usize) -> String {
    array.map(|array| array.value(row).to_owned()).unwrap_or_default()
}

/// A count of a column that may be absent.
fn count(array: Option<&Int32Array>, row: usize) -> Result<usize, ArrowError> {
    let value = array.map_or(0, |array| array.value(row));
    usize::try_from(value).map_err(|_| ArrowError::SchemaError(format!("row {row} has the count {value}")))
}

/// The numbers of one list of a column that may be absent.
fn numbers<T: ArrowPrimitiveType>(lists: Option<&ListArray>, row: usize) -> Result<Vec<T::Native>, ArrowError> {
    let Some(lists) = lists else { return Ok(Vec::new()) };
    let values = lists.value(row);
    let values: &PrimitiveArray<T> = values
        .as_primitive_opt()
        .ok_or_else(|| ArrowError::SchemaError(format!("a list of {} where numbers should be", values.data_type())))?;
    Ok(values.values().to_vec())
}
