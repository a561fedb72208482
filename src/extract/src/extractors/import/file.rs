//! Reading the files: a dictionary from ids to lists of numbers.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use flowmill_weights::{PickleFile, PickleValue, WeightError};

use super::ImportConfig;
use super::vocabulary_offset::{mixed_sequence, mixed_streams};
use crate::dual_codebook::DualCodebook;

/// The names under which Step-Audio's tokenizer keeps its streams: mixed, linguistic, semantic.
const STREAMS: [&str; 3] = ["vq0206", "vq02", "vq06"];

/// The reason why a file cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] WeightError),
    /// The file is not of this form.
    #[error("{}: {problem}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// The fault.
        problem: String,
    },
    /// The value of an id cannot be used.
    #[error("{}: `{id}`: {problem}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The id.
        id: String,
        /// The fault.
        problem: String,
    },
    /// Two files say otherwise of one id.
    #[error("`{id}` is in {} and in {} with different values; leave one of them out", first.display(), second.display())]
    Contradiction {
        /// The id.
        id: String,
        /// The file that has it first.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A speaker has several embeddings, and it is unknown which of them is a row's.
    #[error(
        "speaker `{speaker}` has different embeddings in {}, and which of them is that of split `{split}` cannot be told: name the \
             split of each file, `speakers: {{train: FILE, dev: FILE}}`",
        listed(files)
    )]
    Ambiguous {
        /// The speaker.
        speaker: String,
        /// The split of the row.
        split: String,
        /// The files that have the speaker.
        files: Vec<PathBuf>,
    },
}

/// "a.pt and b.pt".
fn listed(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" and ")
}

/// The embeddings of files by their ids, each of `dimensions` finite values.
///
/// # Errors
/// When a file cannot be read, the first id whose value is none, or an id of which two files say otherwise.
pub fn read_embeddings(paths: &[PathBuf], dimensions: usize) -> Result<BTreeMap<String, Vec<f32>>, ImportError> {
    read_all(paths, embedding(dimensions))
}

/// The embeddings of one file by their ids, each of `dimensions` finite values.
///
/// # Errors
/// When it cannot be read, and the first id whose value is none.
pub(super) fn read_file(path: &Path, dimensions: usize) -> Result<BTreeMap<String, Vec<f32>>, ImportError> {
    read(path, embedding(dimensions))
}

/// The ids of a file, without their values.
///
/// # Errors
/// When it cannot be read.
pub(super) fn read_ids(path: &Path) -> Result<BTreeSet<String>, ImportError> {
    Ok(read(path, |_, _| Ok(()))?.into_keys().collect())
}

/// Takes an embedding of `dimensions` finite values.
fn embedding(dimensions: usize) -> impl Fn(&mut PickleFile<'_>, &PickleValue) -> Result<Vec<f32>, String> {
    move |file, value| {
        let values =
            floats(file, value).ok_or_else(|| format!("a list of numbers is expected, not {}", value.summary()))?;
        if values.len() != dimensions {
            return Err(format!("{} values instead of {dimensions} (set `dimensions`)", values.len()));
        }
        let narrow: Vec<f32> = values.iter().map(|value| *value as f32).collect();
        match narrow.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(format!("value {at} is {}", values[at])),
            None => Ok(narrow),
        }
    }
}

/// The tokens of files by their ids, each within the vocabulary; of two codebooks, the mixed sequence.
///
/// # Errors
/// When a file cannot be read, the first id whose tokens are none, or an id of which two files say otherwise.
pub fn read_tokens(paths: &[PathBuf], config: &ImportConfig) -> Result<BTreeMap<String, Vec<i64>>, ImportError> {
    read_all(paths, |file, value| match config.dual {
        Some(codebook) => mixed(file, value, codebook),
        None => single(file, value, config.vocabulary),
    })
}

