//! FLICKR-AES: `FLICKR-AES_image_labeled_by_each_worker.csv` (`worker, imagePair, score`), `FLICKR_captions.json`, `FLICKR_styles.json`, `40K/`.

use std::path::Path;

use super::{Captions, DatasetRow, Images, Items, find, required, styles};
use crate::histories::HistoryOptions;
use crate::images::read_text;
use crate::samples::stem;
use crate::{CorpusError, values};

const SCORES: &[&str] = &["FLICKR-AES_image_labeled_by_each_worker.csv"];
const CAPTIONS: &[&str] = &["FLICKR_captions.json"];
const STYLES: &[&str] = &["FLICKR_styles.json"];

/// The tables.
pub(super) const TABLES: &[&[&str]] = &[SCORES, CAPTIONS, STYLES];

/// The score that an image must exceed to be liked.
const DISLIKED: f64 = 2.0;

/// Reads the windows of all workers.
pub(super) fn read(folder: &Path, images: &Images, options: &HistoryOptions) -> Result<Vec<DatasetRow>, CorpusError> {
    let scores = required(folder, SCORES)?;
    let text = read_text(&scores)?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(&text[..]);
    let header = reader.headers().map_err(|error| CorpusError::structure(&scores, error.to_string()))?.clone();
    let place = |name: &str| {
        let missing = || CorpusError::structure(&scores, format!("has no column `{name}` in its first line"));
        header.iter().position(|own| own == name).ok_or_else(missing)
    };
    let (worker, image, score) = (place("worker")?, place("imagePair")?, place("score")?);
    let items = Items {
        images,
        by_stem: images.by_stem(),
        captions: Captions::read(&required(folder, CAPTIONS)?)?,
        styles: styles(find(folder, STYLES), "worker")?,
        allow_repeats: options.allow_repeats,
    };
    // In the order in which workers first occur.
    let (mut workers, mut places): (Vec<(String, Vec<String>)>, _) = (Vec::new(), std::collections::HashMap::new());
    let mut rows = Vec::new();
    for (at, record) in reader.records().enumerate() {
        let bad = |problem: String| DatasetRow {
            id: format!("{}:{}", SCORES[0], at + 2),
            user: Err(crate::histories::HistoryFault::Line { problem }),
        };
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                rows.push(bad(error.to_string()));
                continue;
            }
        };
        let fields = [worker, image, score].map(|place| record.get(place).unwrap_or_default());
        let [worker, image, score] = fields;
        match (values::id(worker), score.parse::<f64>()) {
            (Ok(()), Ok(score)) if !image.is_empty() && score > DISLIKED => {
                let place = *places.entry(worker.to_owned()).or_insert_with(|| {
                    workers.push((worker.to_owned(), Vec::new()));
                    workers.len() - 1
                });
                workers[place].1.push(stem(image).to_owned());
            }
            (Ok(()), Ok(score)) if !image.is_empty() && score <= DISLIKED => {}
            _ => rows.push(bad(format!("no worker, image and score: {fields:?}"))),
        }
    }
    rows.extend(workers.iter().flat_map(|(worker, liked)| items.windows(worker, liked)));
    Ok(rows)
}
