//! Files that list the images of a folder: `items.json`, and `metadata.jsonl` or `metadata.csv` of Hugging Face.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Fields, Item};
use crate::{CorpusError, encoding, fields};

/// Largest size of an index, in bytes.
const LARGEST: u64 = 1 << 30;

/// Reads the images that an index of a folder lists.
pub(super) fn read(folder: &Path, index: &Path) -> Result<Vec<Item>, CorpusError> {
    let bytes = read_text(index)?;
    let name = index.strip_prefix(folder).unwrap_or(index).to_string_lossy().into_owned();
    match index.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => Ok(of_table(&bytes, &name)),
        Some("jsonl") => Ok(of_lines(&bytes, &name)),
        _ => of_array(&bytes, index, &name),
    }
}

/// Reads a file of text, which may begin with a byte-order mark.
pub(crate) fn read_text(path: &Path) -> Result<Vec<u8>, CorpusError> {
    let io = |source| CorpusError::io("read", path, source);
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > LARGEST {
        let problem = format!("is larger than {LARGEST} bytes; split it into several files");
        return Err(CorpusError::structure(path, problem));
    }
    Ok(encoding::without_mark(&bytes).into_owned())
}

fn of_array(bytes: &[u8], index: &Path, name: &str) -> Result<Vec<Item>, CorpusError> {
    let items = match fields::parse(bytes) {
        Ok(Value::Array(items)) => items,
        Ok(_) => return Err(CorpusError::structure(index, "is not a JSON array of items")),
        Err(problem) => {
            return Err(CorpusError::structure(index, format!("{problem}; a JSON array of items is expected")));
        }
    };
    let item = |(at, value): (usize, Value)| of_value(value, format!("{name}[{at}]"));
    Ok(items.into_iter().enumerate().map(item).collect())
}

fn of_lines(bytes: &[u8], name: &str) -> Vec<Item> {
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    let item = |(at, line): (usize, &[u8])| {
        let place = format!("{name}:{}", at + 1);
        match fields::parse(line) {
            Ok(value) => of_value(value, place),
            Err(problem) => Item { name: place, item: Err(format!("bad line: {problem}")) },
        }
    };
    lines.map(item).collect()
}

fn of_table(bytes: &[u8], name: &str) -> Vec<Item> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let header: Vec<String> = match reader.byte_headers() {
        Ok(header) => header.iter().map(|field| String::from_utf8_lossy(field).trim().to_owned()).collect(),
        Err(problem) => return vec![Item { name: name.to_owned(), item: Err(format!("bad table: {problem}")) }],
    };
    let mut items = Vec::new();
    for (at, record) in reader.records().enumerate() {
        let place = format!("{name}:{}", at + 2);
        items.push(match record {
            Ok(record) if record.len() == header.len() => {
                let fields = header.iter().zip(&record).map(|(name, value)| (name.clone(), Value::from(value)));
                of_value(Value::Object(fields.collect()), place)
            }
            Ok(record) => {
                let problem = format!("bad line: it has {} fields, the header has {}", record.len(), header.len());
                Item { name: place, item: Err(problem) }
            }
            Err(problem) => Item { name: place, item: Err(format!("bad line: {problem}")) },
        });
    }
    items
}

/// Reads the fields of an image. It is named by its id, or else by its path or its place in the index.
fn of_value(value: Value, place: String) -> Item {
    let Value::Object(object) = value else {
        return Item { name: place, item: Err("bad item: it is not a JSON object".to_owned()) };
    };
    let (id, path) = (id(&object), text(&object, &["image_path", "file_name", "image", "path"]));
    let name = id.clone().or_else(|| path.clone()).unwrap_or_else(|| place.clone());
    let Some(path) = path else {
        let problem = format!("no image: {place} has no field `image_path` or `file_name` with a path");
        return Item { name, item: Err(problem) };
    };
    let keywords = match object.get("keywords") {
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let caption = text(&object, &["caption", "text", "prompt"]);
    Item { name, item: Ok(Fields { id, key: None, path, caption, emotion: text(&object, &["emotion"]), keywords }) }
}

/// Returns the id of an object, which may be a string or a whole number.
fn id(object: &Map<String, Value>) -> Option<String> {
    ["item_id", "id"].iter().find_map(|key| match object.get(*key)? {
        Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Value::Number(number) if number.is_u64() || number.is_i64() => Some(number.to_string()),
        _ => None,
    })
}

/// Returns the first of some texts that is not empty.
fn text(object: &Map<String, Value>, keys: &[&str]) -> Option<String> {
    let mut texts = keys.iter().filter_map(|key| object.get(*key)?.as_str());
    texts.find(|text| !text.trim().is_empty()).map(str::to_owned)
}
