//! SER30K: `Images/TOPIC/STICKER.jpg` and `ser30k_captions.json` (captions by `TOPIC/STICKER.jpg`).

use std::collections::BTreeMap;
use std::path::Path;

use super::{Captions, DatasetRow, HISTORY, Images, required};
use crate::CorpusError;
use crate::histories::{HistoryFault, HistoryItem, UserHistory};

const CAPTIONS: &[&str] = &["ser30k_captions.json"];

/// The tables.
pub(super) const TABLES: &[&[&str]] = &[CAPTIONS];

/// Rows per topic (the public code's `SAMPLES_PER_USER`).
const DRAWS: u64 = 3;

/// Reads the draws of all topics.
pub(super) fn read(folder: &Path, images: &Images) -> Result<Vec<DatasetRow>, CorpusError> {
    let captions = Captions::read(&required(folder, CAPTIONS)?)?;
    let mut topics: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for path in &images.paths {
        if let Some((topic, _)) = path.split_once('/') {
            topics.entry(topic).or_default().push(path);
        }
    }
    let names: Vec<&str> = topics.keys().copied().collect();
    let item = |path: &str, place: &dyn Fn() -> String| {
        let caption = captions.of(path).ok_or_else(|| HistoryFault::EmptyCaption { place: place() })?;
        Ok(HistoryItem { id: path.to_owned(), caption: caption.to_owned(), image: images.folder.join(path) })
    };
    let mut rows = Vec::new();
    for (topic, stickers) in &topics {
        if stickers.len() < HISTORY || names.len() < 2 {
            let fault = HistoryFault::TooFew { found: stickers.len(), needed: HISTORY };
            rows.push(DatasetRow { id: (*topic).to_owned(), user: Err(fault) });
            continue;
        }
        for draw in 0..DRAWS {
            let history = drawn(&format!("{topic}\n{draw}\nhistory"), stickers.iter().copied());
            let others = names.iter().copied().filter(|name| name != topic);
            let other = drawn(&format!("{topic}\n{draw}\ntopic"), others)[0];
            let target = drawn(&format!("{topic}\n{draw}\ntarget"), topics[other].iter().copied())[0];
            let user = || -> Result<UserHistory, HistoryFault> {
                let numbered = history.iter().take(HISTORY).enumerate();
                let history = numbered.map(|(at, path)| item(path, &|| format!("history item {}", at + 1)));
                Ok(UserHistory {
                    id: (*topic).to_owned(),
                    history: history.collect::<Result<_, _>>()?,
                    target: item(target, &|| "the target".to_owned())?,
                    style: None,
                    dialogue: None,
                    emotion: None,
                })
            };
            rows.push(DatasetRow { id: format!("{topic}-{draw}"), user: user() });
        }
    }
    Ok(rows)
}

/// Returns items in a random order that follows from a purpose; it is never empty unless the items are.
fn drawn<'a>(purpose: &str, items: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut items: Vec<&str> = items.collect();
    items.sort_by_cached_key(|item| *blake3::hash(format!("{purpose}\n{item}").as_bytes()).as_bytes());
    items
}
