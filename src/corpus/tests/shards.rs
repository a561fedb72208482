//! Shards of real recordings.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use flowmill_corpus::ReadOptions;
use flowmill_corpus::kaldi::read_directory;
use flowmill_corpus::shard::{
    ListPaths, MelStore, ShardEntry, ShardIndex, ShardOptions, ShardReader, ShardSummary, ShardWriter, Shards,
    TarShardWriter, speech, write_data_list, write_row_lists, write_shard_lists,
};
use flowmill_corpus::{Array, ColumnSpec, CorpusError, DType, Row, file_checksum};
use support::data;

/// Rows with the corpus' real audio and text; embeddings, tokens and mels are plain functions of the row's number.
fn rows(store: MelStore) -> Vec<Row> {
    let reading = read_directory(&data(), "libri6", &ReadOptions::default()).unwrap();
    let row = |(number, row): (usize, flowmill_corpus::UtteranceRow<'_>)| {
        let mut columns = vec![
            (speech::WAV, Array::text(row.wav)),
            (speech::AUDIO_DATA, Array::scalar(fs::read(data().join(row.wav)).unwrap())),
            (speech::TEXT, Array::text(row.text)),
            (speech::UTT_EMBEDDING, Array::vector((0..192).map(|n| (number * n) as f32 / 100.0).collect())),
            (speech::SPK_EMBEDDING, Array::vector(vec![1f32; 192])),
            (speech::SPEECH_TOKEN, Array::vector((0..number as i64 + 1).collect())),
            (speech::DURATION, Array::scalar(1.0 + number as f64)),
            (speech::SAMPLE_RATE, Array::scalar(16_000i32)),
        ];
        if number % 2 == 0 {
            columns.push((speech::LANG, Array::text("en")));
        }
        match store {
            MelStore::Float16 => columns.push((speech::MEL, mel(number).to_half().unwrap())),
            MelStore::Float32 => columns.push((speech::MEL, mel(number))),
            MelStore::None => {}
        }
        let columns = columns.into_iter().map(|(name, array)| (name.to_owned(), array)).collect();
        Row { id: row.utt.to_owned(), group: row.spk.to_owned(), columns, ..Row::default() }
    };
    reading.utterances.iter().enumerate().map(row).collect()
}

/// Values that half precision holds exactly.
fn mel(number: usize) -> Array {
    let frames = 100 + 7 * number;
    Array::new(vec![frames, 80], (0..frames * 80).map(|n| (n % 2000) as f32 / 256.0 - 4.0).collect()).unwrap()
}

fn write(path: &Path, rows: &[Row], mel: MelStore) -> ShardSummary {
    let metadata = vec![("note".into(), "a test".into())];
    let options = ShardOptions { columns: speech::columns(mel), metadata, ..Default::default() };
    let mut writer = ShardWriter::create(path, &options).unwrap();
    for row in rows {
        writer.push(row.clone()).unwrap();
    }
    writer.finish().unwrap()
}

fn entry(file: &str, rows: &[Row], summary: &ShardSummary) -> ShardEntry {
    ShardEntry {
        file: file.into(),
        rows: summary.rows,
        bytes: summary.bytes,
        blake3: summary.checksum.to_string(),
        seconds: rows.iter().map(|row| *row.value::<f64>(speech::DURATION).unwrap()).sum(),
        utterances: rows.iter().map(|row| row.id.clone()).collect(),
        axes: BTreeMap::new(),
        frames: rows.iter().map(|row| row.column(speech::MEL).unwrap().shape()[0] as u32).collect(),
        kept: Vec::new(),
    }
}

#[test]
fn rows_come_back_as_they_went_in() {
    let dir = tempfile::tempdir().unwrap();
    for store in [MelStore::Float16, MelStore::Float32] {
        let rows = rows(store);
        let path = dir.path().join("shard.parquet");
        let summary = write(&path, &rows, store);
        assert_eq!((summary.rows, summary.bytes), (60, fs::metadata(&path).unwrap().len()));
        assert_eq!(summary.checksum, file_checksum(&path).unwrap());
        let reader = ShardReader::open(&path).unwrap();
        assert_eq!(reader.rows(), 60);
        assert!(reader.row_groups().iter().all(|rows| *rows <= 50), "{:?}", reader.row_groups());
        assert_eq!(reader.key_values(), [("note".to_owned(), "a test".to_owned())]);
        let read: Vec<Row> = reader.iter(&speech::columns(store)).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(read, rows);
        let read = reader.iter(&[speech::mel(DType::F32)]).unwrap().next().unwrap().unwrap();
        assert_eq!(read.column(speech::MEL), Ok(&mel(0)), "half precision widens");
    }
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.parquet"), dir.path().join("b.parquet"));
    assert_eq!(
        write(&a, &rows(MelStore::Float16), MelStore::Float16),
        write(&b, &rows(MelStore::Float16), MelStore::Float16)
    );
    assert_eq!(fs::read(a).unwrap(), fs::read(b).unwrap());
}

