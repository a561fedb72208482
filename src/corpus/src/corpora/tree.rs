//! Corpora whose recordings are found by searching a folder tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rayon::prelude::*;

use super::names::TextForm;
use super::{Corpus, Listing};
use crate::lines::{Line, TextFile, split_key};
use crate::paths::{joined, prefix_of};
use crate::reading::Candidate;
use crate::samples::{extension, stem};
use crate::{CorpusError, ReadOptions, Reading, Rejection, folder, split, values};

/// The microphone of VCTK that is read if the recipe names none.
const MICROPHONE: u8 = 1;

/// The transcript of an utterance.
#[derive(Debug)]
struct Transcript {
    id: String,
    rank: u8,
    /// The transcript, or the reason why it cannot be used.
    text: Result<String, String>,
    /// The file, and in a list the line.
    place: String,
}

/// Lists the recordings and the files with transcripts.
pub(super) fn list(root: &Path, dir: &str, corpus: Corpus) -> Result<Listing, CorpusError> {
    let listing = folder::list(root, dir)?;
    let place = root.join(dir);
    let texts = listing.text.iter().filter(|path| corpus.text_form(path).is_some());
    let files = texts.map(|path| place.join(path)).collect();
    let unusable = listing.unusable.into_iter().map(|(path, _)| path);
    Ok(Listing { files, recordings: listing.audio.into_iter().chain(unusable).collect() })
}

/// Reads a corpus.
pub(super) fn read(root: &Path, dir: &str, corpus: Corpus, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let place = root.join(dir);
    let listing = folder::list(root, dir)?;
    let texts: Vec<(&String, TextForm)> =
        listing.text.iter().filter_map(|path| Some((path, corpus.text_form(path)?))).collect();
    if texts.is_empty() {
        return Err(CorpusError::structure(&place, format!("has no transcripts: {} is expected", corpus.expected())));
    }
    let read: Vec<Vec<Transcript>> =
        texts.par_iter().map(|(path, form)| transcripts(&place, path, *form, corpus)).collect::<Result<_, _>>()?;
    let mut reading = Reading { files: texts.iter().map(|(path, _)| place.join(path)).collect(), ..Reading::default() };
    reading.warnings.extend(listing.folders_warning());
    reading.rejected.extend(listing.unusable.iter().cloned().map(|(id, reason)| Rejection { id, reason }));
    let mut by_id: BTreeMap<String, Transcript> = BTreeMap::new();
    for transcript in read.into_iter().flatten() {
        match by_id.get(&transcript.id) {
            Some(first) if first.rank == transcript.rank => {
                let reason = format!("repeated id: {} has the id of {}", transcript.place, first.place);
                reading.rejected.push(Rejection { id: transcript.id, reason });
            }
            Some(first) if first.rank < transcript.rank => {}
            _ => drop(by_id.insert(transcript.id.clone(), transcript)),
        }
    }
    let prefix = prefix_of(dir);
    // The folder of a split may be the source itself.
    let own_split = split::of_path(&format!("{}/", dir.trim_end_matches('/').rsplit('/').next().unwrap_or_default()))
        .map(str::to_owned);
    let (mut rows, mut left_out, mut taken) = (Vec::new(), 0u64, BTreeSet::new());
    let (chosen, others) = by_microphone(&listing.audio, corpus, options);
    for path in chosen {
        let Some(name) = corpus.name(path) else {
            let reason = format!("bad name: {path}: {} is expected", corpus.expected());
            reading.reject(&crate::ids::of_path(stem(path)), reason);
            continue;
        };
        let transcript = by_id.get(name.id);
        let text = match transcript {
            None => Err(format!("{path} has no transcript")),
            Some(transcript) => transcript.text.clone(),
        };
        taken.insert(name.id.to_owned());
        if let Some(Err(problem)) = transcript.map(|transcript| &transcript.text)
            && !problem.is_empty()
        {
            reading.reject(name.id, problem);
            continue;
        }
        let wav = joined(&prefix, path);
        rows.push(Candidate {
            id: name.id.to_owned(),
            origin: None,
            speaker: Some(name.speaker.to_owned()),
            text: text.map_err(|_| match transcript {
                None => format!("{path} has no transcript"),
                Some(transcript) => format!("{} is empty", transcript.place),
            }),
            language: corpus.language(&wav).map(str::to_owned),
            split: split::of_path(path).map(str::to_owned).or_else(|| own_split.clone()),
            wav,
            start: None,
            end: None,
            duration: None,
            extra: None,
            place: path.clone(),
        });
    }
    for path in others {
        match corpus.name(path).filter(|name| !taken.contains(name.id)) {
            None => left_out += 1,
            Some(name) => {
                let reason = format!("no recording: {path} is of another microphone; `microphone: N` chooses it");
                reading.reject(name.id, reason);
                taken.insert(name.id.to_owned());
            }
        }
    }
    for transcript in by_id.values().filter(|transcript| !taken.contains(&transcript.id)) {
        reading.reject(&transcript.id, format!("no recording: only {}", transcript.place));
    }
    if left_out > 0 {
        reading.warnings.push(format!("{left_out} recordings of the other microphone are left out (`microphone: 2`)"));
    }
    let texts = rows.iter().any(|row| row.text.is_ok());
    Ok(reading.take(rows, texts, options, ""))
}

