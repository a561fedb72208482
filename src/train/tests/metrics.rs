//! The metrics files, read back by a reader of their own.

mod support;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use flowmill_train::TrainConfig;
use flowmill_train::metrics::tensorboard::masked_crc32c;
use flowmill_train::metrics::{EVENTS_FILE, METRICS_FILE, WandbConfig};
use support::{Recorder, Samples, config, run};

#[derive(Debug, Default, PartialEq)]
struct Event {
    wall_time: f64,
    step: u64,
    version: Option<String>,
    scalars: Vec<(String, f32)>,
}

/// Splits a file of TFRecords, checking both checksums of each.
fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(word(&bytes[8..]), masked_crc32c(&bytes[..8]));
        let record = &bytes[12..12 + length];
        assert_eq!(word(&bytes[12 + length..]), masked_crc32c(record));
        records.push(record);
        bytes = &bytes[16 + length..];
    }
    records
}

/// A field of a protocol buffer: its number and its content, numbers as eight bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let (digits, rest) = bytes.split_at(length);
        *bytes = rest;
        digits.iter().rev().fold(0, |value, digit| value << 7 | u64::from(digit & 0x7f))
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let take = |bytes: &mut &[u8], length: usize| {
            let (content, rest) = bytes.split_at(length);
            *bytes = rest;
            content.to_vec()
        };
        let content = match key & 7 {
            0 => varint(&mut bytes).to_le_bytes().to_vec(),
            1 => take(&mut bytes, 8),
            2 => {
                let length = varint(&mut bytes) as usize;
                take(&mut bytes, length)
            }
            5 => take(&mut bytes, 4),
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, content));
    }
    fields
}

fn event(record: &[u8]) -> Event {
    let mut event = Event::default();
    for (field, content) in fields(record) {
        match field {
            1 => event.wall_time = f64::from_le_bytes(content.try_into().unwrap()),
            2 => event.step = u64::from_le_bytes(content.try_into().unwrap()),
            3 => event.version = Some(String::from_utf8(content).unwrap()),
            5 => event.scalars.extend(fields(&content).iter().map(|(_, value)| scalar(value))),
            other => panic!("field {other}"),
        }
    }
    event
}

fn scalar(value: &[u8]) -> (String, f32) {
    let fields = fields(value);
    assert_eq!(fields.iter().map(|(field, _)| *field).collect::<Vec<_>>(), [1, 2]);
    (String::from_utf8(fields[0].1.clone()).unwrap(), f32::from_le_bytes(fields[1].1.clone().try_into().unwrap()))
}

#[test]
fn both_files_say_the_same_and_can_be_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut observer = Recorder::default();
    run(folder.path(), &config(20), &Samples::new(40, &[5]), 0.1, &mut observer).unwrap();
    let text = std::fs::read_to_string(folder.path().join(METRICS_FILE)).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let bytes = std::fs::read(folder.path().join(EVENTS_FILE)).unwrap();
    let events: Vec<Event> = records(&bytes).into_iter().map(event).collect();

    assert_eq!(events[0].version.as_deref(), Some("brain.Event:2"));
    assert_eq!(events.len(), lines.len() + 1);
    for (line, event) in lines.iter().zip(&events[1..]) {
        assert_eq!(line["step"], event.step);
        assert_eq!(event.wall_time, event.step as f64);
        for (tag, value) in &event.scalars {
            let (kind, name) = tag.split_once('/').unwrap();
            let values = if kind == "validation" { &line["validation"] } else { line };
            let expected = if name == "squared_error" { &values["parts"][name] } else { &values[name] };
            assert_eq!(expected.as_f64().unwrap() as f32, *value, "{tag} in {line}");
        }
    }
    let steps = |key: &str| -> Vec<u64> {
        lines.iter().filter(|line| line.get(key).is_some()).map(|line| line["step"].as_u64().unwrap()).collect()
    };
    assert_eq!(steps("lr"), [3, 6, 9, 12, 15, 18, 20]);
    assert_eq!(steps("validation"), [4, 8, 10, 12, 16, 20]);
    let window = &observer.steps[3..6];
    let mean = window.iter().map(|step| step.loss * step.weight).sum::<f64>()
        / window.iter().map(|step| step.weight).sum::<f64>();
    let logged = lines.iter().find(|line| line["step"] == 6).unwrap()["loss"].as_f64().unwrap();
    assert!((logged / mean - 1.0).abs() < 1e-6, "a line holds the mean since the last one");
}

#[test]
fn dates_are_real_where_they_are_asked_for_and_change_nothing_else() {
    let (without, with) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wandb: WandbConfig = serde_json::from_value(serde_json::json!({ "project": "dates" })).unwrap();
    let undated = TrainConfig { wandb: Some(wandb), ..config(20) };
    let dated = TrainConfig { wall_clock: true, ..undated.clone() };
    let data = Samples::new(40, &[5]);
    let (_, expected) = run(without.path(), &undated, &data, 0.1, &mut Recorder::default()).unwrap();
    let before = SystemTime::now();
    // A run that is continued stays in its file, whatever the time is.
    let mut interrupted = Recorder::interrupting_after(12);
    run(with.path(), &dated, &data, 0.1, &mut interrupted).unwrap();
    let (_, weights) = run(with.path(), &dated, &data, 0.1, &mut Recorder::default()).unwrap();
    assert_eq!(weights, expected);

    let [before, after] =
        [before, SystemTime::now()].map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64());
    let bytes = std::fs::read(with.path().join(EVENTS_FILE)).unwrap();
    let times: Vec<f64> = records(&bytes).into_iter().map(|record| event(record).wall_time).collect();
    assert!(times.is_sorted() && times[0] >= before && times[times.len() - 1] <= after, "{times:?}");
    let metrics = |folder: &Path| std::fs::read(folder.join(METRICS_FILE)).unwrap();
    assert_eq!(metrics(with.path()), metrics(without.path()), "the lines have no dates in either");

    let run_name = |folder: &Path| {
        let names: Vec<_> = std::fs::read_dir(folder.join("wandb")).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(names.len(), 1);
        names[0].file_name().into_string().unwrap()
    };
    assert!(run_name(without.path()).starts_with("offline-run-19700101_000000-"));
    assert!(run_name(with.path()).starts_with("offline-run-2"));
    let id = |name: String| name.rsplit('-').next().unwrap().to_owned();
    assert_ne!(id(run_name(with.path())), id(run_name(without.path())), "two trainings are two runs");
}
