//! Content hashes, cached for files whose size, times and inode have not changed since they were hashed.
//!
//! The cache is one binary file per experiment. It may be deleted at any time, and a damaged one is ignored. A hash
//! is trusted only if the file's last change was clearly before it was hashed: a change within the same tick of the
//! file system's clock would go unnoticed.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::work::lock;
use crate::{StageError, files};

const MAGIC: &[u8; 8] = b"FMCACHE2";
/// Key, size, mtime, ctime, inode, hash, age.
const RECORD: usize = 16 + 8 + 8 + 8 + 8 + 32 + 1;
/// The coarsest clock tick of a local file system, with a margin, in nanoseconds.
const TICK: i64 = 20_000_000;
/// The number of saves after which an unused record is dropped.
const MAX_AGE: u8 = 64;
/// The maximum depth of a folder that is an input.
const MAX_DEPTH: usize = 64;
const BUFFER: usize = 1 << 18;

/// A BLAKE3 hash.
pub(crate) type Hash = [u8; 32];
/// The first half of the BLAKE3 of a path.
type Key = [u8; 16];

/// File metadata from the system. While it stays the same, the content is taken to be unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub size: u64,
    mtime: i64,
    ctime: i64,
    inode: u64,
}

impl Stamp {
    pub fn of(meta: &Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Self {
            size: meta.len(),
            mtime: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            ctime: nanoseconds(meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
        }
    }
}

/// The content found at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    /// None for a folder.
    pub stamp: Option<Stamp>,
    pub hash: Hash,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    stamp: Stamp,
    hash: Hash,
    age: u8,
}

/// The cache from stamps to hashes.
pub(crate) struct ContentCache {
    /// Sorted by key.
    known: Vec<(Key, Record)>,
    /// The file that this was read from; none when it was not there.
    read: Option<Stamp>,
    used: Vec<AtomicBool>,
    fresh: Mutex<HashMap<Key, Record>>,
    /// The newest change among outputs whose hash is trusted. Saving waits until that clock tick is over.
    newest_commit: Mutex<i64>,
    /// True to hash every file again.
    distrust: bool,
}

impl ContentCache {
    /// Loads the cache. An absent, damaged or older one is treated as empty. With `distrust`, no entry is used.
    pub fn load(path: &Path, distrust: bool) -> Self {
        let read = stamp_of(path);
        let known = read_records(path);
        let used = known.iter().map(|_| AtomicBool::new(false)).collect();
        tracing::debug!(path = %path.display(), files = known.len(), distrust, "hashes of unchanged files loaded");
        Self { known, read, used, fresh: Mutex::default(), newest_commit: Mutex::new(0), distrust }
    }

