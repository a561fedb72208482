//! Event files of TensorBoard, read: the course of every tag. Field numbers are those of `event.proto`, `summary.proto` and `tensor.proto`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use flowmill_weights::protobuf::{Field, fields};
use serde::Serialize;

use super::Course;
use super::tensorboard::Records;

/// The content of an event file.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EventFile {
    /// Number of events.
    pub events: u64,
    /// The version that the first event states: `brain.Event:2`.
    pub version: Option<String>,
    /// Time of the first event, in seconds since 1970.
    pub first_time: Option<f64>,
    /// Time of the last event, in seconds since 1970.
    pub last_time: Option<f64>,
    /// The tags by name.
    pub tags: BTreeMap<String, EventTag>,
    /// Position and problem of the first damaged record; nothing after it is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

/// A tag of an event file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventTag {
    /// `scalar`, `image`, `audio`, `histogram`, `tensor`, or the plugin that shows it, such as `text`.
    pub kind: String,
    /// Number of entries.
    pub count: u64,
    /// Step of the first entry.
    pub first_step: i64,
    /// Step of the last entry.
    pub last_step: i64,
    /// The values of a scalar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numbers: Option<Course>,
}

impl EventFile {
    /// Reads the file at `path` up to its end, or up to the first damaged record.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut records = Records::new(BufReader::new(file), length);
        let mut found = Self::default();
        loop {
            let at = records.end;
            let problem = match records.next()? {
                Ok(None) => return Ok(found),
                Ok(Some(event)) if found.add(&event).is_some() => continue,
                Ok(Some(_)) => "an event is not a protocol buffer",
                Err(problem) => problem,
            };
            found.damage = Some(format!("the file cannot be read after byte {at} of {length}: {problem}"));
            return Ok(found);
        }
    }

    /// Adds an event; `None` if it is damaged.
    fn add(&mut self, event: &[u8]) -> Option<()> {
        let (mut time, mut step, mut summaries) = (None, 0, Vec::new());
        for field in fields(event) {
            match field? {
                (1, field) => time = field.number(),
                (2, Field::Varint(number)) => step = number as i64,
                (3, field) => self.version = Some(field.text()),
                (5, Field::Bytes(summary)) => summaries.push(summary),
                _ => {}
            }
        }
        self.events += 1;
        self.first_time = self.first_time.or(time);
        self.last_time = time.or(self.last_time);
        for entry in summaries.into_iter().flat_map(fields) {
            if let (1, Field::Bytes(entry)) = entry? {
                let (tag, kind, number) = value(entry)?;
                self.add_value(tag, kind, step, number);
            }
        }
        Some(())
    }

    fn add_value(&mut self, tag: String, kind: String, step: i64, number: Option<f64>) {
        let new = || EventTag { kind, count: 0, first_step: step, last_step: step, numbers: None };
        let tag = self.tags.entry(tag).or_insert_with(new);
        (tag.count, tag.last_step) = (tag.count + 1, step);
        if let Some(number) = number {
            tag.numbers.get_or_insert(Course { values: 0, mean: 0.0, ..Course::new(number) }).add(number);
        }
    }
}

/// Reads the tag, the kind and, of a scalar, the number of a value; `None` if it is damaged.
fn value(entry: &[u8]) -> Option<(String, String, Option<f64>)> {
    let (mut tag, mut kind, mut plugin, mut number) = (String::new(), "other", None, None);
    for field in fields(entry) {
        match field? {
            (1, field) => tag = field.text(),
            (2, field) => (kind, number) = ("scalar", field.number()),
            (4, _) => kind = "image",
            (5, _) => kind = "histogram",
            (6, _) => kind = "audio",
            (8, Field::Bytes(tensor)) => (kind, number) = ("tensor", scalar(tensor)?),
            (9, Field::Bytes(metadata)) => plugin = plugin_name(metadata)?,
            _ => {}
        }
    }
    // Writers of TensorFlow 2 store everything as tensors, and the plugin says what they are.
    let kind = match plugin.as_deref() {
        Some("scalars") => "scalar".to_owned(),
        Some("images") => "image".to_owned(),
        Some("histograms") => "histogram".to_owned(),
        Some(plugin) if kind == "tensor" && !plugin.is_empty() => plugin.to_owned(),
        _ => kind.to_owned(),
    };
    let number = number.filter(|_| kind == "scalar");
    Some((tag, kind, number))
}

