//! The records of a run. Field numbers are those of `wandb_internal.proto`; a record's own number, field 1, is set when it is written.

use serde_json::{Map, Value, json};

use super::{Moment, WandbRun};
use flowmill_weights::protobuf::Message;

/// The writer of the file, and the oldest server that can read it.
pub(super) fn header() -> Message {
    let version = Message::default().text(1, concat!("flowmill ", env!("CARGO_PKG_VERSION"))).text(2, "0.12.0");
    Message::default().message(21, &Message::default().message(1, &version))
}

/// The run and its configuration; without a start, in seconds since 1970, it starts at the beginning of 1970.
pub(super) fn run(run: &WandbRun, id: &str, started: Option<f64>) -> Message {
    let settings = &run.settings;
    let option = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut config = Message::default();
    for (key, value) in run.config.as_object().into_iter().flatten() {
        config = config.message(1, &item(key, value));
    }
    let mut record = Message::default()
        .text(1, id)
        .text(2, &option(&settings.entity))
        .text(3, &settings.project)
        .message(4, &config)
        .text(6, &option(&settings.group))
        .text(7, "train")
        .text(8, &option(&settings.name))
        .text(9, &option(&settings.notes));
    for tag in &settings.tags {
        record = record.text(10, tag);
    }
    let start = started.map_or(Message::default(), |seconds| Message::default().varint(1, seconds as u64));
    Message::default().message(17, &record.message(17, &start))
}

/// The measurements of a step.
pub(super) fn history(moment: Moment, values: &[(String, Value)]) -> Message {
    let mut history = Message::default();
    for (name, value) in values {
        history = history.message(1, &item(name, value));
    }
    for (name, value) in clock(moment) {
        history = history.message(1, &item(name, &value));
    }
    Message::default().message(2, &history.message(2, &Message::default().varint(1, moment.step)))
}

/// The latest value of everything.
pub(super) fn summary(moment: Moment, latest: &Map<String, Value>) -> Message {
    let mut summary = Message::default();
    for (name, value) in latest {
        summary = summary.message(1, &item(name, value));
    }
    for (name, value) in clock(moment) {
        summary = summary.message(1, &item(name, &value));
    }
    Message::default().message(3, &summary)
}

/// The successful end.
pub(super) fn exit(step: u64) -> Message {
    Message::default().message(18, &Message::default().varint(2, step.min(i32::MAX as u64)))
}

/// The time fields of W&B's own runs. Whole seconds, such as steps, are written without a fraction.
fn clock(moment: Moment) -> [(&'static str, Value); 3] {
    let seconds = |time: f64| if time.fract() == 0.0 { json!(time as u64) } else { json!(time) };
    [("_step", json!(moment.step)), ("_runtime", seconds(moment.runtime)), ("_timestamp", seconds(moment.time))]
}

/// An item of a configuration, a history or a summary.
fn item(key: &str, value: &Value) -> Message {
    Message::default().text(1, key).text(16, &value.to_string())
}
