//! Parts of rows beyond utterances: media in `media-00000.parquet`, references and columns in
//! `columns-00000.parquet`, next to `part-00000.parquet` with the same rows. If no row has such parts, the table is
//! not written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flowmill_corpus::shard::{ShardOptions, ShardReader, ShardWriter};
use flowmill_corpus::{Array, ColumnSpec, DType, Extra, MediaRef, Role, Row};
use flowmill_runner::{PartWork, StageError};

/// The media of a row except its recording.
pub type Media = BTreeMap<Role, Vec<MediaRef>>;

/// The columns that contain the bytes of media in shards.
pub const MEDIA_BYTES: [(Role, &str); 2] = [(Role::Video, "video_data"), (Role::Images, "image_data")];

/// Returns the column with the bytes of a medium.
pub fn bytes_of(role: Role) -> ColumnSpec {
    let name = MEDIA_BYTES.iter().find(|(own, _)| *own == role).map_or("audio_data", |(_, name)| name);
    let column = ColumnSpec::new(name, DType::Bytes).docs(format!("{role}, in their own format"));
    if role == Role::Images { column.axis("image") } else { column }
}

/// Returns the column of a reference to other rows.
pub fn reference(name: &str) -> ColumnSpec {
    ColumnSpec::new(name, DType::Text).axis("row").optional().docs("ids of other rows")
}

/// The columns of the table of media. The column of codes is written only if a row has some.
fn media_columns() -> Vec<ColumnSpec> {
    vec![
        ColumnSpec::new(Role::Video.name(), DType::Text).optional(),
        ColumnSpec::new(Role::Images.name(), DType::Text).axis("image").optional(),
        ColumnSpec::new(Role::Codes.name(), DType::Text).optional(),
    ]
}

/// Returns the path of the table of media that belongs to a table of rows.
pub fn media_of(rows: &Path) -> PathBuf {
    sibling(rows, "media")
}

/// Returns the path of the table of columns that belongs to a table of rows.
pub fn columns_of(rows: &Path) -> PathBuf {
    sibling(rows, "columns")
}

/// Returns `…/KIND-00000.parquet` for `…/part-00000.parquet` or `…/rows-00000.parquet`.
fn sibling(rows: &Path, kind: &str) -> PathBuf {
    let name = rows.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let number = name.split_once('-').map_or(name, |(_, number)| number);
    rows.with_file_name(format!("{kind}-{number}"))
}

/// Parts of a row beyond an utterance, with its id and its group.
pub struct ExtraRow<'a> {
    /// The row's id.
    pub id: &'a str,
    /// The row's group.
    pub group: &'a str,
    /// The parts beyond those of an utterance.
    pub extra: &'a Extra,
}

