//! WebDataset: tar files in which the members of one key are one utterance (`KEY.flac`, `KEY.json`, `KEY.txt`).
//!
//! A key is a member's path up to the first dot of its last part, as the `webdataset` package has it. Where several recordings share
//! such a key and their own transcripts show that keys hold dots (`21.00-26.44.flac` with `21.00-26.44.json`), keys end at the last
//! dot ([`samples`]). A member is a recording by its extension or its content; `KEY.json` says the rest, by the names public
//! pipelines use ([`crate::fields::FIELDS`]), and `KEY.txt` or `KEY.lab` is the transcript when the JSON has none. Members of a key
//! need not be neighbours.
//!
//! Only headers, transcripts and the beginnings of members of unknown kinds are read here. Nothing is extracted: a row names the tar
//! file and where its recording's bytes are ([`TarMember`]), and every later reader takes them from there. Compressed tar files are
//! refused, for their bytes have no place that could be named.

mod samples;
mod shards;

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

pub use shards::{check_paths, shards};

use crate::folder::{self, Listing};
#[cfg(doc)]
use crate::source::TarMember;
use crate::{CorpusError, ReadOptions, Reading, Rejection};
use samples::Shard;

/// Reads the utterances of tar files: `data` is one, a folder of them, or a pattern such as `shard-{000000..000012}.tar`.
///
/// `root` is the recipe's folder; paths of the result are relative to it. What is wrong with a key or a damaged tar file is a rejected
/// row each.
///
/// # Errors
/// [`CorpusError::Structure`] when there is no tar file, or one that is compressed or no tar by its content; [`CorpusError::Io`] for one
/// that cannot be read.
pub fn read(root: &Path, data: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let shards = shards(root, data)?;
    let listed: Vec<Shard> = shards.par_iter().map(|shard| Shard::list(root, shard)).collect::<Result<_, _>>()?;
    // Keys that both readings explain follow the others of the source.
    let dotted = listed.iter().any(Shard::has_dotted_keys) || shared_over_shards(&listed);
    let read: Vec<samples::Rows> = listed.into_par_iter().map(|shard| shard.read(dotted, options)).collect();
    let mut reading = Reading { files: shards.iter().map(|shard| root.join(shard)).collect(), ..Reading::default() };
    let (mut rows, mut left_out, mut texts) = (Vec::new(), Vec::new(), false);
    let mut passed_over: BTreeMap<String, u64> = BTreeMap::new();
    for shard in read {
        rows.extend(shard.rows);
        left_out.extend(shard.left_out);
        texts |= shard.texts;
        reading.rejected.extend(shard.rejected);
        reading.warnings.extend(shard.warnings);
        shard.passed_over.into_iter().for_each(|(kind, count)| *passed_over.entry(kind).or_default() += count);
    }
    let folder = listing(root, data)?;
    reading.warnings.extend(folder.folders_warning());
    for path in recordings(folder) {
        let reason = format!(
            "not in a tar file: {path} lies loose among the tar files; pack it, or name its folder as a source"
        );
        reading.rejected.push(Rejection { id: path, reason });
    }
    for path in shards::hidden(root, data)? {
        let reason = format!(
            "hidden tar file: the name of {path}, or of a folder it lies in, begins with a dot; rename or delete it"
        );
        reading.rejected.push(Rejection { id: path, reason });
    }
    if !passed_over.is_empty() {
        let kinds: Vec<String> = passed_over.iter().take(20).map(|(kind, count)| format!("{count} {kind}")).collect();
        reading.warnings.push(format!("members that are neither recording nor transcript: {}", kinds.join(", ")));
    }
    reading.warnings.extend(crate::samples::left_out_warning(&left_out));
    let help = "; where every shard counts from zero, set `ids: shard` at this source";
    Ok(reading.take(rows, texts, options, help))
}

/// Whether recordings in several tar files would have one key if it ended at the first dot, and keys of their own at the last.
fn shared_over_shards(shards: &[Shard]) -> bool {
    let mut longer: BTreeMap<&str, &str> = BTreeMap::new();
    let mut keys = shards.iter().flat_map(Shard::keys_of_either_kind);
    keys.any(|(short, long)| *longer.entry(short).or_insert(long) != long)
}

/// Recordings that lie among the tar files of a folder, and hidden tar files; none where tar files are named one by one.
///
/// # Errors
/// [`CorpusError::Io`] when the folder cannot be listed.
pub fn loose(root: &Path, data: &str) -> Result<Vec<String>, CorpusError> {
    let hidden = shards::hidden(root, data)?;
    Ok(recordings(listing(root, data)?).into_iter().chain(hidden).collect())
}

/// What else lies among the tar files of a folder; nothing where they are named one by one.
fn listing(root: &Path, data: &str) -> Result<Listing, CorpusError> {
    if data.contains('{') || !root.join(data).is_dir() {
        return Ok(Listing::default());
    }
    folder::list(root, data)
}

/// The recordings of a folder, also those that cannot be read.
fn recordings(listing: Listing) -> Vec<String> {
    listing.audio.into_iter().chain(listing.unusable.into_iter().map(|(path, _)| path)).collect()
}
