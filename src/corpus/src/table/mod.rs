//! Tables on disk: Parquet with zstd.
//!
//! Utterance tables have the columns `utt spk text lang wav start end duration sample_rate channels`, `channel` where a row names one,
//! `decoder` where a recording needs one, and `speed` where a row differs from its recording; embeddings and tokens are
//! two columns, an id and a list. The same rows always give the same bytes.

mod file;
mod lists;
mod rows;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, Float64Array, Float64Builder, PrimitiveArray, StringArray, StringBuilder,
    UInt32Array, UInt32Builder,
};
use arrow::datatypes::DataType;

use file::{BATCH_ROWS, Batch, Table};
pub use lists::{
    EmbeddingColumn, read_embeddings, read_tokens, write_embedding_columns, write_embeddings, write_tokens,
};
pub use rows::RowColumns;

use crate::{CorpusError, Utterance, UtteranceRow};

/// Writes utterances as a Parquet table.
///
/// # Errors
/// [`CorpusError::Io`] and [`CorpusError::Table`].
pub fn write_utterances(path: &Path, utterances: &[Utterance]) -> Result<(), CorpusError> {
    write_rows(path, utterances.iter().map(Utterance::as_row))
}

/// Writes borrowed rows as a Parquet table that [`read_utterances`] can read.
///
/// # Errors
/// [`CorpusError::Io`] and [`CorpusError::Table`].
pub fn write_rows<'a>(path: &Path, rows: impl ExactSizeIterator<Item = UtteranceRow<'a>>) -> Result<(), CorpusError> {
    let mut batches = Vec::new();
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        let mut builders = Builders::default();
        rows.by_ref().take(BATCH_ROWS).for_each(|row| builders.push(row));
        batches.push(builders.finish());
    }
    let has = |at: usize| batches.iter().any(|batch: &[ArrayRef; _]| batch[at].null_count() < batch[at].len());
    let kept: Vec<usize> = (0..COLUMNS.len()).filter(|&at| at < ALWAYS || has(at)).collect();
    let columns: Vec<_> = kept.iter().map(|&at| COLUMNS[at].clone()).collect();
    let batches = batches.iter().map(|batch| kept.iter().map(|&at| Arc::clone(&batch[at])).collect());
    file::write(path, &columns, batches)
}

/// Reads a table of [`write_utterances`].
///
/// # Errors
/// [`CorpusError::Io`] and [`CorpusError::Table`]; [`CorpusError::Structure`] when a required value is missing.
pub fn read_utterances(path: &Path) -> Result<Vec<Utterance>, CorpusError> {
    let table = Table::read(path, None)?;
    let mut utterances = Vec::with_capacity(table.rows());
    for batch in table.batches() {
        read_batch(&batch, &mut utterances)?;
    }
    Ok(utterances)
}

/// Reads only the `wav` column of an utterance table, so that a planner knows the files of a part.
///
/// # Errors
/// See [`read_utterances`].
pub fn read_wav_column(path: &Path) -> Result<Vec<String>, CorpusError> {
    read_string_column(path, "wav")
}

/// The data about a row's recording that a planner needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingRow {
    /// The row's `wav`.
    pub wav: String,
    /// The row's channel.
    pub channel: Option<u32>,
    /// The number of samples, over all channels, up to the end of the row. Missing information is replaced by 48 kHz
    /// stereo.
    pub samples: u64,
}

impl RecordingRow {
    /// Returns the recording of a row.
    pub fn of(utterance: &Utterance) -> Self {
        Self { wav: utterance.wav.clone(), channel: utterance.channel, samples: Self::samples_of(utterance) }
    }

    /// Returns [`RecordingRow::samples`] of a row.
    pub fn samples_of(utterance: &Utterance) -> u64 {
        let Utterance { start, end, duration, sample_rate, channels, speed, .. } = utterance;
        let duration = duration.map(|duration| duration * speed.unwrap_or(1.0));
        samples_up_to(end.or(duration).unwrap_or_else(|| start.unwrap_or(0.0)), *sample_rate, *channels)
    }
}

/// Returns the number of samples in a time, saturated to a valid number.
fn samples_up_to(seconds: f64, sample_rate: Option<u32>, channels: Option<u32>) -> u64 {
    (seconds * f64::from(sample_rate.unwrap_or(48_000)) * f64::from(channels.unwrap_or(2))) as u64
}

/// Reads the recordings of an utterance table, one per row.
///
/// # Errors
/// See [`read_utterances`].
pub fn read_recordings(path: &Path) -> Result<Vec<RecordingRow>, CorpusError> {
    let names = ["wav", "start", "end", "duration", "sample_rate", "channels", "channel", "speed"];
    let table = Table::read(path, Some(&names))?;
    let mut recordings = Vec::with_capacity(table.rows());
    for batch in table.batches() {
        let wavs = batch.required("wav")?;
        let seconds = |name: &str| batch.column::<Float64Array>(name);
        let counts = |name: &str| batch.column::<UInt32Array>(name);
        let (start, end, duration) = (seconds("start")?, seconds("end")?, seconds("duration")?);
        let (rates, channels) = (counts("sample_rate")?, counts("channels")?);
        // Only tables with a row that names a channel have this column.
        let channel: Option<&UInt32Array> = batch.optional("channel")?;
        let speed: Option<&Float64Array> = batch.optional("speed")?;
        recordings.extend(wavs.iter().flatten().enumerate().map(|(row, wav)| {
            let speed = speed.and_then(|column| number(column, row)).unwrap_or(1.0);
            let duration = number(duration, row).map(|duration| duration * speed);
            let until = number(end, row).or(duration).or_else(|| number(start, row)).unwrap_or(0.0);
            RecordingRow {
                wav: wav.to_owned(),
                channel: channel.and_then(|column| number(column, row)),
                samples: samples_up_to(until, number(rates, row), number(channels, row)),
            }
        }));
    }
    Ok(recordings)
}

