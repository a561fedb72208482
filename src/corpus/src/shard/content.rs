//! Digests of what shards hold, column by column: the same rows in other files (another compression, another container, other paths of
//! recordings) are the same data.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::f16;
use serde::{Deserialize, Serialize};

use super::{Column, MelStore, ShardIndex, ShardRow};
use crate::CorpusError;

/// The `format` that the file declares.
const FORMAT: &str = "flowmill-content";
/// The version this code writes and reads.
const VERSION: u32 = 1;
/// The columns that have a digest: those that are data, rather than where data came from or what follows from others.
const COLUMNS: [Column; 9] = [
    Column::Utt,
    Column::AudioData,
    Column::Text,
    Column::Spk,
    Column::UttEmbedding,
    Column::SpkEmbedding,
    Column::SpeechToken,
    Column::Lang,
    Column::Mel,
];

/// The digest of every column of a shard, by the column's name.
pub type ColumnDigests = BTreeMap<String, String>;

/// Digests the rows of a shard as they are written.
pub struct ContentHasher {
    store: MelStore,
    hashers: Vec<(Column, blake3::Hasher)>,
}

impl ContentHasher {
    /// No rows yet; mels will be stored as `store` says.
    pub fn new(store: MelStore) -> Self {
        Self { store, hashers: COLUMNS.iter().map(|&column| (column, blake3::Hasher::new())).collect() }
    }

    /// Adds a row.
    pub fn add(&mut self, row: &ShardRow) {
        for (column, hasher) in &mut self.hashers {
            match column {
                Column::Utt => bytes(hasher, row.utt.as_bytes()),
                Column::AudioData => {
                    // A decoder may go by the ending of a name.
                    let ending = Path::new(&row.wav).extension().and_then(|ending| ending.to_str());
                    bytes(hasher, ending.unwrap_or_default().as_bytes());
                    bytes(hasher, &row.audio_data);
                }
                Column::Text => bytes(hasher, row.text.as_bytes()),
                Column::Spk => bytes(hasher, row.spk.as_bytes()),
                Column::UttEmbedding => floats(hasher, row.utt_embedding.iter().copied()),
                Column::SpkEmbedding => floats(hasher, row.spk_embedding.iter().copied()),
                Column::SpeechToken => {
                    bytes(hasher, &row.speech_token.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>());
                }
                Column::Lang => bytes(hasher, row.lang.as_deref().unwrap_or("\0").as_bytes()),
                Column::Mel => {
                    let Some(mel) = &row.mel else { continue };
                    number(hasher, mel.frames as u64);
                    let values = mel.data.iter().copied();
                    match self.store {
                        MelStore::Float16 => floats(hasher, values.map(|value| f16::from_f32(value).to_f32())),
                        MelStore::Float32 => floats(hasher, values),
                        MelStore::None => {}
                    }
                }
                Column::Wav | Column::Duration | Column::SampleRate => {}
            }
        }
    }

    /// The digests of all rows.
    pub fn finish(self) -> ColumnDigests {
        let digest = |(column, hasher): (Column, blake3::Hasher)| (key(column), hasher.finalize().to_hex().to_string());
        self.hashers.into_iter().map(digest).collect()
    }
}

/// The name that a column's digest has.
fn key(column: Column) -> String {
    column.names()[0].to_owned()
}

fn number(hasher: &mut blake3::Hasher, number: u64) {
    hasher.update(&number.to_le_bytes());
}

fn bytes(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    number(hasher, bytes.len() as u64);
    hasher.update(bytes);
}