#[test]
fn without_a_mel_there_is_no_such_column() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.parquet");
    let rows = rows(MelStore::None);
    write(&path, &rows, MelStore::None);
    let reader = ShardReader::open(&path).unwrap();
    assert!(reader.schema().iter().all(|(name, _)| !name.starts_with("mel")));
    assert_eq!(reader.iter(&speech::columns(MelStore::None)).unwrap().next().unwrap().unwrap(), rows[0]);
}

#[test]
fn a_row_that_does_not_fit_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let options = ShardOptions { columns: speech::columns(MelStore::Float16), ..ShardOptions::default() };
    let mut writer = ShardWriter::create(&dir.path().join("shard.parquet"), &options).unwrap();
    let row = rows(MelStore::None).remove(0);
    let mut refuse = |mel: Option<Array>| {
        let mut row = row.clone();
        row.columns.extend(mel.map(|mel| (speech::MEL.to_owned(), mel)));
        let error = writer.push(row).unwrap_err();
        assert!(matches!(error, CorpusError::Structure { .. }));
        let error = error.to_string();
        assert!(error.contains("`1688-142285-0000`") && error.contains("`mel`"), "{error}");
    };
    refuse(None);
    refuse(Some(mel(0)));
    refuse(Some(Array::vector(vec![half::f16::ONE; 80])));
    refuse(Some(Array::text("mel")));
    let twice = vec![ColumnSpec::new("x", DType::F32).axis("a").axis("b"), ColumnSpec::new("x_as", DType::I32)];
    let options = ShardOptions { columns: twice, ..ShardOptions::default() };
    assert!(ShardWriter::create(&dir.path().join("twice.parquet"), &options).is_err());
}

/// Columns of every type and of several shapes, some missing.
fn columns_of_all_kinds() -> (Vec<ColumnSpec>, Vec<Row>) {
    let specs = vec![
        ColumnSpec::new("codes", DType::I64).fixed_axis("level", 8).axis("frame"),
        ColumnSpec::new("latents", DType::F32).axis("frame").fixed_axis("channel", 16),
        ColumnSpec::new("cube", DType::U8).axis("row").axis("column").fixed_axis("color", 3),
        ColumnSpec::new("emotion", DType::F16).fixed_axis("class", 7).optional(),
        ColumnSpec::new("score", DType::F64),
        ColumnSpec::new("count", DType::I32).optional(),
        ColumnSpec::new("tags", DType::Text).axis("tag"),
        ColumnSpec::new("image_data", DType::Bytes).axis("image"),
        ColumnSpec::new("video_data", DType::Bytes).optional(),
    ];
    let row = |number: usize| {
        let frames = 3 * number;
        let mut columns: BTreeMap<String, Array> = BTreeMap::new();
        let mut put = |name: &str, array: Array| drop(columns.insert(name.to_owned(), array));
        put("codes", Array::new(vec![8, frames], (0..8 * frames as i64).collect()).unwrap());
        put("latents", Array::new(vec![frames, 16], (0..16 * frames).map(|v| v as f32 / 3.0).collect()).unwrap());
        put("cube", Array::new(vec![2, number, 3], (0..6 * number).map(|v| v as u8).collect()).unwrap());
        put("score", Array::scalar(0.1 * number as f64));
        put("tags", Array::vector(vec!["a,b".to_owned(), String::new()]));
        put("image_data", Array::vector((0..number).map(|n| vec![n as u8; 5 * n]).collect::<Vec<_>>()));
        if number % 2 == 1 {
            put("emotion", Array::vector(vec![half::f16::from_f32(1.0 / 7.0); 7]));
            put("count", Array::scalar(-1i32));
            put("video_data", Array::scalar(vec![1u8, 2, 3]));
        }
        Row { id: format!("row-{number}"), group: "user".to_owned(), columns, ..Row::default() }
    };
    (specs, (0..5).map(row).collect())
}

