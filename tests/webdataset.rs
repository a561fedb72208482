//! WebDataset in and out: the same recordings as tar shards give the same model.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tar::EntryType;

use crate::support::{Mini, Tar, flowmill, parquet};

/// Utterances of the miniature recipe: id, speaker, text.
fn utterances(mini: &Mini) -> Vec<(String, String, String)> {
    let speakers: BTreeMap<String, String> = fs::read_to_string(mini.path("data/utt2spk"))
        .unwrap()
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(id, speaker)| (id.to_owned(), speaker.to_owned()))
        .collect();
    let text = fs::read_to_string(mini.path("data/text")).unwrap();
    let row = |line: &str| {
        let (id, text) = line.split_once(' ').unwrap();
        (id.to_owned(), speakers[id].clone(), text.to_owned())
    };
    text.lines().map(row).collect()
}

/// The miniature corpus in three tar shards, half of the transcripts as JSON, half as text with the speaker in the JSON.
fn shards(mini: &Mini) {
    for (number, rows) in utterances(mini).chunks(4).enumerate() {
        let mut tar = Tar::new();
        for (at, (id, speaker, text)) in rows.iter().enumerate() {
            tar.file(&format!("{id}.flac"), fs::read(mini.recording(id)).unwrap());
            if at % 2 == 0 {
                tar.file(&format!("{id}.json"), json!({"text": text, "speaker": speaker}).to_string().as_bytes());
            } else {
                tar.file(&format!("{id}.json"), json!({"id": id, "spk": speaker}).to_string().as_bytes());
                tar.file(&format!("{id}.txt"), text.as_bytes());
            }
        }
        tar.save(&mini.path(&format!("shards/s-{number:03}.tar")));
    }
    // Nothing but the shards is left to read from.
    fs::remove_dir_all(mini.path("data")).unwrap();
}

/// The rejected rows of a stage: id to reason.
fn rejected(stage: PathBuf) -> BTreeMap<String, String> {
    let table = stage.join("rejected.parquet");
    parquet::texts(&table, "id").into_iter().zip(parquet::texts(&table, "reason")).collect()
}

const MODEL: &str = "6-export/model.safetensors";

#[test]
fn tar_shards_in_and_out_train_the_very_model_that_files_and_parquet_do() {
    let plain = Mini::finished();
    let tarred = Mini::new();
    shards(&tarred);
    let arguments = ["--set", "prep.data=shards/s-{000..002}.tar", "--set", "pack.format=webdataset"];
    tarred.run(&arguments).expect_code(0);
    for table in
        ["1-embed/train/part-00000.parquet", "2-tokens/dev/part-00000.parquet", "2-tokens/codebook.safetensors"]
    {
        assert_eq!(fs::read(plain.exp(table)).unwrap(), fs::read(tarred.exp(table)).unwrap(), "{table}");
    }
    assert_eq!(
        fs::read(plain.exp(MODEL)).unwrap(),
        fs::read(tarred.exp(MODEL)).unwrap(),
        "the same model, bit for bit"
    );
    let wavs = parquet::texts(&tarred.exp("0-prep/train/part-00000.parquet"), "wav");
    assert!(wavs.iter().all(|wav| wav.starts_with("shards/s-00") && wav.contains(".tar#")), "{wavs:?}");
    assert!(tarred.exp("3-pack/train/shard-00000.tar").exists() && !tarred.exp("3-pack/train/utt2data.list").exists());
    assert!(tarred.files_ending("3-pack/train/shard-00000.parquet").is_empty());
    let shard = tarred.exp("3-pack/train/shard-00000.tar");
    let shown = flowmill(tarred.folder(), &["inspect", "--rows", "3", shard.to_str().unwrap()]).expect_code(0);
    let shown = shown.expect_words(&["tar", "members", "ending", "flac", "json", "file"]);
    let ids: Vec<String> = utterances(&plain).into_iter().map(|(id, ..)| id).collect();
    let listed: usize = ids.iter().map(|id| shown.stdout.matches(&format!("{id}.")).count()).sum();
    assert_eq!(listed, 3, "{}", shown.stdout);
    tarred.run(&arguments).expect_code(0).expect_up_to_date();
    // Another format leaves none of the old shards behind.
    tarred.run(&["--set", "prep.data=shards/s-{000..002}.tar", "--stop-stage", "3"]).expect_code(0);
    assert!(!tarred.exp("3-pack/train/shard-00000.tar").exists());
    assert!(tarred.exp("3-pack/train/shard-00000.parquet").exists());
}

#[test]
fn packed_tar_shards_are_a_source() {
    let mini = Mini::new();
    mini.run(&["--stop-stage", "3", "--set", "pack.format=webdataset"]).expect_code(0);
    let ids = |exp: &str| {
        let table = mini.path(exp).join("0-prep/train/part-00000.parquet");
        let columns = ["utt", "spk", "text"].map(|name| parquet::texts(&table, name));
        (columns, parquet::numbers(&table, "duration"))
    };
    let again = "base: recipe.yaml\nname: again\nprep:\n  data:\n    - {dir: exp/mini/3-pack, format: webdataset}\n";
    fs::write(mini.path("again.yaml"), again).unwrap();
    flowmill(mini.folder(), &["run", "again.yaml", "--stop-stage", "0"]).expect_code(0);
    assert_eq!(ids("exp/mini"), ids("exp/again"));
}

