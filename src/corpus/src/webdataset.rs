//! WebDataset: tar files in which the members of one key are one utterance (`KEY.flac`, `KEY.json`, `KEY.txt`).
//!
//! A key is a member's path up to the first dot of its last part, as the `webdataset` package has it. The recording is the member
//! with an extension of [`AUDIO_EXTENSIONS`]; `KEY.json` says the rest, by the names public pipelines use ([`fields`]), and
//! `KEY.txt` or `KEY.lab` is the transcript when the JSON has none. Members of a key need not be neighbours.
//!
//! Only headers and transcripts are read here. Nothing is extracted: a row names the tar file and where its recording's bytes are
//! ([`TarMember`]), and every later reader takes them from there. Compressed tar files are refused, for their bytes have no place
//! that could be named.

mod fields;
mod samples;
mod shards;

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use fields::FIELDS;
pub use shards::shards;

use crate::folder::empty_row;
#[cfg(doc)]
use crate::source::TarMember;
use crate::{CorpusError, Reading, Row};
use samples::{Found, Shard};

/// Extensions of members that are recordings, in lower case.
pub const AUDIO_EXTENSIONS: [&str; 12] =
    ["wav", "flac", "mp3", "ogg", "opus", "m4a", "aac", "aiff", "aif", "caf", "mp2", "mka"];

/// What an utterance is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ids {
    /// As its JSON says; by its key when that says nothing.
    #[default]
    Json,
    /// By its key.
    Key,
    /// By its shard and its key, for shards that each count from zero.
    Shard,
}

/// How to read a source.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The speaker of utterances whose JSON names none; without it each is its own speaker.
    pub speaker: Option<&'a str>,
    /// What utterances are called.
    pub ids: Ids,
}

/// Reads the utterances of tar files: `data` is one, a folder of them, or a pattern such as `shard-{000000..000012}.tar`.
///
/// `root` is the recipe's folder; paths of the result are relative to it. What is wrong with a member, a key or a damaged tar file
/// is a rejected row each.
///
/// # Errors
/// [`CorpusError::Structure`] when there is no tar file, or a compressed one; [`CorpusError::Io`] for one that cannot be read.
pub fn read(root: &Path, data: &str, options: &Options) -> Result<Reading, CorpusError> {
    let shards = shards(root, data)?;
    let read: Vec<Shard> =
        shards.par_iter().map(|shard| samples::read(root, shard, options)).collect::<Result<_, _>>()?;
    let mut reading = Reading { files: shards.iter().map(|shard| root.join(shard)).collect(), ..Reading::default() };
    let mut found = Vec::new();
    let mut passed_over: BTreeMap<String, u64> = BTreeMap::new();
    for shard in read {
        found.extend(shard.found);
        reading.rejected.extend(shard.rejected);
        reading.warnings.extend(shard.warnings);
        shard.passed_over.into_iter().for_each(|(kind, count)| *passed_over.entry(kind).or_default() += count);
    }
    if !passed_over.is_empty() {
        let kinds: Vec<String> = passed_over.iter().take(20).map(|(kind, count)| format!("{count} {kind}")).collect();
        reading.warnings.push(format!("members that are neither recording nor transcript: {}", kinds.join(", ")));
    }
    push_all(&mut reading, found);
    Ok(reading.counted())
}

/// Appends the rows in C order of their ids; of the same id only the first.
fn push_all(reading: &mut Reading, mut found: Vec<Found>) {
    found.par_sort_by(|a, b| a.id.cmp(&b.id));
    let mut first: Option<&Found> = None;
    for row in &found {
        if let Some(first) = first.filter(|first| first.id == row.id) {
            let (here, there) = (&row.place, &first.place);
            let help = "where every shard counts from zero, set `ids: shard` at this source";
            reading.reject(&row.id, format!("repeated id: {here} has the id of {there}; {help}"));
            continue;
        }
        first = Some(row);
        reading.utterances.push(Row {
            utt: &row.id,
            spk: &row.speaker,
            text: &row.text,
            lang: row.language.as_deref(),
            wav: &row.wav,
            duration: row.duration,
            ..empty_row()
        });
    }
}
