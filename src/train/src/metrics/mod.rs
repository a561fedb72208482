//! Metrics of a run for people: `metrics.jsonl`, a TensorBoard event file and, if configured, a Weights & Biases run.
//!
//! They hold no names of machines, and no clock readings unless `wall_clock` asks for them, so two runs of one recipe write the same
//! bytes; a resumed run first cuts them back to the lengths in its checkpoint. None of them is needed to go on: what is wrong with one is told, and no more.

mod append;
mod clock;
mod course;
mod events;
mod histogram;
mod reference;
pub mod tensorboard;
mod wandb;
mod window;

use std::path::Path;

use flowmill_nn::{Gradients, ParameterId, Parameters, host};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::coverage::health::GroupNorms;
use crate::samples::{Media, Sample};
use crate::steering::Command;
use crate::{LossScale, TrainError};
pub(crate) use append::is_refused;
use append::{AppendFile, whole_lines};
pub(crate) use clock::Clock;
pub use course::Course;
pub use events::{EventFile, EventTag};
use histogram::Histogram;
use reference::ReferenceEvents;
pub use reference::{REFERENCES_FILE, Reference};
use tensorboard::{Datum, summary_record};
use wandb::WandbFile;
pub use wandb::{WANDB_FOLDER, WandbConfig, WandbContent, WandbPosition, WandbRun, WandbRunFacts, begins_wandb};
pub(crate) use window::Exact;
pub use window::{Measured, Window};

/// JSON lines: one object per logged step and one per validation.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// The event file; TensorBoard recognizes it by `tfevents` in its name.
pub const EVENTS_FILE: &str = "tensorboard/events.out.tfevents.0000000000.flowmill";

/// Lengths of the files at some step, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsLengths {
    /// Length of `metrics.jsonl`.
    pub json_lines: u64,
    /// Length of the event file.
    pub events: u64,
    /// Length of the event file of the references.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub references: u64,
    /// Position in the Weights & Biases run.
    #[serde(default)]
    pub wandb: WandbPosition,
}

fn is_zero(length: &u64) -> bool {
    *length == 0
}

/// The files, open for appending.
#[derive(Debug)]
pub struct Metrics {
    json_lines: AppendFile,
    events: AppendFile,
    references: Option<ReferenceEvents>,
    wandb: Option<WandbFile>,
    /// Position in the Weights & Biases run, while it is not continued.
    wandb_before: WandbPosition,
    clock: Clock,
    /// True if tags have the names of [`PLAIN_TAGS`].
    plain_tags: bool,
}

/// Tags that have another name in trainers on Accelerate.
const PLAIN_TAGS: [(&str, &str); 3] =
    [("train/loss", "train_loss"), ("validation/loss", "val_loss"), ("train/lr", "learning_rate")];

impl Metrics {
    /// Opens the files in a folder, cut to the given lengths; see [`troubles`](Self::troubles). The references are
    /// written next to the metrics, if there are any.
    ///
    /// # Errors
    /// When the disk is full.
    pub(crate) fn open(
        folder: &Path,
        lengths: &MetricsLengths,
        clock: Clock,
        references: &'static [Reference],
    ) -> Result<Self, TrainError> {
        let mut json_lines = AppendFile::open(&folder.join(METRICS_FILE), lengths.json_lines, &mut whole_lines)?;
        let whole_records: append::WholeRecords<'_> = &mut tensorboard::whole_records;
        let mut events = AppendFile::open(&folder.join(EVENTS_FILE), lengths.events, whole_records)?;
        if events.length() == 0 {
            events.append(&tensorboard::version_record(clock.seconds(0)));
        }
        let has_references = !references.is_empty();
        if has_references && json_lines.length() == 0 {
            json_lines.append(format!("{}\n", reference::line(references)).as_bytes());
        }
        let references =
            has_references.then(|| ReferenceEvents::open(folder, lengths.references, references, clock.seconds(0)));
        let references = references.transpose()?;
        Ok(Self {
            json_lines,
            events,
            references,
            wandb: None,
            wandb_before: lengths.wandb.clone(),
            clock,
            plain_tags: false,
        })
    }

