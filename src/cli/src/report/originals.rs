//! The rows that samples were made for: transcripts, recordings and pictures, from the shards.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use flowmill_audio::media::by_content;
use flowmill_audio::{decode_bytes, write_wav};
use flowmill_corpus::shard::{ShardIndex, Shards, speech};
use flowmill_corpus::{Role, Row};
use flowmill_stage_prep::columns::bytes_of;
use flowmill_stage_train::file_name;

use super::{Subject, names};

/// Bytes of a recording on the page at most. Longer ones are cut.
const MOST_BYTES: usize = 3 << 20;
/// Pictures of a row on the page at most.
const MOST_PICTURES: usize = 8;

/// Rows by the names that the files of their samples have.
pub struct Originals(BTreeMap<String, Original>);

/// A row of the data.
pub struct Original {
    /// The id.
    pub id: String,
    /// The group, such as the speaker.
    pub group: String,
    /// The split that it belongs to.
    pub split: String,
    /// The transcript; empty where there is none.
    pub text: String,
    /// Files that show or play the row.
    pub media: Vec<Medium>,
}

/// A file that browsers show or play.
pub struct Medium {
    /// The media type.
    pub kind: &'static str,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Seconds that were left out at the end.
    pub cut: f64,
}

impl Originals {
    /// Looks up the rows of some samples. Rows whose shards are gone or damaged are left out.
    pub fn find(subject: &Subject, samples: &BTreeSet<String>) -> Self {
        let numbered = samples.iter().filter_map(|sample| unnumbered(sample)).map(str::to_owned);
        let wanted: BTreeSet<String> = samples.iter().cloned().chain(numbered).collect();
        let folder = subject.experiment.join("3-pack");
        let indexes = names(&folder).into_iter().map(|split| folder.join(split).join("index.json"));
        let sound = indexes.filter(|index| subject.is_sound(index));
        Self(sound.flat_map(|index| of_split(index, &wanted)).collect())
    }

    /// The row of a sample.
    pub fn of(&self, sample: &str) -> Option<&Original> {
        self.0.get(self.name(sample))
    }

    /// The name that the samples of a row have in common: those of numbered pictures end in their number.
    pub fn name<'a>(&self, sample: &'a str) -> &'a str {
        let whole = unnumbered(sample).filter(|name| !self.0.contains_key(sample) && self.0.contains_key(*name));
        whole.unwrap_or(sample)
    }
}

/// The name without a number at its end, if it has one.
fn unnumbered(sample: &str) -> Option<&str> {
    let (name, number) = sample.rsplit_once('-')?;
    (!number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())).then_some(name)
}

/// The rows of a split with the wanted names.
fn of_split(path: PathBuf, wanted: &BTreeSet<String>) -> Vec<(String, Original)> {
    let Ok(index) = ShardIndex::read(&path) else { return Vec::new() };
    let split = index.split.clone();
    let ids = index.shards.iter().flat_map(|shard| &shard.utterances).map(|id| file_name(id)).enumerate();
    let found: Vec<(u32, String)> =
        ids.filter(|(_, name)| wanted.contains(name)).map(|(at, name)| (at as u32, name)).collect();
    if found.is_empty() {
        return Vec::new();
    }
    let [media, texts] = [
        [bytes_of(Role::Audio).optional(), bytes_of(Role::Images).optional()].to_vec(),
        speech::recording().into_iter().filter(|column| column.name == speech::TEXT).map(|c| c.optional()).collect(),
    ];
    let columns = [media, texts].concat();
    let Ok(shards) = Shards::with_index(&path, index, &columns, 0) else { return Vec::new() };
    // One at a time, so that one damaged shard costs its own rows only.
    let row = |item: u32| shards.fetch(&[item]).ok().and_then(|rows| rows.into_iter().next());
    found.into_iter().filter_map(|(item, name)| Some((name, original(&split, &row(item)?)))).collect()
}

fn original(split: &str, row: &Arc<Row>) -> Original {
    let audio = bytes_of(Role::Audio).name;
    let recording = row.bytes(&audio).ok().filter(|bytes| !bytes.is_empty());
    let pictures = row.values::<Vec<u8>>(&bytes_of(Role::Images).name).unwrap_or_default();
    let pictures = pictures.iter().take(MOST_PICTURES).filter_map(|bytes| picture(bytes));
    Original {
        id: row.id.clone(),
        group: row.group.clone(),
        split: split.to_owned(),
        text: row.text(speech::TEXT).unwrap_or_default().to_owned(),
        media: recording.and_then(playable).into_iter().chain(pictures).collect(),
    }
}

fn picture(bytes: &[u8]) -> Option<Medium> {
    let known: [(&[u8], &str); 3] =
        [(b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif")];
    let (_, kind) = known.into_iter().find(|(magic, _)| bytes.starts_with(magic))?;
    (bytes.len() <= MOST_BYTES).then(|| Medium { kind, bytes: bytes.to_vec(), cut: 0.0 })
}

/// A recording as browsers play it: its own bytes where they can, otherwise its beginning as 16-bit WAV.
fn playable(bytes: &[u8]) -> Option<Medium> {
    match own_format(bytes).filter(|_| bytes.len() <= MOST_BYTES) {
        Some(kind) => Some(Medium { kind, bytes: bytes.to_vec(), cut: 0.0 }),
        None => decoded(bytes),
    }
}

/// The media type of a recording that browsers play as it is.
fn own_format(bytes: &[u8]) -> Option<&'static str> {
    match by_content(bytes)? {
        // Integers and floats; other codings in WAV files are seldom played.
        "wav" => {
            let plain = bytes.get(20..22).is_some_and(|tag| [1, 3].contains(&u16::from_le_bytes([tag[0], tag[1]])));
            plain.then_some("audio/wav")
        }
        "flac" => Some("audio/flac"),
        "mp3" => Some("audio/mpeg"),
        "ogg" => Some("audio/ogg"),
        _ => None,
    }
}

fn decoded(bytes: &[u8]) -> Option<Medium> {
    /// Bytes of a sample.
    const WIDTH: usize = 2;
    let audio = decode_bytes(bytes, "recording").ok()?;
    let (rate, mut samples) = (audio.sample_rate, audio.into_mono());
    let left_out = samples.len().saturating_sub(MOST_BYTES / WIDTH);
    samples.truncate(MOST_BYTES / WIDTH);
    let mut wav = Cursor::new(Vec::new());
    write_wav(&mut wav, &samples, rate).ok()?;
    Some(Medium { kind: "audio/wav", bytes: wav.into_inner(), cut: left_out as f64 / f64::from(rate) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(samples: usize) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        write_wav(&mut bytes, &vec![0.25; samples], 8000).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn short_recordings_keep_their_bytes_and_long_ones_are_cut() {
        let short = wav(8000);
        let medium = playable(&short).unwrap();
        assert_eq!((medium.kind, medium.cut), ("audio/wav", 0.0));
        assert_eq!(medium.bytes, short);
        let long = playable(&wav(MOST_BYTES / 2 + 16_000)).unwrap();
        assert_eq!((long.bytes.len(), long.cut), (MOST_BYTES + 44, 2.0));
        assert!(playable(b"no sound").is_none());
    }

    #[test]
    fn what_browsers_do_not_play_is_decoded() {
        // Mu-law.
        let mut bytes = wav(8000);
        bytes[20] = 7;
        assert_eq!(own_format(&bytes), None);
    }

    #[test]
    fn numbers_at_the_end_of_names_are_known() {
        assert_eq!((unnumbered("cat-2"), unnumbered("cat-"), unnumbered("cat")), (Some("cat"), None, None));
    }
}
