//! Reading of selected rows of a tar shard.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sidecar::Sidecar;
use super::{BIN, JSON, NPY, npy};
use crate::shard::{GROUP, ID, speech};
use crate::source::MAX_MEMBER_BYTES;
use crate::tar::{Member, MemberKind, Members};
use crate::{Array, ColumnSpec, CorpusError, DType, Row};

/// The position of a member's bytes.
#[derive(Clone, Copy, Debug)]
struct Span {
    offset: u64,
    size: u64,
}

/// The members of one row.
#[derive(Debug, Default)]
struct Places {
    json: Option<Span>,
    audio: Option<Span>,
    /// Columns of numbers by name.
    arrays: BTreeMap<String, Span>,
    /// Columns of bytes by name: their values in order.
    bytes: BTreeMap<String, Vec<Span>>,
}

impl Places {
    /// Adds a member by the part of its name after the key. Returns whether it is one that packed shards have.
    fn add(&mut self, extension: &str, span: Span) -> bool {
        if let Some(name) = extension.strip_suffix(NPY) {
            self.arrays.insert(name.to_owned(), span);
        } else if let Some((name, number)) = extension.strip_suffix(BIN).and_then(|stem| stem.rsplit_once('.')) {
            let values = self.bytes.entry(name.to_owned()).or_default();
            if number.parse() != Ok(values.len()) {
                return false;
            }
            values.push(span);
        } else if extension == JSON {
            self.json = Some(span);
        } else {
            self.audio = Some(span);
        }
        true
    }
}

/// The positions of a tar shard's rows. The file itself is opened for each read.
#[derive(Clone, Debug)]
pub struct TarShardReader {
    path: PathBuf,
    rows: Arc<[Places]>,
}