fn floats(hasher: &mut blake3::Hasher, values: impl Iterator<Item = f32>) {
    bytes(hasher, &values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>());
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
    /// The content of shards in order: the checksum of each file and the digests of its columns.
    pub fn new(shards: impl IntoIterator<Item = (String, ColumnDigests)>) -> Self {
        let shards = shards.into_iter().map(|(blake3, columns)| ShardContent { blake3, columns }).collect();
        Self { format: FORMAT.to_owned(), version: VERSION, shards }
    }

    /// The file that belongs to an index.
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

    /// Reads the file of an index; `None` where it is not there, or is not what this version writes: the content is unknown then.
    pub fn of(index: &Path) -> Option<Self> {
        let content: Self = serde_json::from_slice(&fs::read(Self::path(index)).ok()?).ok()?;
        (content.format == FORMAT && content.version == VERSION).then_some(content)
    }

    /// A digest of these columns of all rows, their lengths, and how they are divided into shards. `None` where the digests are not those
    /// of the index's shards.
    pub fn digest(&self, index: &ShardIndex, columns: &[Column]) -> Option<String> {
        if self.shards.len() != index.shards.len() {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        for (content, entry) in self.shards.iter().zip(&index.shards) {
            if content.blake3 != entry.blake3 {
                return None;
            }
            number(&mut hasher, entry.rows);
            entry.frames.iter().for_each(|&frames| number(&mut hasher, u64::from(frames)));
            for &column in COLUMNS.iter().filter(|column| columns.contains(column)) {
                bytes(&mut hasher, content.columns.get(&key(column))?.as_bytes());
            }
        }
        Some(hasher.finalize().to_hex()[..32].to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{Mel, ShardEntry};

    fn row() -> ShardRow {
        ShardRow {
            utt: "a".to_owned(),
            wav: "x/1.flac".to_owned(),
            audio_data: vec![1, 2],
            speech_token: vec![3, 4],
            utt_embedding: vec![0.5],
            mel: Some(Mel { data: vec![0.1, 0.2], frames: 1, bins: 2 }),
            ..ShardRow::default()
        }
    }

    fn digest(store: MelStore, columns: &[Column], change: impl FnOnce(&mut ShardRow)) -> String {
        let mut row = row();
        change(&mut row);
        let mut hasher = ContentHasher::new(store);
        hasher.add(&row);
        let entry = ShardEntry { rows: 1, frames: vec![1], blake3: "file".to_owned(), ..ShardEntry::default() };
        let index = ShardIndex::new("train", serde_json::Value::Null, vec![entry]);
        SplitContent::new([("file".to_owned(), hasher.finish())]).digest(&index, columns).unwrap()
    }

    #[test]
    fn only_what_is_read_counts() {
        let (half, read) = (MelStore::Float16, [Column::Utt, Column::Wav, Column::SpeechToken, Column::Mel]);
        let same = digest(half, &read, |_| {});
        assert_eq!(digest(half, &read, |row| row.wav = "/far/2.wav".to_owned()), same);
        assert_eq!(digest(half, &read, |row| row.audio_data = vec![9]), same);
        assert_eq!(digest(half, &read, |row| row.utt_embedding = vec![9.0]), same);
        let rounded = |row: &mut ShardRow| {
            row.mel.iter_mut().flat_map(|mel| &mut mel.data).for_each(|v| *v = f16::from_f32(*v).to_f32())
        };
        assert_eq!(digest(MelStore::Float32, &read, rounded), same, "the same numbers");
        assert_ne!(digest(MelStore::Float32, &read, |_| {}), same);
        assert_ne!(digest(half, &read, |row| row.utt = "b".to_owned()), same);
        assert_ne!(digest(half, &read, |row| row.speech_token[1] = 5), same);
        let audio = [Column::AudioData];
        assert_eq!(digest(half, &audio, |row| row.wav = "y.flac".to_owned()), digest(half, &audio, |_| {}));
        assert_ne!(digest(half, &audio, |row| row.wav = "1.mp3".to_owned()), digest(half, &audio, |_| {}));
    }

    #[test]
    fn digests_of_other_files_say_nothing() {
        let content = SplitContent::new([("file".to_owned(), ContentHasher::new(MelStore::None).finish())]);
        let index = |blake3: &str| {
            let entry = ShardEntry { blake3: blake3.to_owned(), ..ShardEntry::default() };
            ShardIndex::new("train", serde_json::Value::Null, vec![entry])
        };
        assert!(content.digest(&index("file"), &[Column::Utt]).is_some());
        assert_eq!(content.digest(&index("other"), &[Column::Utt]), None);
        assert_eq!(content.digest(&ShardIndex::new("train", serde_json::Value::Null, vec![]), &[Column::Utt]), None);
    }
}
