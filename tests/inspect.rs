//! `inspect` on folders, logs, compressed files and Arrow tables, for people and (`--json`) for programs.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::ipc::writer::{FileWriter, StreamWriter};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::support::flowmill;
use crate::support::flowmill::Outcome;
use crate::support::mini::Mini;

/// Inspects a path, given relative to the folder.
fn inspect(folder: &Path, path: &str, options: &[&str]) -> Outcome {
    flowmill(folder, &[&["inspect", path], options].concat()).expect_no_panic()
}

/// Returns what `--json` says, which is one line.
fn json_of(folder: &Path, path: &str, options: &[&str], code: i32) -> Value {
    let outcome = inspect(folder, path, &[&["--json"], options].concat()).expect_code(code);
    let mut lines = outcome.stdout.lines();
    let line = lines.next().unwrap_or_else(|| panic!("{path}: {}", outcome.text()));
    assert_eq!(lines.next(), None, "{path}");
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{path}: {error}: {line}"))
}

/// Compresses bytes with gzip.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn folders_and_logs_of_a_training_can_be_inspected() {
    let mini = Mini::new();
    mini.run(&["--stop-stage", "pack"]).expect_code(0);
    let packed = json_of(mini.folder(), "exp/mini", &[], 0);
    assert_eq!(packed["kind"], "experiment");
    assert_eq!(packed["next"][0], "flowmill run . --stage train");
    mini.run(&["--set", "train.wandb.project=mini"]).expect_code(0);

    let shown = inspect(mini.folder(), ".", &[]).expect_code(0);
    shown.expect_words(&["experiment", "6-export", "done", "checkpoint", "last command", "flowmill report"]);
    let experiment = json_of(mini.folder(), "exp/mini", &[], 0);
    let stages = experiment["stages"].as_array().unwrap();
    let status = mini.status();
    for (stage, expected) in stages.iter().zip(status["stages"].as_array().unwrap()) {
        for key in ["stage", "state"] {
            assert_eq!(stage[key], expected[key], "{stage} {expected}");
        }
    }
    assert_eq!(stages.len(), 7);
    assert_eq!((&stages[0]["rows_in"], &stages[0]["rows_out"]), (&Value::from(12), &Value::from(12)));
    let steps: Vec<&Value> = experiment["checkpoints"].as_array().unwrap().iter().map(|saved| &saved["step"]).collect();
    assert!(steps.contains(&&Value::from(12)), "{steps:?}");

    let checkpoint = "exp/mini/4-train/checkpoints/step-000012";
    let shown = inspect(mini.folder(), checkpoint, &[]).expect_code(0);
    shown.expect_words(&["checkpoint", "12 of 12", "model.safetensors", "optimizer.safetensors", "tensors"]);
    let state: Value = serde_json::from_slice(&fs::read(mini.path(checkpoint).join("state.json")).unwrap()).unwrap();
    let facts = json_of(mini.folder(), checkpoint, &[], 0);
    assert_eq!((&facts["step"], &facts["validation_loss"]), (&state["step"], &state["validation"]));

    let export = json_of(mini.folder(), "exp/mini/6-export", &[], 0);
    assert_eq!((&export["kind"], &export["family"]), (&"exported_model".into(), &"cosyvoice2-flow".into()));
    let files = export["files"].as_array().unwrap();
    let size = fs::metadata(mini.exp("6-export/model.safetensors")).unwrap().len();
    assert!(files.iter().any(|file| file["path"] == "model.safetensors" && file["bytes"] == size), "{files:?}");
    inspect(mini.folder(), "exp/mini/6-export", &[]).expect_code(0).expect_words(&["card", "README.md", "samples/"]);
    inspect(mini.folder(), "exp/mini/3-pack", &[]).expect_code(0).expect_words(&["stage", "rows in", "data.list"]);

    logs_say_the_same_as_the_metrics(&mini);
    damage_of_a_checkpoint_is_told(&mini, checkpoint);
}

