//! Dumps of steps whose loss or gradient was not finite, so that they can be replayed and understood.
//!
//! A dump is `skipped/step-NNNNNN.json`: the batches by id, the seed, the loss of every batch, the norm of every parameter's gradient.
//! The weights at the step are next to it in `weights-NNNNNN.safetensors`, named by the last step that changed them, so that
//! consecutive skipped steps share one file; only the newest few such files are kept (`skipped_weights`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use flowmill_nn::{Parameters, host};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::checkpoint::{State, checksum};
use crate::optimizer::GradientNorms;
use crate::synced::sync;
use crate::{DataSource, LossScale, TrainError};

/// The folder of the dumps.
pub const SKIPPED_FOLDER: &str = "skipped";
/// Prefix and suffix of the names of weight files.
const WEIGHTS: (&str, &str) = ("weights-", ".safetensors");

/// A step that was skipped. The same step always gives the same bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dump {
    /// Number of the step, from 1.
    pub step: u64,
    /// The epoch of its batches, from 0.
    pub epoch: u64,
    /// Key of every draw.
    pub seed: u64,
    /// The learning rate.
    pub lr: f64,
    /// Factor on its loss in half precision; 1 otherwise.
    pub loss_scale: f64,
    /// Hash of the run's configuration and parameter shapes.
    pub run: String,
    /// The weights at the step; `None` if no weights are kept, or they were not finite themselves.
    pub weights: Option<DumpedWeights>,
    /// The batches.
    pub batches: Vec<DumpedBatch>,
    /// Norm of the whole gradient.
    pub gradient_norm: Figure,
    /// Norm of every trainable parameter's gradient; null if there was none.
    pub gradient_norms: BTreeMap<String, Option<Figure>>,
}

/// A weight file next to a dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpedWeights {
    /// The name, in the dump's own folder.
    pub file: String,
    /// The BLAKE3 checksum, in hexadecimal.
    pub blake3: String,
}

/// One batch of a skipped step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpedBatch {
    /// The number in the epoch.
    pub index: u64,
    /// The loss.
    pub loss: Figure,
    /// The names of its items.
    pub ids: Vec<String>,
}

/// A measured number with the digits of an f32; in JSON, which has no NaN and no infinity, their names.
#[derive(Debug, Clone, Copy)]
pub struct Figure(pub f64);

impl Figure {
    /// Rounds a number as a dump stores it.
    pub fn new(value: f64) -> Self {
        Self(crate::metrics::shorten(value))
    }
}

/// Compares as a dump would store the numbers: NaN equals NaN.
impl PartialEq for Figure {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || (self.0.is_nan() && other.0.is_nan())
    }
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() { serializer.serialize_f64(self.0) } else { serializer.collect_str(&self.0) }
    }
}

impl<'de> Deserialize<'de> for Figure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Name(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(value) => Ok(Self(value)),
            Written::Name(name) => name.parse().map(Self).map_err(serde::de::Error::custom),
        }
    }
}

/// Describes the batches of a step, given by number and items, with the loss of each.
pub(crate) fn describe<'a, D: DataSource>(
    data: &D,
    batches: impl Iterator<Item = (u64, &'a [u32])>,
    losses: &[f64],
) -> Vec<DumpedBatch> {
    let ids = |items: &[u32]| items.iter().map(|&item| data.id(item).to_owned()).collect();
    let entries = batches.zip(losses);
    entries.map(|((index, items), &loss)| DumpedBatch { index, ids: ids(items), loss: Figure::new(loss) }).collect()
}

/// Returns the norms by the parameters' names.
pub(crate) fn named_norms(norms: &GradientNorms, parameters: &Parameters) -> BTreeMap<String, Option<Figure>> {
    let named = |(id, norm): &(_, Option<f64>)| (parameters.name(*id).to_owned(), norm.map(Figure::new));
    norms.each.iter().map(named).collect()
}