    /// Gives the tags of TensorBoard the names of trainers on Accelerate.
    pub(crate) fn with_plain_tags(self, plain_tags: bool) -> Self {
        Self { plain_tags, ..self }
    }

    /// Also writes a Weights & Biases run, starting at the position in the checkpoint.
    pub(crate) fn open_wandb(&mut self, folder: &Path, run: &WandbRun) -> Result<(), TrainError> {
        self.wandb = Some(WandbFile::open(folder, run, &self.wandb_before, self.clock)?);
        Ok(())
    }

    /// Takes the problems with the files; each is returned once.
    pub(crate) fn troubles(&mut self) -> Vec<String> {
        let wandb = self.wandb.as_mut().and_then(WandbFile::trouble);
        let references = self.references.as_mut().and_then(|references| references.events.trouble());
        [self.json_lines.trouble(), self.events.trouble(), references, wandb].into_iter().flatten().collect()
    }

    /// Writes the means since the last line, and the loss scale if there is one.
    pub fn train(
        &mut self,
        step: u64,
        epoch: u64,
        window: &Window,
        rate: f64,
        skipped: u64,
        scale: Option<&LossScale>,
    ) -> Result<(), TrainError> {
        let mut line = json!({ "step": step, "epoch": epoch });
        let mut scalars = vec![("train/lr".to_owned(), rate as f32)];
        if let Some((means, grad_norm)) = window.means() {
            add_measured(&mut line, &mut scalars, "train", &means);
            line["grad_norm"] = number(grad_norm);
            scalars.push(("train/grad_norm".to_owned(), grad_norm as f32));
        }
        line["lr"] = json!(rate);
        line["skipped"] = json!(skipped);
        scalars.push(("train/skipped".to_owned(), skipped as f32));
        if let Some(scale) = scale {
            line["loss_scale"] = json!(scale.scale());
            line["overflows"] = json!(scale.overflows());
            scalars.push(("train/loss_scale".to_owned(), scale.scale() as f32));
            scalars.push(("train/overflows".to_owned(), scale.overflows() as f32));
        }
        if let Some(references) = &mut self.references {
            references.write(self.clock.seconds(step), step);
        }
        self.write(step, &line, &scalars)
    }

    /// Writes the norms of the groups of parameters at a step.
    pub(crate) fn groups(&mut self, step: u64, epoch: u64, groups: &[(String, GroupNorms)]) -> Result<(), TrainError> {
        let (mut line, mut scalars) = (Map::new(), Vec::new());
        for (label, norms) in groups {
            let ratio = norms.ratio().unwrap_or(f64::NAN);
            let values = [("grad_norm", norms.gradient), ("weight_norm", norms.weights), ("update_ratio", ratio)];
            let entry: Map<String, Value> =
                values.iter().map(|(key, value)| ((*key).to_owned(), number(*value))).collect();
            scalars.extend(values.map(|(key, value)| (format!("groups/{label}/{key}"), value as f32)));
            line.insert(label.clone(), Value::Object(entry));
        }
        self.write(step, &json!({ "step": step, "epoch": epoch, "groups": line }), &scalars)
    }

    /// Writes a validation.
    pub fn validation(&mut self, step: u64, epoch: u64, means: &Measured) -> Result<(), TrainError> {
        let mut validation = json!({});
        let mut scalars = Vec::new();
        add_measured(&mut validation, &mut scalars, "validation", means);
        self.write(step, &json!({ "step": step, "epoch": epoch, "validation": validation }), &scalars)
    }

    /// Writes that a command changes the steps after this one.
    pub(crate) fn command(&mut self, step: u64, epoch: u64, command: &Command) -> Result<(), TrainError> {
        let line = json!({ "step": step, "epoch": epoch, "command": command.to_string() });
        self.json_lines.append(format!("{line}\n").as_bytes());
        Ok(())
    }