/// The events of TensorBoard and the run of W&B have the losses of `metrics.jsonl`; of cut ones the good part is shown.
fn logs_say_the_same_as_the_metrics(mini: &Mini) {
    let metrics = json_of(mini.folder(), "exp/mini/4-train/metrics.jsonl", &[], 0);
    let loss = &metrics["numbers"]["loss"];
    assert_eq!((&metrics["kind"], &loss["values"]), (&"json_lines".into(), &12.into()));
    let events = mini.files_ending(".flowmill").remove(0);
    let events = format!("exp/mini/{}", events.display());
    let wandb = format!("exp/mini/{}", mini.files_ending(".wandb").remove(0).display());
    let tensorboard = json_of(mini.folder(), &events, &[], 0);
    let tag = &tensorboard["tags"]["train/loss"];
    assert_eq!((&tag["first_step"], &tag["last_step"], &tag["kind"]), (&1.into(), &12.into(), &"scalar".into()));
    let run = json_of(mini.folder(), &wandb, &[], 0);
    assert_eq!((&run["run"]["project"], &run["is_finished"]), (&"mini".into(), &true.into()));
    assert_eq!((&run["first_step"], &run["last_step"]), (&1.into(), &12.into()));
    assert!(run["config"]["optim"].is_object(), "{}", run["config"]);
    for course in [&tag["numbers"], &run["history"]["train/loss"]] {
        for key in ["first", "last", "min", "max"] {
            let (found, expected) = (course[key].as_f64().unwrap(), loss[key].as_f64().unwrap());
            assert!((found / expected - 1.0).abs() < 1e-6, "{key}: {course} {loss}");
        }
    }
    inspect(mini.folder(), &events, &[]).expect_code(0).expect_words(&["train/loss", "scalar", "brain.Event:2"]);
    inspect(mini.folder(), &wandb, &[]).expect_code(0).expect_words(&["train/loss", "finished, exit code 0", "optim"]);
    for (name, words) in [(&events, "train/loss"), (&wandb, "train/loss")] {
        let bytes = fs::read(mini.path(name)).unwrap();
        let cut = mini.path("cut");
        fs::write(&cut, &bytes[..bytes.len() * 3 / 4]).unwrap();
        let shown = inspect(mini.folder(), "cut", &[]).expect_code(1);
        assert!(shown.stdout.contains(words) && shown.stderr.contains("cannot be read after byte"), "{}", shown.text());
        let whole = json_of(mini.folder(), name, &[], 0);
        let cut = json_of(mini.folder(), "cut", &[], 1);
        let records = |facts: &Value| facts["events"].as_u64().or(facts["records"].as_u64()).unwrap();
        assert!(cut["damage"].is_string() && (1..records(&whole)).contains(&records(&cut)), "{cut}");
    }
}

fn damage_of_a_checkpoint_is_told(mini: &Mini, checkpoint: &str) {
    let path = mini.path(checkpoint).join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let facts = json_of(mini.folder(), checkpoint, &[], 1);
    assert!(facts["damage"].as_str().unwrap().contains("model.safetensors"), "{facts}");
    assert_eq!(facts["step"], 12);
}

#[test]
fn every_file_of_an_experiment_can_be_read_by_programs() {
    let mini = Mini::finished();
    let tree = mini.tree();
    let names: Vec<String> = tree.0.keys().map(|path| format!("exp/mini/{}", path.display())).collect();
    let names: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| fs::metadata(mini.path(name)).unwrap().len() > 0).collect();
    let outcome = flowmill(mini.folder(), &[&["inspect", "--json"], &names[..]].concat()).expect_code(0);
    let documents: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(documents.len(), names.len());
    for (name, document) in names.iter().zip(&documents) {
        assert_eq!(document["path"], *name);
        assert_eq!(document["bytes"], fs::metadata(mini.path(name)).unwrap().len(), "{name}");
        let has = |keys: &[&str]| {
            keys.iter().for_each(|key| assert!(document.get(*key).is_some(), "{name} has no {key}: {document}"));
        };
        match document["kind"].as_str().unwrap() {
            "parquet" => has(&["rows", "row_groups", "columns", "metadata", "first_rows"]),
            "safetensors" => has(&["tensors", "types", "metadata"]),
            "torch" => has(&["tensors", "types", "scalars", "left_out"]),
            "json_lines" => has(&["rows", "last_rows", "numbers"]),
            "tensorboard" => has(&["events", "tags", "version"]),
            "recording" => has(&["sample_rate", "channels", "seconds", "levels"]),
            "png" => has(&["width", "height"]),
            "text" => has(&["lines", "first_lines"]),
            "receipt" => has(&["receipt"]),
            "json" => has(&["value"]),
            other => panic!("{name}: {other}"),
        }
    }
    let shard = names.iter().find(|name| name.ends_with("3-pack/train/shard-00000.parquet")).unwrap();
    let row = |options: &[&str]| json_of(mini.folder(), shard, options, 0)["first_rows"][0].clone();
    let (short, whole) = (row(&["--rows", "1"]), row(&["--rows", "1", "--full"]));
    assert_eq!((&short["utt"], &short["mel"]["shape"]), (&whole["utt"], &whole["mel"]["shape"]));
    assert_eq!(short["mel"]["items"].as_array().unwrap().len(), 6);
    assert_eq!(whole["mel"]["items"].as_array().unwrap().len() as u64, whole["mel"]["length"].as_u64().unwrap());
    assert!(whole["audio_data"]["bytes"].as_u64().unwrap() > 1000, "{}", whole["audio_data"]);
}