#[test]
fn columns_of_any_shape_come_back_from_both_formats() {
    let dir = tempfile::tempdir().unwrap();
    let (specs, rows) = columns_of_all_kinds();
    let options = ShardOptions { columns: specs.clone(), ..ShardOptions::default() };
    let (parquet, tar) = (dir.path().join("s.parquet"), dir.path().join("s.tar"));
    let mut writer = ShardWriter::create(&parquet, &options).unwrap();
    rows.iter().for_each(|row| writer.push(row.clone()).unwrap());
    writer.finish().unwrap();
    let mut writer = TarShardWriter::create(&tar, &specs).unwrap();
    rows.iter().for_each(|row| writer.push(row, "wav").unwrap());
    writer.finish().unwrap();
    let entry = |file: &str| ShardEntry {
        file: file.into(),
        rows: 5,
        blake3: file_checksum(&dir.path().join(file)).unwrap().to_string(),
        utterances: rows.iter().map(|row| row.id.clone()).collect(),
        frames: vec![0; 5],
        ..ShardEntry::default()
    };
    for file in ["s.parquet", "s.tar"] {
        let index = dir.path().join("index.json");
        ShardIndex::new("train", serde_json::Value::Null, vec![entry(file)]).write(&index).unwrap();
        let read = Shards::open(&index, &specs, 0).unwrap().fetch(&[3, 0, 4, 1, 2]).unwrap();
        for (row, number) in read.iter().zip([3, 0, 4, 1, 2]) {
            assert_eq!(**row, rows[number], "{file}");
        }
        let wide = ColumnSpec::new("emotion", DType::F64).axis("class").optional();
        let read = Shards::open(&index, &[wide], 0).unwrap().fetch(&[1]).unwrap();
        assert_eq!(read[0].columns["emotion"].dtype(), DType::F64);
        for wrong in [
            ColumnSpec::new("codes", DType::I64).fixed_axis("level", 9).axis("frame"),
            ColumnSpec::new("codes", DType::I64).axis("frame"),
            ColumnSpec::new("codes", DType::I32).fixed_axis("level", 8).axis("frame"),
            ColumnSpec::new("score", DType::F32),
            ColumnSpec::new("tags", DType::I64).axis("tag"),
            ColumnSpec::new("count", DType::I32),
            ColumnSpec::new("other", DType::F32),
        ] {
            let error = Shards::open(&index, std::slice::from_ref(&wrong), 0).unwrap().fetch(&[0]).unwrap_err();
            assert!(matches!(error, CorpusError::Structure { .. }), "{file}: {wrong}: {error}");
            assert!(error.to_string().contains(&format!("`{}`", wrong.name)), "{file}: {error}");
        }
    }
}

#[test]
fn counts_in_a_file_are_not_taken_on_trust() {
    use arrow::array::{ArrayRef, Float32Builder, Int32Array, ListBuilder, RecordBatch, StringArray};
    let dir = tempfile::tempdir().unwrap();
    let write = |frames: i32, bins: i32, values: &[Option<f32>]| {
        let mut mel = ListBuilder::new(Float32Builder::new());
        values.iter().for_each(|value| mel.values().append_option(*value));
        mel.append(true);
        let strings = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        let count = |count: i32| Arc::new(Int32Array::from(vec![count])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([
            ("utt", strings("a")),
            ("spk", strings("s")),
            ("mel", Arc::new(mel.finish()) as ArrayRef),
            ("mel_frames", count(frames)),
            ("mel_bins", count(bins)),
        ])
        .unwrap();
        let path = dir.path().join("s.parquet");
        let file = fs::File::create(&path).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        ShardReader::open(&path).unwrap().fetch(&[0], &[speech::mel(DType::F32)])
    };
    let six = [Some(0.5); 6];
    assert_eq!(write(2, 3, &six).unwrap()[0].column(speech::MEL).unwrap().shape(), [2, 3]);
    for (frames, bins) in [(3, 3), (-2, -3), (i32::MAX, i32::MAX), (0, 0), (6, 0)] {
        assert!(matches!(write(frames, bins, &six), Err(CorpusError::Structure { .. })), "{frames} {bins}");
    }
    assert!(write(2, 3, &[Some(0.5), None, Some(0.5), Some(0.5), Some(0.5), Some(0.5)]).is_err());
}

#[test]
fn single_rows_are_fetched_without_reading_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.parquet");
    let rows = rows(MelStore::Float16);
    write(&path, &rows, MelStore::Float16);
    let reader = ShardReader::open(&path).unwrap();
    let wanted = [0, 7, 31, 52, 59];
    let read = reader.fetch(&wanted, &[speech::mel(DType::F16), speech::speech_token()]).unwrap();
    for (row, at) in read.iter().zip(wanted) {
        assert_eq!((&row.id, &row.group), (&rows[at].id, &rows[at].group));
        assert_eq!(row.columns.len(), 2);
        assert!([speech::MEL, speech::SPEECH_TOKEN].iter().all(|name| row.column(name) == rows[at].column(name)));
    }
    assert!(matches!(reader.fetch(&[60], &[]), Err(CorpusError::Structure { .. })));
    assert!(reader.fetch(&[3, 2], &[]).is_err());
}