    /// Returns the content of a file or folder, or none if it does not exist.
    pub fn content(&self, path: &Path) -> Result<Option<Content>, StageError> {
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(StageError::file(path, e)),
        };
        if meta.is_dir() {
            let hash = self.folder(path, 0)?;
            return Ok(Some(Content { stamp: None, hash }));
        }
        if !meta.is_file() {
            return Err(StageError::new(format!("{}: neither a file nor a folder", path.display())));
        }
        let stamp = Stamp::of(&meta);
        let hash = match self.recall(path, &stamp) {
            Some(hash) => {
                tracing::trace!(path = %path.display(), "unchanged by size and time: hash known");
                hash
            }
            None => {
                tracing::debug!(path = %path.display(), bytes = stamp.size, "hashing");
                self.hash_and_remember(path)?
            }
        };
        Ok(Some(Content { stamp: Some(stamp), hash }))
    }

    /// Returns whether nothing exists at a path.
    pub fn is_absent(&self, path: &Path) -> Result<bool, StageError> {
        match fs::metadata(path) {
            Ok(_) => Ok(false),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(true),
            Err(e) => Err(StageError::file(path, e)),
        }
    }

    /// Records the known hash of an output that was just put in place.
    pub fn remember_output(&self, path: &Path, hash: Hash) -> Result<(), StageError> {
        let meta = fs::metadata(path).map_err(|e| StageError::file(path, e))?;
        let stamp = Stamp::of(&meta);
        let mut newest = lock(&self.newest_commit);
        *newest = stamp.ctime.max(*newest);
        lock(&self.fresh).insert(key_of(path), Record { stamp, hash, age: 0 });
        Ok(())
    }

    /// Writes the cache if it has changed.
    pub fn save(&self, path: &Path) -> Result<(), StageError> {
        let fresh = lock(&self.fresh);
        if fresh.is_empty() {
            return Ok(());
        }
        self.wait_for_next_tick();
        let mut records: Vec<(Key, Record)> = fresh.iter().map(|(key, record)| (*key, *record)).collect();
        for ((key, record), used) in self.known.iter().zip(&self.used) {
            let age = if used.load(Ordering::Relaxed) { 0 } else { record.age.saturating_add(1) };
            if age < MAX_AGE && !fresh.contains_key(key) {
                records.push((*key, Record { age, ..*record }));
            }
        }
        if stamp_of(path) != self.read {
            // Other processes of the same experiment have saved theirs since.
            let is_other =
                |key: &Key| !fresh.contains_key(key) && self.known.binary_search_by_key(key, |(key, _)| *key).is_err();
            records.extend(read_records(path).into_iter().filter(|(key, _)| is_other(key)));
        }
        records.sort_unstable_by_key(|(key, _)| *key);
        if let Some(parent) = path.parent() {
            files::make_dir(parent)?;
        }
        // No sync: a cache that did not survive is only slower.
        let temporary = files::temporary_beside(&path.with_extension(std::process::id().to_string()));
        fs::write(&temporary, encode(&records)).map_err(|e| StageError::file(&temporary, e))?;
        fs::rename(&temporary, path).map_err(|e| StageError::file(path, e))
    }

    fn recall(&self, path: &Path, stamp: &Stamp) -> Option<Hash> {
        let key = key_of(path);
        if let Some(record) = lock(&self.fresh).get(&key) {
            return (record.stamp == *stamp).then_some(record.hash);
        }
        if self.distrust {
            return None;
        }
        let at = self.known.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        let (_, record) = &self.known[at];
        self.used[at].store(true, Ordering::Relaxed);
        (record.stamp == *stamp).then_some(record.hash)
    }

    fn hash_and_remember(&self, path: &Path) -> Result<Hash, StageError> {
        let (hash, before, after) = hash_file(path)?;
        let settled = after.ctime.saturating_add(TICK) < now();
        if before == after && settled {
            lock(&self.fresh).insert(key_of(path), Record { stamp: after, hash, age: 0 });
        }
        Ok(hash)
    }

    /// Hashes the names and contents of everything in a folder, in order.
    fn folder(&self, dir: &Path, depth: usize) -> Result<Hash, StageError> {
        if depth > MAX_DEPTH {
            return Err(StageError::new(format!("{}: folders nested deeper than {MAX_DEPTH}", dir.display())));
        }
        let mut hasher = blake3::Hasher::new();
        for name in files::list_names(dir)? {
            let path = dir.join(&name);
            let hash = if path.is_dir() {
                Some(self.folder(&path, depth + 1)?)
            } else {
                self.content(&path)?.map(|content| content.hash)
            };
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&hash.unwrap_or_default());
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Waits so that any later change of an output gets a later time than the output's own.
    fn wait_for_next_tick(&self) {
        let newest = *lock(&self.newest_commit);
        let left = newest.saturating_add(TICK).saturating_sub(now());
        if newest > 0 && (1..=TICK).contains(&left) {
            std::thread::sleep(Duration::from_nanos(left.unsigned_abs()));
        }
    }
}

/// The stamp of the cache's file, if there is one.
fn stamp_of(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().map(|meta| Stamp::of(&meta))
}

/// The records of the cache's file, sorted by key; none when it is not there or damaged.
fn read_records(path: &Path) -> Vec<(Key, Record)> {
    fs::read(path).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default()
}

/// Hashes a file, with its stamps before and after.
pub(crate) fn hash_file(path: &Path) -> Result<(Hash, Stamp, Stamp), StageError> {
    let fail = |e| StageError::file(path, e);
    let mut file = File::open(path).map_err(fail)?;
    let before = Stamp::of(&file.metadata().map_err(fail)?);
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER.min(usize::try_from(before.size).unwrap_or(BUFFER).max(1))];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => drop(hasher.update(&buffer[..length])),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(fail(e)),
        }
    }
    let after = Stamp::of(&file.metadata().map_err(fail)?);
    Ok((*hasher.finalize().as_bytes(), before, after))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(hash: &Hash) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