#[test]
fn the_content_of_compressed_files_is_shown() {
    let here = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(here.path().join(name), bytes).unwrap();
    let lines: String = (0..500).map(|index| format!("{{\"utt\": \"u{index}\", \"duration\": {index}.5}}\n")).collect();
    let packed = gzip(lines.as_bytes());
    write("manifest.jsonl.gz", &packed);
    let shown = inspect(here.path(), "manifest.jsonl.gz", &[]).expect_code(0);
    shown.expect_words(&["JSON lines", "gzip", "500 rows", "u499"]);
    let facts = json_of(here.path(), "manifest.jsonl.gz", &["--rows", "2"], 0);
    assert_eq!((&facts["kind"], &facts["compression"]), (&"json_lines".into(), &"gzip".into()));
    assert_eq!(facts["uncompressed_bytes"], lines.len());
    assert_eq!(facts["last_rows"][1]["utt"], "u499");
    assert_eq!(facts["numbers"]["duration"]["max"], 499.5);
    // Two members after each other are one content.
    write("two.txt.gz", &[gzip(b"first\n"), gzip(b"second\n")].concat());
    inspect(here.path(), "two.txt.gz", &[]).expect_code(0).expect_words(&["first", "second", "2 lines"]);
    let zstd = zstd::encode_all(lines.as_bytes(), 3).unwrap();
    write("manifest.jsonl.zst", &zstd);
    assert_eq!(json_of(here.path(), "manifest.jsonl.zst", &[], 0)["rows"], 500);
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(5);
    tar.append_data(&mut header, "a.json", &b"[1,2]"[..]).unwrap();
    write("shard.tar.gz", &gzip(&tar.into_inner().unwrap()));
    assert_eq!(json_of(here.path(), "shard.tar.gz", &[], 0)["endings"]["json"]["members"], 1);
    // Of a truncated file the beginning is shown.
    write("cut.jsonl.gz", &packed[..packed.len() / 2]);
    let facts = json_of(here.path(), "cut.jsonl.gz", &[], 1);
    assert!(facts["damage"].is_string() && facts["rows"].as_u64().unwrap() < 500, "{facts}");
    write("twice.gz", &gzip(&packed));
    inspect(here.path(), "twice.gz", &[]).expect_code(1).expect_words(&["more than once"]);
    write("noise.gz", b"\x1f\x8b\x08\x00garbage that is no deflate stream");
    inspect(here.path(), "noise.gz", &[]).expect_code(1);
}

#[test]
fn arrow_files_and_streams_are_tables() {
    let here = tempfile::tempdir().unwrap();
    let long = "word ".repeat(100);
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
        ("text", Arc::new(StringArray::from(vec![Some(long.as_str()), None, Some("short")]))),
        ("audio", Arc::new(BinaryArray::from(vec![&[1u8, 2, 3][..], &[0; 20], &[]]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut file = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    let mut stream = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    for _ in 0..2 {
        file.write(&batch).unwrap();
        stream.write(&batch).unwrap();
    }
    let (file, stream) = (file.into_inner().unwrap(), stream.into_inner().unwrap());
    for (name, bytes, layout) in [("data.arrow", &file, "file"), ("data.stream", &stream, "stream")] {
        fs::write(here.path().join(name), bytes).unwrap();
        let facts = json_of(here.path(), name, &["--rows", "4"], 0);
        assert_eq!((&facts["kind"], &facts["layout"]), (&"arrow".into(), &layout.into()));
        assert_eq!((&facts["rows"], &facts["batches"]), (&6.into(), &2.into()));
        let rows = facts["first_rows"].as_array().unwrap();
        assert_eq!(rows.len(), 4);
        assert_eq!(
            (&rows[0]["text"], &rows[1]["text"], &rows[3]["id"]),
            (&long.as_str().into(), &Value::Null, &"a".into())
        );
        assert_eq!(rows[0]["audio"]["begin"], "010203");
        let shown = inspect(here.path(), name, &[]).expect_code(0);
        let shown = shown.expect_words(&["Arrow", "6 rows in 2 batches", "20 bytes"]);
        assert!(!shown.stdout.contains(long.trim()));
        let full = inspect(here.path(), name, &["--full"]).expect_code(0);
        assert!(full.stdout.contains(long.trim()), "{}", full.stdout);
    }
    fs::write(here.path().join("cut.arrow"), &stream[..stream.len() * 3 / 5]).unwrap();
    let facts = json_of(here.path(), "cut.arrow", &[], 1);
    assert_eq!((&facts["rows"], facts["damage"].is_string()), (&3.into(), true), "{facts}");
    // A length that the file does not have must not be allocated.
    fs::write(here.path().join("huge.arrow"), [&[0xff; 4][..], &0x7fff_fff8u32.to_le_bytes(), &[0; 64]].concat())
        .unwrap();
    inspect(here.path(), "huge.arrow", &[]).expect_code(1);
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
    let mut file = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    file.write(&batch).unwrap();
    fs::write(here.path().join("n.arrow"), file.into_inner().unwrap()).unwrap();
    assert_eq!(json_of(here.path(), "n.arrow", &[], 0)["first_rows"][1]["n"], 2);
}

#[test]
fn of_damaged_lines_the_good_ones_are_shown() {
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("torn.jsonl"), "{\"a\": 1}\n{\"a\": 3}\n{\"a\": ").unwrap();
    let shown = inspect(here.path(), "torn.jsonl", &[]).expect_code(1);
    shown.expect_words(&["2 rows", "line 3 is not valid JSON"]);
    let facts = json_of(here.path(), "torn.jsonl", &[], 1);
    assert_eq!((&facts["rows"], &facts["numbers"]["a"]["mean"]), (&2.into(), &2.0.into()));
    let folder = inspect(here.path(), ".", &[]).expect_code(1);
    folder.expect_words(&["is a folder, but not an experiment"]);
}
