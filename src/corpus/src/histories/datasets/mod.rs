//! Users of public datasets from their own files, in the layouts that INTREBID/PMG prepares (`data/preprocess_*.py`, `docs/DATASET.md`).
//!
//! | dataset | a user | rows |
//! |---|---|---|
//! | [`Dataset::FlickrAes`] | a worker, with the images that they scored above 2, in order of the file | every window: three items, then the target |
//! | [`Dataset::Pog`] | a user, with the items that they clicked, in order | every window |
//! | [`Dataset::Ser30k`] | a topic of stickers | three draws: three stickers of the topic, and the target of another topic |
//!
//! Ids are `USER-0`, `USER-1` …, the number of the window or the draw. The draws follow from hashes, not from Python's generator, so they are
//! others than those of the public code. A row whose image or caption is missing is rejected.

mod flickr_aes;
mod pog;
mod ser30k;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{HistoryFault, HistoryItem, HistoryOptions, UserHistory};
use crate::images::{EXTENSIONS, read_text};
use crate::samples::{extension, stem};
use crate::{CorpusError, fields};

/// Items of a history (the public code's `HISTORY_LEN`).
const HISTORY: usize = 3;

/// A public dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dataset {
    /// FLICKR-AES: photos with scores of workers.
    FlickrAes,
    /// POG: fashion items with clicks of users.
    Pog,
    /// SER30K: stickers by topic.
    Ser30k,
}

/// A row of a dataset: its id, and the user or why there is none.
pub(super) struct DatasetRow {
    pub(super) id: String,
    pub(super) user: Result<UserHistory, HistoryFault>,
}

/// The files of a dataset's folder that reading depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatasetFiles {
    /// Tables, captions and styles that exist.
    pub files: Vec<PathBuf>,
    /// Paths of images below their folder, sorted.
    pub images: Vec<String>,
}

impl Dataset {
    /// The files besides images, in the folder of the dataset; of those in one list the first that exists is read.
    fn tables(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::FlickrAes => flickr_aes::TABLES,
            Self::Pog => pog::TABLES,
            Self::Ser30k => ser30k::TABLES,
        }
    }

    /// The folders of images; the first that exists is read.
    fn image_folders(self) -> &'static [&'static str] {
        match self {
            Self::FlickrAes => &["40K"],
            Self::Pog => &["images_sampled", "images"],
            Self::Ser30k => &["Images"],
        }
    }

    /// Returns the files that reading a folder depends on.
    ///
    /// # Errors
    /// [`CorpusError::Structure`] when a table or the images are missing, [`CorpusError::Io`] when the images cannot be listed.
    pub fn files(self, folder: &Path) -> Result<DatasetFiles, CorpusError> {
        let tables = self.tables().iter().filter_map(|names| find(folder, names)).collect();
        let images = Images::list(self, folder)?;
        Ok(DatasetFiles { files: tables, images: images.paths })
    }

    /// Reads the rows of a folder.
    pub(super) fn read(self, folder: &Path, options: &HistoryOptions) -> Result<Vec<DatasetRow>, CorpusError> {
        let images = Images::list(self, folder)?;
        match self {
            Self::FlickrAes => flickr_aes::read(folder, &images, options),
            Self::Pog => pog::read(folder, &images, options),
            Self::Ser30k => ser30k::read(folder, &images),
        }
    }
}

/// Returns the first of some files that exists.
fn find(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| folder.join(name)).find(|file| file.is_file())
}

/// Returns a file that must exist.
fn required(folder: &Path, names: &[&str]) -> Result<PathBuf, CorpusError> {
    let missing = || CorpusError::structure(folder, format!("has no file {}", names.join(" or ")));
    find(folder, names).ok_or_else(missing)
}

/// The images of a dataset.
struct Images {
    folder: PathBuf,
    /// Paths below the folder, sorted.
    paths: Vec<String>,
}