/// Reads the name of the plugin in the metadata of a value.
fn plugin_name(metadata: &[u8]) -> Option<Option<String>> {
    for field in fields(metadata) {
        if let (1, Field::Bytes(plugin)) = field? {
            for field in fields(plugin) {
                if let (1, field) = field? {
                    return Some(Some(field.text()));
                }
            }
        }
    }
    Some(None)
}

/// Reads the number of a tensor with one element of type float or double.
fn scalar(tensor: &[u8]) -> Option<Option<f64>> {
    const DOUBLE: u64 = 2;
    let (mut element, mut number) = (0, None);
    for field in fields(tensor) {
        match field? {
            (1, Field::Varint(kind)) => element = kind,
            (4..=6, Field::Bytes(bytes)) => {
                number = match (bytes.first_chunk::<8>(), bytes.first_chunk::<4>()) {
                    (Some(bytes), _) if element == DOUBLE => Some(f64::from_le_bytes(*bytes)),
                    (_, Some(bytes)) if element != DOUBLE => Some(f32::from_le_bytes(*bytes).into()),
                    _ => number,
                }
            }
            (5 | 6, field) => number = field.number(),
            _ => {}
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::super::tensorboard::{Datum, summary_record, version_record};
    use super::*;
    use flowmill_weights::protobuf::Message;

    fn read(bytes: &[u8]) -> EventFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        EventFile::read(file.path()).unwrap()
    }

    #[test]
    fn tags_are_read_up_to_the_damage() {
        let loss = |step: u64, value| {
            summary_record(step as f64 + 0.5, step, [("train/loss".to_owned(), Datum::Scalar(value))])
        };
        let records = [version_record(0.25), loss(10, 3.0), loss(20, 1.0), loss(30, 2.0)];
        let whole = read(&records.concat());
        assert_eq!((whole.events, whole.version.as_deref(), &whole.damage), (4, Some("brain.Event:2"), &None));
        assert_eq!((whole.first_time, whole.last_time), (Some(0.25), Some(30.5)));
        let tag = &whole.tags["train/loss"];
        assert_eq!((tag.kind.as_str(), tag.count, tag.first_step, tag.last_step), ("scalar", 3, 10, 30));
        let course = Course { values: 3, first: 3.0, last: 2.0, min: 1.0, max: 3.0, mean: 2.0 };
        assert_eq!(tag.numbers, Some(course));
        let mut bytes = records.concat();
        let middle = records[0].len() + records[1].len() + 15;
        bytes[middle] ^= 1;
        let damaged = read(&bytes);
        assert_eq!((damaged.events, damaged.tags["train/loss"].count), (2, 1));
        assert!(damaged.damage.is_some());
        let cut = read(&records.concat()[..records.concat().len() - 3]);
        assert_eq!(cut.tags["train/loss"].last_step, 20);
        assert!(cut.damage.is_some());
    }

    #[test]
    fn tensors_of_the_scalar_plugin_are_scalars() {
        let value = |tensor: Message, plugin: &str| {
            let plugin = Message::default().message(1, &Message::default().text(1, plugin));
            Message::default().text(1, "loss").message(9, &plugin).message(8, &tensor).0
        };
        let float = Message::default().varint(1, 1).bytes(4, &0.5f32.to_le_bytes());
        assert_eq!(super::value(&value(float, "scalars")), Some(("loss".into(), "scalar".into(), Some(0.5))));
        let double = Message::default().varint(1, 2).doubles(6, &[0.25]);
        assert_eq!(super::value(&value(double, "scalars")), Some(("loss".into(), "scalar".into(), Some(0.25))));
        let text = Message::default().varint(1, 7).bytes(8, b"words");
        assert_eq!(super::value(&value(text, "text")), Some(("loss".into(), "text".into(), None)));
    }
}
