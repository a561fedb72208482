//! What is kept of a step whose loss or gradient was not finite, so that it can be replayed and understood.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use flowmill_nn::Parameters;
use serde_json::{Value, json};

use crate::checkpoint::State;
use crate::loader::Loaded;
use crate::optimizer::GradientNorms;
use crate::{DataSource, TrainError};

/// The folder of the dumps.
pub const SKIPPED_FOLDER: &str = "skipped";

/// One batch of a skipped step.
pub(crate) struct SkippedBatch {
    pub(crate) index: u64,
    pub(crate) ids: Vec<String>,
    pub(crate) loss: f64,
}

/// A step that was skipped.
pub(crate) struct Skipped<'a> {
    /// Number of the step, from 1.
    pub(crate) step: u64,
    pub(crate) epoch: u64,
    pub(crate) seed: u64,
    pub(crate) rate: f64,
    pub(crate) batches: Vec<SkippedBatch>,
    pub(crate) norms: &'a GradientNorms,
}

/// Names what was in the batches of a step.
pub(crate) fn describe<D: DataSource>(data: &D, batches: &[Loaded<D::Batch>], losses: &[f64]) -> Vec<SkippedBatch> {
    let ids = |items: &[u32]| items.iter().map(|&item| data.id(item).to_owned()).collect();
    let entries = batches.iter().zip(losses);
    entries.map(|(batch, &loss)| SkippedBatch { index: batch.index, ids: ids(&batch.items), loss }).collect()
}

impl<'a> Skipped<'a> {
    pub(crate) fn new(state: &State, rate: f64, batches: Vec<SkippedBatch>, norms: &'a GradientNorms) -> Self {
        Self { step: state.step, epoch: state.epoch, seed: state.seed, rate, batches, norms }
    }

    /// What to tell a person.
    pub(crate) fn message(&self, loss: f64, dump: &Path) -> String {
        let norm = self.norms.total;
        format!("step {} is skipped: loss {loss}, gradient norm {norm}; details in {}", self.step, dump.display())
    }

    /// The names of the parameters whose gradient is not finite.
    pub(crate) fn bad_parameters(&self, parameters: &Parameters) -> Vec<String> {
        let bad = self.norms.each.iter().filter(|(_, norm)| norm.is_some_and(|norm| !norm.is_finite()));
        bad.map(|(id, _)| parameters.name(*id).to_owned()).collect()
    }

    /// Writes the dump into `folder` and gives its path. The same step always writes the same bytes.
    pub(crate) fn write(&self, folder: &Path, parameters: &Parameters) -> Result<PathBuf, TrainError> {
        let folder = folder.join(SKIPPED_FOLDER);
        std::fs::create_dir_all(&folder).map_err(TrainError::io("create", &folder))?;
        let path = folder.join(format!("step-{:06}.json", self.step));
        let text = format!("{:#}\n", self.to_json(parameters));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_data()
        };
        write().map_err(TrainError::io("write", &path))?;
        Ok(path)
    }

    fn to_json(&self, parameters: &Parameters) -> Value {
        let batch =
            |batch: &SkippedBatch| json!({ "index": batch.index, "loss": number(batch.loss), "ids": batch.ids });
        let norm = |(id, norm): &(_, Option<f64>)| (parameters.name(*id).to_owned(), norm.map_or(Value::Null, number));
        json!({
            "step": self.step,
            "epoch": self.epoch,
            "seed": self.seed,
            "lr": self.rate,
            "batches": self.batches.iter().map(batch).collect::<Vec<_>>(),
            "gradient_norm": number(self.norms.total),
            "gradient_norms": self.norms.each.iter().map(norm).collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// A number, or its name where JSON has none for it.
fn number(value: f64) -> Value {
    if value.is_finite() { json!(crate::metrics::shorten(value)) } else { json!(value.to_string()) }
}
