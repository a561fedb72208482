//! Digests of the content of shards, column by column. The same rows in other files (another compression, another
//! container, other paths of recordings) are the same data.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::schema::with_keys;
use super::{GROUP, ID, MelStore, ShardIndex, speech};
use crate::{Array, ArrayData, ColumnSpec, CorpusError, Row};

/// The `format` that the file declares.
const FORMAT: &str = "flowmill-content";
/// The version this code writes and reads.
const VERSION: u32 = 1;
/// Columns without a digest: the origin of the data, and values that follow from other columns.
const NOT_DATA: [&str; 3] = [speech::WAV, speech::DURATION, speech::SAMPLE_RATE];

/// The digest of every column of a shard, by the column's name.
pub type ColumnDigests = BTreeMap<String, String>;

/// Digests the rows of a shard as they are written.
pub struct ContentHasher {
    hashers: Vec<(String, blake3::Hasher)>,
}

impl ContentHasher {
    /// Creates a hasher without rows, for a shard with these columns.
    pub fn new(columns: &[ColumnSpec]) -> Self {
        let names = with_keys(columns).into_iter().map(|column| column.name);
        let data = names.filter(|name| !NOT_DATA.contains(&name.as_str()));
        Self { hashers: data.map(|name| (name, blake3::Hasher::new())).collect() }
    }

    /// Adds a row.
    pub fn add(&mut self, row: &Row) {
        for (name, hasher) in &mut self.hashers {
            match (name.as_str(), row.columns.get(name)) {
                (ID, _) => bytes(hasher, row.id.as_bytes()),
                (GROUP, _) => bytes(hasher, row.group.as_bytes()),
                (_, None) => bytes(hasher, b"\0"),
                (speech::AUDIO_DATA, Some(array)) => {
                    // A decoder may depend on the extension of a name.
                    let ending = Path::new(row.text(speech::WAV).unwrap_or_default()).extension();
                    bytes(hasher, ending.and_then(|ending| ending.to_str()).unwrap_or_default().as_bytes());
                    add_array(hasher, array);
                }
                (_, Some(array)) => add_array(hasher, array),
            }
        }
    }

    /// The digests of all rows.
    pub fn finish(self) -> ColumnDigests {
        self.hashers.into_iter().map(|(name, hasher)| (name, hasher.finalize().to_hex().to_string())).collect()
    }
}

/// Adds the sizes of an array's outer axes, and its values. Half precision is hashed as single precision, which is
/// the same number.
fn add_array(hasher: &mut blake3::Hasher, array: &Array) {
    if let [outer @ .., _] = array.shape() {
        outer.iter().for_each(|&size| number(hasher, size as u64));
    }
    match array.data() {
        ArrayData::F16(values) => numbers(hasher, values, |value| value.to_f32().to_le_bytes()),
        ArrayData::F32(values) => numbers(hasher, values, |value| value.to_le_bytes()),
        ArrayData::F64(values) => numbers(hasher, values, |value| value.to_le_bytes()),
        ArrayData::I32(values) => numbers(hasher, values, |value| value.to_le_bytes()),
        ArrayData::I64(values) => numbers(hasher, values, |value| value.to_le_bytes()),
        ArrayData::U8(values) => bytes(hasher, values),
        ArrayData::Text(values) => values.iter().for_each(|value| bytes(hasher, value.as_bytes())),
        ArrayData::Bytes(values) => values.iter().for_each(|value| bytes(hasher, value)),
    }
    if matches!(array.data(), ArrayData::Text(_) | ArrayData::Bytes(_)) && !array.shape().is_empty() {
        number(hasher, array.len() as u64);
    }
}

fn number(hasher: &mut blake3::Hasher, number: u64) {
    hasher.update(&number.to_le_bytes());
}

fn bytes(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    number(hasher, bytes.len() as u64);
    hasher.update(bytes);
}

fn numbers<T: Copy, const N: usize>(hasher: &mut blake3::Hasher, values: &[T], to_bytes: impl Fn(T) -> [u8; N]) {
    bytes(hasher, &values.iter().flat_map(|&value| to_bytes(value)).collect::<Vec<u8>>());
}

/// The digests of a split's shards: `content.json` next to `index.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitContent {
    format: String,
    version: u32,
    shards: Vec<ShardContent>,
}

/// The digests of one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShardContent {
    /// The checksum of the file that has this content.
    blake3: String,
    columns: ColumnDigests,
}

impl SplitContent {
    /// Creates the content of shards in order, from the checksum of each file and the digests of its columns.
    pub fn new(shards: impl IntoIterator<Item = (String, ColumnDigests)>) -> Self {
        let shards = shards.into_iter().map(|(blake3, columns)| ShardContent { blake3, columns }).collect();
        Self { format: FORMAT.to_owned(), version: VERSION, shards }
    }

    /// Returns the path of the file that belongs to an index.
    pub fn path(index: &Path) -> PathBuf {
        index.with_file_name("content.json")
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// [`CorpusError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), CorpusError> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| CorpusError::structure(path, format!("cannot be written as JSON: {e}")))?;
        fs::write(path, text + "\n").map_err(|e| CorpusError::io("write", path, e))
    }

    /// Reads the file that belongs to an index. Returns `None` if it does not exist or has another version: the
    /// content is unknown then.
    pub fn of(index: &Path) -> Option<Self> {
        let content: Self = serde_json::from_slice(&fs::read(Self::path(index)).ok()?).ok()?;
        (content.format == FORMAT && content.version == VERSION).then_some(content)
    }

