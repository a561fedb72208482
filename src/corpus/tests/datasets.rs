//! Datasets whose rows hold their recordings or name them in a format of a library: Hugging Face and lhotse.

mod support;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use arrow::ipc::writer::StreamWriter;
use flowmill_corpus::source::{PipeLimits, Source};
use flowmill_corpus::{CorpusError, ReadOptions, Reading, detect, huggingface, lhotse};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use support::{directory, expect_rejected, ids};

/// Text, speaker, bytes and path of a row.
type Row<'a> = (&'a str, i64, Option<&'a [u8]>, Option<&'a str>);

/// A batch of `datasets`: `text`, `speaker_id`, `audio: {bytes, path}`.
fn batch(rows: &[Row<'_>]) -> RecordBatch {
    let bytes: ArrayRef = Arc::new(BinaryArray::from(rows.iter().map(|row| row.2).collect::<Vec<_>>()));
    let paths: ArrayRef = Arc::new(StringArray::from(rows.iter().map(|row| row.3).collect::<Vec<_>>()));
    let fields =
        Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)]);
    let audio = StructArray::new(fields, vec![bytes, paths], None::<NullBuffer>);
    let texts: ArrayRef = Arc::new(StringArray::from(rows.iter().map(|row| row.0).collect::<Vec<_>>()));
    let speakers: ArrayRef = Arc::new(Int64Array::from(rows.iter().map(|row| row.1).collect::<Vec<_>>()));
    RecordBatch::try_from_iter([("text", texts), ("speaker_id", speakers), ("audio", Arc::new(audio) as ArrayRef)])
        .unwrap()
}

fn parquet(path: &Path, batches: &[RecordBatch]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let settings = WriterProperties::builder().set_compression(parquet::basic::Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batches[0].schema(), Some(settings)).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
        // A row group for each.
        writer.flush().unwrap();
    }
    writer.close().unwrap();
}

fn arrow(path: &Path, batches: &[RecordBatch]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = StreamWriter::try_new(File::create(path).unwrap(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
}

/// Returns id, speaker, text and split of every row, and the bytes of its recording.
fn rows<'a>(reading: &'a Reading, root: &Path) -> Vec<([&'a str; 4], Vec<u8>)> {
    let bytes = |wav: &str| Source::of(wav).read(root, &PipeLimits::default()).unwrap();
    let row = |row: flowmill_corpus::UtteranceRow<'a>| [row.utt, row.spk, row.text, row.split.unwrap_or("none")];
    reading.utterances.iter().map(|utterance| (row(utterance), bytes(utterance.wav))).collect()
}

#[test]
fn rows_of_hugging_face_hold_their_recordings() {
    let batches = [
        batch(&[("One", 7, Some(b"RIFF-1"), Some("/home/x/a.wav")), ("", 7, Some(b"RIFF-2"), Some("b.wav"))]),
        batch(&[("Three", 8, Some(b"RIFF-three"), None), ("Four", 8, Some(b"RIFF-4"), Some("d.wav"))]),
    ];
    let dir = tempfile::tempdir().unwrap();
    parquet(&dir.path().join("hub/data/train-00000-of-00001.parquet"), &batches);
    arrow(&dir.path().join("saved/validation/data-00000-of-00001.arrow"), &batches);
    for (source, split, made_up) in [
        ("hub", "train", "data-train-00000-of-00001-00000002"),
        ("saved", "validation", "validation-data-00000-of-00001-00000002"),
    ] {
        assert_eq!(detect::detect(&dir.path().join(source)).unwrap().format, "huggingface");
        let reading = huggingface::read(dir.path(), source, &ReadOptions::default()).unwrap();
        let expected = [
            (["a", "7", "One", split], b"RIFF-1".to_vec()),
            (["d", "8", "Four", split], b"RIFF-4".to_vec()),
            ([made_up, "8", "Three", split], b"RIFF-three".to_vec()),
        ];
        let mut read = rows(&reading, dir.path());
        read.sort_by_key(|row| row.0[2] == "Three");
        assert_eq!(read, expected);
        expect_rejected(&reading, "b", "no transcript", &["[1]"]);
        assert_eq!(reading.lines, 4);
    }
}

#[test]
fn rows_without_bytes_name_files() {
    let dir = tempfile::tempdir().unwrap();
    let batches = [batch(&[("One", 7, None, Some("clips/a.wav")), ("Two", 7, None, None)])];
    parquet(&dir.path().join("d/test.parquet"), &batches);
    let reading = huggingface::read(dir.path(), "d", &ReadOptions::default()).unwrap();
    assert_eq!((reading.utterances.row(0).wav, reading.utterances.row(0).split), ("d/clips/a.wav", Some("test")));
    assert_eq!((reading.utterances.len(), reading.rejected.len()), (1, 1));
}

#[test]
fn damaged_tables_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let batches = [batch(&[("One", 7, Some(&[7; 3000]), Some("a.wav"))])];
    for (name, write) in [("t.parquet", parquet as fn(&Path, &[RecordBatch])), ("t.arrow", arrow)] {
        let path = dir.path().join(name);
        write(&path, &batches);
        let whole = std::fs::read(&path).unwrap();
        for cut in (0..whole.len()).step_by(97) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            drop(huggingface::read(dir.path(), name, &ReadOptions::default()));
            let mut bent = whole.clone();
            bent[cut] ^= 0x55;
            std::fs::write(&path, &bent).unwrap();
            if let Ok(reading) = huggingface::read(dir.path(), name, &ReadOptions::default()) {
                for row in reading.utterances.iter() {
                    drop(Source::of(row.wav).read(dir.path(), &PipeLimits::default()));
                }
            }
        }
    }
    assert!(matches!(
        Source::of("t.parquet#audio.bytes/a.wav@9").read(dir.path(), &PipeLimits::default()),
        Err(CorpusError::Table { .. } | CorpusError::Structure { .. })
    ));
}

