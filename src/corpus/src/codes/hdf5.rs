//! The HDF5 file of the public VALL-E trainer: a group for each utterance with the dataset `audio`, the codes as `[frame, level]`, and the
//! transcript and the rest as attributes (`create_dataset_hdf5` in `vall_e/data.py`). h5py compresses with LZF.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hdf5_reader::attribute_api::Attribute;
use hdf5_reader::dataset::Dataset;
use hdf5_reader::datatype_api::H5Type;
use hdf5_reader::error::Error;
use hdf5_reader::filters::FilterRegistry;
use hdf5_reader::messages::datatype::Datatype;
use hdf5_reader::storage::FileStorage;
use hdf5_reader::{Hdf5File, OpenOptions};
use serde_json::{Map, Value};

use super::lzf;
use crate::CorpusError;
use crate::source::FileStamp;

/// First bytes of a file.
pub const MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";

/// The dataset of codes.
const AUDIO: &str = "audio";
/// The number of the LZF filter.
const LZF: u16 = 32_000;
/// The size of the largest chunk and of the largest dataset that are read, in bytes.
const LARGEST_CHUNK: usize = 64 << 20;
/// The deepest group.
const DEEPEST: usize = 16;
/// The number of utterances after which a file is opened anew: the reader keeps what it has seen of a file.
const REOPEN_AFTER: usize = 10_000;

/// An utterance of a file.
#[derive(Debug)]
pub struct Entry {
    /// The path of its group below the first, with `/` between the parts.
    pub key: String,
    /// Attributes of the utterance's group; an error says why they cannot be read.
    pub metadata: Result<Map<String, Value>, String>,
}

/// Returns the utterances below a group, in the order of the file; an empty `group` is the whole file.
///
/// # Errors
/// When the file cannot be read, or the group is not there.
pub fn entries(path: &Path, group: &str) -> Result<Vec<Entry>, CorpusError> {
    let (mut entries, mut waiting) = (Vec::new(), vec![(String::new(), 0)]);
    while let Some((key, depth)) = waiting.pop() {
        let found = open(path)?.group(&format!("{group}/{key}")).and_then(|group| {
            let (groups, datasets) = group.member_names()?;
            let is_utterance = datasets.iter().any(|name| name == AUDIO);
            Ok((groups, is_utterance.then(|| group.attributes())))
        });
        match found {
            Ok((_, Some(attributes))) => {
                let metadata = attributes.map(|attributes| attributes.iter().filter_map(value).collect());
                entries.push(Entry { key, metadata: metadata.map_err(|error| error.to_string()) });
            }
            Ok((groups, None)) if depth < DEEPEST => {
                let below = |name: String| (if key.is_empty() { name } else { format!("{key}/{name}") }, depth + 1);
                waiting.extend(groups.into_iter().rev().map(below));
            }
            Ok(_) => {}
            Err(error) if key.is_empty() => return Err(of_file(path, error)),
            // One damaged group is one rejected row.
            Err(error) => entries.push(Entry { key, metadata: Err(error.to_string()) }),
        }
    }
    Ok(entries)
}

/// Returns the codes of an utterance as a NumPy file of `i32 [1, level, frame]`.
///
/// # Errors
/// When the file cannot be read, or the utterance is not there.
pub fn read(path: &Path, key: &str) -> Result<Vec<u8>, CorpusError> {
    let named = |error: Error| match error {
        Error::Io(source) => CorpusError::io("read", path, source),
        error => CorpusError::structure(path, format!("`{key}`: {error}")),
    };
    let dataset = open(path)?.group(key).and_then(|group| group.dataset(AUDIO)).map_err(named)?;
    let &[frames, levels] = dataset.shape() else {
        let problem = format!("`{key}`: codes of shape {:?} instead of [frame, level]", dataset.shape());
        return Err(CorpusError::structure(path, problem));
    };
    let values = integers(&dataset).map_err(named)?;
    let (frames, levels) = (frames as usize, levels as usize);
    let header = format!("{{'descr': '<i4', 'fortran_order': False, 'shape': (1, {levels}, {frames}), }}\n");
    let mut npy = b"\x93NUMPY\x01\0".to_vec();
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.as_bytes());
    for level in 0..levels {
        // A number that is no code of any codec stays one.
        let codes = values.iter().skip(level).step_by(levels.max(1));
        codes.for_each(|code| npy.extend(i32::try_from(*code).unwrap_or(-1).to_le_bytes()));
    }
    Ok(npy)
}