fn key_of(path: &Path) -> Key {
    let hash = blake3::hash(path.as_os_str().as_encoded_bytes());
    let mut key = Key::default();
    key.copy_from_slice(&hash.as_bytes()[..16]);
    key
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn encode(records: &[(Key, Record)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + records.len() * RECORD + 32);
    bytes.extend_from_slice(MAGIC);
    for (key, record) in records {
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(&record.stamp.size.to_le_bytes());
        bytes.extend_from_slice(&record.stamp.mtime.to_le_bytes());
        bytes.extend_from_slice(&record.stamp.ctime.to_le_bytes());
        bytes.extend_from_slice(&record.stamp.inode.to_le_bytes());
        bytes.extend_from_slice(&record.hash);
        bytes.push(record.age);
    }
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    bytes
}

/// Returns the records, or none if the bytes are not a complete cache.
fn decode(bytes: &[u8]) -> Option<Vec<(Key, Record)>> {
    let (body, check) = bytes.split_last_chunk::<32>()?;
    let records = body.strip_prefix(MAGIC)?;
    if records.len() % RECORD != 0 || blake3::hash(body).as_bytes() != check {
        return None;
    }
    records.chunks_exact(RECORD).map(decode_record).collect()
}

fn decode_record(bytes: &[u8]) -> Option<(Key, Record)> {
    let (key, rest) = bytes.split_first_chunk::<16>()?;
    let (size, rest) = rest.split_first_chunk::<8>()?;
    let (mtime, rest) = rest.split_first_chunk::<8>()?;
    let (ctime, rest) = rest.split_first_chunk::<8>()?;
    let (inode, rest) = rest.split_first_chunk::<8>()?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let stamp = Stamp {
        size: u64::from_le_bytes(*size),
        mtime: i64::from_le_bytes(*mtime),
        ctime: i64::from_le_bytes(*ctime),
        inode: u64::from_le_bytes(*inode),
    };
    Some((*key, Record { stamp, hash: *hash, age: *rest.first()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(dir: &Path, distrust: bool) -> ContentCache {
        ContentCache::load(&dir.join("cache"), distrust)
    }

    #[test]
    fn a_hash_survives_saving_and_a_damaged_cache_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        fs::write(&file, b"one").unwrap();
        std::thread::sleep(Duration::from_millis(40));
        let cache = saved(dir.path(), false);
        let content = cache.content(&file).unwrap().unwrap();
        assert_eq!(content.hash, *blake3::hash(b"one").as_bytes());
        cache.save(&dir.path().join("cache")).unwrap();

        let again = saved(dir.path(), false);
        let stamp = Stamp::of(&fs::metadata(&file).unwrap());
        assert_eq!(again.recall(&file, &stamp), Some(content.hash));
        assert_eq!(saved(dir.path(), true).recall(&file, &stamp), None, "distrusted");

        let mut bytes = fs::read(dir.path().join("cache")).unwrap();
        bytes[30] ^= 1;
        fs::write(dir.path().join("cache"), bytes).unwrap();
        assert_eq!(saved(dir.path(), false).recall(&file, &stamp), None, "damaged");
    }

    #[test]
    fn a_file_hashed_in_the_tick_it_changed_in_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        fs::write(&file, b"one").unwrap();
        let cache = saved(dir.path(), false);
        cache.content(&file).unwrap();
        let stamp = Stamp::of(&fs::metadata(&file).unwrap());
        assert_eq!(cache.recall(&file, &stamp), None);
    }

    #[test]
    fn an_absent_file_has_no_content_and_a_folder_has_that_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let cache = saved(dir.path(), false);
        assert!(cache.content(&dir.path().join("none")).unwrap().is_none());
        let folder = dir.path().join("f");
        fs::create_dir_all(folder.join("deep")).unwrap();
        fs::write(folder.join("deep/x"), b"x").unwrap();
        let before = cache.content(&folder).unwrap().unwrap().hash;
        fs::write(folder.join("deep/x"), b"y").unwrap();
        assert_ne!(cache.content(&folder).unwrap().unwrap().hash, before);
    }
}
