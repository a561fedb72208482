//! Random access to a split, whose shards form one list of rows.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::cache::RowCache;
use super::tar::TarShardReader;
use super::{RowSizes, ShardEntry, ShardIndex, ShardReader};
use crate::{ColumnSpec, CorpusError, Row};

/// A split's shards as one list of rows that are read on demand. Each shard's checksum is verified at its first use.
/// May be used from several threads at the same time.
#[derive(Debug)]
pub struct Shards {
    folder: PathBuf,
    index: ShardIndex,
    columns: Vec<ColumnSpec>,
    /// The number of every shard's first row, followed by the total number of rows.
    starts: Vec<u32>,
    readers: Vec<Mutex<Option<AnyShard>>>,
    cache: Mutex<RowCache>,
}

/// A shard's reader, by its format.
#[derive(Clone, Debug)]
pub enum AnyShard {
    /// Parquet.
    Parquet(ShardReader),
    /// A tar file.
    Tar(TarShardReader),
}

impl AnyShard {
    /// Opens a shard. Its content determines its format, because CosyVoice names Parquet files `.tar`.
    ///
    /// # Errors
    /// [`CorpusError`] if it cannot be read, or is neither Parquet nor a tar file of packed rows.
    pub fn open(path: &Path) -> Result<Self, CorpusError> {
        let is_tar = path.extension().is_some_and(|extension| extension == "tar") && !crate::packed::is_parquet(path);
        if is_tar { TarShardReader::open(path).map(Self::Tar) } else { ShardReader::open(path).map(Self::Parquet) }
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Self::Parquet(reader) => reader.rows(),
            Self::Tar(reader) => reader.rows(),
        }
    }

    /// Returns the columns, of a tar file those of its first row.
    ///
    /// # Errors
    /// [`CorpusError`] if the first row of a tar file cannot be read.
    pub fn columns(&self) -> Result<Vec<ColumnSpec>, CorpusError> {
        match self {
            Self::Parquet(reader) => Ok(reader.columns().0),
            Self::Tar(reader) => reader.columns(),
        }
    }

    /// Returns the number of the row of a tar file whose recording begins at a position.
    pub fn row_of(&self, offset: u64) -> Option<usize> {
        match self {
            Self::Parquet(_) => None,
            Self::Tar(reader) => reader.row_of(offset),
        }
    }

    /// Returns the rows with the given numbers, which must ascend, with the given columns.
    ///
    /// # Errors
    /// [`CorpusError`] if a row does not exist, is damaged, or lacks a required column.
    pub fn fetch(&self, rows: &[usize], columns: &[ColumnSpec]) -> Result<Vec<Row>, CorpusError> {
        match self {
            Self::Parquet(reader) => reader.fetch(rows, columns),
            Self::Tar(reader) => reader.fetch(rows, columns),
        }
    }
}

impl Shards {
    /// Opens a split by its `index.json`. Rows will have the given columns. Decoded rows of up to `cache_bytes` are
    /// kept in memory.
    ///
    /// # Errors
    /// See [`ShardIndex::read`]; [`CorpusError::Structure`] for a split of more than 2³² rows.
    pub fn open(index_path: &Path, columns: &[ColumnSpec], cache_bytes: usize) -> Result<Self, CorpusError> {
        Self::with_index(index_path, ShardIndex::read(index_path)?, columns, cache_bytes)
    }

    /// Opens a split like [`Shards::open`], with the `index` that was read from `index_path`.
    ///
    /// # Errors
    /// [`CorpusError::Structure`] for a split of more than 2³² rows.
    pub fn with_index(
        index_path: &Path,
        index: ShardIndex,
        columns: &[ColumnSpec],
        cache_bytes: usize,
    ) -> Result<Self, CorpusError> {
        let mut starts = vec![0u32];
        for shard in &index.shards {
            let next = u64::from(starts[starts.len() - 1]) + shard.rows;
            starts.push(u32::try_from(next).map_err(|_| CorpusError::structure(index_path, "has too many rows"))?);
        }
        let readers = index.shards.iter().map(|_| Mutex::new(None)).collect();
        let folder = index_path.parent().unwrap_or(Path::new("")).to_path_buf();
        let cache = Mutex::new(RowCache::new(cache_bytes));
        Ok(Self { folder, index, columns: columns.to_vec(), starts, readers, cache })
    }

    /// Returns the index of the split.
    pub fn index(&self) -> &ShardIndex {
        &self.index
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.starts[self.starts.len() - 1] as usize
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the sizes of every row, from which the costs for [`crate::sampling`] are computed.
    pub fn sizes(&self) -> impl Iterator<Item = RowSizes<'_>> {
        self.index.shards.iter().flat_map(ShardEntry::sizes)
    }