/// Returns the elements of a dataset of integers, row after row.
fn integers(dataset: &Dataset) -> Result<Vec<i64>, Error> {
    fn of<T: H5Type + Copy + Into<i64>>(dataset: &Dataset) -> Result<Vec<i64>, Error> {
        Ok(dataset.read_array::<T>()?.iter().map(|value| (*value).into()).collect())
    }
    match dataset.dtype() {
        Datatype::FixedPoint { size: 1, signed: true, .. } => of::<i8>(dataset),
        Datatype::FixedPoint { size: 1, signed: false, .. } => of::<u8>(dataset),
        Datatype::FixedPoint { size: 2, signed: true, .. } => of::<i16>(dataset),
        Datatype::FixedPoint { size: 2, signed: false, .. } => of::<u16>(dataset),
        Datatype::FixedPoint { size: 4, signed: true, .. } => of::<i32>(dataset),
        Datatype::FixedPoint { size: 4, signed: false, .. } => of::<u32>(dataset),
        // Other types are errors of the reader.
        _ => of::<i64>(dataset),
    }
}

/// Returns an attribute as JSON; `None` for types that JSON does not have.
fn value(attribute: &Attribute) -> Option<(String, Value)> {
    let number = |number: f64| match number.fract() == 0.0 && number.abs() < 9e15 {
        true => Value::from(number as i64),
        false => Value::from(number),
    };
    let single = || attribute.read_string().map(Value::from).or_else(|_| attribute.read_as_f64().map(number));
    let value = match attribute.shape.is_empty() {
        true => single().ok()?,
        false => attribute
            .read_strings()
            .map(Value::from)
            .or_else(|_| attribute.read_1d::<i64>().map(Value::from))
            .or_else(|_| attribute.read_1d::<f64>().map(Value::from))
            .ok()?,
    };
    Some((attribute.name.clone(), value))
}

/// The file that was opened last, for the rows that are read from it one after the other.
static LAST: Mutex<Option<Opened>> = Mutex::new(None);

struct Opened {
    path: PathBuf,
    stamp: FileStamp,
    file: Arc<Hdf5File>,
    uses: usize,
}

/// Opens a file, or takes the one that is open.
fn open(path: &Path) -> Result<Arc<Hdf5File>, CorpusError> {
    let io = |source| CorpusError::io("read", path, source);
    let stamp = FileStamp::of(&std::fs::metadata(path).map_err(io)?);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(opened) = last.as_mut().filter(|opened| opened.path == path && opened.stamp == stamp) {
        opened.uses += 1;
        if opened.uses < REOPEN_AFTER {
            return Ok(Arc::clone(&opened.file));
        }
    }
    let mut filters = FilterRegistry::new();
    filters.register(
        LZF,
        Box::new(|filter, block, _| {
            // The third number of the filter is the size of a chunk.
            let limit = filter.client_data.get(2).map_or(LARGEST_CHUNK, |size| *size as usize);
            lzf::decompress(block, limit.min(LARGEST_CHUNK)).map_err(Error::Other)
        }),
    );
    let options = OpenOptions {
        filter_registry: Some(filters),
        max_chunk_bytes: LARGEST_CHUNK,
        max_read_bytes: LARGEST_CHUNK,
        ..OpenOptions::default()
    };
    let storage = FileStorage::from_file(File::open(path).map_err(io)?).map_err(|error| of_file(path, error))?;
    let file = Hdf5File::from_storage_with_options(Arc::new(storage), options).map_err(|error| of_file(path, error))?;
    let file = Arc::new(file);
    *last = Some(Opened { path: path.to_owned(), stamp, file: Arc::clone(&file), uses: 0 });
    Ok(file)
}

/// An error of the file as a whole.
fn of_file(path: &Path, error: Error) -> CorpusError {
    match error {
        Error::Io(source) => CorpusError::io("read", path, source),
        error => CorpusError::structure(path, error.to_string()),
    }
}
