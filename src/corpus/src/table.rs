//! Tables on disk: Parquet with zstd, written and read through Polars.
//!
//! Utterance tables have the columns `utt spk text lang wav start end duration sample_rate channels`, `channel` where a row names one,
//! and `decoder` where a recording needs one; embeddings and tokens are
//! two columns, an id and a list. The same rows always give the same bytes.

mod lists;
mod rows;

use std::fs::File;
use std::io::BufWriter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use polars::prelude::*;

pub use lists::{read_embeddings, read_tokens, write_embeddings, write_tokens};
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
    write_frame(path, rows_to_frame(rows).map_err(|e| CorpusError::table(path, e))?)
}

/// Reads a table of [`write_utterances`].
///
/// # Errors
/// [`CorpusError::Io`] and [`CorpusError::Table`]; [`CorpusError::Structure`] when a required value is missing.
pub fn read_utterances(path: &Path) -> Result<Vec<Utterance>, CorpusError> {
    let frame = read_frame(path, None)?;
    frame_to_utterances(path, &frame)
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
        let Utterance { start, end, duration, sample_rate, channels, .. } = utterance;
        samples_up_to(end.or(*duration).unwrap_or_else(|| start.unwrap_or(0.0)), *sample_rate, *channels)
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
    let names = ["wav", "start", "end", "duration", "sample_rate", "channels"];
    let mut frame = read_frame(path, Some(names.map(str::to_owned).to_vec()))?;
    // Only tables with a row that names a channel have this column.
    if let Ok(column) = read_frame(path, Some(vec!["channel".to_owned()])) {
        frame = frame.hstack(column.columns()).map_err(|e| CorpusError::table(path, e))?;
    }
    let fail = |e| CorpusError::table(path, e);
    let seconds = |name: &str| frame.column(name).and_then(|column| column.f64()).map_err(fail);
    let counts = |name: &str| frame.column(name).and_then(|column| column.u32()).map_err(fail);
    let (start, end, duration) = (seconds("start")?, seconds("end")?, seconds("duration")?);
    let (rates, channels, channel) = (counts("sample_rate")?, counts("channels")?, counts("channel").ok());
    let row = |(row, wav): (usize, String)| {
        let until = end.get(row).or_else(|| duration.get(row)).or_else(|| start.get(row)).unwrap_or(0.0);
        let channel = channel.and_then(|channel| channel.get(row));
        RecordingRow { wav, channel, samples: samples_up_to(until, rates.get(row), channels.get(row)) }
    };
    Ok(required_strings(path, &frame, "wav")?.into_iter().enumerate().map(row).collect())
}

/// Reads one column of strings of any table.
///
/// # Errors
/// See [`read_utterances`]; also an error if the column does not exist or a value is missing.
pub fn read_string_column(path: &Path, name: &str) -> Result<Vec<String>, CorpusError> {
    let frame = read_frame(path, Some(vec![name.to_owned()]))?;
    required_strings(path, &frame, name)
}

/// Reads a table as a Polars frame: all columns, or the named ones.
///
/// # Errors
/// [`CorpusError::Io`] and [`CorpusError::Table`].
pub fn read_frame(path: &Path, columns: Option<Vec<String>>) -> Result<DataFrame, CorpusError> {
    let file = File::open(path).map_err(|e| CorpusError::io("read", path, e))?;
    let reader = ParquetReader::new(file).read_parallel(ParallelStrategy::None).with_columns(columns);
    // Polars panics on some damaged footers. The reader's state is not shared and is dropped.
    catch_unwind(AssertUnwindSafe(|| reader.finish()))
        .unwrap_or_else(|_| Err(polars_err!(ComputeError: "its footer is damaged")))
        .map_err(|e| CorpusError::table(path, e))
}

/// Writes a Polars frame as Parquet with zstd and without anything that differs from run to run.
///
/// # Errors
/// [`CorpusError::Io`] and [`CorpusError::Table`].
pub fn write_frame(path: &Path, mut frame: DataFrame) -> Result<(), CorpusError> {
    let file = File::create(path).map_err(|e| CorpusError::io("write", path, e))?;
    ParquetWriter::new(BufWriter::with_capacity(1 << 17, file))
        .with_compression(ParquetCompression::Zstd(None))
        .set_parallel(false)
        .finish(&mut frame)
        .map_err(|e| CorpusError::table(path, e))?;
    Ok(())
}