/// Reads all files into one dictionary.
fn read_all<T: PartialEq>(
    paths: &[PathBuf],
    take: impl Fn(&mut PickleFile<'_>, &PickleValue) -> Result<T, String>,
) -> Result<BTreeMap<String, T>, ImportError> {
    let mut all: BTreeMap<String, (T, &Path)> = BTreeMap::new();
    for path in paths {
        for (id, value) in read(path, &take)? {
            match all.entry(id) {
                Entry::Vacant(place) => {
                    place.insert((value, path.as_path()));
                }
                Entry::Occupied(there) if there.get().0 == value => {}
                Entry::Occupied(there) => {
                    let (id, first) = (there.key().clone(), there.get().1.to_owned());
                    return Err(ImportError::Contradiction { id, first, second: path.clone() });
                }
            }
        }
    }
    Ok(all.into_iter().map(|(id, (value, _))| (id, value)).collect())
}

/// Reads a dictionary, each value by `take`. An id that is there twice has its last value, as in Python.
fn read<T>(
    path: &Path,
    take: impl Fn(&mut PickleFile<'_>, &PickleValue) -> Result<T, String>,
) -> Result<BTreeMap<String, T>, ImportError> {
    let form = |problem: String| ImportError::Form { path: path.to_owned(), problem };
    let mut file = PickleFile::open(path)?;
    let entries = match std::mem::replace(&mut file.value, PickleValue::None) {
        PickleValue::Dict(entries) => entries,
        other => return Err(form(format!("a dictionary from ids to lists is expected, not {}", other.summary()))),
    };
    let mut values = BTreeMap::new();
    for (key, value) in entries {
        let id = match &key {
            PickleValue::Text(id) => id.to_string(),
            PickleValue::Int(id) => id.to_string(),
            other => return Err(form(format!("an id that is neither text nor number but {}", other.summary()))),
        };
        let taken = take(&mut file, &value).map_err(|problem| ImportError::Entry {
            path: path.to_owned(),
            id: id.clone(),
            problem,
        })?;
        values.insert(id, taken);
    }
    Ok(values)
}

/// The numbers of a list, or of a tensor in row order.
fn floats(file: &mut PickleFile<'_>, value: &PickleValue) -> Option<Vec<f64>> {
    let PickleValue::Tensor(view) = value else { return value.to_floats() };
    let tensor = file.load(view).ok()?.to_floats()?.ok()?;
    let values = tensor.flatten_all().and_then(|tensor| tensor.to_vec1::<f32>()).ok()?;
    Some(values.into_iter().map(f64::from).collect())
}

/// The integers of a list, or of a tensor in row order.
fn integers(file: &mut PickleFile<'_>, value: &PickleValue) -> Option<Vec<i64>> {
    let PickleValue::Tensor(view) = value else { return value.to_ints() };
    let tensor = file.load(view).ok()?.to_integers()?.ok()?;
    tensor.flatten_all().and_then(|tensor| tensor.to_vec1::<i64>()).ok()
}

/// Tokens of one codebook.
fn single(file: &mut PickleFile<'_>, value: &PickleValue, vocabulary: usize) -> Result<Vec<i64>, String> {
    if value.get(STREAMS[0]).or_else(|| value.get(STREAMS[1])).is_some() {
        return Err("it has the streams of two codebooks; set `dual: {linguistic: 1024, semantic: 4096}`".into());
    }
    let tokens =
        integers(file, value).ok_or_else(|| format!("a list of integers is expected, not {}", value.summary()))?;
    match tokens.iter().position(|token| !usize::try_from(*token).is_ok_and(|token| token < vocabulary)) {
        Some(at) => {
            Err(format!("token {} at {at} is not in the vocabulary of {vocabulary} (set `vocabulary`)", tokens[at]))
        }
        None => Ok(tokens),
    }
}

/// The mixed sequence of two codebooks: as it stands, or made of its streams.
fn mixed(file: &mut PickleFile<'_>, value: &PickleValue, codebook: DualCodebook) -> Result<Vec<i64>, String> {
    let sequence = if value.as_dict().is_some() { value.get(STREAMS[0]) } else { Some(value) };
    if let Some(sequence) = sequence {
        let tokens = integers(file, sequence)
            .ok_or_else(|| format!("a mixed sequence is expected, not {}", sequence.summary()))?;
        return mixed_sequence(tokens, codebook);
    }
    let mut stream = |name: &str| -> Result<Vec<i64>, String> {
        let value = value.get(name).ok_or_else(|| format!("it has neither `{}` nor `{name}`", STREAMS[0]))?;
        integers(file, value).ok_or_else(|| format!("`{name}` is {}, no list of integers", value.summary()))
    };
    mixed_streams(stream(STREAMS[1])?, stream(STREAMS[2])?, codebook)
}