impl Dump {
    /// Creates the dump of the step that `state` has counted last.
    pub(crate) fn new(
        state: &State,
        rate: f64,
        batches: Vec<DumpedBatch>,
        norms: &GradientNorms,
        parameters: &Parameters,
    ) -> Self {
        Self {
            step: state.step,
            epoch: state.epoch,
            seed: state.seed,
            lr: rate,
            loss_scale: state.loss_scale.as_ref().map_or(1.0, LossScale::scale),
            run: state.run.hash(),
            weights: None,
            batches,
            gradient_norm: Figure::new(norms.total),
            gradient_norms: named_norms(norms, parameters),
        }
    }

    /// Returns the path of its file in the folder of a run.
    pub(crate) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(SKIPPED_FOLDER).join(format!("step-{:06}.json", self.step))
    }

    /// Writes the dump into the folder of a run, with the weights if `keep` is not 0, and removes weights of older dumps beyond
    /// `keep`. `unchanged` is the number of steps since the weights last changed.
    pub(crate) fn write(
        &mut self,
        folder: &Path,
        parameters: &Parameters,
        unchanged: u64,
        keep: u64,
    ) -> Result<(), TrainError> {
        let path = self.path(folder);
        let folder = folder.join(SKIPPED_FOLDER);
        std::fs::create_dir_all(&folder).map_err(TrainError::io("create", &folder))?;
        if keep > 0 && are_finite(parameters)? {
            let after = self.step.saturating_sub(unchanged);
            let file = format!("{}{after:06}{}", WEIGHTS.0, WEIGHTS.1);
            let target = folder.join(&file);
            if unchanged == 1 || !target.exists() {
                flowmill_weights::write(&target, &parameters.own_tensors(), &BTreeMap::new())
                    .map_err(TrainError::weights("dumping the weights of a skipped step"))?;
            }
            self.weights = Some(DumpedWeights { file, blake3: hexadecimal_checksum(&target)? });
            prune(&folder, after, keep)?;
        }
        let text = serde_json::to_string_pretty(self).map_err(|error| TrainError::io("write", &path)(error.into()))?;
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            sync(&file)
        };
        write().map_err(TrainError::io("write", &path))
    }

    /// Reads a dump.
    ///
    /// # Errors
    /// When the file cannot be read or is not a dump.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let bytes = std::fs::read(path).map_err(TrainError::io("read", path))?;
        serde_json::from_slice(&bytes).map_err(|error| TrainError::io("read", path)(error.into()))
    }
}

/// Returns whether all weights are finite, because weight files may contain no NaN or infinity.
fn are_finite(parameters: &Parameters) -> Result<bool, TrainError> {
    for id in parameters.ids().filter(|id| !parameters.is_external(*id)) {
        let failed = || TrainError::tensor(format!("reading {}", parameters.name(id)));
        let weights = host::fetch(parameters.tensor(id)).map_err(failed())?;
        let values = host::slice("weights to dump", &weights).map_err(failed())?;
        if values.iter().any(|value| !value.is_finite()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the BLAKE3 checksum of a file, in hexadecimal.
pub(crate) fn hexadecimal_checksum(path: &Path) -> Result<String, TrainError> {
    Ok(checksum(path).map_err(TrainError::io("read", path))?.to_hex().to_string())
}

/// Removes weights beyond the newest `keep`. Those of later steps, which a resumed run will reach again, do not count, so that the final
/// files do not depend on where the run was interrupted.
fn prune(folder: &Path, newest: u64, keep: u64) -> Result<(), TrainError> {
    let mut kept: Vec<u64> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(TrainError::io("read", folder))? {
        let name = entry.map_err(TrainError::io("read", folder))?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix(WEIGHTS.0)?.strip_suffix(WEIGHTS.1)?.parse::<u64>().ok());
        kept.extend(number.filter(|&number| number <= newest));
    }
    kept.sort_unstable();
    let beyond = kept.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
    for number in &kept[..beyond] {
        let path = folder.join(format!("{}{number:06}{}", WEIGHTS.0, WEIGHTS.1));
        std::fs::remove_file(&path).map_err(TrainError::io("remove", &path))?;
    }
    Ok(())
}
