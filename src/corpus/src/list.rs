//! Lists of recordings with their fields in a stated order, one utterance per line: `path|speaker|language|text`.
//!
//! A first line that names the fields, as in F5-TTS (`audio_file|text`), states the order itself. Otherwise the source
//! states it (`columns: [path, speaker, language, text]`), or names the tool that the list is for, or the number of
//! fields decides: two are `path|text`, three `path|speaker|text`, four `path|speaker|language|text`.

use std::fs;
use std::path::Path;

use flowmill_audio::media;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::delimited::Table;
use crate::lines::{Line, TextFile};
use crate::manifest::table::{self, object};
use crate::manifest::{folder_of, taken};
use crate::objects::RowReader;
use crate::paths::{joined, prefix_of};
use crate::reading::{Candidate, Rejection};
use crate::{CorpusError, ReadOptions, Reading, encoding};

/// The order of the fields of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Order {
    /// That of a tool.
    Tool(Tool),
    /// The names of the fields: `path`, `speaker`, `language`, `text`, `id`, `duration`, or any other name for a column of
    /// `prep.columns`. `_` is a field that is not read.
    Columns(Vec<String>),
}

/// A tool that reads lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// GPT-SoVITS: `path|speaker|language|text`.
    GptSovits,
    /// Bert-VITS2: `path|speaker|language|text`, and after its own preparation phonemes, tones and counts.
    BertVits2,
    /// Matcha-TTS: `path|text` or `path|speaker|text`.
    Matcha,
    /// F5-TTS: `path|text`.
    F5,
    /// Piper: `id|text` or `id|speaker|text`, with recordings in `wavs/` or `wav/`.
    Piper,
}

/// Names of a field that is not read.
const UNREAD: &str = "_";

impl Tool {
    /// Returns the orders of its lists, which differ in their number of fields.
    fn orders(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::GptSovits => &[&["path", "speaker", "language", "text"]],
            Self::BertVits2 => &[
                &["path", "speaker", "language", "text"],
                &["path", "speaker", "language", "text", "phones", "tones", "word2ph"],
            ],
            Self::Matcha => &[&["path", "text"], &["path", "speaker", "text"]],
            Self::F5 => &[&["path", "text"]],
            Self::Piper => &[&["id", "text"], &["id", "speaker", "text"]],
        }
    }
}

/// The orders that the number of fields decides.
static BY_COUNT: [&[&str]; 3] =
    [&["path", "text"], &["path", "speaker", "text"], &["path", "speaker", "language", "text"]];

/// Returns the file of a source: itself, or `metadata.csv` in a folder.
pub fn file(root: &Path, path: &str) -> String {
    if root.join(path).is_dir() { joined(&prefix_of(path), "metadata.csv") } else { path.to_owned() }
}

/// Reads a list. Relative paths start from its folder, or from the folder that the source names.
///
/// # Errors
/// [`CorpusError::Structure`] if the file is missing, empty or not text, or the order is neither stated nor known.
pub fn read_file(root: &Path, path: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let path = file(root, path);
    let full = root.join(&path);
    let bytes = fs::read(&full).map_err(|e| CorpusError::io("read", &full, e))?;
    if let Some(problem) = encoding::no_text(&bytes) {
        return Err(CorpusError::structure(&full, problem));
    }
    let folder = folder_of(&path);
    let name = path.rsplit('/').next().unwrap_or(&path);
    let reader = RowReader::new(folder, "bad line in the list", options);
    let text = TextFile::from_bytes(name, full.clone(), bytes.clone());
    let lines = text.lines();
    let first = lines.first().ok_or_else(|| CorpusError::structure(&full, "is empty"))?;
    let first = text.lossy(first);
    let reading = Reading { files: vec![full.clone()], ..Reading::default() };
    if options.order.is_none() && Table::of(&first).is_some_and(|table| table.has_header()) {
        return Ok(taken(reading, table::read(&reader, name, &full, bytes)?, options));
    }
    let separator = ['|', '\t', ','].into_iter().find(|separator| first.contains(*separator)).unwrap_or('|');
    let order =
        order(options, first.split(separator).count()).map_err(|problem| CorpusError::structure(&full, problem))?;
    let recordings = Recordings::of(root, options.recordings.unwrap_or(folder), &order);
    let row = |line: &Line| row_of(&reader, &text, line, separator, &order, &recordings);
    let parsed = lines.par_iter().map(row).collect();
    Ok(taken(reading, parsed, options))
}

/// Returns the names of the fields of a list whose first line has `count`.
fn order(options: &ReadOptions<'_>, count: usize) -> Result<Vec<String>, String> {
    let of = |orders: &'static [&'static [&'static str]]| orders.iter().find(|order| order.len() == count);
    let found = match options.order {
        Some(Order::Columns(names)) => return Ok(names.clone()),
        Some(Order::Tool(tool)) => of(tool.orders()),
        None => of(&BY_COUNT),
    };
    let found = found.map(|order| order.iter().map(|name| (*name).to_owned()).collect());
    found.ok_or_else(|| {
        format!(
            "begins with a line of {count} fields, whose order is not known; state it at the source: `columns: [path, speaker, language, text]`"
        )
    })
}

/// Returns the row of a line.
fn row_of(
    reader: &RowReader<'_>,
    file: &TextFile,
    line: &Line,
    separator: char,
    order: &[String],
    recordings: &Recordings<'_>,
) -> Result<Candidate, Rejection> {
    let place = format!("{}:{}", file.name, line.number);
    let text = file.text(line).map_err(|problem| Rejection { id: place.clone(), reason: format!("list {problem}") })?;
    let fields: Vec<&str> = text.split(separator).map(str::trim).collect();
    let id = order.iter().position(|name| name == "id").and_then(|at| fields.get(at)).map(|id| (*id).to_owned());
    if fields.len() < order.len() {
        let problem = format!("has {} fields, fewer than the {} of {}", fields.len(), order.len(), order.join("|"));
        return reader.row(Err(problem), id, place);
    }
    let mut read = object(order, fields.into_iter());
    if let (Ok(object), Some(id)) = (&mut read, &id)
        && object.audio().is_none()
    {
        object.set("path", &recordings.path(id));
    }
    if let Ok(object) = &mut read {
        object.drop(UNREAD);
    }
    reader.row(read, id, place)
}

/// The recordings of a list that names them by their ids.
struct Recordings<'a> {
    root: &'a Path,
    /// The folder as the recipe names it.
    folder: String,
    /// The folder below it.
    below: &'static str,
}

impl<'a> Recordings<'a> {
    fn of(root: &'a Path, folder: &str, order: &[String]) -> Self {
        let is_there = |name: &&&str| root.join(folder).join(name).is_dir();
        let by_id = !order.iter().any(|name| name == "path");
        let below = ["wavs/", "wav/"].iter().filter(|_| by_id).find(is_there).copied().unwrap_or_default();
        Self { root, folder: folder.to_owned(), below }
    }

    /// Returns the path of the recording with this id: the first that exists with an extension of recordings, or else
    /// `ID.wav`.
    fn path(&self, id: &str) -> String {
        let folder = self.root.join(&self.folder);
        let mut names = std::iter::once(format!("{}{id}", self.below))
            .chain(media::EXTENSIONS.iter().map(|extension| format!("{}{id}.{extension}", self.below)));
        let found = names.find(|name| folder.join(name).is_file());
        found.unwrap_or_else(|| format!("{}{id}.wav", self.below))
    }
}
