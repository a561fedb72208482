//! Types, sizes and rates of the columns of shards, measured on a few rows.

use std::collections::BTreeMap;
use std::path::Path;

use flowmill_audio::Decoder;

use super::files;
use crate::shard::{AnyShard, speech};
use crate::{Array, ArrayData, ColumnSpec, CorpusError, DType, Row};

/// The number of shards that are sampled: the first, the last, and some between them.
const FILES: usize = 4;
/// The number of rows of a shard that are sampled.
const ROWS: usize = 24;
/// The number of rows whose recordings are examined if the shard has no durations.
const RECORDINGS: usize = 8;

/// The columns of shards, as a sample of their rows shows them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The number of shards.
    pub shards: usize,
    /// The number of sampled rows.
    pub rows: usize,
    /// The columns other than bytes that every sampled shard has.
    pub columns: BTreeMap<String, SampledColumn>,
}

/// The values of a column in the sampled rows.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledColumn {
    /// The type.
    pub dtype: DType,
    /// The size of every axis where it is the same in all rows.
    pub sizes: Vec<Option<usize>>,
    /// The largest integer.
    pub most: Option<i64>,
    /// The rates of the rows whose duration is known.
    rates: Vec<f64>,
}

impl SampledColumn {
    fn of(array: &Array) -> Self {
        let sizes = array.shape().iter().map(|size| Some(*size)).collect();
        Self { dtype: array.dtype(), sizes, most: None, rates: Vec::new() }
    }

    fn add(&mut self, array: &Array, seconds: Option<f64>) {
        let same = self.sizes.len() == array.shape().len();
        for (own, size) in self.sizes.iter_mut().zip(array.shape()) {
            *own = own.filter(|own| same && own == size);
        }
        let most = match array.data() {
            ArrayData::I32(values) => values.iter().copied().max().map(i64::from),
            ArrayData::I64(values) => values.iter().copied().max(),
            ArrayData::U8(values) => values.iter().copied().max().map(i64::from),
            _ => None,
        };
        self.most = self.most.max(most);
        if let (Some(seconds), Some(size)) = (seconds, array.shape().last()) {
            self.rates.push(*size as f64 / seconds);
        }
    }

    /// Returns the number of values along the innermost axis per second of the recordings; `None` if no duration is known. It is the median
    /// of the rows, because some may be damaged.
    pub fn rate(&self) -> Option<f64> {
        let mut sorted = self.rates.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }
}

/// Samples the shards that a path names.
///
/// # Errors
/// [`CorpusError::Structure`] if there is no shard; [`CorpusError`] if all that were chosen are damaged.
pub fn sample(root: &Path, path: &str) -> Result<Sample, CorpusError> {
    let files = files(root, path)?;
    let last = files.len() - 1;
    let mut chosen: Vec<usize> = (0..FILES).map(|at| at * last / (FILES - 1)).collect();
    chosen.dedup();
    let (mut whole, mut damage): (Option<Sample>, Option<CorpusError>) = (None, None);
    for at in chosen {
        let of_file = match sample_of(&root.join(&files[at]), ROWS) {
            Ok(of_file) => of_file,
            Err(error) => {
                damage = Some(error);
                continue;
            }
        };
        // A shard whose rows were all left out says nothing.
        if of_file.rows == 0 {
            continue;
        }
        whole = Some(match whole {
            Some(whole) => whole.merged(of_file),
            None => of_file,
        });
    }
    match (whole, damage) {
        (None, Some(error)) => Err(error),
        (whole, _) => Ok(Sample { shards: files.len(), ..whole.unwrap_or_default() }),
    }
}

/// Samples the first rows of a shard.
///
/// # Errors
/// As [`sample`].
pub fn sample_of(path: &Path, rows: usize) -> Result<Sample, CorpusError> {
    let shard = AnyShard::open(path)?;
    let count = rows.min(shard.rows());
    let numbers: Vec<usize> = (0..count).collect();
    let mut columns = shard.columns()?;
    columns.retain(|column| column.dtype != DType::Bytes && column.name != speech::MEL);
    let columns: Vec<ColumnSpec> = columns.into_iter().map(ColumnSpec::optional).collect();
    let read = shard.fetch(&numbers, &columns)?;
    let seconds = seconds(&shard, &read, path)?;
    let mut found: BTreeMap<String, SampledColumn> = BTreeMap::new();
    for (at, row) in read.iter().enumerate() {
        for (name, array) in &row.columns {
            let column = found.entry(name.clone()).or_insert_with(|| SampledColumn::of(array));
            column.add(array, seconds.get(at).copied().flatten());
        }
    }
    Ok(Sample { shards: 1, rows: count, columns: found })
}

/// Returns the durations of rows, from their column or from the recordings of the first ones.
fn seconds(shard: &AnyShard, rows: &[Row], path: &Path) -> Result<Vec<Option<f64>>, CorpusError> {
    let given = |row: &Row| row.value::<f64>(speech::DURATION).ok().copied().filter(|seconds| *seconds > 0.0);
    if rows.iter().any(|row| given(row).is_some()) {
        return Ok(rows.iter().map(given).collect());
    }
    let numbers: Vec<usize> = (0..rows.len().min(RECORDINGS)).collect();
    let recordings = shard.fetch(&numbers, &[ColumnSpec::new(speech::AUDIO_DATA, DType::Bytes).optional()])?;
    let name = path.display().to_string();
    let probe = |row: &Row| {
        let info = Decoder::default().probe_bytes(row.bytes(speech::AUDIO_DATA).ok()?, &name).ok()?;
        Some(info.seconds()).filter(|seconds| *seconds > 0.0)
    };
    Ok(recordings.iter().map(probe).collect())
}

impl Sample {
    /// Adds the sample of another shard. Columns that one of them lacks are dropped.
    fn merged(mut self, other: Self) -> Self {
        self.rows += other.rows;
        self.columns.retain(|name, own| {
            let Some(theirs) = other.columns.get(name) else { return false };
            let same = own.sizes.len() == theirs.sizes.len() && own.dtype == theirs.dtype;
            for (own, size) in own.sizes.iter_mut().zip(&theirs.sizes) {
                *own = own.filter(|own| same && Some(*own) == *size);
            }
            own.most = own.most.max(theirs.most);
            own.rates.extend(&theirs.rates);
            same
        });
        self
    }
}