impl Images {
    fn list(dataset: Dataset, folder: &Path) -> Result<Self, CorpusError> {
        let names = dataset.image_folders();
        let found = names.iter().map(|name| folder.join(name)).find(|path| path.is_dir());
        let missing = || CorpusError::structure(folder, format!("has no folder of images {}", names.join(" or ")));
        let images = found.ok_or_else(missing)?;
        let is_image = |path: &String| EXTENSIONS.contains(&extension(path).to_ascii_lowercase().as_str());
        let files = crate::walk::walk(&images)?.files.into_iter();
        let usable = files.filter(|file| file.is_utf8 && !file.is_hidden && !file.in_hidden);
        Ok(Self { folder: images, paths: usable.map(|file| file.path).filter(is_image).collect() })
    }

    /// Returns the paths by their names without ending.
    fn by_stem(&self) -> HashMap<&str, &str> {
        self.paths.iter().map(|path| (stem(path), path.as_str())).collect()
    }
}

/// Captions by item, from a JSON object.
struct Captions(serde_json::Map<String, Value>);

impl Captions {
    fn read(path: &Path) -> Result<Self, CorpusError> {
        match fields::parse(&read_text(path)?) {
            Ok(Value::Object(captions)) => Ok(Self(captions)),
            _ => Err(CorpusError::structure(path, "is no JSON object of captions by item")),
        }
    }

    fn of(&self, item: &str) -> Option<&str> {
        self.0.get(item)?.as_str().map(str::trim).filter(|caption| !caption.is_empty())
    }
}

/// Reads descriptions of taste by user: a list of objects with `key` and `style`, or an object. Without a file there are none.
fn styles(path: Option<PathBuf>, key: &str) -> Result<BTreeMap<String, String>, CorpusError> {
    let Some(path) = path else { return Ok(BTreeMap::new()) };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match fields::parse(&read_text(&path)?) {
        Ok(Value::Array(entries)) => {
            Ok(entries.iter().filter_map(|entry| Some((text(entry.get(key)?)?, text(entry.get("style")?)?))).collect())
        }
        Ok(Value::Object(styles)) => {
            Ok(styles.into_iter().filter_map(|(user, style)| Some((user, text(&style)?))).collect())
        }
        _ => Err(CorpusError::structure(&path, "is neither a JSON list nor an object of styles")),
    }
}

/// The properties that all items of a dataset share: their images, captions and styles.
struct Items<'a> {
    images: &'a Images,
    by_stem: HashMap<&'a str, &'a str>,
    captions: Captions,
    styles: BTreeMap<String, String>,
    allow_repeats: bool,
}

impl Items<'_> {
    fn item(&self, id: &str, place: impl Fn() -> String) -> Result<HistoryItem, HistoryFault> {
        let image =
            self.by_stem.get(id).ok_or_else(|| HistoryFault::MissingImage { place: place(), path: id.to_owned() })?;
        let caption = self.captions.of(id).ok_or_else(|| HistoryFault::EmptyCaption { place: place() })?;
        Ok(HistoryItem { id: id.to_owned(), caption: caption.to_owned(), image: self.images.folder.join(image) })
    }

    /// Returns the windows over the items of a user: each item after the first three is a target.
    fn windows(&self, user: &str, items: &[String]) -> Vec<DatasetRow> {
        if items.len() <= HISTORY {
            let fault = HistoryFault::TooFew { found: items.len(), needed: HISTORY + 1 };
            return vec![DatasetRow { id: user.to_owned(), user: Err(fault) }];
        }
        let windows = items.windows(HISTORY + 1).enumerate();
        let row =
            |(at, window): (usize, &[String])| DatasetRow { id: format!("{user}-{at}"), user: self.user(user, window) };
        windows.map(row).collect()
    }

    fn user(&self, user: &str, window: &[String]) -> Result<UserHistory, HistoryFault> {
        let (history, target) = (&window[..HISTORY], &window[HISTORY]);
        if !self.allow_repeats && history.contains(target) {
            return Err(HistoryFault::TargetInHistory { item: target.clone() });
        }
        let numbered = history.iter().enumerate();
        let history = numbered.map(|(at, id)| self.item(id, || format!("history item {}", at + 1)));
        Ok(UserHistory {
            id: user.to_owned(),
            history: history.collect::<Result<_, _>>()?,
            target: self.item(target, || "the target".to_owned())?,
            style: self.styles.get(user).cloned(),
            dialogue: None,
            emotion: None,
        })
    }
}
