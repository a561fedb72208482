//! Folders of images with captions.
//!
//! | layout | rows |
//! |---|---|
//! | `items.json` | the objects of its array, with `image_path` and `caption` |
//! | `metadata.jsonl`, `metadata.csv` | its lines, with `file_name` and `text` (`imagefolder` of Hugging Face) |
//! | neither | every `NAME.png`, `.jpg`, `.webp` or `.gif` with its `NAME.txt` |
//!
//! The first file that exists decides. A row has one medium [`Role::Images`] and no recording. Its text is the caption. Its id is
//! the object's own, or else made from the path; the group is the id. Whether an image is whole shows only when it is opened.

mod index;
mod pairs;
pub(crate) mod place;

pub(crate) use index::read_text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::reading::Candidate;
use crate::utterances::Extra;
use crate::{Array, ColumnSpec, CorpusError, DType, MediaRef, ReadOptions, Reading, Role, values};

/// Endings of images, in lower case.
pub const EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "gif"];

/// Files that list the images of a folder, in the order in which they are looked for.
pub const INDEX_FILES: [&str; 3] = ["items.json", "metadata.jsonl", "metadata.csv"];

/// The column with the emotion of an image.
pub const EMOTION: &str = "emotion";

/// The column with keywords of an image.
pub const KEYWORDS: &str = "keywords";

/// Returns the columns of rows, all optional.
pub fn columns() -> Vec<ColumnSpec> {
    vec![
        ColumnSpec::new(EMOTION, DType::Text).optional().docs("the emotion that the image shows"),
        ColumnSpec::new(KEYWORDS, DType::Text).axis("keyword").optional().docs("words that describe the image"),
    ]
}

/// Returns the file that lists the images of a folder, if there is one.
pub fn index_file(folder: &Path) -> Option<PathBuf> {
    INDEX_FILES.iter().map(|name| folder.join(name)).find(|file| file.is_file())
}

/// The files of a folder without an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Paths of images relative to the folder, sorted.
    pub images: Vec<String>,
    /// Paths of `.txt` files relative to the folder, sorted.
    pub texts: Vec<String>,
    /// Files whose names make them unusable, each with the reason.
    pub unusable: Vec<(String, String)>,
}

/// Lists a folder without an index and its subfolders.
///
/// # Errors
/// [`CorpusError::Structure`] when it is not a directory, [`CorpusError::Io`] when it cannot be listed.
pub fn list(folder: &Path) -> Result<Listing, CorpusError> {
    pairs::list(folder)
}

/// Reads the rows of a folder; `root` is the recipe's folder and `dir` the source as the recipe names it.
///
/// # Errors
/// [`CorpusError::Structure`] when it is not a directory, its index is none, or there is no image; [`CorpusError::Io`] when something
/// cannot be read.
pub fn read_directory(root: &Path, dir: &str, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    let folder = root.join(dir);
    if !folder.is_dir() {
        return Err(CorpusError::structure(&folder, "is not a directory; a folder of images is expected here"));
    }
    let mut reading = Reading::default();
    let items = match index_file(&folder) {
        Some(index) => {
            reading.files.push(index.clone());
            index::read(&folder, &index)?
        }
        None => pairs::read(&folder)?,
    };
    if items.is_empty() {
        let expected = "contains no image (.png, .jpg, .webp, .gif) and no items.json, metadata.jsonl or metadata.csv";
        return Err(CorpusError::structure(&folder, expected));
    }
    let mut rows = Vec::with_capacity(items.len());
    for Item { name, item } in items {
        match item.and_then(|item| item.into_candidate(root, &folder, &name, options)) {
            Ok(row) => rows.push(row),
            Err(reason) => reading.reject(&name, reason),
        }
    }
    Ok(reading.take(rows, true, options, "; rename one"))
}

/// An image that a folder names: its name for messages, and its fields or why there are none.
struct Item {
    name: String,
    item: Result<Fields, String>,
}

/// The fields of an image.
#[derive(Default)]
struct Fields {
    /// The item's own id; without one it is made from the path.
    id: Option<String>,
    /// The text that an id is made from; without one the path.
    key: Option<String>,
    /// The path below the folder.
    path: String,
    caption: Option<String>,
    emotion: Option<String>,
    keywords: Vec<String>,
}