impl TarShardReader {
    /// Reads a shard's headers.
    ///
    /// # Errors
    /// [`CorpusError::Io`] if it cannot be read, [`CorpusError::Structure`] if it is not a tar file or not of this
    /// form.
    pub fn open(path: &Path) -> Result<Self, CorpusError> {
        let file = File::open(path).map_err(|e| CorpusError::io("read", path, e))?;
        let mut rows: Vec<Places> = Vec::new();
        let mut current: Option<String> = None;
        for member in Members::of(&file).map_err(|e| CorpusError::io("read", path, e))? {
            let member = member
                .map_err(|damage| CorpusError::structure(path, format!("at byte {}: {}", damage.at, damage.problem)))?;
            let Some((key, extension)) = parts(&member) else {
                let name = String::from_utf8_lossy(&member.name).into_owned();
                return Err(CorpusError::structure(path, format!("contains `{name}`, which no packed shard does")));
            };
            if current.as_deref() != Some(key) {
                current = Some(key.to_owned());
                rows.push(Places::default());
            }
            // The code above pushed a row, or there was one.
            let span = Span { offset: member.offset, size: member.size };
            if rows.last_mut().is_some_and(|row| !row.add(extension, span)) {
                let name = String::from_utf8_lossy(&member.name).into_owned();
                return Err(CorpusError::structure(path, format!("contains `{name}` out of order")));
            }
        }
        Ok(Self { path: path.to_path_buf(), rows: rows.into() })
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Returns the number of the row whose recording begins at a position in the file.
    pub fn row_of(&self, offset: u64) -> Option<usize> {
        self.rows.iter().position(|row| row.audio.is_some_and(|audio| audio.offset == offset))
    }

    /// Returns the columns of the first row, without the recording and other bytes.
    ///
    /// # Errors
    /// [`CorpusError::Structure`] if it is not of this form; [`CorpusError::Io`].
    pub fn columns(&self) -> Result<Vec<ColumnSpec>, CorpusError> {
        let Some(first) = self.rows.first() else { return Ok(Vec::new()) };
        let file = File::open(&self.path).map_err(|e| CorpusError::io("read", &self.path, e))?;
        let fail = |problem: String| CorpusError::structure(&self.path, problem);
        let mut columns = self.small(&file, first, 0)?.columns;
        for (name, span) in &first.arrays {
            columns.insert(name.clone(), npy::decode(&self.bytes(&file, *span)?).map_err(fail)?);
        }
        let spec = |(name, array): (String, Array)| {
            let spec = ColumnSpec::new(name, array.dtype());
            (0..array.shape().len()).fold(spec, |spec, at| spec.axis(format!("axis{at}")))
        };
        Ok(columns.into_iter().map(spec).collect())
    }

    /// Returns the row in the JSON of a row.
    fn small(&self, file: &File, places: &Places, number: usize) -> Result<Row, CorpusError> {
        let fail = |problem: String| CorpusError::structure(&self.path, problem);
        let json = places.json.ok_or_else(|| fail(format!("row {number} has no .{JSON}")))?;
        let sidecar: Sidecar = serde_json::from_slice(&self.bytes(file, json)?)
            .map_err(|e| fail(format!("row {number}: its .{JSON} is not that of a packed shard: {e}")))?;
        sidecar.into_row().map_err(|problem| fail(format!("row {number}: {problem}")))
    }

    /// Returns the rows with the given numbers, with the given columns.
    ///
    /// # Errors
    /// [`CorpusError::Structure`] for a row that does not exist, is not of this form, or lacks a column; [`CorpusError::Io`].
    pub fn fetch(&self, rows: &[usize], columns: &[ColumnSpec]) -> Result<Vec<Row>, CorpusError> {
        let file = File::open(&self.path).map_err(|e| CorpusError::io("read", &self.path, e))?;
        rows.iter().map(|&row| self.row(&file, row, columns)).collect()
    }

    fn row(&self, file: &File, number: usize, columns: &[ColumnSpec]) -> Result<Row, CorpusError> {
        let fail = |problem: String| CorpusError::structure(&self.path, problem);
        let have = self.rows.len();
        let places =
            self.rows.get(number).ok_or_else(|| fail(format!("has {have} rows, but row {number} was requested")))?;
        let mut small = self.small(file, places, number)?;
        let mut row = Row { id: small.id.clone(), group: small.group.clone(), ..Row::default() };
        for column in columns.iter().filter(|column| column.name != ID && column.name != GROUP) {
            let name = &column.name;
            let fail = |problem: String| fail(format!("row `{}`: column `{name}` {problem}", small.id));
            let array = match small.columns.remove(name) {
                Some(array) => Some(array),
                None => self.column(file, places, column)?.map_err(fail)?,
            };
            match array {
                Some(array) => {
                    let array = array.widened(column.dtype).map_err(|error| fail(error.to_string()))?;
                    column.check(&array).map_err(|error| fail(error.to_string()))?;
                    row.columns.insert(name.clone(), array);
                }
                None if column.required => return Err(fail("is missing".to_owned())),
                None => {}
            }
        }
        Ok(row)
    }

    /// Reads a column that has members of its own; `None` if it has none. The inner result is that of the member's
    /// content.
    fn column(
        &self,
        file: &File,
        places: &Places,
        column: &ColumnSpec,
    ) -> Result<Result<Option<Array>, String>, CorpusError> {
        let name = &column.name;
        if let Some(&span) = places.arrays.get(name) {
            return Ok(npy::decode(&self.bytes(file, span)?).map(Some));
        }
        if column.dtype != DType::Bytes {
            return Ok(Ok(None));
        }
        if let Some(span) = places.audio.filter(|_| name == speech::AUDIO_DATA) {
            return Ok(Ok(Some(Array::scalar(self.bytes(file, span)?))));
        }
        let Some(spans) = places.bytes.get(name) else {
            // A column without values has no member.
            return Ok(Ok((!column.axes.is_empty()).then(|| Array::vector(Vec::<Vec<u8>>::new()))));
        };
        let mut values = spans.iter().map(|&span| self.bytes(file, span)).collect::<Result<Vec<_>, _>>()?;
        if column.axes.is_empty() && values.len() == 1 {
            return Ok(Ok(values.pop().map(Array::scalar)));
        }
        Ok(Ok(Some(Array::vector(values))))
    }

    /// Reads a member's bytes, which were checked to exist when the file was opened.
    fn bytes(&self, file: &File, span: Span) -> Result<Vec<u8>, CorpusError> {
        if span.size > MAX_MEMBER_BYTES {
            return Err(CorpusError::structure(&self.path, format!("has a member of {} bytes", span.size)));
        }
        let mut bytes = vec![0; span.size as usize];
        file.read_exact_at(&mut bytes, span.offset).map_err(|e| CorpusError::io("read", &self.path, e))?;
        Ok(bytes)
    }
}

/// Returns the key and the part of the name after its dot.
fn parts(member: &Member) -> Option<(&str, &str)> {
    let name = std::str::from_utf8(&member.name).ok().filter(|_| member.kind == MemberKind::File)?;
    name.split_once('.').filter(|(key, _)| !key.contains('/'))
}
