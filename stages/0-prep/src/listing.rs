//! What the reading part depends on: index files, and for folders which files there are.

use std::path::PathBuf;

use flowmill_corpus::{folder, kaldi, webdataset};
use flowmill_runner::{PlanContext, StageError};
use serde_json::{Value, json};

use crate::{Format, PrepConfig, Source, SplitBy};

/// The files the reading part reads, and a digest of the names of files where their being there matters.
pub struct Dependencies {
    /// Index files, transcripts and split lists.
    pub files: Vec<PathBuf>,
    /// Index files that a data directory may have or not.
    pub optional: Vec<PathBuf>,
    /// For every source whose recordings are found by listing a folder, a digest of that list; `null` for the others.
    pub listings: Vec<Value>,
}

/// What reading depends on.
///
/// # Errors
/// When a folder cannot be listed.
pub fn dependencies(config: &PrepConfig, context: &PlanContext) -> Result<Dependencies, StageError> {
    let mut files = Vec::new();
    let mut optional = Vec::new();
    let mut listings = Vec::new();
    for source in &config.data {
        let place = context.resolve(&source.dir);
        listings.push(match config.format_of(source) {
            Format::Kaldi => {
                files.extend(kaldi::FILES.map(|name| place.join(name)));
                optional.extend(kaldi::OPTIONAL_FILES.map(|name| place.join(name)));
                Value::Null
            }
            Format::Manifest => {
                files.push(place);
                Value::Null
            }
            Format::Ljspeech => {
                files.push(place.join("metadata.csv"));
                digest(&list(context, &source.dir)?)
            }
            Format::Webdataset => {
                let shards = webdataset::shards(context.recipe_dir(), &source.dir).map_err(StageError::other)?;
                files.extend(shards.iter().map(|shard| context.resolve(shard)));
                match webdataset::loose(context.recipe_dir(), &source.dir).map_err(StageError::other)?.as_slice() {
                    [] => Value::Null,
                    loose => digest_of(loose.iter().map(String::as_str)),
                }
            }
            Format::Folder => folder_dependencies(source, context, &mut files)?,
        });
    }
    if config.split.by == SplitBy::List {
        files.extend(config.split.lists.values().map(|list| context.resolve(list)));
    }
    Ok(Dependencies { files, optional, listings })
}

/// A folder depends on its transcripts' content and on the names of its recordings.
fn folder_dependencies(source: &Source, context: &PlanContext, files: &mut Vec<PathBuf>) -> Result<Value, StageError> {
    let listing = list(context, &source.dir)?;
    let place = context.resolve(&source.dir);
    files.extend(listing.text.iter().map(|path| place.join(path)));
    Ok(digest(&listing))
}

fn list(context: &PlanContext, dir: &str) -> Result<folder::Listing, StageError> {
    folder::list(context.recipe_dir(), dir).map_err(StageError::other)
}

/// The digest of recordings, those included that cannot be read for their names.
fn digest(listing: &folder::Listing) -> Value {
    let unusable = listing.unusable.iter().map(|(path, _)| path);
    digest_of(listing.audio.iter().chain(unusable).map(String::as_str))
}

/// How many recordings there are, and a hash of their names.
fn digest_of<'a>(names: impl Iterator<Item = &'a str>) -> Value {
    let names: Vec<&str> = names.collect();
    let hash = blake3::hash(names.join("\n").as_bytes()).to_hex();
    json!(format!("{} recordings, {}", names.len(), &hash[..16]))
}
