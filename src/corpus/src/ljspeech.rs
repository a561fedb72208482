//! The LJSpeech layout: `metadata.csv` with `id|text|normalised text`, recordings in `wavs/`.
//!
//! The file is not CSV in the usual sense: fields are parted by `|` and quotes are ordinary characters.

use std::path::Path;

use crate::folder::{self, empty_row};
use crate::kaldi::check_transcript;
use crate::lines::TextFile;
use crate::paths::{joined, prefix_of};
use crate::{CorpusError, Reading, Row};

/// Reads `dir/metadata.csv`. The text is the third field where it is there and not empty, else the second; every utterance has the
/// one speaker given.
///
/// A recording is `wavs/ID` with whichever audio extension exists (`wav` when none does, so that the probe names the missing file).
///
/// # Errors
/// [`CorpusError::Structure`] when there is no `metadata.csv` or it is empty.
pub fn read_directory(root: &Path, dir: &str, speaker: &str) -> Result<Reading, CorpusError> {
    let folder = root.join(dir);
    let file = TextFile::open(&folder, "metadata.csv")?
        .ok_or_else(|| CorpusError::structure(&folder, "has no `metadata.csv` (lines of `id|text|normalised text`)"))?;
    let lines = file.lines();
    if lines.is_empty() {
        return Err(CorpusError::structure(&file.path, "is empty; it should hold lines of `id|text|normalised text`"));
    }
    let recordings = recordings(root, dir)?;
    let mut reading = Reading { files: vec![file.path.clone()], ..Reading::default() };
    let mut rows = Vec::with_capacity(lines.len());
    for line in &lines {
        let parsed = file.text(line).and_then(parse);
        match parsed {
            Ok((id, text)) => rows.push((id, text, line.number)),
            Err(problem) => {
                let shown = file.lossy(line);
                let id = shown.split('|').next().unwrap_or_default();
                reading.reject(id, format!("bad line in metadata.csv: line {} {problem}", line.number));
            }
        }
    }
    rows.sort_unstable();
    let prefix = prefix_of(dir);
    let mut previous: Option<(&str, u32)> = None;
    for (id, text, number) in rows {
        if let Some((last, line)) = previous
            && last == id
        {
            reading.reject(id, format!("repeated id: metadata.csv:{number} has the id of line {line}"));
            continue;
        }
        previous = Some((id, number));
        let wav = joined(&prefix, &recording_of(&recordings, id));
        reading.utterances.push(Row { utt: id, spk: speaker, text, wav: &wav, ..empty_row() });
    }
    Ok(reading.counted())
}

/// Splits a line into its id and its text.
fn parse(line: &str) -> Result<(&str, &str), String> {
    let mut fields = line.split('|').map(str::trim);
    let id = fields.next().unwrap_or_default();
    let (raw, normalised) = (fields.next(), fields.next());
    if id.is_empty() {
        return Err("has no id before the first `|`".into());
    }
    if fields.next().is_some() {
        return Err("has more than three fields".into());
    }
    let raw = raw.ok_or("has no `|`; a line is `id|text|normalised text`")?;
    let text = normalised.filter(|text| !text.is_empty()).unwrap_or(raw);
    check_transcript(text).map(|text| (id, text))
}

/// The recordings in `wavs/`, sorted; none when there is no such folder.
fn recordings(root: &Path, dir: &str) -> Result<Vec<String>, CorpusError> {
    let wavs = joined(&prefix_of(dir), "wavs");
    if root.join(&wavs).is_dir() { Ok(folder::list(root, &wavs)?.audio) } else { Ok(Vec::new()) }
}

/// The path of an id's recording below the directory.
fn recording_of(recordings: &[String], id: &str) -> String {
    let start = format!("{id}.");
    let at = recordings.partition_point(|path| path.as_str() < start.as_str());
    match recordings.get(at).filter(|path| path.starts_with(&start)) {
        Some(path) => format!("wavs/{path}"),
        None => format!("wavs/{id}.wav"),
    }
}
