//! Shards of real recordings.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use flowmill_corpus::ReadOptions;
use flowmill_corpus::kaldi::read_directory;
use flowmill_corpus::shard::{
    Column, ListPaths, Mel, MelStore, ShardEntry, ShardIndex, ShardOptions, ShardReader, ShardRow, ShardSummary,
    ShardWriter, Shards, TarShardWriter, write_data_list, write_row_lists, write_shard_lists,
};
use flowmill_corpus::{CorpusError, file_checksum};
use support::data;

/// Rows with the corpus' real audio and text; embeddings, tokens and mels are plain functions of the row's number.
fn rows() -> Vec<ShardRow> {
    let reading = read_directory(&data(), "libri6", &ReadOptions::default()).unwrap();
    let row = |(number, row): (usize, flowmill_corpus::UtteranceRow<'_>)| ShardRow {
        utt: row.utt.to_owned(),
        wav: row.wav.to_owned(),
        audio_data: fs::read(data().join(row.wav)).unwrap(),
        text: row.text.to_owned(),
        spk: row.spk.to_owned(),
        utt_embedding: (0..192).map(|n| (number * n) as f32 / 100.0).collect(),
        spk_embedding: vec![1.0; 192],
        speech_token: (0..number as i64 + 1).collect(),
        lang: (number % 2 == 0).then(|| "en".to_owned()),
        duration: 1.0 + number as f64,
        sample_rate: 16_000,
        mel: Some(mel(number)),
    };
    reading.utterances.iter().enumerate().map(row).collect()
}

/// Values that half precision holds exactly.
fn mel(number: usize) -> Mel {
    let frames = 100 + 7 * number;
    Mel { data: (0..frames * 80).map(|n| (n % 2000) as f32 / 256.0 - 4.0).collect(), frames, bins: 80 }
}

fn write(path: &Path, rows: &[ShardRow], mel: MelStore) -> ShardSummary {
    let options = ShardOptions { mel, metadata: vec![("note".into(), "a test".into())], ..Default::default() };
    let mut writer = ShardWriter::create(path, &options).unwrap();
    for row in rows {
        writer.push(row.clone()).unwrap();
    }
    writer.finish().unwrap()
}

fn entry(file: &str, rows: &[ShardRow], summary: &ShardSummary) -> ShardEntry {
    ShardEntry {
        file: file.into(),
        rows: summary.rows,
        bytes: summary.bytes,
        blake3: summary.checksum.to_string(),
        seconds: rows.iter().map(|row| row.duration).sum(),
        utterances: rows.iter().map(|row| row.utt.clone()).collect(),
        frames: rows.iter().map(|row| row.mel.as_ref().unwrap().frames as u32).collect(),
    }
}

#[test]
fn rows_come_back_as_they_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let rows = rows();
    for store in [MelStore::Float16, MelStore::Float32] {
        let path = dir.path().join("shard.parquet");
        let summary = write(&path, &rows, store);
        assert_eq!((summary.rows, summary.bytes), (60, fs::metadata(&path).unwrap().len()));
        assert_eq!(summary.checksum, file_checksum(&path).unwrap());
        let reader = ShardReader::open(&path).unwrap();
        assert_eq!(reader.rows(), 60);
        assert!(reader.row_groups().iter().all(|rows| *rows <= 50), "{:?}", reader.row_groups());
        assert_eq!(reader.key_values(), [("note".to_owned(), "a test".to_owned())]);
        let read: Vec<ShardRow> = reader.iter(&Column::ALL).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(read, rows);
    }
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.parquet"), dir.path().join("b.parquet"));
    assert_eq!(write(&a, &rows(), MelStore::Float16), write(&b, &rows(), MelStore::Float16));
    assert_eq!(fs::read(a).unwrap(), fs::read(b).unwrap());
}

#[test]
fn without_a_mel_there_is_no_such_column() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.parquet");
    let mut rows = rows();
    rows.iter_mut().for_each(|row| row.mel = None);
    write(&path, &rows, MelStore::None);
    let reader = ShardReader::open(&path).unwrap();
    assert!(reader.schema().iter().all(|(name, _)| !name.starts_with("mel")));
    assert_eq!(reader.iter(&Column::ALL).unwrap().next().unwrap().unwrap(), rows[0]);
}

