//! Folders in which every image has its caption in a text of the same name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{EXTENSIONS, Fields, Item, Listing};
use crate::samples::{extension, stem};
use crate::walk::walk;
use crate::{CorpusError, encoding};

/// Largest size of a caption's file, in bytes.
const LARGEST_TEXT: u64 = 1 << 20;

/// Lists a folder and its subfolders.
pub(super) fn list(folder: &Path) -> Result<Listing, CorpusError> {
    if !folder.is_dir() {
        return Err(CorpusError::structure(folder, "is not a directory; a folder of images is expected here"));
    }
    let mut listing = Listing::default();
    for file in walk(folder)?.files {
        let ending = extension(&file.path).to_ascii_lowercase();
        let is_image = EXTENSIONS.contains(&ending.as_str());
        if !is_image && ending != "txt" {
            continue;
        }
        if !file.is_utf8 {
            let reason = format!("bad name: the name of {} is not UTF-8; rename it", file.path);
            listing.unusable.push((file.path, reason));
        } else if file.is_hidden || file.in_hidden {
            if is_image {
                let reason = "hidden image: it or its folder has a name that begins with a dot; rename or delete it";
                listing.unusable.push((file.path, reason.to_owned()));
            }
        } else if is_image {
            listing.images.push(file.path);
        } else {
            listing.texts.push(file.path);
        }
    }
    Ok(listing)
}

/// Reads the images of a folder with their captions.
pub(super) fn read(folder: &Path) -> Result<Vec<Item>, CorpusError> {
    let Listing { images, texts, unusable } = list(folder)?;
    let texts: BTreeMap<&str, &str> = texts.iter().map(|path| (stem(path), path.as_str())).collect();
    let mut items: Vec<Item> = unusable.into_iter().map(|(name, reason)| Item { name, item: Err(reason) }).collect();
    let mut described = BTreeSet::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    images.iter().for_each(|path| *counts.entry(stem(path)).or_default() += 1);
    for path in &images {
        let caption = match texts.get(stem(path)) {
            None => Ok(None),
            Some(text) => {
                described.insert(*text);
                caption(&folder.join(text)).map(Some).map_err(|problem| format!("bad caption: {text} {problem}"))
            }
        };
        // Two images may share a caption. Only then the ending is a part of the id.
        let key = (counts[stem(path)] == 1).then(|| stem(path).to_owned());
        let item = caption.map(|caption| Fields { key, path: path.clone(), caption, ..Fields::default() });
        items.push(Item { name: path.clone(), item });
    }
    for text in texts.values().filter(|text| !described.contains(*text)) {
        items.push(Item { name: (*text).to_owned(), item: Err(format!("no image: {text} has none of its name")) });
    }
    Ok(items)
}

/// Reads the text of a caption.
fn caption(file: &Path) -> Result<String, String> {
    let size = file.metadata().map_err(|error| format!("cannot be read: {error}"))?.len();
    if size > LARGEST_TEXT {
        return Err(format!("has {size} bytes, at most {LARGEST_TEXT} are read"));
    }
    let bytes = std::fs::read(file).map_err(|error| format!("cannot be read: {error}"))?;
    let text = encoding::without_mark(&bytes).into_owned();
    String::from_utf8(text).map_err(|_| format!("is not UTF-8; {}", encoding::advice(&bytes)))
}
