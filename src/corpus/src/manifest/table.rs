//! Tables of text with a header: CSV with quotes, and TSV without.

use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value};

use super::Parsed;
use crate::delimited::Table;
use crate::fields::Object;
use crate::lines::TextFile;
use crate::objects::RowReader;
use crate::reading::Rejection;
use crate::{CorpusError, encoding};

/// Returns whether a file is a table whose header names the recordings; `name` is its name in lower case.
pub(super) fn is_table(bytes: &[u8], name: &str) -> bool {
    let bytes = encoding::without_mark(&bytes[..bytes.len().min(1 << 16)]);
    let first = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii).find(|line| !line.is_empty());
    let named = [".csv", ".tsv", ".txt"].iter().any(|ending| name.ends_with(ending));
    named && first.and_then(|line| Table::of(&String::from_utf8_lossy(line))).is_some_and(|table| table.has_header())
}

/// Reads the rows below the header of a table.
///
/// # Errors
/// [`CorpusError::Structure`] if the first line names no recordings.
pub(crate) fn read(reader: &RowReader<'_>, name: &str, full: &Path, bytes: Vec<u8>) -> Result<Parsed, CorpusError> {
    let file = TextFile::from_bytes(name, full.to_path_buf(), bytes);
    let lines = file.lines();
    let first = lines.first().map(|line| file.lossy(line)).unwrap_or_default();
    let table = Table::of(&first).filter(Table::has_header);
    let table = table.ok_or_else(|| CorpusError::structure(full, "has no first line that names the fields"))?;
    match table.separator() {
        ',' | ';' => Ok(quoted(reader, name, &file, table.separator() as u8)),
        separator => {
            let names: Vec<String> = first.split(separator).map(plain).collect();
            let row = |line: &crate::lines::Line| {
                let place = format!("{name}:{}", line.number);
                // The end of a line may be an empty field.
                match file.text(line) {
                    Ok(text) => reader.row(object(&names, text.split(separator).map(str::trim)), None, place),
                    Err(problem) => Err(Rejection { id: place, reason: format!("manifest {problem}") }),
                }
            };
            Ok(lines[1..].par_iter().map(row).collect())
        }
    }
}

/// Reads a table in which fields may be quoted and contain line ends.
fn quoted(reader: &RowReader<'_>, name: &str, file: &TextFile, separator: u8) -> Parsed {
    let mut table =
        csv::ReaderBuilder::new().delimiter(separator).has_headers(false).flexible(true).from_reader(file.bytes());
    let mut names: Option<Vec<String>> = None;
    let mut parsed = Vec::new();
    let mut record = csv::ByteRecord::new();
    loop {
        let line = table.position().line();
        let place = || format!("{name}:{line}");
        match table.read_byte_record(&mut record) {
            Ok(false) => return parsed,
            Ok(true) => {}
            Err(problem) => {
                parsed.push(Err(Rejection {
                    id: place(),
                    reason: format!("bad line in the manifest: {} {problem}", place()),
                }));
                return parsed;
            }
        }
        let fields: Result<Vec<&str>, _> = record.iter().map(std::str::from_utf8).collect();
        match (&names, fields) {
            (None, fields) => names = Some(fields.unwrap_or_default().into_iter().map(plain).collect()),
            (Some(names), Ok(fields)) => parsed.push(reader.row(object(names, fields.into_iter()), None, place())),
            (Some(_), Err(_)) => {
                let reason = format!("manifest is not UTF-8: {}; {}", place(), file.encoding_advice());
                parsed.push(Err(Rejection { id: place(), reason }));
            }
        }
    }
}

/// Returns a field's name without quotes.
fn plain(name: &str) -> String {
    name.trim().trim_matches(['"', '\u{feff}']).trim().to_owned()
}

/// Returns the object of a line. Missing fields at the end are empty; more fields than names are an error.
pub(crate) fn object<'a>(names: &[String], fields: impl Iterator<Item = &'a str>) -> Result<Object, String> {
    let (mut object, mut count) = (Map::new(), 0);
    for (at, field) in fields.enumerate() {
        count = at + 1;
        if let Some(name) = names.get(at).filter(|_| !field.trim().is_empty()) {
            object.insert(name.clone(), Value::from(field));
        }
    }
    if count > names.len() {
        return Err(format!("has {count} fields, more than the {} that are named", names.len()));
    }
    Ok(Object::from(object))
}
