//! Values of metrics to compare a training with: horizontal lines in charts.
//!
//! `metrics.jsonl` begins with them. For TensorBoard they are a run of their own, next to that of the training, because the charts show
//! the tags of all runs together.

use std::path::Path;

use serde_json::{Value, json};

use super::append::{AppendFile, WholeRecords};
use super::tensorboard::{self, Datum, summary_record};
use crate::TrainError;

/// The event file of the references; TensorBoard shows the name of its folder.
pub const REFERENCES_FILE: &str = "tensorboard/good-signs/events.out.tfevents.0000000000.flowmill";

/// A value of a metric that tells how good a training is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reference {
    /// The metric: `loss`, `grad_norm`, or the name of a part of the loss.
    pub metric: &'static str,
    /// The value.
    pub value: f64,
    /// The meaning of values beyond it, in a few words.
    pub text: &'static str,
}

impl Reference {
    fn to_json(self) -> Value {
        json!({ "metric": self.metric, "value": self.value, "text": self.text })
    }
}

/// Returns the line of `metrics.jsonl` with the references.
pub(super) fn line(references: &[Reference]) -> Value {
    let references: Vec<Value> = references.iter().map(|reference| reference.to_json()).collect();
    json!({ "step": 0, "epoch": 0, "references": references })
}

/// The event file of the references.
#[derive(Debug)]
pub(super) struct ReferenceEvents {
    references: &'static [Reference],
    pub(super) events: AppendFile,
}

impl ReferenceEvents {
    /// Opens the file in a folder, cut to `length`.
    ///
    /// # Errors
    /// When the disk is full.
    pub(super) fn open(
        folder: &Path,
        length: u64,
        references: &'static [Reference],
        seconds: f64,
    ) -> Result<Self, TrainError> {
        let whole_records: WholeRecords<'_> = &mut tensorboard::whole_records;
        let mut events = AppendFile::open(&folder.join(REFERENCES_FILE), length, whole_records)?;
        if events.length() == 0 {
            events.append(&tensorboard::version_record(seconds));
        }
        Ok(Self { references, events })
    }

    /// Writes the references at a step.
    pub(super) fn write(&mut self, seconds: f64, step: u64) {
        let data = self
            .references
            .iter()
            .map(|reference| (format!("train/{}", reference.metric), Datum::Scalar(reference.value as f32)));
        self.events.append(&summary_record(seconds, step, data));
    }
}
