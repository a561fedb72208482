//! WebDataset: tar files in which the members of one key are one utterance (`KEY.flac`, `KEY.json`, `KEY.txt`).
//!
//! A key is a member's path up to the first dot of its last part, as in the `webdataset` package. If several
//! recordings share such a key and their own transcripts show that keys contain dots (`21.00-26.44.flac` with
//! `21.00-26.44.json`), keys end at the last dot ([`samples`]). A member is a recording by its extension or its
//! content. `KEY.json` has the other fields, under the names of public pipelines ([`crate::fields::FIELDS`]), and
//! `KEY.txt` or `KEY.lab` is the transcript if the JSON has none. Members of a key need not be neighbors.
//!
//! Only headers, transcripts and the beginnings of members of unknown kinds are read here. Nothing is extracted: a
//! row names the tar file and the position of its recording's bytes ([`TarMember`]), and every later reader takes
//! them from there. The bytes of compressed tar files have no such position: those of gzip and zstd are decompressed once ([`unpack()`]), and others
//! are refused.

mod samples;
mod shards;
mod unpack;

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

pub(crate) use shards::expand;
pub use shards::{check_paths, is_list, shards};
pub use unpack::{is_compressed, unpack, unpacked_name};

use crate::folder::{self, Listing};
use crate::manifest::split_by_name;
#[cfg(doc)]
use crate::source::TarMember;
use crate::{CorpusError, ReadOptions, Reading, Rejection};
use samples::Shard;

/// Reads the utterances of tar files. `data` is one file, a folder of them, a list of them, or a pattern such as
/// `shard-{000000..000012}.tar`.
///
/// `root` is the recipe's folder; paths of the result are relative to it. Each key with a problem and each damaged
/// tar file is a rejected row.
///
/// # Errors
/// [`CorpusError::Structure`] if there is no tar file, or one is compressed or not a tar file by its content;
/// [`CorpusError::Io`] for one that cannot be read.
pub fn read(root: &Path, data: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    read_files(root, data, shards(root, data)?, options)
}

/// Reads the utterances of the tar files `shards`, which `data` names.
///
/// # Errors
/// As [`read`].
pub fn read_files(
    root: &Path,
    data: &str,
    shards: Vec<String>,
    options: &ReadOptions<'_>,
) -> Result<Reading, CorpusError> {
    let listed: Vec<Shard> = shards.par_iter().map(|shard| Shard::list(root, shard)).collect::<Result<_, _>>()?;
    // Keys that both interpretations explain are treated like the others of the source.
    let dotted = listed.iter().any(Shard::has_dotted_keys) || shared_over_shards(&listed);
    let read: Vec<samples::Rows> = listed.into_par_iter().map(|shard| shard.read(dotted, options)).collect();
    let mut reading = Reading { files: shards.iter().map(|shard| root.join(shard)).collect(), ..Reading::default() };
    let (mut rows, mut left_out, mut texts) = (Vec::new(), Vec::new(), false);
    let mut passed_over: BTreeMap<String, u64> = BTreeMap::new();
    for (mut shard, path) in read.into_iter().zip(&shards) {
        // A folder of the source may be a split; the folders above it say nothing.
        if let Some(below) = path.strip_prefix(data.trim_end_matches('/')) {
            split_by_name(&mut shard.rows, below);
        }
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
            "not in a tar file: {path} is a single file among the tar files; pack it, or name its folder as a source"
        );
        reading.rejected.push(Rejection { id: path, reason });
    }
    for path in shards::hidden(root, data)? {
        let reason = format!(
            "hidden tar file: the name of {path}, or of a folder that contains it, begins with a dot; rename or delete it"
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

/// Returns whether recordings in several tar files would share a key that ends at the first dot, but have different
/// keys that end at the last.
fn shared_over_shards(shards: &[Shard]) -> bool {
    let mut longer: BTreeMap<&str, &str> = BTreeMap::new();
    let mut keys = shards.iter().flat_map(Shard::keys_of_either_kind);
    keys.any(|(short, long)| *longer.entry(short).or_insert(long) != long)
}

/// Returns recordings among the tar files of a folder, and hidden tar files; none if tar files are named one by one.
///
/// # Errors
/// [`CorpusError::Io`] when the folder cannot be listed.
pub fn loose(root: &Path, data: &str) -> Result<Vec<String>, CorpusError> {
    let hidden = shards::hidden(root, data)?;
    Ok(recordings(listing(root, data)?).into_iter().chain(hidden).collect())
}

/// Lists the other files among the tar files of a folder; none if tar files are named one by one.
fn listing(root: &Path, data: &str) -> Result<Listing, CorpusError> {
    if data.contains('{') || !root.join(data).is_dir() {
        return Ok(Listing::default());
    }
    folder::list(root, data)
}

/// Returns the recordings of a folder, including those that cannot be read.
fn recordings(listing: Listing) -> Vec<String> {
    listing.audio.into_iter().chain(listing.unusable.into_iter().map(|(path, _)| path)).collect()
}