    /// Writes histograms of the gradients times `scale`, for every parameter with a gradient.
    pub(crate) fn gradients(
        &mut self,
        step: u64,
        parameters: &Parameters,
        gradients: &Gradients,
        scale: f64,
    ) -> Result<(), TrainError> {
        let gradients: Vec<(ParameterId, _)> = gradients.iter().collect();
        let histograms: Vec<Option<(String, Histogram)>> = gradients
            .into_par_iter()
            .map(|(id, gradient)| {
                let name = parameters.name(id);
                let failed = || TrainError::tensor(format!("gradient of {name}"));
                let gradient = host::fetch(gradient).map_err(failed())?;
                let values = host::slice("gradient histogram", &gradient).map_err(failed())?;
                Ok(Histogram::of(&values, scale).map(|histogram| (format!("gradients/{name}"), histogram)))
            })
            .collect::<Result<_, TrainError>>()?;
        let data = histograms.iter().flatten().map(|(tag, histogram)| (tag.clone(), Datum::Histogram(histogram)));
        self.events.append(&summary_record(self.clock.seconds(step), step, data));
        Ok(())
    }

    /// Writes generated samples.
    pub(crate) fn samples(&mut self, step: u64, samples: &[Sample]) -> Result<(), TrainError> {
        let kind = |media| match media {
            Media::Wav => "audio",
            Media::Png => "spectrogram",
            Media::Mp4 => "video",
        };
        let data =
            samples.iter().map(|sample| (format!("{}/{}", kind(sample.media), sample.name), Datum::Sample(sample)));
        self.events.append(&summary_record(self.clock.seconds(step), step, data));
        Ok(())
    }

    /// Writes that the run is complete.
    pub(crate) fn finish(&mut self, step: u64) -> Result<(), TrainError> {
        self.wandb.as_mut().map_or(Ok(()), |wandb| wandb.finish(step))
    }

    /// Makes everything written durable and returns the lengths.
    pub fn sync(&mut self) -> Result<MetricsLengths, TrainError> {
        self.json_lines.sync()?;
        self.events.sync()?;
        if let Some(references) = &mut self.references {
            references.events.sync()?;
        }
        let references = self.references.as_ref().map_or(0, |references| references.events.length());
        let wandb = self.wandb.as_mut().map(WandbFile::sync).transpose()?;
        let wandb = wandb.unwrap_or_else(|| self.wandb_before.clone());
        Ok(MetricsLengths { json_lines: self.json_lines.length(), events: self.events.length(), references, wandb })
    }

    fn write(&mut self, step: u64, line: &Value, scalars: &[(String, f32)]) -> Result<(), TrainError> {
        self.json_lines.append(format!("{line}\n").as_bytes());
        let renamed =
            |tag: &str| PLAIN_TAGS.iter().find(|(own, _)| self.plain_tags && *own == tag).map(|(_, name)| *name);
        let data = scalars
            .iter()
            .map(|(tag, value)| (renamed(tag).map_or_else(|| tag.clone(), str::to_owned), Datum::Scalar(*value)));
        self.events.append(&summary_record(self.clock.seconds(step), step, data));
        if let Some(wandb) = &mut self.wandb {
            wandb.history(step, scalars);
        }
        Ok(())
    }
}

fn add_measured(line: &mut Value, scalars: &mut Vec<(String, f32)>, prefix: &str, means: &Measured) {
    line["loss"] = number(means.loss);
    scalars.push((format!("{prefix}/loss"), means.loss as f32));
    if means.parts.is_empty() {
        return;
    }
    // A part that no batch had is left out, so that curves have no holes.
    let parts: Map<String, Value> = means.present_parts().map(|(name, part)| (name.to_owned(), number(part))).collect();
    line["parts"] = Value::Object(parts);
    scalars.extend(means.present_parts().map(|(name, part)| (format!("{prefix}/{name}"), part as f32)));
}

/// Converts a measured number to JSON with the digits that an f32 needs; null if it is not finite.
fn number(value: f64) -> Value {
    json!(shorten(value))
}

/// Returns the double nearest to the shortest decimal that identifies this f32: it has few digits, so every JSON reader reads
/// exactly the number that was written.
pub fn shorten(value: f64) -> f64 {
    // The text of an f32 (including `NaN` and `inf`) always parses as a number.
    (value as f32).to_string().parse().unwrap_or(f64::NAN)
}
