//! Users as rows.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::datasets::{Dataset, DatasetRow};
use super::{Histories, HistoryItem, HistoryOptions, UserHistory, read_histories};
use crate::images::EMOTION;
use crate::images::place::relative;
use crate::reading::Candidate;
use crate::utterances::Extra;
use crate::{Array, ColumnSpec, CorpusError, DType, MediaRef, ReadOptions, Reading, Role, values};

/// The column with the ids of the target and of the history's items, in the order of the images.
pub const ITEM_IDS: &str = "item_ids";

/// The column with the captions of the history's items.
pub const HISTORY_CAPTIONS: &str = "history_captions";

/// The column with a description of the user's taste.
pub const STYLE: &str = "style";

/// The column with a sentence that the target answers.
pub const DIALOGUE: &str = "dialogue";

/// Returns the columns of rows. Only those of items are required.
pub fn columns() -> Vec<ColumnSpec> {
    let text = |name: &str, docs: &str| ColumnSpec::new(name, DType::Text).docs(docs);
    vec![
        text(ITEM_IDS, "ids of the target and of the history's items").axis("image"),
        text(HISTORY_CAPTIONS, "captions of the history's items").axis("item"),
        text(STYLE, "a description of the user's taste").optional(),
        text(DIALOGUE, "a sentence that the target answers").optional(),
        text(EMOTION, "the emotion that the target shows").optional(),
    ]
}

/// Reads the rows of a file of users; `root` is the recipe's folder and `file` the source as the recipe names it.
///
/// The id and the group of a row are the user's. A further entry of a user has its number as suffix of the id: `17-2`. The text is
/// the target's caption. The images are the target's and then those of the history. They need not exist.
///
/// # Errors
/// Those of [`read_histories`].
pub fn read_file(root: &Path, file: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let path = root.join(file);
    let images = match options.images {
        Some(images) => root.join(images),
        None => path.parent().unwrap_or(root).to_owned(),
    };
    let own = HistoryOptions { missing_images: true, ..options.histories };
    let Histories { users, rejected } = read_histories(&path, &images, &own)?;
    let mut reading = Reading { files: vec![path], ..Reading::default() };
    for rejected in rejected {
        let id = rejected.id.unwrap_or_else(|| format!("{file}[{}]", rejected.entry));
        reading.reject(&id, rejected.fault.reason());
    }
    let (mut rows, mut entries) = (Vec::with_capacity(users.len()), HashMap::new());
    for user in users {
        let entry = entries.entry(user.id.clone()).or_insert(0u32);
        *entry += 1;
        let id = if *entry == 1 { user.id.clone() } else { format!("{}-{entry}", user.id) };
        match row(user, id.clone(), root) {
            Ok(row) => rows.push(row),
            Err(reason) => reading.reject(&id, reason),
        }
    }
    Ok(reading.take(rows, true, options, ""))
}

/// Reads the rows of a public dataset from its own files; `root` is the recipe's folder and `dir` the source as the recipe names it.
///
/// # Errors
/// [`CorpusError::Structure`] when a file of the dataset is missing or another one; [`CorpusError::Io`] when one cannot be read.
pub fn read_dataset(
    root: &Path,
    dir: &str,
    dataset: Dataset,
    options: &ReadOptions<'_>,
) -> Result<Reading, CorpusError> {
    let folder = root.join(dir);
    if !folder.is_dir() {
        return Err(CorpusError::structure(&folder, "is not a directory; the folder of the dataset is expected here"));
    }
    let mut reading = Reading::default();
    let mut rows = Vec::new();
    for DatasetRow { id, user } in dataset.read(&folder, &options.histories)? {
        let user = user.map_err(|fault| fault.reason()).and_then(|user| row(user, id.clone(), root));
        match user {
            Ok(row) => rows.push(row),
            Err(reason) => reading.reject(&id, reason),
        }
    }
    Ok(reading.take(rows, true, options, ""))
}

fn row(user: UserHistory, id: String, root: &Path) -> Result<Candidate, String> {
    values::id(&id).map_err(|problem| format!("bad id: {problem}"))?;
    let text = |text: &str| match values::transcript(text) {
        Ok(Some(text)) => Ok(text.into_owned()),
        Ok(None) => Err("empty caption".to_owned()),
        Err(problem) => Err(format!("bad caption: {problem}")),
    };
    let items = || std::iter::once(&user.target).chain(&user.history);
    let image = |item: &HistoryItem| relative(&item.image, root).map(MediaRef);
    let images = items().map(image).collect::<Result<Vec<_>, _>>()?;
    let captions = user.history.iter().map(|item| text(&item.caption)).collect::<Result<Vec<_>, _>>()?;
    let mut columns = BTreeMap::from([
        (ITEM_IDS.to_owned(), Array::vector(items().map(|item| item.id.clone()).collect())),
        (HISTORY_CAPTIONS.to_owned(), Array::vector(captions)),
    ]);
    for (name, value) in [(STYLE, user.style), (DIALOGUE, user.dialogue), (EMOTION, user.emotion)] {
        columns.extend(value.map(|value| (name.to_owned(), Array::text(value))));
    }
    Ok(Candidate {
        origin: None,
        text: Ok(text(&user.target.caption)?),
        speaker: Some(user.id),
        language: None,
        wav: String::new(),
        start: None,
        end: None,
        duration: None,
        split: None,
        extra: Some(Box::new(Extra { media: BTreeMap::from([(Role::Images, images)]), columns, ..Extra::default() })),
        place: id.clone(),
        id,
    })
}
