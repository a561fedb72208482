//! Manifests of lhotse, plain or compressed: cuts, recordings with supervisions, and shar.
//!
//! | files | rows |
//! |---|---|
//! | `cuts.jsonl.gz` | a row for each supervision of a cut; a cut without one is a row without text |
//! | `recordings.jsonl.gz` with `supervisions.jsonl.gz` | a row for each supervision |
//! | `cuts.000000.jsonl.gz` with `recording.000000.tar` (shar) | as for cuts; the recordings are members of the tar file |
//!
//! Relative paths start from the folder of the manifest, or from the folder that the source names. A row that is a whole
//! recording has no times.

mod files;
mod load;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value, json};

pub use files::files;

use crate::manifest::{Parsed, folder_of, name_below, split_by_name, taken};
use crate::objects::RowReader;
use crate::paths::joined;
use crate::reading::Candidate;
use crate::{CorpusError, ReadOptions, Reading, Rejection};
use files::sets;
use load::{Recording, for_lines, members, recordings, text};

/// The largest difference between the ends of a cut and of its recording, in seconds, at which the cut is the whole.
const WHOLE: f64 = 1e-3;

/// A problem of a row, after its place.
type Problem = String;

/// Reads the manifests of a source.
///
/// # Errors
/// [`CorpusError::Structure`] if there is none or one is damaged as a whole; [`CorpusError::Io`].
pub fn read(root: &Path, path: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let mut reading = Reading::default();
    let mut parsed = Parsed::new();
    for set in sets(root, path)? {
        let name = name_below(path, &set.rows);
        let reader = Reader {
            rows: RowReader::new(folder_of(&set.rows), "bad row of lhotse", options),
            name,
            recordings: set.recordings.as_ref().map(|path| recordings(&root.join(path))).transpose()?,
            members: set.tar.as_deref().map(|tar| members(root, tar)).transpose()?,
        };
        let mut rows = Parsed::new();
        for_lines(&root.join(&set.rows), &mut |place, line| rows.extend(reader.rows_of(place, line)))?;
        reading.rejected.extend(reader.unused(&rows));
        split_by_name(rows.iter_mut().flatten(), name);
        parsed.append(&mut rows);
        let files = [Some(set.rows), set.recordings, set.tar].into_iter().flatten();
        reading.files.extend(files.map(|path| root.join(path)));
    }
    Ok(taken(reading, parsed, options))
}

/// The reader of one set of files.
struct Reader<'a> {
    rows: RowReader<'a>,
    /// The file's name for messages.
    name: &'a str,
    recordings: Option<HashMap<String, Recording>>,
    members: Option<HashMap<String, String>>,
}

