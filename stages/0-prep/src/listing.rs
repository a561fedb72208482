//! The dependencies of the reading part: index files, and for folders the list of their files.

use std::path::PathBuf;

use flowmill_corpus::{
    CorpusError, clips, codes, corpora, folder, huggingface, images, kaldi, lhotse, list, ljspeech, manifest, packed,
    webdataset,
};
use flowmill_runner::{PlanContext, StageError};
use serde_json::{Value, json};

use crate::{Format, PrepConfig, Source, SplitBy};

/// The files that the reading part reads, and a digest of file names where the existence of files matters.
pub struct Dependencies {
    /// Index files, transcripts and split lists.
    pub files: Vec<PathBuf>,
    /// Optional index files of a data directory.
    pub optional: Vec<PathBuf>,
    /// For every source whose recordings are found by listing a folder, a digest of that list; `null` for the others.
    pub listings: Vec<Value>,
}

/// Returns the dependencies of reading.
///
/// # Errors
/// Returns an error if a folder cannot be listed.
pub fn dependencies(config: &PrepConfig, context: &PlanContext) -> Result<Dependencies, StageError> {
    let mut files = Vec::new();
    let mut optional = Vec::new();
    let mut listings = Vec::new();
    for source in &config.data {
        let place = context.resolve(&source.dir);
        let format = config.format_of(source);
        listings.push(match format {
            Format::Auto | Format::Kaldi => {
                files.extend(kaldi::FILES.map(|name| place.join(name)));
                optional.extend(kaldi::OPTIONAL_FILES.map(|name| place.join(name)));
                optional.extend(config.column_specs().iter().map(|column| place.join(&column.name)));
                Value::Null
            }
            format @ (Format::LibriTts
            | Format::LibriSpeech
            | Format::Vctk
            | Format::Aishell3
            | Format::Mls
            | Format::CommonVoice
            | Format::GigaSpeech) => corpus_dependencies(source, format, context, &mut files)?,
            Format::Histories => {
                files.push(place);
                Value::Null
            }
            Format::List => {
                files.push(context.resolve(&list::file(context.recipe_dir(), &source.dir)));
                Value::Null
            }
            Format::Manifest | Format::Shards | Format::HuggingFace | Format::Lhotse => {
                files.extend((format == Format::Shards && webdataset::is_list(&source.dir)).then(|| place.clone()));
                let list = match format {
                    Format::Shards => packed::files,
                    Format::HuggingFace => huggingface::files,
                    Format::Lhotse => lhotse::files,
                    _ => manifest::files,
                };
                let found = unless_unreadable(list(context.recipe_dir(), &source.dir))?;
                files.extend(found.into_iter().flatten().map(|path| context.resolve(&path)));
                Value::Null
            }
            Format::Ljspeech => {
                let dir = ljspeech::directory(context.recipe_dir(), &source.dir);
                files.push(context.resolve(&dir).join("metadata.csv"));
                list_folder(context, &dir)?.map_or(Value::Null, |listing| digest(&listing))
            }
            Format::Webdataset => webdataset_dependencies(source, context, &mut files)?,
            format @ (Format::Clips | Format::Ravdess) => clips_dependencies(source, format, context)?,
            Format::Images => images_dependencies(source, context, &mut files)?,
            format @ (Format::FlickrAes | Format::Pog | Format::Ser30k) => {
                dataset_dependencies(source, format, context, &mut files)?
            }
            Format::Folder => folder_dependencies(source, context, &mut files)?,
            Format::Codes => {
                // Every file holds the text of its row; a file that comes or goes changes the list of inputs.
                let found = unless_unreadable(codes::list(context.recipe_dir(), &source.dir))?;
                files.extend(found.into_iter().flat_map(|listing| listing.files));
                Value::Null
            }
        });
    }
    if config.split.by == SplitBy::List {
        files.extend(config.split.lists.values().map(|list| context.resolve(list)));
    }
    Ok(Dependencies { files, optional, listings })
}

/// Returns the dependencies on tar files: their content, and the other files among them.
fn webdataset_dependencies(
    source: &Source,
    context: &PlanContext,
    files: &mut Vec<PathBuf>,
) -> Result<Value, StageError> {
    let root = context.recipe_dir();
    let Some(shards) = unless_unreadable(webdataset::shards(root, &source.dir))? else { return Ok(Value::Null) };
    files.extend(shards.iter().map(|shard| context.resolve(shard)));
    files.extend(webdataset::is_list(&source.dir).then(|| context.resolve(&source.dir)));
    let loose = webdataset::loose(root, &source.dir).map_err(StageError::other)?;
    Ok(if loose.is_empty() { Value::Null } else { digest_of(loose.iter().map(String::as_str)) })
}