/// Reads one column of strings of any table.
///
/// # Errors
/// See [`read_utterances`]; also an error if the column does not exist or a value is missing.
pub fn read_string_column(path: &Path, name: &str) -> Result<Vec<String>, CorpusError> {
    Table::read(path, Some(&[name]))?.strings(name)
}

/// The columns of an utterance table.
const COLUMNS: [(&str, DataType); 13] = [
    ("utt", DataType::Utf8),
    ("spk", DataType::Utf8),
    ("text", DataType::Utf8),
    ("lang", DataType::Utf8),
    ("wav", DataType::Utf8),
    ("start", DataType::Float64),
    ("end", DataType::Float64),
    ("duration", DataType::Float64),
    ("sample_rate", DataType::UInt32),
    ("channels", DataType::UInt32),
    ("channel", DataType::UInt32),
    ("decoder", DataType::Utf8),
    ("speed", DataType::Float64),
];
/// Number of columns that every table has; it has the ones after them only if a row has a value.
const ALWAYS: usize = 10;

/// The columns of some rows.
#[derive(Default)]
struct Builders {
    utt: StringBuilder,
    spk: StringBuilder,
    text: StringBuilder,
    lang: StringBuilder,
    wav: StringBuilder,
    start: Float64Builder,
    end: Float64Builder,
    duration: Float64Builder,
    sample_rate: UInt32Builder,
    channels: UInt32Builder,
    channel: UInt32Builder,
    decoder: StringBuilder,
    speed: Float64Builder,
}

impl Builders {
    fn push(&mut self, row: UtteranceRow<'_>) {
        self.utt.append_value(row.utt);
        self.spk.append_value(row.spk);
        self.text.append_value(row.text);
        self.lang.append_option(row.lang);
        self.wav.append_value(row.wav);
        self.start.append_option(row.start);
        self.end.append_option(row.end);
        self.duration.append_option(row.duration);
        self.sample_rate.append_option(row.sample_rate);
        self.channels.append_option(row.channels);
        self.channel.append_option(row.channel);
        self.decoder.append_option(row.decoder);
        self.speed.append_option(row.speed);
    }

    /// The columns in the order of [`COLUMNS`].
    fn finish(mut self) -> [ArrayRef; COLUMNS.len()] {
        [
            Arc::new(self.utt.finish()),
            Arc::new(self.spk.finish()),
            Arc::new(self.text.finish()),
            Arc::new(self.lang.finish()),
            Arc::new(self.wav.finish()),
            Arc::new(self.start.finish()),
            Arc::new(self.end.finish()),
            Arc::new(self.duration.finish()),
            Arc::new(self.sample_rate.finish()),
            Arc::new(self.channels.finish()),
            Arc::new(self.channel.finish()),
            Arc::new(self.decoder.finish()),
            Arc::new(self.speed.finish()),
        ]
    }
}

/// Returns the value of a row, if it has one.
fn number<T: ArrowPrimitiveType>(column: &PrimitiveArray<T>, row: usize) -> Option<T::Native> {
    column.is_valid(row).then(|| column.value(row))
}

/// Appends the rows of a batch of an utterance table.
fn read_batch(batch: &Batch<'_>, utterances: &mut Vec<Utterance>) -> Result<(), CorpusError> {
    let seconds = |name: &str| batch.column::<Float64Array>(name);
    let counts = |name: &str| batch.column::<UInt32Array>(name);
    let utt = batch.required("utt")?;
    let (spk, text, wav) = (batch.required("spk")?, batch.required("text")?, batch.required("wav")?);
    let lang: &StringArray = batch.column("lang")?;
    let (start, end, duration) = (seconds("start")?, seconds("end")?, seconds("duration")?);
    let (sample_rate, channels) = (counts("sample_rate")?, counts("channels")?);
    let channel: Option<&UInt32Array> = batch.optional("channel")?;
    let decoder: Option<&StringArray> = batch.optional("decoder")?;
    let speed: Option<&Float64Array> = batch.optional("speed")?;
    utterances.extend((0..batch.rows()).map(|row| {
        let string = |column: &StringArray| column.is_valid(row).then(|| column.value(row).to_owned());
        Utterance {
            utt: utt.value(row).to_owned(),
            spk: spk.value(row).to_owned(),
            text: text.value(row).to_owned(),
            lang: string(lang),
            wav: wav.value(row).to_owned(),
            start: number(start, row),
            end: number(end, row),
            duration: number(duration, row),
            sample_rate: number(sample_rate, row),
            channels: number(channels, row),
            channel: channel.and_then(|column| number(column, row)),
            decoder: decoder.and_then(string),
            speed: speed.and_then(|column| number(column, row)),
        }
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flipped_bit_of_a_footer_ends_in_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        let names = ["a", "b", "c"];
        write_embedding_columns(&path, &[("utt", EmbeddingColumn::Ids(&names))]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let length = u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().unwrap()) as usize;
        let mut refused = 0;
        for bit in 8 * (whole.len() - 8 - length)..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).unwrap();
            refused += usize::from(Table::read(&path, None).is_err());
        }
        assert!(refused > 0);
    }
}
