//! Histories of users: JSON files in which each user has items with images and captions, and a target item (the processed files of
//! INTREBID/PMG for FLICKR-AES, POG and SER30K).
//!
//! A file is an array of objects with `user_id` (or `worker_id`), `history_items_info`, `target_item_info`, and optionally `user_style`
//! (or `worker_style`), `dialogue` and `target_emotion`. An item has `item_id`, `caption` and `image_path`. Every entry becomes a user or
//! a rejection. [`read_file`] makes rows of the users.

mod datasets;
mod entry;
mod rows;

pub use datasets::{Dataset, DatasetFiles};
pub use rows::{DIALOGUE, HISTORY_CAPTIONS, ITEM_IDS, STYLE, columns, read_dataset, read_file};

use crate::images::place::{PathFault, file_in};
use crate::{CorpusError, fields, images};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// An item with an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryItem {
    /// The item's id.
    pub id: String,
    /// The description of its image.
    pub caption: String,
    /// The file of its image.
    pub image: PathBuf,
}

/// A user with items that they liked before, and the item that they like next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserHistory {
    /// The user's id.
    pub id: String,
    /// The items that they liked, in order; one may occur several times.
    pub history: Vec<HistoryItem>,
    /// The item that they like next.
    pub target: HistoryItem,
    /// A description of their taste.
    pub style: Option<String>,
    /// A sentence that the target answers.
    pub dialogue: Option<String>,
    /// The emotion that the target shows.
    pub emotion: Option<String>,
}

/// The reason why an entry is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryFault {
    /// A field is missing or has another type.
    #[error("{place} has no `{field}` that is {expected}")]
    Field {
        /// The object.
        place: String,
        /// The field.
        field: &'static str,
        /// The type that it should have.
        expected: &'static str,
    },
    /// The user has no history.
    #[error("the history is empty")]
    EmptyHistory,
    /// The user has no target.
    #[error("there is no target item")]
    NoTarget,
    /// The target is one of the items of the history.
    #[error("the target `{item}` is in the history; `allow_repeats` keeps such users")]
    TargetInHistory {
        /// The item's id.
        item: String,
    },
    /// An item has no caption.
    #[error("{place} has an empty caption")]
    EmptyCaption {
        /// The item.
        place: String,
    },
    /// The id belongs to an earlier entry, or the whole entry repeats it.
    #[error("the user's id is that of entry {first}; `repeated_users` keeps several entries of a user that differ")]
    Duplicate {
        /// Position of the earlier entry, counted from 0.
        first: usize,
    },
    /// The path of an image leads out of the folder of images.
    #[error("{place}: the image `{path}` lies outside of the folder")]
    Outside {
        /// The item.
        place: String,
        /// The path in the file.
        path: String,
    },
    /// The image of an item does not exist.
    #[error("{place}: there is no image `{path}`")]
    MissingImage {
        /// The item.
        place: String,
        /// The path in the file.
        path: String,
    },
    /// The user has too few items for a history and a target.
    #[error("there are {found} items, at least {needed} are needed")]
    TooFew {
        /// The number of items.
        found: usize,
        /// The smallest number.
        needed: usize,
    },
    /// A line of a table cannot be read.
    #[error("{problem}")]
    Line {
        /// The problem.
        problem: String,
    },
}

impl HistoryFault {
    /// Returns the reason of a rejected row: its kind, and the details.
    pub fn reason(&self) -> String {
        let kind = match self {
            Self::Field { .. } => "bad entry",
            Self::EmptyHistory => "no history",
            Self::NoTarget => "no target",
            Self::TargetInHistory { .. } => "target in the history",
            Self::EmptyCaption { .. } => "no caption",
            Self::Duplicate { .. } => "repeated user",
            Self::Outside { .. } => "image outside of the folder",
            Self::MissingImage { .. } => "missing image",
            Self::TooFew { .. } => "too few items",
            Self::Line { .. } => "bad line",
        };
        format!("{kind}: {self}")
    }
}

/// An entry that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedHistory {
    /// Position in the file, counted from 0.
    pub entry: usize,
    /// The user's id, if it could be read.
    pub id: Option<String>,
    /// The reason.
    pub fault: HistoryFault,
}

/// The users of a file. No entry is lost: the numbers of users and rejections add up to that of entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histories {
    /// The users, in order of the file.
    pub users: Vec<UserHistory>,
    /// The rejected entries, in order of the file.
    pub rejected: Vec<RejectedHistory>,
}

/// Options of reading histories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistoryOptions {
    /// Keep users whose target is in their history. Their prompts contain the answer.
    pub allow_repeats: bool,
    /// Keep several entries of a user, as long as they differ.
    pub repeated_users: bool,
    /// Accept images that do not exist. Who opens them later finds that out.
    pub missing_images: bool,
}

/// Reads a file of users; `images` is the folder that the paths of images are relative to, and that they may not leave.
///
/// # Errors
/// When the file cannot be read or is not an array.
pub fn read_histories(path: &Path, images: &Path, options: &HistoryOptions) -> Result<Histories, CorpusError> {
    let structure = |problem: String| CorpusError::structure(path, problem);
    let expected = "a JSON array of users is expected";
    let entries = match fields::parse(&images::read_text(path)?) {
        Ok(Value::Array(entries)) => entries,
        Ok(_) => return Err(structure(format!("is another JSON value; {expected}"))),
        Err(problem) => return Err(structure(format!("{problem}; {expected}"))),
    };
    let mut histories = Histories::default();
    let mut entries_of = HashMap::new();
    for (entry, value) in entries.iter().enumerate() {
        let id = entry::user_id(value);
        let whole = options.repeated_users.then(|| blake3::hash(value.to_string().as_bytes()));
        let key = id.clone().map(|id| (id, whole));
        let user = match key.as_ref().and_then(|key| entries_of.get(key)) {
            Some(first) => Err(HistoryFault::Duplicate { first: *first }),
            None => entry::user(value, images, options),
        };
        match user {
            Ok(user) => {
                entries_of.insert((user.id.clone(), whole), entry);
                histories.users.push(user);
            }
            Err(fault) => histories.rejected.push(RejectedHistory { entry, id, fault }),
        }
    }
    Ok(histories)
}

/// Returns the file of an image inside of a folder.
fn image_in(
    folder: &Path,
    path: &str,
    options: &HistoryOptions,
    place: impl Fn() -> String,
) -> Result<PathBuf, HistoryFault> {
    file_in(folder, path, options.missing_images).map_err(|fault| match fault {
        PathFault::Outside => HistoryFault::Outside { place: place(), path: path.to_owned() },
        PathFault::Missing => HistoryFault::MissingImage { place: place(), path: path.to_owned() },
    })
}