/// Returns the recordings to read, and those of another microphone.
fn by_microphone<'a>(
    audio: &'a [String],
    corpus: Corpus,
    options: &ReadOptions<'_>,
) -> (Vec<&'a String>, Vec<&'a String>) {
    let wanted = options.microphone.unwrap_or(MICROPHONE);
    audio.iter().partition(|path| {
        corpus.name(path).and_then(|name| name.microphone).is_none_or(|microphone| microphone == wanted)
    })
}

/// Reads the transcripts of a file. A transcript without words has the empty error.
fn transcripts(place: &Path, path: &str, form: TextForm, corpus: Corpus) -> Result<Vec<Transcript>, CorpusError> {
    let gone = || CorpusError::structure(&place.join(path), "is gone");
    let file = match TextFile::open(place, path) {
        Err(CorpusError::Structure { problem, .. }) if matches!(form, TextForm::Own { .. }) => {
            let text = Err(format!("bad transcript: {path} {problem}"));
            return Ok(vec![Transcript { id: own_id(path), rank: 0, text, place: path.to_owned() }]);
        }
        file => file?.ok_or_else(gone)?,
    };
    match form {
        TextForm::Own { rank } => {
            let text: Result<Vec<&str>, String> = file.lines().iter().map(|line| file.text(line)).collect();
            let text = text.map_err(|problem| format!("transcript not UTF-8: {path} {problem}"));
            let text = text.and_then(|lines| checked(&lines.join(" "), path));
            Ok(vec![Transcript { id: own_id(path), rank, text, place: path.to_owned() }])
        }
        TextForm::List => Ok(file.lines().par_iter().map(|line| of_line(&file, line, path, corpus)).collect()),
    }
}

/// Returns the transcript of a line of a list.
fn of_line(file: &TextFile, line: &Line, path: &str, corpus: Corpus) -> Transcript {
    let place = format!("{path}:{}", line.number);
    let shown = file.lossy(line);
    let key = split_key(&shown).0;
    // AISHELL-3 names the file.
    let id = if extension(key).eq_ignore_ascii_case("wav") { stem(key) } else { key }.to_owned();
    let text = file.text(line).map_err(|problem| format!("transcript not UTF-8: {path} {problem}"));
    let text = text.and_then(|text| {
        let rest = corpus.text(split_key(text).1).map_err(|problem| format!("bad transcript: {place} {problem}"))?;
        checked(&rest, &place)
    });
    Transcript { id, rank: 0, text, place }
}

/// Returns the id of the utterance whose transcript a file is: its name up to the first dot.
fn own_id(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split('.').next().unwrap_or(name).to_owned()
}

/// Returns a checked transcript on one line; the empty error if it has no words.
fn checked(text: &str, place: &str) -> Result<String, String> {
    let text = values::transcript(text).map_err(|problem| format!("bad transcript: {place} {problem}"))?;
    text.map(std::borrow::Cow::into_owned).ok_or_else(String::new)
}