#[test]
fn a_row_that_does_not_fit_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let options = ShardOptions::default();
    let mut writer = ShardWriter::create(&dir.path().join("shard.parquet"), &options).unwrap();
    let row = rows().remove(0);
    let mut refuse = |mel: Option<Mel>| writer.push(ShardRow { mel, ..row.clone() }).unwrap_err().to_string();
    assert!(refuse(None).contains("`1688-142285-0000`: it has no mel"));
    assert!(refuse(Some(Mel { data: vec![0.0; 5], frames: 2, bins: 2 })).contains("5 values for 2 frames of 2 bins"));
    assert!(refuse(Some(Mel { data: vec![1e6; 4], frames: 2, bins: 2 })).contains("half precision"));
}

#[test]
fn single_rows_are_fetched_without_reading_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.parquet");
    let rows = rows();
    write(&path, &rows, MelStore::Float16);
    let reader = ShardReader::open(&path).unwrap();
    let wanted = [0, 7, 31, 52, 59];
    let read = reader.fetch(&wanted, &[Column::Utt, Column::Mel, Column::SpeechToken]).unwrap();
    for (row, at) in read.iter().zip(wanted) {
        assert_eq!((&row.utt, &row.mel, &row.speech_token), (&rows[at].utt, &rows[at].mel, &rows[at].speech_token));
        assert!(row.audio_data.is_empty() && row.text.is_empty());
    }
    assert!(reader.fetch(&[60], &[Column::Utt]).unwrap_err().to_string().contains("60 rows"));
    assert!(reader.fetch(&[3, 2], &[Column::Utt]).is_err());
}

#[test]
fn a_split_is_one_list_of_rows_and_its_shards_are_verified() {
    let dir = tempfile::tempdir().unwrap();
    let rows = rows();
    let mut entries = Vec::new();
    for (number, rows) in rows.chunks(25).enumerate() {
        let file = format!("shard-{number:05}.parquet");
        let summary = write(&dir.path().join(&file), rows, MelStore::Float16);
        entries.push(entry(&file, rows, &summary));
    }
    let index = ShardIndex::new("train", serde_json::json!({"store": "float16"}), entries);
    let path = dir.path().join("index.json");
    index.write(&path).unwrap();
    assert_eq!(ShardIndex::read(&path).unwrap(), index);
    // A cache that holds about three rows.
    let shards = Shards::open(&path, &[Column::Utt, Column::Mel], 3 * 200_000).unwrap();
    assert_eq!((shards.len(), shards.shard_sizes()), (60, vec![25, 25, 10]));
    assert_eq!(shards.lengths().len(), 60);
    assert_eq!(shards.id(25), rows[25].utt);
    for items in [vec![59, 0, 24, 25, 0], vec![0, 30], (0..60).rev().collect::<Vec<u32>>()] {
        let read = shards.fetch(&items).unwrap();
        assert_eq!(read.len(), items.len());
        for (row, item) in read.iter().zip(items) {
            assert_eq!((&row.utt, &row.mel), (&rows[item as usize].utt, &rows[item as usize].mel));
        }
    }
    assert!(shards.fetch(&[60]).is_err());
    // One changed byte in the second shard: the first still reads, the second does not.
    let victim = dir.path().join("shard-00001.parquet");
    let mut bytes = fs::read(&victim).unwrap();
    bytes[1000] ^= 1;
    fs::write(&victim, bytes).unwrap();
    let shards = Shards::open(&path, &[Column::Utt], 0).unwrap();
    assert!(shards.fetch(&[3]).is_ok());
    assert!(matches!(shards.fetch(&[30]), Err(CorpusError::Checksum { .. })));
}