/// Returns the dependencies on a folder of clips: their names.
fn clips_dependencies(source: &Source, format: Format, context: &PlanContext) -> Result<Value, StageError> {
    let Some(layout) = format.clips() else { return Ok(Value::Null) };
    let Some(listing) = unless_unreadable(clips::list(context.recipe_dir(), &source.dir, layout))? else {
        return Ok(Value::Null);
    };
    let unusable = listing.unusable.iter().map(|(path, _)| path);
    Ok(digest_of(listing.clips.iter().chain(unusable).map(String::as_str)))
}

/// Returns the dependencies on a folder of images: its index, or its captions' content and the names of its images.
fn images_dependencies(source: &Source, context: &PlanContext, files: &mut Vec<PathBuf>) -> Result<Value, StageError> {
    let place = context.resolve(&source.dir);
    if let Some(index) = images::index_file(&place) {
        files.push(index);
        return Ok(Value::Null);
    }
    let Some(listing) = unless_unreadable(images::list(&place))? else { return Ok(Value::Null) };
    files.extend(listing.texts.iter().map(|path| place.join(path)));
    let unusable = listing.unusable.iter().map(|(path, _)| path);
    Ok(digest_of(listing.images.iter().chain(unusable).map(String::as_str)))
}

/// Returns the dependencies on a dataset: its tables, and the names of its images.
fn dataset_dependencies(
    source: &Source,
    format: Format,
    context: &PlanContext,
    files: &mut Vec<PathBuf>,
) -> Result<Value, StageError> {
    let Some(dataset) = format.dataset() else { return Ok(Value::Null) };
    let found = unless_unreadable(dataset.files(&context.resolve(&source.dir)))?;
    let Some(found) = found else { return Ok(Value::Null) };
    files.extend(found.files);
    Ok(digest_of(found.images.iter().map(String::as_str)))
}

/// Returns the dependencies on a public corpus: its transcripts, and the names of recordings where these are searched.
fn corpus_dependencies(
    source: &Source,
    format: Format,
    context: &PlanContext,
    files: &mut Vec<PathBuf>,
) -> Result<Value, StageError> {
    let Some(corpus) = format.corpus() else { return Ok(Value::Null) };
    let found = unless_unreadable(corpora::list(context.recipe_dir(), &source.dir, corpus))?;
    let Some(found) = found else { return Ok(Value::Null) };
    files.extend(found.files);
    let names = found.recordings.iter().map(String::as_str);
    Ok(if found.recordings.is_empty() { Value::Null } else { digest_of(names) })
}

/// Returns the dependencies on a folder: its transcripts' content and the names of its recordings.
fn folder_dependencies(source: &Source, context: &PlanContext, files: &mut Vec<PathBuf>) -> Result<Value, StageError> {
    let Some(listing) = list_folder(context, &source.dir)? else { return Ok(Value::Null) };
    let place = context.resolve(&source.dir);
    files.extend(listing.text.iter().map(|path| place.join(path)));
    Ok(digest(&listing))
}

/// Lists the files of a folder; `None` if it is not one.
fn list_folder(context: &PlanContext, dir: &str) -> Result<Option<folder::Listing>, StageError> {
    unless_unreadable(folder::list(context.recipe_dir(), dir))
}

/// Returns `None` for a source that cannot be read as a whole: reading rejects it, and every later run tries it
/// again.
fn unless_unreadable<T>(found: Result<T, CorpusError>) -> Result<Option<T>, StageError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(CorpusError::Structure { .. } | CorpusError::Io { .. }) => Ok(None),
        Err(problem) => Err(StageError::other(problem)),
    }
}

/// Returns the digest of recordings, including those whose names make them unreadable.
fn digest(listing: &folder::Listing) -> Value {
    let unusable = listing.unusable.iter().map(|(path, _)| path);
    digest_of(listing.audio.iter().chain(unusable).map(String::as_str))
}

/// Returns the number of recordings, and a hash of their names.
fn digest_of<'a>(names: impl Iterator<Item = &'a str>) -> Value {
    let names: Vec<&str> = names.collect();
    let hash = blake3::hash(names.join("\n").as_bytes()).to_hex();
    json!(format!("{} recordings, {}", names.len(), &hash[..16]))
}