    /// Returns a digest of these columns of all rows, their lengths, and their distribution over shards. Returns
    /// `None` if the digests are not those of the index's shards, or a shard lacks one of the columns.
    pub fn digest(&self, index: &ShardIndex, columns: &[&str]) -> Option<String> {
        if self.shards.len() != index.shards.len() {
            return None;
        }
        let names = in_order(columns);
        let mut hasher = blake3::Hasher::new();
        for (content, entry) in self.shards.iter().zip(&index.shards) {
            if content.blake3 != entry.blake3 {
                return None;
            }
            number(&mut hasher, entry.rows);
            entry.frames.iter().for_each(|&frames| number(&mut hasher, u64::from(frames)));
            for name in &names {
                bytes(&mut hasher, content.columns.get(*name)?.as_bytes());
            }
        }
        Some(hasher.finalize().to_hex()[..32].to_owned())
    }
}

/// Returns the columns that have a digest, without duplicates: those of the speech flows in the order of their
/// shards, then the others by name.
fn in_order<'a>(columns: &[&'a str]) -> Vec<&'a str> {
    let known: Vec<String> = speech::columns(MelStore::Float32).into_iter().map(|column| column.name).collect();
    let place = |name: &str| known.iter().position(|known| known == name).unwrap_or(known.len());
    let mut names: Vec<&str> = columns.iter().copied().filter(|name| !NOT_DATA.contains(name)).collect();
    names.sort_by_key(|name| (place(name), *name));
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::shard::ShardEntry;

    fn row() -> Row {
        let columns = [
            (speech::WAV, Array::text("x/1.flac")),
            (speech::AUDIO_DATA, Array::scalar(vec![1u8, 2])),
            (speech::SPEECH_TOKEN, Array::vector(vec![3i64, 4])),
            (speech::UTT_EMBEDDING, Array::vector(vec![0.5f32])),
            (speech::MEL, mel(&[0.1, 0.2])),
        ];
        let columns = columns.into_iter().map(|(name, array)| (name.to_owned(), array)).collect();
        Row { id: "a".to_owned(), columns, ..Row::default() }
    }

    fn mel(values: &[f32]) -> Array {
        Array::new(vec![1, values.len()], values.to_vec()).unwrap()
    }

    fn digest(columns: &[&str], change: impl FnOnce(&mut Row)) -> String {
        let mut row = row();
        change(&mut row);
        let mut hasher = ContentHasher::new(&speech::columns(MelStore::Float32));
        hasher.add(&row);
        let entry = ShardEntry { rows: 1, frames: vec![1], blake3: "file".to_owned(), ..ShardEntry::default() };
        let index = ShardIndex::new("train", serde_json::Value::Null, vec![entry]);
        SplitContent::new([("file".to_owned(), hasher.finish())]).digest(&index, columns).unwrap()
    }

    fn set(row: &mut Row, name: &str, array: Array) {
        row.columns.insert(name.to_owned(), array);
    }

    #[test]
    fn only_what_is_read_counts() {
        let read = [ID, speech::WAV, speech::SPEECH_TOKEN, speech::MEL];
        let same = digest(&read, |_| {});
        assert_eq!(digest(&[speech::MEL, speech::SPEECH_TOKEN, ID], |_| {}), same, "in any order");
        assert_eq!(digest(&read, |row| set(row, speech::WAV, Array::text("/far/2.wav"))), same);
        assert_eq!(digest(&read, |row| set(row, speech::AUDIO_DATA, Array::scalar(vec![9u8]))), same);
        assert_eq!(digest(&read, |row| set(row, speech::UTT_EMBEDDING, Array::vector(vec![9f32]))), same);
        let halves = || Array::new(vec![1, 2], [0.1, 0.2].map(f16::from_f32).to_vec()).unwrap();
        let rounded = digest(&read, |row| set(row, speech::MEL, halves()));
        assert_ne!(rounded, same);
        assert_eq!(digest(&read, |row| set(row, speech::MEL, halves().widened(crate::DType::F32).unwrap())), rounded);
        assert_ne!(
            digest(&read, |row| set(row, speech::MEL, Array::new(vec![2, 1], vec![0.1f32, 0.2]).unwrap())),
            same
        );
        assert_ne!(digest(&read, |row| row.id = "b".to_owned()), same);
        assert_ne!(digest(&read, |row| set(row, speech::SPEECH_TOKEN, Array::vector(vec![3i64, 5]))), same);
        let audio = [speech::AUDIO_DATA];
        let named = |name: &'static str| digest(&audio, move |row| set(row, speech::WAV, Array::text(name)));
        assert_eq!(named("y.flac"), digest(&audio, |_| {}));
        assert_ne!(named("1.mp3"), digest(&audio, |_| {}));
    }

    #[test]
    fn digests_of_other_files_say_nothing() {
        let content = SplitContent::new([("file".to_owned(), ContentHasher::new(&[]).finish())]);
        let index = |blake3: &str| {
            let entry = ShardEntry { blake3: blake3.to_owned(), ..ShardEntry::default() };
            ShardIndex::new("train", serde_json::Value::Null, vec![entry])
        };
        assert!(content.digest(&index("file"), &[ID]).is_some());
        assert_eq!(content.digest(&index("file"), &[speech::MEL]), None);
        assert_eq!(content.digest(&index("other"), &[ID]), None);
        assert_eq!(content.digest(&ShardIndex::new("train", serde_json::Value::Null, vec![]), &[ID]), None);
    }
}