#[test]
fn hostile_and_damaged_shards_are_rejected_row_by_row() {
    let mini = Mini::new();
    let rows = utterances(&mini);
    shards(&mini);
    let mut tar = Tar::new();
    let outside = mini.path("outside.flac");
    tar.member("../outside.flac", EntryType::Regular, b"evil");
    tar.member(outside.to_str().unwrap(), EntryType::Regular, b"evil");
    tar.member("link.flac", EntryType::Symlink, b"");
    tar.file("noise.flac", b"this is no recording");
    tar.file("noise.txt", b"but it has a transcript");
    tar.file("alone.json", br#"{"text": "no recording"}"#);
    tar.file(&format!("{}.flac", rows[0].0), b"repeated");
    tar.file(&format!("{}.txt", rows[0].0), b"repeated");
    tar.save(&mini.path("shards/t-hostile.tar"));
    let whole = fs::read(mini.path("shards/s-002.tar")).unwrap();
    fs::write(mini.path("shards/s-002.tar"), &whole[..whole.len() * 3 / 4]).unwrap();
    let data = "prep.data=[{dir: shards, format: webdataset}]";
    let outcome = mini
        .run(&["--stop-stage", "2", "--set", data, "--set", "max_rejected=0.9", "--set", "prep.split.rest=train"])
        .expect_code(0);
    outcome.expect_words(&["damaged tar: shards/s-002.tar"]);
    let shown = flowmill(mini.folder(), &["inspect", "shards/s-002.tar", "shards/t-hostile.tar"]).expect_code(1);
    shown.expect_words(&["s-002.tar", "../outside.flac", "a symbolic link"]);
    assert!(!outside.exists() && !mini.path("../outside.flac").exists());
    let reasons = rejected(mini.exp("0-prep"));
    for (id, kind, value) in [
        ("../outside.flac", "bad member", "shards/t-hostile.tar: `../outside.flac`"),
        (outside.to_str().unwrap(), "bad member", "shards/t-hostile.tar"),
        ("link.flac", "bad member", "a symbolic link"),
        ("noise", "unreadable recording", "shards/t-hostile.tar#noise.flac"),
        ("alone", "no recording", "alone.json"),
        (rows[0].0.as_str(), "repeated id", "shards/t-hostile.tar"),
        ("shards/s-002.tar", "damaged tar", "shards/s-002.tar"),
    ] {
        let reason = &reasons[id];
        assert_eq!(reason.split(": ").next(), Some(kind), "{id}: {reason}");
        assert!(reason.contains(value), "{id}: {reason}");
    }
    let stages = mini.status();
    for stage in &stages["stages"].as_array().unwrap()[..3] {
        let number = |field: &str| stage[field].as_u64().unwrap();
        assert_eq!(number("rows_in"), number("rows_out") + number("rejected"), "{stage:#}");
    }
}

#[test]
fn what_cannot_be_a_source_is_said_before_anything_runs() {
    let mini = Mini::new();
    fs::create_dir(mini.path("shards")).unwrap();
    fs::write(mini.path("shards/a.tar.bz2"), b"BZh").unwrap();
    let check = |data: &str| mini.run(&["--set", &format!("prep.data={data}"), "--dry-run"]).expect_code(2);
    check("shards/b-{0..3}.tar").expect_words(&["prep.data", "4 of its 4", "shards/b-0.tar"]);
    check("[{dir: shards, format: webdataset}]").expect_words(&["prep.data", "a.tar.bz2", "bunzip2"]);
    check("[{dir: data, ids: shard}]").expect_words(&["prep.data", "`ids`", "`format: webdataset`"]);
    let outcome = mini.run(&["--set", "pack.format=webdatasets", "--dry-run"]).expect_code(2);
    outcome.expect_words(&["pack.format", "webdataset"]);
    let _: Value = mini.status();
}

/// A file as `gzip` writes it.
fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_shards_are_decompressed_once_and_give_the_same_rows() {
    let plain = Mini::finished();
    let mini = Mini::new();
    shards(&mini);
    for number in 0..3 {
        let tar = mini.path(&format!("shards/s-{number:03}.tar"));
        let name = ["s 000.tar.gz", "s-001.tgz", "deep/s-002.tar.zst"][number];
        fs::create_dir_all(mini.path("shards/deep")).unwrap();
        let content = fs::read(&tar).unwrap();
        let packed = if number == 2 { zstd::encode_all(&content[..], 1).unwrap() } else { gzipped(&content) };
        fs::write(mini.path("shards").join(name), packed).unwrap();
        fs::remove_file(tar).unwrap();
    }
    mini.run(&["--set", "prep.data=shards"]).expect_code(0).expect_words(&["WebDataset"]);
    assert_eq!(fs::read(plain.exp(MODEL)).unwrap(), fs::read(mini.exp(MODEL)).unwrap(), "the same model, bit for bit");
    let wavs = parquet::texts(&mini.exp("0-prep/train/part-00000.parquet"), "wav");
    assert!(wavs.iter().all(|wav| wav.starts_with("exp/mini/0-prep/unpacked/0/0000")), "{wavs:?}");
    mini.run(&["--set", "prep.data=shards"]).expect_code(0).expect_up_to_date();
    // What comes before damage is read, and the damage is a rejection.
    let whole = fs::read(mini.path("shards/s-001.tgz")).unwrap();
    fs::write(mini.path("shards/s-001.tgz"), &whole[..whole.len() * 2 / 3]).unwrap();
    let damaged = ["--set", "prep.data=shards", "--set", "max_rejected=0.9", "--stop-stage", "0"];
    mini.run(&damaged).expect_code(0);
    let reasons = rejected(mini.exp("0-prep"));
    assert!(reasons["shards/s-001.tgz"].contains("damaged"), "{reasons:?}");
    let rows = parquet::texts(&mini.exp("0-prep/train/part-00000.parquet"), "utt").len();
    assert!(rows > 0);
}
