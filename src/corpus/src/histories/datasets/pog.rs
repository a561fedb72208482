//! POG: `user_data.txt` (`USER,ITEM;ITEM;…,OUTFIT`), `captions_sampled.json`, `user_styles.json`, `images/`; or the subset of the public code,
//! `subset_user_2000.txt` and `images_sampled/`.

use std::path::Path;

use super::{Captions, DatasetRow, Images, Items, find, required, styles};
use crate::histories::{HistoryFault, HistoryOptions};
use crate::images::read_text;
use crate::{CorpusError, values};

const CLICKS: &[&str] = &["subset_user_2000.txt", "user_data.txt"];
const CAPTIONS: &[&str] = &["captions_sampled.json"];
const STYLES: &[&str] = &["user_styles.json"];

/// The tables.
pub(super) const TABLES: &[&[&str]] = &[CLICKS, CAPTIONS, STYLES];

/// Reads the windows of all users.
pub(super) fn read(folder: &Path, images: &Images, options: &HistoryOptions) -> Result<Vec<DatasetRow>, CorpusError> {
    let clicks = required(folder, CLICKS)?;
    let name = clicks.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = read_text(&clicks)?;
    let items = Items {
        images,
        by_stem: images.by_stem(),
        captions: Captions::read(&required(folder, CAPTIONS)?)?,
        styles: styles(find(folder, STYLES), "user")?,
        allow_repeats: options.allow_repeats,
    };
    let mut rows = Vec::new();
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = String::from_utf8_lossy(line);
        if line.trim().is_empty() {
            continue;
        }
        let mut parts = line.trim().split(',');
        let (user, clicked) = (parts.next().unwrap_or_default().trim(), parts.next());
        let Some(clicked) = clicked.filter(|_| values::id(user).is_ok()) else {
            let problem = "no `USER,ITEM;ITEM;…`".to_owned();
            rows.push(DatasetRow { id: format!("{name}:{}", at + 1), user: Err(HistoryFault::Line { problem }) });
            continue;
        };
        let clicked = clicked.split(';').map(str::trim).filter(|item| !item.is_empty());
        rows.extend(items.windows(user, &clicked.map(str::to_owned).collect::<Vec<_>>()));
    }
    Ok(rows)
}