impl Fields {
    fn into_candidate(
        self,
        root: &Path,
        folder: &Path,
        name: &str,
        options: &ReadOptions<'_>,
    ) -> Result<Candidate, String> {
        let file = place::file_in(folder, &self.path, true)
            .map_err(|_| format!("image outside of the folder: `{}` leaves it", self.path))?;
        let file = place::relative(&file, root)?;
        let (id, origin) = match self.id {
            Some(id) => (id, None),
            None => {
                let key = self.key.unwrap_or_else(|| self.path.clone());
                (crate::id_of_path(&key), Some(key))
            }
        };
        values::id(&id).map_err(|problem| format!("bad id: {problem}"))?;
        let caption = values::transcript(self.caption.as_deref().unwrap_or_default());
        let caption = caption.map_err(|problem| format!("bad caption: {problem}"))?;
        if caption.is_none() && !options.rows_without_text {
            return Err("no caption: it is missing or empty; prep.min_text: 0 keeps images without captions".to_owned());
        }
        let mut columns = BTreeMap::new();
        columns.extend(self.emotion.map(|emotion| (EMOTION.to_owned(), Array::text(emotion))));
        let keywords = (!self.keywords.is_empty()).then(|| Array::vector(self.keywords));
        columns.extend(keywords.map(|keywords| (KEYWORDS.to_owned(), keywords)));
        let media = BTreeMap::from([(Role::Images, vec![MediaRef(file)])]);
        Ok(Candidate {
            id,
            origin,
            speaker: None,
            text: caption.map(|caption| caption.into_owned()).ok_or_else(|| "no caption".to_owned()),
            language: None,
            wav: String::new(),
            start: None,
            end: None,
            duration: None,
            split: None,
            extra: Some(Box::new(Extra { media, columns, ..Extra::default() })),
            place: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)], options: &ReadOptions<'_>) -> Reading {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in files {
            let path = dir.path().join("d").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        read_directory(dir.path(), "d", options).unwrap()
    }

    fn rows(reading: &Reading) -> Vec<(String, String, String)> {
        let row = |row: crate::UtteranceRow<'_>| {
            let image = row.extra.unwrap().media[&Role::Images][0].0.clone();
            (row.utt.to_owned(), row.text.to_owned(), image)
        };
        reading.utterances.iter().map(row).collect()
    }

    fn row(id: &str, text: &str, image: &str) -> (String, String, String) {
        (id.to_owned(), text.to_owned(), image.to_owned())
    }

    #[test]
    fn items_have_captions_emotions_and_keywords() {
        let items = r#"[
            {"item_id": "cat", "image_path": "i/cat.png", "caption": " a  cat ", "emotion": "joy", "keywords": ["a", "b"]},
            {"item_id": 7, "image_path": "i/dog.png", "caption": "a dog", "score": NaN},
            {"item_id": "out", "image_path": "../x.png", "caption": "out"},
            {"item_id": "run", "image_path": "touch x |", "caption": "a command"},
            {"item_id": "mute", "image_path": "i/mute.png", "caption": " "},
            {"item_id": "none", "caption": "no path"},
            5
        ]"#;
        let reading = read(&[("items.json", items)], &ReadOptions::default());
        assert_eq!(rows(&reading), [row("7", "a dog", "d/i/dog.png"), row("cat", "a cat", "d/i/cat.png")]);
        let columns = &reading.utterances.row(1).extra.unwrap().columns;
        assert_eq!(columns[EMOTION].values::<String>().unwrap(), ["joy"]);
        assert_eq!(columns[KEYWORDS].values::<String>().unwrap(), ["a", "b"]);
        assert_eq!((reading.lines, reading.rejected.len()), (7, 5));
        let kept = ReadOptions { rows_without_text: true, ..ReadOptions::default() };
        assert_eq!(read(&[("items.json", items)], &kept).utterances.len(), 3);
    }

    #[test]
    fn image_folders_of_hugging_face_are_read() {
        let lines = "{\"file_name\": \"a/1.png\", \"text\": \"one\"}\n\n{\"file_name\": \"2.jpg\"\n{\"file_name\": \"2.jpg\", \"caption\": \"two\"}\n";
        let reading = read(&[("metadata.jsonl", lines)], &ReadOptions::default());
        assert_eq!(rows(&reading), [row("2.jpg", "two", "d/2.jpg"), row("a-1.png", "one", "d/a/1.png")]);
        assert_eq!((reading.lines, reading.rejected.len()), (3, 1));
        let table = "\u{feff}file_name,text\n\"a, b.png\",\"one \"\"two\"\"\nthree\"\nc.png,\n";
        let reading = read(&[("metadata.csv", table)], &ReadOptions::default());
        assert_eq!(rows(&reading), [row("a,-b.png", "one \"two\" three", "d/a, b.png")]);
        assert_eq!((reading.lines, reading.rejected.len()), (2, 1));
    }

    #[test]
    fn pairs_of_images_and_texts_need_both() {
        let files = [
            ("x/a.PNG", "i"),
            ("x/a.txt", "a cat\nlies"),
            ("b.jpg", "i"),
            ("c.txt", "alone"),
            ("d.webp", "i"),
            ("d.txt", ""),
            ("notes.md", "x"),
        ];
        let reading = read(&files, &ReadOptions::default());
        assert_eq!(rows(&reading), [row("x-a", "a cat lies", "d/x/a.PNG")]);
        let mut rejected: Vec<&str> = reading.rejected.iter().map(|rejected| rejected.id.as_str()).collect();
        rejected.sort_unstable();
        assert_eq!(rejected, ["b.jpg", "c.txt", "d.webp"]);
    }

    #[test]
    fn what_is_no_index_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let read = || read_directory(dir.path(), ".", &ReadOptions::default());
        assert!(matches!(read(), Err(CorpusError::Structure { .. })));
        std::fs::write(dir.path().join("items.json"), "{}").unwrap();
        assert!(matches!(read(), Err(CorpusError::Structure { .. })));
    }
}
