//! Folders of video clips, whose sound is in the same files.
//!
//! | layout | rows |
//! |---|---|
//! | [`Layout::Clips`] | every video; the group is the folder that contains it, or the file's own name at the top |
//! | [`Layout::Ravdess`] | files named `MM-CC-EE-II-SS-RR-AA`; the group is the actor, the emotion is a column ([`ravdess`]) |
//!
//! A row has the medium [`Role::Video`](crate::Role), and the same file as its recording. Whether a clip has sound shows only when it is
//! opened.

pub mod ravdess;

use std::collections::BTreeMap;
use std::path::Path;

use crate::paths::{joined, prefix_of};
use crate::reading::Candidate;
use crate::samples::{extension, stem};
use crate::utterances::Extra;
use crate::walk::{FoundFile, Walk, walk};
use crate::{CorpusError, MediaRef, ReadOptions, Reading, Role, ids, values};

/// Endings of videos, in lower case.
pub const EXTENSIONS: [&str; 14] =
    ["mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "vob", "ts", "m2ts", "flv", "wmv", "3gp"];

/// The naming of clips in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Any names.
    Clips,
    /// The names of RAVDESS, which has recordings of sound (`.wav`) too.
    Ravdess,
}

/// The files of a source, as sorted paths relative to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Paths of clips, and of recordings of sound where the layout has them.
    pub clips: Vec<String>,
    /// Clips whose names make them unusable, each with the reason.
    pub unusable: Vec<(String, String)>,
    /// The number of other files by kind.
    pub others: BTreeMap<String, u64>,
}

/// Lists a folder and its subfolders; `root` is the recipe's folder and `dir` the source as the recipe names it.
///
/// # Errors
/// [`CorpusError::Structure`] when it is not a directory, [`CorpusError::Io`] when it cannot be listed.
pub fn list(root: &Path, dir: &str, layout: Layout) -> Result<Listing, CorpusError> {
    let folder = root.join(dir);
    if !folder.is_dir() {
        return Err(CorpusError::structure(&folder, "is not a directory; a folder of video clips is expected here"));
    }
    let Walk { files, .. } = walk(&folder)?;
    let mut listing = Listing::default();
    for file in files {
        let ending = extension(&file.path).to_ascii_lowercase();
        let is_clip = EXTENSIONS.contains(&ending.as_str()) || (layout == Layout::Ravdess && ending == "wav");
        match is_clip {
            false => *listing.others.entry(crate::folder::other_kind(&file.path)).or_default() += 1,
            true => match problem_of(&file) {
                Some(reason) => listing.unusable.push((file.path, reason)),
                None => listing.clips.push(file.path),
            },
        }
    }
    Ok(listing)
}

/// Returns why a file cannot be a row because of its name.
fn problem_of(file: &FoundFile) -> Option<String> {
    let path = &file.path;
    if !file.is_utf8 {
        return Some(format!("bad name: the name of {path} is not UTF-8; rename it"));
    }
    (file.is_hidden || file.in_hidden)
        .then(|| format!("hidden clip: {path} or its folder has a name that begins with a dot; rename or delete it"))
}

/// Reads the rows of a folder of clips.
///
/// # Errors
/// See [`list`]; [`CorpusError::Structure`] when there is no clip.
pub fn read_directory(
    root: &Path,
    dir: &str,
    layout: Layout,
    options: &ReadOptions<'_>,
) -> Result<Reading, CorpusError> {
    let Listing { clips, unusable, others } = list(root, dir, layout)?;
    if clips.is_empty() && unusable.is_empty() {
        return Err(CorpusError::structure(&root.join(dir), "contains no video clip (.mp4, .mov, .mkv …)"));
    }
    let prefix = prefix_of(dir);
    let mut reading = Reading::default();
    unusable.iter().for_each(|(path, reason)| reading.reject(path, reason.clone()));
    let (mut rows, mut texts) = (Vec::with_capacity(clips.len()), false);
    let sounds: Vec<&str> = clips.iter().filter(|path| is_sound(path)).map(|path| stem(path)).collect();
    for path in &clips {
        let row = match layout {
            Layout::Clips => clip(path, &prefix),
            // The listing is sorted.
            Layout::Ravdess if !is_sound(path) && sounds.binary_search(&stem(path)).is_ok() => {
                Err(format!("repeated recording: {path} is also there as .wav, which is read"))
            }
            Layout::Ravdess => ravdess::row(path, &prefix),
        };
        match row.and_then(|row| values::id(&row.id).map(|()| row).map_err(|problem| format!("bad id: {problem}"))) {
            Ok(row) => {
                texts |= row.text.is_ok();
                rows.push(row);
            }
            Err(reason) => reading.reject(&ids::of_path(path), reason),
        }
    }
    if !others.is_empty() {
        let kinds: Vec<String> = others.iter().take(20).map(|(kind, count)| format!("{count} {kind}")).collect();
        reading.warnings.push(format!("files that are no clips: {}", kinds.join(", ")));
    }
    Ok(reading.take(rows, texts, options, "; rename one"))
}