impl Reader<'_> {
    /// Returns the rows of a line.
    fn rows_of(&self, line: u32, value: Result<Value, Problem>) -> Parsed {
        let place = format!("{}:{line}", self.name);
        let value = match value {
            Ok(value @ Value::Object(_)) => value,
            Ok(_) => return vec![self.rows.row(Err("is not a JSON object".into()), None, place)],
            Err(problem) => return vec![self.rows.row(Err(problem), None, place)],
        };
        let id = text(&value, "id");
        if value.get("tracks").is_some() {
            let problem = "is a mixed cut; it has no recording of its own";
            return vec![self.rows.row(Err(problem.into()), id, place)];
        }
        let empty = Vec::new();
        let supervisions = value.get("supervisions").and_then(Value::as_array).unwrap_or(&empty);
        let is_cut = value.get("supervisions").is_some() || value.get("recording").is_some();
        match (is_cut, supervisions.as_slice()) {
            (false, _) => vec![self.row(&value, &value, 0.0, place)],
            (true, []) => vec![self.row(&value, &value, 0.0, place)],
            // A cut with one supervision is the utterance, with what is before and after it.
            (true, [one]) => {
                let mut row = value.clone();
                for name in ["text", "speaker", "language"] {
                    row[name] = one.get(name).cloned().unwrap_or_default();
                }
                vec![self.row(&row, &value, 0.0, place)]
            }
            (true, several) => {
                let start = value.get("start").and_then(Value::as_f64).unwrap_or(0.0);
                several.iter().map(|one| self.row(one, &value, start, place.clone())).collect()
            }
        }
    }

    /// Returns the row of a cut or of a supervision; times of a supervision in a cut count from `start`.
    fn row(&self, row: &Value, cut: &Value, start: f64, place: String) -> Result<Candidate, Rejection> {
        let id = text(row, "id");
        let number = |name: &str| row.get(name).and_then(Value::as_f64);
        let found = self.recording(cut);
        let (wav, in_tar, length) = match found {
            Ok(found) => found,
            Err(problem) => return self.rows.row(Err(problem), id, place),
        };
        let (Some(begin), Some(duration)) = (number("start"), number("duration")) else {
            return self.rows.row(Err("has no `start` and `duration`".into()), id, place);
        };
        // The recordings of shar are cut to their cuts.
        let cut_start = cut.get("start").and_then(Value::as_f64).filter(|_| in_tar).unwrap_or(0.0);
        let begin = begin + start - cut_start;
        let length = if in_tar { cut.get("duration").and_then(Value::as_f64) } else { length };
        let is_whole = begin.abs() < WHOLE && length.is_none_or(|length| (length - duration).abs() < WHOLE);
        let mut object: Map<String, Value> = row.as_object().cloned().unwrap_or_default();
        if let Some(Value::Object(custom)) = object.shift_remove("custom") {
            for (name, value) in custom {
                object.entry(name).or_insert(value);
            }
        }
        for name in ["recording", "supervisions", "features", "type"] {
            object.shift_remove(name);
        }
        object
            .insert("audio_filepath".into(), json!(if in_tar { id.clone().unwrap_or_default() } else { wav.clone() }));
        if !is_whole {
            object.insert("offset".into(), json!(begin));
        }
        object.insert("utt".into(), json!(id));
        // Without it the row would be told to have times that are not read.
        object.shift_remove("start");
        let mut row = self.rows.row(Ok(object.into()), id, place)?;
        if in_tar {
            row.wav = wav;
        }
        row.start = row.start.filter(|_| !is_whole);
        row.end = row.end.filter(|_| !is_whole);
        // Lhotse names channels from 0 too; a list of several is their mean.
        Ok(row)
    }

    /// Returns the recording of a cut or supervision: its path, whether it is a member of a tar file, and its duration.
    fn recording(&self, cut: &Value) -> Result<(String, bool, Option<f64>), Problem> {
        if let Some(members) = &self.members {
            let id = text(cut, "id").unwrap_or_default();
            let wav = members.get(&id).ok_or("has no recording in the tar file of its shard")?;
            return Ok((wav.clone(), true, None));
        }
        let recording = match (cut.get("recording"), &self.recordings) {
            (Some(recording), _) => Recording::of(recording),
            (None, Some(recordings)) => {
                let id = text(cut, "recording_id").ok_or("names no recording")?;
                recordings.get(&id).cloned().ok_or(format!("names the recording {id}, which recordings.jsonl lacks"))?
            }
            (None, None) => return Err("has no recording, and there is no recordings.jsonl.gz next to it".into()),
        };
        Ok((recording.path?, false, recording.duration))
    }

    /// Returns rejections of recordings without a supervision.
    fn unused(&self, rows: &Parsed) -> Vec<Rejection> {
        let Some(recordings) = &self.recordings else { return Vec::new() };
        let prefix = self.rows.prefix();
        let used: HashSet<&str> = rows.iter().flatten().map(|row| row.wav.as_str()).collect();
        let is_rejected: HashSet<&str> =
            rows.iter().filter_map(|row| row.as_ref().err()).map(|row| row.id.as_str()).collect();
        let mut unused: Vec<Rejection> = recordings
            .iter()
            .filter(|(id, recording)| {
                let path = recording.path.as_deref().map(|path| joined(prefix, path)).unwrap_or_default();
                !used.contains(path.as_str()) && !is_rejected.contains(id.as_str())
            })
            .map(|(id, _)| Rejection { id: id.clone(), reason: format!("no supervision: the recording {id} has none") })
            .collect();
        unused.sort_by(|a, b| a.id.cmp(&b.id));
        unused
    }
}
