//! Data as people have them: directories without speakers, folders of splits, damaged recordings, shards of another kind.

use std::collections::BTreeMap;
use std::fs;

use crate::support::mini::repository;
use crate::support::{Mini, flowmill, parquet};

/// Runs stage 0 on a recipe that reads `source`.
fn prepared(mini: &Mini, source: &str, more: &[&str]) -> crate::support::flowmill::Outcome {
    let data = format!("prep.data={source}");
    mini.run(
        &[&["--stop-stage", "0", "--set", &data, "--set", "prep.split={by: fraction, fractions: {}}"], more].concat(),
    )
}

#[test]
fn a_directory_without_speakers_is_of_the_one_that_is_named() {
    let mini = Mini::new();
    fs::remove_file(mini.path("data/utt2spk")).unwrap();
    prepared(&mini, "data", &[]).expect_code(1).expect_words(&["utt2spk", "prep.data: [{dir: data, speaker: NAME}]"]);
    prepared(&mini, "[{dir: data, speaker: anna}]", &[]).expect_code(0);
    let speakers = parquet::texts(&mini.exp("0-prep/train/part-00000.parquet"), "spk");
    assert!(!speakers.is_empty() && speakers.iter().all(|speaker| speaker == "anna"), "{speakers:?}");
    prepared(&mini, "[{dir: data, format: folder, speaker: anna}]", &[])
        .expect_error("recipe", 2)
        .expect_words(&["prep.data"]);
}

#[test]
fn a_path_that_is_not_there_says_from_where_it_counts() {
    let mini = Mini::new();
    let lines = fs::read_to_string(mini.path("data/wav.scp")).unwrap();
    // As a Kaldi tool would have it, from the folder that it runs in.
    fs::write(mini.path("data/wav.scp"), lines.replacen("audio/", "data/audio/", 1)).unwrap();
    prepared(&mini, "data", &["--set", "max_rejected=1.0"]).expect_code(0);
    let reasons = parquet::texts(&mini.exp("0-prep/rejected.parquet"), "reason");
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    for words in ["data/data/audio/", "data/wav.scp"] {
        assert!(reasons[0].contains(words), "{reasons:?}");
    }
}

#[test]
fn a_folder_of_splits_is_told_apart_by_name() {
    let mini = Mini::new();
    for split in ["train", "dev"] {
        fs::create_dir_all(mini.path(&format!("both/{split}"))).unwrap();
        let listed = fs::read_to_string(mini.path(&format!("lists/{split}"))).unwrap();
        for file in ["wav.scp", "text", "utt2spk"] {
            let lines = fs::read_to_string(mini.path(&format!("data/{file}"))).unwrap();
            let id = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
            let kept = lines.lines().filter(|line| listed.lines().any(|listed| listed == id(line)));
            let kept: Vec<String> = kept.map(|line| line.replace(" audio/", " ../../data/audio/")).collect();
            fs::write(mini.path(&format!("both/{split}/{file}")), kept.join("\n") + "\n").unwrap();
        }
    }
    let advice = "prep.data=[{dir: both/dev, split: dev}, {dir: both/train, split: train}]";
    mini.run(&["--stop-stage", "0", "--set", "prep.data=both"])
        .expect_code(1)
        .expect_words(&[&format!("--set '{advice}' --set prep.split.by=given")]);
    mini.run(&["--stop-stage", "0", "--set", advice, "--set", "prep.split.by=given"]).expect_code(0);
    for (split, rows) in [("train", 10), ("dev", 2)] {
        let rows_there: usize = ["part-00000", "part-00001", "part-00002"]
            .iter()
            .map(|part| mini.exp(&format!("0-prep/{split}/{part}.parquet")))
            .filter(|table| table.exists())
            .map(|table| parquet::texts(&table, "utt").len())
            .sum();
        assert_eq!(rows_there, rows, "{split}");
    }
}

#[test]
fn truncated_recordings_are_kept_and_named() {
    let mini = Mini::new();
    let ids: Vec<String> =
        fs::read_to_string(mini.path("lists/train")).unwrap().lines().take(5).map(str::to_owned).collect();
    for id in &ids {
        let bytes = fs::read(mini.recording(id)).unwrap();
        fs::write(mini.recording(id), &bytes[..bytes.len() * 2 / 3]).unwrap();
    }
    let outcome = prepared(&mini, "data", &["--set", "prep.part_size=100"]).expect_code(0);
    outcome.expect_words(&[
        "truncated recordings 5",
        &format!("warning: {} (data/audio/{}.flac): truncated: ", ids[0], ids[0]),
        "warning: 2 more utterances of train/part-00000 ",
        "0-prep/warnings/train/part-00000.jsonl",
    ]);
    let file = mini.exp("0-prep/warnings/train/part-00000.jsonl");
    let told: BTreeMap<String, String> = fs::read_to_string(&file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| (line["utt"].as_str().unwrap().to_owned(), line["warning"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(told.keys().collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    assert_eq!(parquet::texts(&mini.exp("0-prep/train/part-00000.parquet"), "utt").len(), 12);
    mini.run(&["--stop-stage", "2", "--set", "prep.part_size=100"]).expect_code(0);
}

#[test]
fn a_parquet_shard_that_is_called_tar_is_known_for_what_it_is() {
    let mini = Mini::packed();
    fs::copy(mini.exp("3-pack/train/shard-00000.parquet"), mini.path("parquet_000000000.tar")).unwrap();
    prepared(&mini, "parquet_000000000.tar", &[]).expect_code(0).expect_rows(4, 4, 0);
    let told = prepared(&mini, "[{dir: parquet_000000000.tar, format: webdataset}]", &[]).expect_code(1);
    told.expect_words(&["Parquet", "format: shards"]);
}

#[test]
fn two_recordings_of_the_same_sound_have_an_embedding() {
    let mini = Mini::new();
    let ids = fs::read_to_string(mini.path("lists/train")).unwrap();
    let ids: Vec<&str> = ids.lines().collect();
    for id in &ids[1..] {
        fs::copy(mini.recording(ids[0]), mini.recording(id)).unwrap();
    }
    mini.run(&["--stop-stage", "1"]).expect_code(0);
    assert!(!mini.exp("1-embed/rejected.parquet").exists());
}

#[test]
fn a_split_that_is_not_there_is_missed_before_training() {
    let mini = Mini::packed();
    mini.run(&["--set", "train.train_split=nope"])
        .expect_code(2)
        .expect_words(&["train.train_split: `nope` ", ": dev, train"]);
    mini.run(&["--set", "train.validation_split=nope"])
        .expect_code(2)
        .expect_words(&["train.validation_split: `nope` ", ": dev, train"]);
    mini.run(&["--stop-stage", "5", "--set", "train.validation_split=null"]).expect_code(0);
}

#[test]
fn the_doctor_goes_on_where_data_are_missing() {
    let folder = repository().join("recipes/sfm");
    let shown = flowmill(&folder, &["doctor", "recipe.yaml"]).expect_code(2);
    shown.expect_words(&["prep.data", "embed.extractor.weights", "speech_tokenizer_v2.onnx"]);
}