fn is_sound(path: &str) -> bool {
    extension(path).eq_ignore_ascii_case("wav")
}

/// Returns the row of a clip with any name.
fn clip(path: &str, prefix: &str) -> Result<Candidate, String> {
    let key = stem(path);
    let group = key.rsplit_once('/').map_or(key, |(folder, _)| folder);
    let media = BTreeMap::from([(Role::Video, vec![MediaRef(joined(prefix, path))])]);
    Ok(Candidate {
        id: ids::of_path(key),
        origin: Some(path.to_owned()),
        speaker: Some(ids::of_path(group)),
        text: Err(format!("{path} has no text")),
        language: None,
        wav: joined(prefix, path),
        start: None,
        end: None,
        duration: None,
        split: None,
        extra: Some(Box::new(Extra { media, ..Extra::default() })),
        place: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[&str], layout: Layout) -> Reading {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join("d").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        read_directory(dir.path(), "d", layout, &ReadOptions::default()).unwrap()
    }

    #[test]
    fn clips_are_grouped_by_folder_or_by_their_own_name() {
        let reading = read(&["ann/1.mp4", "ann/2.MOV", "bob.mkv", "notes.txt", ".x.mp4"], Layout::Clips);
        let rows: Vec<_> = reading.utterances.iter().map(|row| (row.utt, row.spk, row.wav)).collect();
        let expected = [("ann-1", "ann", "d/ann/1.mp4"), ("ann-2", "ann", "d/ann/2.MOV"), ("bob", "bob", "d/bob.mkv")];
        assert_eq!(rows, expected);
        let extra = reading.utterances.row(0).extra.unwrap();
        assert_eq!(extra.media[&Role::Video], [MediaRef("d/ann/1.mp4".into())]);
        // The warnings: a file that is no clip, and no transcripts.
        assert_eq!((reading.rejected.len(), reading.lines, reading.warnings.len()), (1, 4, 2));
    }

    #[test]
    fn ravdess_names_give_actor_emotion_and_media() {
        let files = [
            "Actor_21/01-01-03-01-02-01-21.mp4",
            "Actor_21/02-01-03-01-02-01-21.mp4",
            "Actor_21/03-01-08-01-01-01-21.wav",
            "Actor_21/03-01-08-01-01-01-21.mp4",
            "Actor_21/03-01-04-01-01-01-21.mp4",
            "Actor_21/01-01-09-01-01-01-21.mp4",
            "Actor_21/holiday.mp4",
        ];
        let reading = read(&files, Layout::Ravdess);
        let label = |row: &crate::UtteranceRow<'_>| {
            let extra = row.extra.unwrap();
            let label = extra.columns[ravdess::EMOTION].values::<String>().unwrap()[0].clone();
            (row.utt.to_owned(), label, !row.wav.is_empty(), extra.media.contains_key(&Role::Video))
        };
        let rows: Vec<_> = reading.utterances.iter().map(|row| label(&row)).collect();
        let row = |id: &str, emotion: &str, sound, video| (id.to_owned(), emotion.to_owned(), sound, video);
        let expected = [
            row("01-01-03-01-02-01-21", "happy", true, true),
            row("02-01-03-01-02-01-21", "happy", false, true),
            row("03-01-04-01-01-01-21", "sad", true, false),
            row("03-01-08-01-01-01-21", "surprise", true, false),
        ];
        assert_eq!(rows, expected);
        assert!(reading.utterances.iter().all(|row| row.spk == "actor_21" && row.lang == Some("en")));
        assert_eq!(reading.utterances.row(0).text, "Dogs are sitting by the door.");
        assert_eq!((reading.rejected.len(), reading.lines), (3, 7));
    }
}