#[test]
fn lists_as_cosyvoice_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let rows = &rows()[..3];
    let summary = write(&dir.path().join("shard-00000.parquet"), rows, MelStore::Float16);
    let entry = entry("shard-00000.parquet", rows, &summary);
    let paths = ListPaths { prefix: "exp/x/".into() };
    let speakers: BTreeSet<String> = rows.iter().map(|row| row.spk.clone()).collect();
    write_shard_lists(dir.path(), 0, &entry, &speakers, &paths).unwrap();
    write_data_list(dir.path(), std::slice::from_ref(&entry), &paths).unwrap();
    write_row_lists(dir.path(), &[entry], &paths).unwrap();
    let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(text("data.list"), "exp/x/shard-00000.parquet\n");
    assert_eq!(text("utt2data.list"), "exp/x/utt2parquet_000000000.json\n");
    assert_eq!(text("spk2data.list"), "exp/x/spk2parquet_000000000.json\n");
    let map: serde_json::Value = serde_json::from_str(&text("utt2parquet_000000000.json")).unwrap();
    assert_eq!(map["1688-142285-0001"], "exp/x/shard-00000.parquet");
    let map: serde_json::Value = serde_json::from_str(&text("spk2parquet_000000000.json")).unwrap();
    assert_eq!(map, serde_json::json!({"1688": "exp/x/shard-00000.parquet"}));
}

#[test]
fn pages_of_the_large_columns_hold_few_rows() {
    use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
    use parquet::file::metadata::PageIndexPolicy;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.parquet");
    write(&path, &rows(), MelStore::Float16);
    let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Required);
    let metadata = ArrowReaderMetadata::load(&fs::File::open(&path).unwrap(), options).unwrap();
    let metadata = metadata.metadata();
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let index = metadata.page_index_for_row_group(number);
        for (column, chunk) in group.columns().iter().enumerate() {
            let name = chunk.column_path().string();
            if name.starts_with("mel.") || name == "audio_data" {
                let pages = index.num_data_pages(column).expect("an offset index") as i64;
                assert!(pages * 2 >= group.num_rows(), "{name}: {pages} pages for {} rows", group.num_rows());
            }
        }
    }
}

#[test]
fn tar_shards_hold_the_rows_of_parquet_shards() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = rows();
    rows.truncate(12);
    rows[3].utt = "odd/../na me.of % an ü utterance".into();
    rows[5].lang = None;
    for store in [MelStore::Float16, MelStore::Float32, MelStore::None] {
        for row in &mut rows {
            row.mel = (store != MelStore::None).then(|| Mel {
                data: (0..240).map(|v| v as f32 / 8.0).collect(),
                frames: 3,
                bins: 80,
            });
        }
        let mut bytes = Vec::new();
        for name in ["one.tar", "two.tar"] {
            let mut writer = TarShardWriter::create(&dir.path().join(name), store).unwrap();
            rows.iter().for_each(|row| writer.push(row, "flac").unwrap());
            let summary = writer.finish().unwrap();
            let content = fs::read(dir.path().join(name)).unwrap();
            assert_eq!((summary.rows, summary.bytes), (12, content.len() as u64));
            assert_eq!(summary.checksum, flowmill_corpus::Checksum::of(&content));
            bytes.push(content);
        }
        assert_eq!(bytes[0], bytes[1], "the same rows, the same bytes");
        let entry = ShardEntry {
            file: "one.tar".into(),
            rows: 12,
            bytes: bytes[0].len() as u64,
            blake3: flowmill_corpus::Checksum::of(&bytes[0]).to_string(),
            utterances: rows.iter().map(|row| row.utt.clone()).collect(),
            frames: vec![3; 12],
            ..ShardEntry::default()
        };
        let index = dir.path().join("index.json");
        ShardIndex::new("train", serde_json::Value::Null, vec![entry]).write(&index).unwrap();
        let shards = Shards::open(&index, &Column::ALL, 1 << 20).unwrap();
        let found = shards.fetch(&[7, 3, 0, 11]).unwrap();
        for (row, number) in found.iter().zip([7, 3, 0, 11]) {
            assert_eq!(**row, rows[number]);
        }
        let few = Shards::open(&index, &[Column::Utt, Column::SpeechToken], 1 << 20).unwrap().fetch(&[2]).unwrap();
        assert!(few[0].audio_data.is_empty() && few[0].mel.is_none() && few[0].speech_token == rows[2].speech_token);
        fs::write(dir.path().join("one.tar"), &bytes[0][..bytes[0].len() - 512]).unwrap();
        let error = Shards::open(&index, &Column::ALL, 0).unwrap().fetch(&[0]).unwrap_err().to_string();
        assert!(error.contains("BLAKE3"), "{error}");
    }
}
