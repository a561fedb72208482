//! Packed shards as a source of rows: Parquet files with CosyVoice's columns, also those that are named `.tar`, and the Parquet and
//! tar shards of stage 3.
//!
//! The recordings stay where they are: a row names its shard and its place in it ([`ParquetCell`](crate::huggingface::ParquetCell),
//! [`TarMember`](crate::source::TarMember)). Embeddings, tokens and other columns stay there too. [`sample`] says which columns the shards
//! have, from a few rows, and [`fetch`] reads them for rows by the places of their recordings, so that a corpus of any size needs the
//! memory of the rows at hand.

mod fetch;
mod list;
mod sample;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rayon::prelude::*;

pub use fetch::fetch;
pub use list::files;
pub use sample::{Sample, SampledColumn, sample, sample_of};

use crate::huggingface;
use crate::manifest::{Parsed, joined_rows, name_below, split_by_name, taken};
use crate::shard::ShardReader;
use crate::{CorpusError, ReadOptions, Reading, Rejection, webdataset};

/// The columns by which shards are distinguished from other tables with recordings.
const COLUMNS: [&str; 5] = ["utt_embedding", "spk_embedding", "speech_token", "codes", "mel"];

/// The first bytes of Parquet files.
const PARQUET: &[u8] = b"PAR1";

/// Returns whether a file is Parquet by its content, whatever its name.
pub fn is_parquet(path: &Path) -> bool {
    let mut head = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == PARQUET
}

/// Returns whether a file is a packed shard: a Parquet file with ids, recordings and extracted columns, or a tar file of stage 3.
pub fn is_shard(path: &Path) -> bool {
    if is_parquet(path) {
        let Ok(table) = ShardReader::open(path) else { return false };
        let names: Vec<String> = table.schema().into_iter().map(|(name, _)| name).collect();
        let has = |name: &str| names.iter().any(|own| own == name);
        return has("utt") && has("audio_data") && COLUMNS.iter().any(|name| has(name));
    }
    sample_of(path, 1).is_ok_and(|sample| COLUMNS.iter().any(|name| sample.columns.contains_key(*name)))
}

/// Reads the rows of shards, without their recordings and their extracted columns.
///
/// # Errors
/// [`CorpusError::Structure`] if there is no shard, a Parquet file has no recordings, or Parquet and tar files are mixed;
/// [`CorpusError::Io`] and [`CorpusError::Table`] if a file cannot be read.
pub fn read(root: &Path, path: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let files = files(root, path)?;
    let (tables, tars): (Vec<&String>, Vec<&String>) = files.par_iter().partition(|file| is_parquet(&root.join(file)));
    if let (Some(table), Some(tar)) = (tables.first(), tars.first()) {
        let problem =
            format!("has Parquet shards such as {table} and tar shards such as {tar}; name them as two sources");
        return Err(CorpusError::structure(&root.join(path), problem));
    }
    if !tars.is_empty() {
        return webdataset::read_files(root, path, files, options);
    }
    let read = |file: &String| -> Result<Parsed, CorpusError> {
        let name = name_below(path, file);
        let mut rows = huggingface::read_shard(root, file, name, options)?;
        split_by_name(rows.iter_mut().flatten(), name);
        Ok(rows)
    };
    let parsed: Vec<Result<Parsed, CorpusError>> = files.par_iter().map(read).collect();
    let is_good = parsed.iter().any(Result::is_ok);
    let of_file = |(file, parsed): (&String, Result<Parsed, CorpusError>)| match parsed {
        // One damaged shard among others is a rejection of its own.
        Err(error) if is_good && !error.is_of_machine() => {
            let reason = format!("damaged shard: {}", error.below(root));
            Ok(vec![Err(Rejection { id: file.clone(), reason })])
        }
        parsed => parsed,
    };
    let parsed: Vec<Parsed> = files.iter().zip(parsed).map(of_file).collect::<Result<_, _>>()?;
    let reading = Reading { files: files.iter().map(|file| root.join(file)).collect(), ..Reading::default() };
    Ok(taken(reading, joined_rows(parsed), options))
}