#[test]
fn cuts_and_supervisions_of_lhotse() {
    let recording = r#"{"id": "r1", "sources": [{"type": "file", "channels": [0], "source": "audio/r1.flac"}], "sampling_rate": 16000, "num_samples": 160000, "duration": 10.0}"#;
    let supervision = |id: &str, start: f64, duration: f64, text: &str| {
        format!(
            r#"{{"id": "{id}", "recording_id": "r1", "start": {start}, "duration": {duration}, "channel": 0, "text": "{text}", "speaker": "anna", "language": "English"}}"#
        )
    };
    let cut = |id: &str, start: f64, duration: f64, supervisions: &[String]| {
        let supervisions = supervisions.join(", ");
        format!(
            r#"{{"id": "{id}", "start": {start}, "duration": {duration}, "channel": 0, "supervisions": [{supervisions}], "recording": {recording}, "type": "MonoCut"}}"#
        )
    };
    let cuts = [
        cut("whole", 0.0, 10.0, &[supervision("s0", 0.0, 10.0, "All of it")]),
        cut("piece", 2.0, 3.0, &[supervision("s1", 0.0, 3.0, "A piece")]),
        cut("two", 4.0, 6.0, &[supervision("s2", 0.5, 1.0, "First"), supervision("s3", 2.0, 1.5, "Second")]),
        r#"{"id": "mixed", "tracks": []}"#.to_owned(),
        "{not json".to_owned(),
    ]
    .join("\n");
    let recordings = format!("{recording}\n{}\n", recording.replace("r1", "r2").replace("\"file\"", "\"command\""));
    let supervisions =
        [supervision("s4", 1.0, 2.0, "Seen"), supervision("s5", 0.0, 10.0, "Gone").replace("\"r1\"", "\"r9\"")]
            .join("\n");
    let dir = directory(&[
        ("l/cuts_dev.jsonl", cuts.as_bytes()),
        ("m/recordings.jsonl", recordings.as_bytes()),
        ("m/supervisions.jsonl", supervisions.as_bytes()),
    ]);
    assert_eq!(detect::detect(&dir.path().join("l")).unwrap().format, "lhotse");
    assert_eq!(detect::detect(&dir.path().join("m")).unwrap().format, "lhotse");
    let reading = lhotse::read(dir.path(), "l", &ReadOptions::default()).unwrap();
    assert_eq!(ids(&reading), ["piece", "s2", "s3", "whole"]);
    let times = |index: usize| (reading.utterances.row(index).start, reading.utterances.row(index).end);
    assert_eq!((times(0), times(1)), ((Some(2.0), Some(5.0)), (Some(4.5), Some(5.5))));
    assert_eq!((times(2), times(3)), ((Some(6.0), Some(7.5)), (None, None)));
    let row = reading.utterances.row(0);
    let found = (row.spk, row.text, row.lang, row.wav, row.split);
    assert_eq!(found, ("anna", "A piece", Some("English"), "l/audio/r1.flac", Some("dev")));
    expect_rejected(&reading, "mixed", "bad row of lhotse", &["cuts_dev.jsonl:4", "mixed"]);
    expect_rejected(&reading, "cuts_dev.jsonl:5", "bad row of lhotse", &["cuts_dev.jsonl:5", "JSON"]);
    let reading = lhotse::read(dir.path(), "m", &ReadOptions::default()).unwrap();
    assert_eq!((ids(&reading), reading.utterances.row(0).start), (vec!["s4"], Some(1.0)));
    expect_rejected(&reading, "s5", "bad row of lhotse", &["supervisions.jsonl:2", "r9"]);
    expect_rejected(&reading, "r2", "no supervision", &[]);
}
