//! Histories of users: JSON files in which each user has items with images and captions, and a target item (the processed files of
//! INTREBID/PMG for FLICKR-AES, POG and SER30K).
//!
//! A file is an array of objects with `user_id` (or `worker_id`), `history_items_info`, `target_item_info`, and optionally `user_style`
//! (or `worker_style`) and `dialogue`. An item has `item_id`, `caption` and `image_path`. Every entry becomes a user or a rejection.

mod entry;

use crate::CorpusError;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// Largest size of a file, in bytes.
const LARGEST: u64 = 1 << 30;

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
    /// The id belongs to an earlier entry.
    #[error("the user's id is that of entry {first}")]
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
}

/// Reads a file of users; `images` is the folder that the paths of images are relative to, and that they may not leave.
///
/// # Errors
/// When the file cannot be read or is not an array.
pub fn read_histories(path: &Path, images: &Path, options: &HistoryOptions) -> Result<Histories, CorpusError> {
    let io = |source| CorpusError::Io { action: "read", path: path.to_owned(), source };
    let structure = |problem: String| CorpusError::Structure { path: path.to_owned(), problem };
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > LARGEST {
        return Err(structure(format!("it is larger than {LARGEST} bytes; split it into several files")));
    }
    let entries: Vec<Value> = serde_json::from_slice(&bytes)
        .map_err(|error| structure(format!("it is not a JSON array of users: {error}")))?;
    let mut histories = Histories::default();
    let mut entries_of = HashMap::new();
    for (entry, value) in entries.iter().enumerate() {
        let id = entry::user_id(value);
        let user = match id.as_ref().and_then(|id| entries_of.get(id)) {
            Some(first) => Err(HistoryFault::Duplicate { first: *first }),
            None => entry::user(value, images, options),
        };
        match user {
            Ok(user) => {
                entries_of.insert(user.id.clone(), entry);
                histories.users.push(user);
            }
            Err(fault) => histories.rejected.push(RejectedHistory { entry, id, fault }),
        }
    }
    Ok(histories)
}

/// Returns the file of an image inside of a folder.
fn image_in(folder: &Path, path: &str, place: impl Fn() -> String) -> Result<PathBuf, HistoryFault> {
    let outside = || HistoryFault::Outside { place: place(), path: path.to_owned() };
    let missing = || HistoryFault::MissingImage { place: place(), path: path.to_owned() };
    let inner = Path::new(path);
    let plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    if !inner.components().all(plain) || path.contains(['\\', '\0']) {
        return Err(outside());
    }
    let file = folder.join(inner);
    let (Ok(real), Ok(root)) = (file.canonicalize(), folder.canonicalize()) else { return Err(missing()) };
    // A link inside of the folder may lead out of it.
    if !real.starts_with(root) {
        return Err(outside());
    }
    if real.is_file() { Ok(file) } else { Err(missing()) }
}
