//! JSON-lines manifests as NeMo writes them: one object a line with `audio_filepath`, `text`, `duration`, and optionally `offset`,
//! `speaker`, `lang` and an id.

use std::path::Path;

use rayon::prelude::*;
use serde::Deserialize;

use crate::folder::empty_row;
use crate::kaldi::check_transcript;
use crate::lines::{Line, TextFile};
use crate::paths::{joined, prefix_of};
use crate::{CorpusError, Reading, Row};

/// One line of a manifest; unknown keys are ignored, as NeMo does.
#[derive(Debug, Deserialize)]
struct Record {
    audio_filepath: String,
    text: String,
    duration: Option<f64>,
    offset: Option<f64>,
    #[serde(alias = "spk", alias = "speaker_id")]
    speaker: Option<serde_json::Value>,
    #[serde(alias = "language")]
    lang: Option<String>,
    #[serde(alias = "utt", alias = "utt_id", alias = "utterance_id")]
    id: Option<String>,
}

/// A record that passed its checks.
struct Checked {
    id: String,
    speaker: String,
    record: Record,
    line: u32,
}

/// Reads a manifest. Relative `audio_filepath`s are relative to the manifest's folder. Without an id of its own, a row is named
/// after its recording's path without extension (`/` replaced by `-`), with its offset in milliseconds when it has one; without a
/// speaker, the row's own id is its speaker.
///
/// # Errors
/// [`CorpusError::Structure`] when the file is missing or empty.
pub fn read_file(root: &Path, path: &str) -> Result<Reading, CorpusError> {
    let full = root.join(path);
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = if path.starts_with('/') && parent.is_empty() { "/" } else { parent };
    let file = TextFile::open(&root.join(folder), name)?
        .ok_or_else(|| CorpusError::structure(&full, "does not exist; a JSON-lines manifest is expected here"))?;
    let lines = file.lines();
    if lines.is_empty() {
        return Err(CorpusError::structure(&full, "is empty; it should hold a JSON object a line"));
    }
    let parsed: Vec<Result<Checked, (String, String)>> =
        lines.par_iter().map(|line| parse(&file, name, line)).collect();
    let mut reading = Reading { files: vec![full], ..Reading::default() };
    let mut rows = Vec::with_capacity(parsed.len());
    for outcome in parsed {
        match outcome {
            Ok(checked) => rows.push(checked),
            Err((id, reason)) => reading.reject(&id, reason),
        }
    }
    rows.par_sort_unstable_by(|a, b| (&a.id, a.line).cmp(&(&b.id, b.line)));
    let prefix = prefix_of(folder);
    let mut previous: Option<(&str, u32)> = None;
    for row in &rows {
        if let Some((id, line)) = previous
            && id == row.id
        {
            reading.reject(id, format!("repeated id: {name}:{} has the id of line {line}", row.line));
            continue;
        }
        previous = Some((&row.id, row.line));
        push(&mut reading, &prefix, row);
    }
    Ok(reading.counted())
}

/// Appends a checked row.
fn push(reading: &mut Reading, prefix: &str, row: &Checked) {
    let wav = joined(prefix, &row.record.audio_filepath);
    let start = row.record.offset;
    let end = start.zip(row.record.duration).map(|(start, duration)| start + duration);
    reading.utterances.push(Row {
        utt: &row.id,
        spk: &row.speaker,
        text: &row.record.text,
        lang: row.record.lang.as_deref().filter(|lang| !lang.is_empty()),
        wav: &wav,
        start,
        end,
        duration: row.record.duration,
        ..empty_row()
    });
}

/// Parses and checks one line; an error is an id (as far as known) and a reason.
fn parse(file: &TextFile, name: &str, line: &Line) -> Result<Checked, (String, String)> {
    let described = |problem: String| format!("bad line in the manifest: {name}:{} {problem}", line.number);
    let unnamed = |problem: String| (format!("{name}:{}", line.number), described(problem));
    let text = file.text(line).map_err(unnamed)?;
    let mut record: Record = serde_json::from_str(text).map_err(|e| unnamed(format!("is no manifest row: {e}")))?;
    let id = match record.id.take() {
        Some(id) => id,
        None => id_of(&record),
    };
    let reject = |problem: String| (id.clone(), described(problem));
    if id.is_empty() || record.audio_filepath.is_empty() {
        return Err(unnamed("has no `audio_filepath`".into()));
    }
    if record.audio_filepath.ends_with('|') {
        return Err(reject("is a command; a manifest names files".into()));
    }
    record.text = check_transcript(record.text.trim()).map_err(reject)?.to_owned();
    for (what, value) in [("duration", record.duration), ("offset", record.offset)] {
        if value.is_some_and(|v| !v.is_finite() || v < 0.0) {
            return Err(reject(format!("has a `{what}` that is no number of seconds")));
        }
    }
    if record.offset.is_some() && record.duration.is_some_and(|d| d <= 0.0) {
        return Err(reject("has an `offset` and no duration after it".into()));
    }
    // A whole recording is often given with `offset: 0`; only a duration makes it a piece.
    if record.duration.is_none() && record.offset == Some(0.0) {
        record.offset = None;
    }
    let speaker = match record.speaker.take() {
        Some(serde_json::Value::String(speaker)) if !speaker.trim().is_empty() => speaker.trim().to_owned(),
        Some(serde_json::Value::Number(number)) => number.to_string(),
        _ => id.clone(),
    };
    Ok(Checked { id, speaker, record, line: line.number })
}

/// An id made of the recording's path and the offset.
fn id_of(record: &Record) -> String {
    let path = record.audio_filepath.trim_start_matches(['.', '/']);
    let stem = match path.rsplit_once('.') {
        Some((stem, extension)) if !extension.contains('/') => stem,
        _ => path,
    };
    let stem = stem.replace(['/', ' '], "-");
    match record.offset {
        Some(offset) if offset > 0.0 => format!("{stem}-{:07.0}", offset * 1000.0),
        _ => stem,
    }
}