/// Writes the tables that belong to the table of rows `output`, as far as rows have content for them.
///
/// # Errors
/// Returns an error if a table cannot be written.
pub fn write(work: &PartWork, output: &str, rows: &[ExtraRow<'_>], columns: &[ColumnSpec]) -> Result<(), StageError> {
    let out = Path::new(output);
    let name = |path: PathBuf| path.to_string_lossy().into_owned();
    let row = |row: &ExtraRow<'_>, columns| Row {
        id: row.id.to_owned(),
        group: row.group.to_owned(),
        columns,
        ..Row::default()
    };
    if rows.iter().any(|row| !row.extra.media.is_empty()) {
        let media = |extra: &Extra| {
            let paths = |(role, media): (&Role, &Vec<MediaRef>)| {
                let paths: Vec<String> = media.iter().map(|medium| medium.0.clone()).collect();
                let array = match (*role, paths.as_slice()) {
                    (Role::Images, _) => Array::vector(paths),
                    (_, [path, ..]) => Array::text(path),
                    (_, []) => return None,
                };
                Some((role.name().to_owned(), array))
            };
            extra.media.iter().filter_map(paths).collect()
        };
        let mut columns = media_columns();
        let has_codes = rows.iter().any(|row| row.extra.media.contains_key(&Role::Codes));
        columns.retain(|column| has_codes || column.name != Role::Codes.name());
        let rows = rows.iter().map(|own| row(own, media(own.extra)));
        write_table(&work.output(&name(media_of(out)))?, columns, rows)?;
    }
    let mut names: Vec<&String> = rows.iter().flat_map(|row| row.extra.references.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let specs: Vec<ColumnSpec> = columns.iter().cloned().chain(names.into_iter().map(|name| reference(name))).collect();
    if !specs.is_empty() && !rows.is_empty() {
        let values = |extra: &Extra| {
            let references = extra.references.iter().map(|(name, ids)| (name.clone(), Array::vector(ids.clone())));
            extra.columns.clone().into_iter().chain(references).collect()
        };
        let rows = rows.iter().map(|own| row(own, values(own.extra)));
        write_table(&work.output(&name(columns_of(out)))?, specs, rows)?;
    }
    Ok(())
}

/// Writes a table of these columns.
///
/// # Errors
/// Returns an error if the table cannot be written, or two columns have one name.
pub fn write_table(path: &Path, columns: Vec<ColumnSpec>, rows: impl Iterator<Item = Row>) -> Result<(), StageError> {
    let mut writer =
        ShardWriter::create(path, &ShardOptions { columns, ..ShardOptions::default() }).map_err(StageError::other)?;
    for row in rows {
        writer.push(row).map_err(StageError::other)?;
    }
    writer.finish().map(drop).map_err(StageError::other)
}

/// Returns the media of the rows of a table, by their ids; empty if there are none.
///
/// # Errors
/// Returns an error if the table cannot be read.
pub fn read_media(rows: &Path) -> Result<BTreeMap<String, Media>, StageError> {
    let path = media_of(rows);
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let table = ShardReader::open(&path).map_err(StageError::other)?;
    let media = |row: Row| {
        let of = |role: Role| {
            let paths = row.values::<String>(role.name()).ok()?;
            Some((role, paths.iter().cloned().map(MediaRef).collect()))
        };
        (row.id.clone(), [Role::Video, Role::Images, Role::Codes].into_iter().filter_map(of).collect())
    };
    let read = table.iter(&media_columns()).map_err(StageError::other)?;
    read.map(|row| row.map(media).map_err(StageError::other)).collect()
}

/// Returns the columns of these names of a table's rows, by the rows' ids, as far as rows have them.
///
/// # Errors
/// Returns an error if the table cannot be read.
pub fn read_columns(rows: &Path, names: &[&str]) -> Result<BTreeMap<String, BTreeMap<String, Array>>, StageError> {
    let path = columns_of(rows);
    if names.is_empty() || !path.exists() {
        return Ok(BTreeMap::new());
    }
    let table = ShardReader::open_table(&path).map_err(StageError::other)?;
    let (mut specs, _) = table.columns();
    specs.retain(|column| names.contains(&column.name.as_str()));
    if specs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let read = table.iter(&specs).map_err(StageError::other)?;
    read.map(|row| row.map(|row| (row.id, row.columns)).map_err(StageError::other)).collect()
}

/// Returns the parts of a table's rows beyond utterances, by id.
///
/// # Errors
/// Returns an error if a table cannot be read.
pub fn read(rows: &Path, columns: &[ColumnSpec], references: &[String]) -> Result<BTreeMap<String, Extra>, StageError> {
    let mut extras: BTreeMap<String, Extra> = BTreeMap::new();
    for (id, media) in read_media(rows)? {
        extras.entry(id).or_default().media = media;
    }
    let path = columns_of(rows);
    if !path.exists() {
        return Ok(extras);
    }
    let specs: Vec<ColumnSpec> = columns.iter().cloned().chain(references.iter().map(|name| reference(name))).collect();
    let table = ShardReader::open(&path).map_err(StageError::other)?;
    for row in table.iter(&specs).map_err(StageError::other)? {
        let row = row.map_err(StageError::other)?;
        let extra = extras.entry(row.id).or_default();
        for (name, array) in row.columns {
            match array.values::<String>() {
                Ok(ids) if references.contains(&name) => drop(extra.references.insert(name, ids.to_vec())),
                _ => drop(extra.columns.insert(name, array)),
            }
        }
    }
    Ok(extras)
}