#[test]
fn a_split_is_one_list_of_rows_and_its_shards_are_verified() {
    let dir = tempfile::tempdir().unwrap();
    let rows = rows(MelStore::Float16);
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
    let shards = Shards::open(&path, &[speech::mel(DType::F16)], 3 * 100_000).unwrap();
    assert_eq!((shards.len(), shards.shard_sizes()), (60, vec![25, 25, 10]));
    assert_eq!(
        shards.sizes().map(|sizes| sizes.frames()).collect::<Vec<_>>(),
        (0..60).map(|n| 100 + 7 * n).collect::<Vec<u32>>()
    );
    assert_eq!(shards.id(25), rows[25].id);
    for items in [vec![59, 0, 24, 25, 0], vec![0, 30], (0..60).rev().collect::<Vec<u32>>()] {
        let read = shards.fetch(&items).unwrap();
        assert_eq!(read.len(), items.len());
        for (row, item) in read.iter().zip(items) {
            let own = &rows[item as usize];
            assert_eq!((&row.id, row.column(speech::MEL)), (&own.id, own.column(speech::MEL)));
        }
    }
    assert!(shards.fetch(&[60]).is_err());
    // One changed byte in the second shard: the first still reads, the second does not.
    let victim = dir.path().join("shard-00001.parquet");
    let mut bytes = fs::read(&victim).unwrap();
    bytes[1000] ^= 1;
    fs::write(&victim, bytes).unwrap();
    let shards = Shards::open(&path, &[], 0).unwrap();
    assert!(shards.fetch(&[3]).is_ok());
    assert!(matches!(shards.fetch(&[30]), Err(CorpusError::Checksum { .. })));
}

#[test]
fn lists_as_cosyvoice_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let rows = &rows(MelStore::Float16)[..3];
    let summary = write(&dir.path().join("shard-00000.parquet"), rows, MelStore::Float16);
    let entry = entry("shard-00000.parquet", rows, &summary);
    let paths = ListPaths { prefix: "exp/x/".into() };
    let speakers: BTreeSet<String> = rows.iter().map(|row| row.group.clone()).collect();
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
    write(&path, &rows(MelStore::Float16), MelStore::Float16);
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
    for store in [MelStore::Float16, MelStore::Float32, MelStore::None] {
        let mut rows = rows(store);
        rows.truncate(12);
        rows[3].id = "odd/../na me.of % an ü utterance".into();
        let columns = speech::columns(store);
        let mut bytes = Vec::new();
        for name in ["one.tar", "two.tar"] {
            let mut writer = TarShardWriter::create(&dir.path().join(name), &columns).unwrap();
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
            utterances: rows.iter().map(|row| row.id.clone()).collect(),
            frames: vec![3; 12],
            ..ShardEntry::default()
        };
        let index = dir.path().join("index.json");
        ShardIndex::new("train", serde_json::Value::Null, vec![entry]).write(&index).unwrap();
        let shards = Shards::open(&index, &columns, 1 << 20).unwrap();
        let found = shards.fetch(&[7, 3, 0, 11]).unwrap();
        for (row, number) in found.iter().zip([7, 3, 0, 11]) {
            assert_eq!(**row, rows[number]);
        }
        let few = Shards::open(&index, &[speech::speech_token()], 1 << 20).unwrap().fetch(&[2]).unwrap();
        assert!(few[0].columns.len() == 1 && few[0].column("speech_token") == rows[2].column("speech_token"));
        fs::write(dir.path().join("one.tar"), &bytes[0][..bytes[0].len() - 512]).unwrap();
        let error = Shards::open(&index, &columns, 0).unwrap().fetch(&[0]).unwrap_err();
        assert!(matches!(&error, CorpusError::Checksum { path, .. } if path.ends_with("one.tar")), "{error}");
    }
}