    /// Returns the number of rows in every shard, for [`crate::sampling`].
    pub fn shard_sizes(&self) -> Vec<u32> {
        self.starts.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// Returns the number of every row's group (its speaker), counted from 0 in the order of their first rows, for
    /// [`crate::sampling`]. Reads that column of every shard.
    ///
    /// # Errors
    /// See [`Shards::fetch`].
    pub fn groups(&self) -> Result<Vec<u32>, CorpusError> {
        let mut known = HashMap::<String, u32>::new();
        let mut numbers = Vec::with_capacity(self.len());
        for (shard, size) in self.shard_sizes().into_iter().enumerate() {
            let entry = &self.index.shards[shard];
            let rows: Vec<usize> = (0..size as usize).map(|at| entry.row_in_file(at)).collect();
            for row in self.reader(shard)?.fetch(&rows, &[])? {
                let next = known.len() as u32;
                numbers.push(*known.entry(row.group).or_insert(next));
            }
        }
        Ok(numbers)
    }

    /// Returns a row's length in mel frames; 0 for a row that does not exist.
    fn frames(&self, item: u32) -> u64 {
        self.place(item).map_or(0, |(shard, row)| u64::from(self.index.shards[shard].frames[row]))
    }

    /// Returns a row's utterance id; empty for a row that does not exist.
    pub fn id(&self, item: u32) -> &str {
        self.place(item).map_or("", |(shard, row)| &self.index.shards[shard].utterances[row])
    }

    /// Returns an upper estimate of the bytes of decoded rows that the cache will still grow by: as much of the split
    /// as its memory allows, estimated from the frames of the cached rows. While the cache is empty, it is all the
    /// memory that it may use.
    pub fn still_to_keep(&self) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let cache = lock(&self.cache);
        let (kept, budget) = (cache.bytes() as u64, cache.budget() as u64);
        let frames: u64 = cache.rows().map(|item| self.frames(item)).sum();
        let whole = if frames == 0 { budget } else { (kept as f64 * self.index.frames as f64 / frames as f64) as u64 };
        whole.min(budget).saturating_sub(kept)
    }

    /// Returns rows by number, in the requested order.
    ///
    /// # Errors
    /// [`CorpusError::Checksum`] for a shard that differs from the index, [`CorpusError::Structure`] for a row that
    /// does not exist or lacks a column, [`CorpusError::Io`] and [`CorpusError::Shard`].
    pub fn fetch(&self, items: &[u32]) -> Result<Vec<Arc<Row>>, CorpusError> {
        let mut found: Vec<Option<Arc<Row>>> = {
            let mut cache = lock(&self.cache);
            items.iter().map(|&item| cache.get(item)).collect()
        };
        let mut missing: Vec<u32> =
            items.iter().zip(&found).filter(|(_, row)| row.is_none()).map(|(&i, _)| i).collect();
        missing.sort_unstable();
        missing.dedup();
        let read = self.read(&missing)?;
        let mut cache = lock(&self.cache);
        missing.iter().zip(&read).for_each(|(&item, row)| cache.put(item, row));
        drop(cache);
        for (item, row) in items.iter().zip(&mut found) {
            if row.is_none() {
                *row = missing.binary_search(item).ok().map(|at| read[at].clone());
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Reads ascending rows from their shards.
    fn read(&self, items: &[u32]) -> Result<Vec<Arc<Row>>, CorpusError> {
        let mut rows = Vec::with_capacity(items.len());
        let mut rest = items;
        while let Some(&first) = rest.first() {
            let Some((shard, _)) = self.place(first) else {
                return Err(CorpusError::structure(
                    &self.folder,
                    format!("has {} rows, but row {first} was requested", self.len()),
                ));
            };
            let (start, end) = (self.starts[shard], self.starts[shard + 1]);
            let count = rest.partition_point(|&item| item < end);
            let entry = &self.index.shards[shard];
            let local: Vec<usize> =
                rest[..count].iter().map(|item| entry.row_in_file((item - start) as usize)).collect();
            rows.extend(self.reader(shard)?.fetch(&local, &self.columns)?.into_iter().map(Arc::new));
            rest = &rest[count..];
        }
        Ok(rows)
    }

    /// Returns the shard of a row, and the row's number in it.
    fn place(&self, item: u32) -> Option<(usize, usize)> {
        if item as usize >= self.len() {
            return None;
        }
        let shard = self.starts.partition_point(|&start| start <= item) - 1;
        Some((shard, (item - self.starts[shard]) as usize))
    }

    /// Returns a shard's reader. Its checksum is verified at the first use.
    fn reader(&self, shard: usize) -> Result<AnyShard, CorpusError> {
        let mut slot = lock(&self.readers[shard]);
        if let Some(reader) = slot.as_ref() {
            return Ok(reader.clone());
        }
        let entry = &self.index.shards[shard];
        self.index.verify(&self.folder, entry)?;
        let path = self.folder.join(&entry.file);
        let reader = AnyShard::open(&path)?;
        tracing::debug!(path = %path.display(), rows = entry.rows, bytes = entry.bytes, "shard opened, its checksum is right");
        Ok(slot.insert(reader).clone())
    }
}

/// Locks a mutex whose content stays valid when another thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