/// The columns of an utterance table.
fn rows_to_frame<'a>(rows: impl ExactSizeIterator<Item = UtteranceRow<'a>>) -> PolarsResult<DataFrame> {
    let count = rows.len();
    let strings = |name: &str| StringChunkedBuilder::new(name.into(), count);
    let (mut utt, mut spk, mut text, mut lang, mut wav) =
        (strings("utt"), strings("spk"), strings("text"), strings("lang"), strings("wav"));
    let (mut start, mut end, mut duration) =
        (Vec::with_capacity(count), Vec::with_capacity(count), Vec::with_capacity(count));
    let (mut sample_rate, mut channels) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut channel = Vec::with_capacity(count);
    let (mut decoder, mut has_decoder) = (strings("decoder"), false);
    for row in rows {
        utt.append_value(row.utt);
        spk.append_value(row.spk);
        text.append_value(row.text);
        lang.append_option(row.lang);
        wav.append_value(row.wav);
        start.push(row.start);
        end.push(row.end);
        duration.push(row.duration);
        sample_rate.push(row.sample_rate);
        channels.push(row.channels);
        channel.push(row.channel);
        decoder.append_option(row.decoder);
        has_decoder |= row.decoder.is_some();
    }
    let strings = [utt, spk, text, lang, wav].map(|column| column.finish().into_column());
    let seconds = [("start", start), ("end", end), ("duration", duration)]
        .map(|(name, values)| Float64Chunked::from_slice_options(name.into(), &values).into_column());
    let named = channel.iter().any(Option::is_some).then_some(("channel", channel));
    let counts = [("sample_rate", sample_rate), ("channels", channels)]
        .into_iter()
        .chain(named)
        .map(|(name, values)| UInt32Chunked::from_slice_options(name.into(), &values).into_column());
    let decoder = has_decoder.then(|| decoder.finish().into_column());
    DataFrame::new(count, strings.into_iter().chain(seconds).chain(counts).chain(decoder).collect())
}

/// The rows of an utterance table.
fn frame_to_utterances(path: &Path, frame: &DataFrame) -> Result<Vec<Utterance>, CorpusError> {
    let fail = |e| CorpusError::table(path, e);
    let required = |name: &str| required_strings(path, frame, name).map(Vec::into_iter);
    let lang: Vec<Option<String>> =
        strings_of(frame, "lang").map_err(fail)?.iter().map(|v| v.map(str::to_owned)).collect();
    let seconds = |name: &str| -> Result<Vec<Option<f64>>, CorpusError> {
        Ok(frame.column(name).and_then(|c| c.f64()).map_err(fail)?.iter().collect())
    };
    let counts = |name: &str| -> Result<Vec<Option<u32>>, CorpusError> {
        Ok(frame.column(name).and_then(|c| c.u32()).map_err(fail)?.iter().collect())
    };
    let (mut spk, mut text, mut wav) = (required("spk")?, required("text")?, required("wav")?);
    let (mut start, mut end) = (seconds("start")?.into_iter(), seconds("end")?.into_iter());
    let (mut duration, mut lang) = (seconds("duration")?.into_iter(), lang.into_iter());
    let (mut sample_rate, mut channels) = (counts("sample_rate")?.into_iter(), counts("channels")?.into_iter());
    let named = frame.column("channel").is_ok();
    let mut channel = if named { counts("channel")? } else { Vec::new() }.into_iter();
    let mut decoder = match frame.column("decoder") {
        Ok(column) => column.str().map_err(fail)?.iter().map(|value| value.map(str::to_owned)).collect(),
        Err(_) => Vec::new(),
    }
    .into_iter();
    Ok(required("utt")?
        .map(|utt| Utterance {
            utt,
            spk: spk.next().unwrap_or_default(),
            text: text.next().unwrap_or_default(),
            lang: lang.next().flatten(),
            wav: wav.next().unwrap_or_default(),
            start: start.next().flatten(),
            end: end.next().flatten(),
            duration: duration.next().flatten(),
            sample_rate: sample_rate.next().flatten(),
            channels: channels.next().flatten(),
            channel: channel.next().flatten(),
            decoder: decoder.next().flatten(),
        })
        .collect())
}

/// Returns a column of strings.
fn strings_of<'a>(frame: &'a DataFrame, name: &str) -> PolarsResult<&'a StringChunked> {
    frame.column(name)?.str()
}

/// Returns a column of strings without missing values.
fn required_strings(path: &Path, frame: &DataFrame, name: &str) -> Result<Vec<String>, CorpusError> {
    strings_of(frame, name)
        .map_err(|e| CorpusError::table(path, e))?
        .iter()
        .enumerate()
        .map(|(row, value)| {
            value.map(str::to_owned).ok_or_else(|| {
                CorpusError::structure(path, format!("row {row} has no `{name}`; the file was not written by Flowmill"))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flipped_bit_of_a_footer_ends_in_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        let names = Column::new("utt".into(), ["a", "b", "c"]);
        write_frame(&path, DataFrame::new(3, vec![names]).unwrap()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let length = u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().unwrap()) as usize;
        let mut refused = 0;
        for bit in 8 * (whole.len() - 8 - length)..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).unwrap();
            refused += usize::from(read_frame(&path, None).is_err());
        }
        assert!(refused > 0);
    }
}
