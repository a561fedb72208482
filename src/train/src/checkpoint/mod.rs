//! Checkpoints: everything that a run needs to continue as if it had never stopped.
//!
//! A checkpoint is a folder `step-NNNNNN` with `model.safetensors` (the weights, F32; with adapters, only these), `optimizer.safetensors`
//! (the optimizer's state and number of updates), `ema.safetensors` (averaged weights, if the run keeps them), `state.json` ([`State`])
//! and `checksums.b3`, the BLAKE3 sums of the other files in the format of `b3sum --check`.

mod average;
pub(crate) mod base;
mod resume;
mod retention;
mod state;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use candle_core::Tensor;
use flowmill_nn::Parameters;

use crate::ema::Ema;
use crate::error::is_not_writable;
use crate::identity::Identity;
use crate::optimizer::Optimizer;
use crate::{CheckpointStore, TrainError};

pub use average::average_weights;
pub use base::write_base;
pub(crate) use resume::resume;
pub use retention::prune;
pub use state::{FORMAT, Score, State};

/// The weights.
pub const MODEL_FILE: &str = "model.safetensors";
/// The optimizer's state.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// The moving average of the weights.
pub const EMA_FILE: &str = "ema.safetensors";
/// Progress of the training.
pub const STATE_FILE: &str = "state.json";
/// Checksums of the other files.
pub const CHECKSUMS_FILE: &str = "checksums.b3";

/// Metadata key of the optimizer's number of updates.
const UPDATES: &str = "updates";

/// The parts of a checkpoint in addition to [`State`].
pub struct Contents<'a> {
    /// The weights.
    pub parameters: &'a mut Parameters,
    /// The optimizer.
    pub optimizer: &'a mut dyn Optimizer,
    /// The moving average, if there is one.
    pub ema: Option<&'a mut Ema>,
}

impl Contents<'_> {
    fn reborrow(&mut self) -> Contents<'_> {
        Contents { parameters: self.parameters, optimizer: self.optimizer, ema: self.ema.as_deref_mut() }
    }
}

/// Returns the name of the checkpoint after `step` steps.
pub fn name(step: u64) -> String {
    format!("step-{step:06}")
}

/// Returns the step in a checkpoint's name.
pub fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("step-")?.parse().ok()
}

/// Returns the names of a store's checkpoints, oldest first; other names are ignored.
pub fn names(store: &dyn CheckpointStore) -> Result<Vec<String>, TrainError> {
    let mut steps: Vec<u64> = store.list()?.iter().filter_map(|name| step_of(name)).collect();
    steps.sort_unstable();
    Ok(steps.into_iter().map(name).collect())
}

/// Returns the best validation among the existing checkpoints, the earliest among equal ones.
///
/// # Errors
/// When the store cannot be listed.
pub fn best(store: &dyn CheckpointStore) -> Result<Option<Score>, TrainError> {
    let states = names(store)?.into_iter().filter_map(|name| read_state(&store.path(&name)).ok());
    let scores = states.filter_map(|state| Some(Score { step: state.step, loss: state.validation? }));
    Ok(scores.min_by(|a, b| a.loss.total_cmp(&b.loss).then(a.step.cmp(&b.step))))
}

/// The file that tests whether checkpoints can be written; it is removed immediately.
const PROBE: &str = ".writable";

/// Fails if this user may not write in the store, because nothing of the training would be saved. Other errors are ignored, because they
/// may pass before the first save.
pub(crate) fn check_writable(store: &dyn CheckpointStore) -> Result<(), TrainError> {
    let path = store.path(PROBE);
    let written = std::fs::File::create(&path).map(drop).and_then(|()| std::fs::remove_file(&path));
    match written {
        Err(source) if is_not_writable(&source) => {
            Err(TrainError::NotWritable { folder: path.parent().unwrap_or(&path).to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Saves a checkpoint under the name of its step.
pub fn save(store: &dyn CheckpointStore, state: &State, contents: Contents<'_>) -> Result<(), TrainError> {
    let Contents { parameters, optimizer, mut ema } = contents;
    let (step, scheduled, for_best) = (state.step, state.scheduled, state.for_best);
    tracing::info!(step, scheduled, for_best, validation = state.validation, "saving a checkpoint");
    let (gathered, updates) = (optimizer.gathered_state()?, Some(optimizer.updates()));
    store.save(&name(state.step), &mut |folder| {
        write_weights(&folder.join(MODEL_FILE), &base::kept(parameters), None)?;
        let path = folder.join(OPTIMIZER_FILE);
        match &gathered {
            Some(state) => write_weights(&path, state, updates)?,
            None => write_weights(&path, &optimizer.state(), updates)?,
        }
        if let Some(ema) = &mut ema {
            ema.swap(parameters)?;
            let written = write_weights(&folder.join(EMA_FILE), &base::kept(parameters), None);
            ema.swap(parameters)?;
            written?;
        }
        let path = folder.join(STATE_FILE);
        let text = serde_json::to_string_pretty(state).map_err(|error| TrainError::io("write", &path)(error.into()))?;
        std::fs::write(&path, text + "\n").map_err(TrainError::io("write", &path))?;
        write_checksums(folder)
    })
}

/// Reads the state of a checkpoint and verifies its checksum, without verifying or loading the rest.
///
/// # Errors
/// Those of [`load`].
pub fn read_state(folder: &Path) -> Result<State, TrainError> {
    let name = folder_name(folder);
    let bytes = std::fs::read(folder.join(STATE_FILE)).map_err(|error| unreadable(folder, STATE_FILE, error))?;
    let sum = recorded_checksum(folder, STATE_FILE)?;
    if sum.is_none_or(|sum| sum != blake3::hash(&bytes).to_hex().as_str()) {
        return Err(TrainError::Damaged { name, reason: format!("{STATE_FILE} does not match its checksum") });
    }
    State::parse(&name, &bytes)
}

/// Returns the recorded checksum of one of a checkpoint's files.
fn recorded_checksum(folder: &Path, file: &str) -> Result<Option<String>, TrainError> {
    let bytes =
        std::fs::read(folder.join(CHECKSUMS_FILE)).map_err(|error| unreadable(folder, CHECKSUMS_FILE, error))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut entries = text.lines().filter_map(|line| line.split_once("  "));
    Ok(entries.find(|(_, name)| *name == file).map(|(sum, _)| sum.to_owned()))
}

/// Returns whether the weights of a checkpoint are intact, whatever the state of its other files: by their checksum, or if that is
/// missing by reading them. Adapters alone do not count, because a new training cannot start from them.
fn has_whole_weights(folder: &Path) -> bool {
    if read_state(folder).is_ok_and(|state| state.base.is_some()) {
        return false;
    }
    let path = folder.join(MODEL_FILE);
    match recorded_checksum(folder, MODEL_FILE) {
        Ok(Some(sum)) => checksum(&path).is_ok_and(|found| found.to_hex().as_str() == sum),
        Ok(None) | Err(_) => flowmill_weights::read(&path).is_ok(),
    }
}

fn folder_name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Loads a checkpoint after verifying all of its files.
///
/// # Errors
/// [`TrainError::Damaged`] when a file does not match its checksum or is missing; [`TrainError::Unreadable`] when the system cannot read
/// one; [`TrainError::OtherRun`] and [`TrainError::OtherBase`] when it belongs to another run than `identity`, or to adapters of other
/// weights; [`TrainError::Checkpoint`] when it is intact but does not fit the model.
pub fn load(
    store: &dyn CheckpointStore,
    name: &str,
    identity: &Identity,
    contents: Contents<'_>,
) -> Result<State, TrainError> {
    let folder = store.path(name);
    let files = Verified::new(&folder)?;
    let misfit = |file: &'static str| move |reason: String| TrainError::checkpoint(name, format!("{file}: {reason}"));
    let state = State::parse(name, &files.read(STATE_FILE)?)?;
    state.run.check(name, identity)?;
    base::check(name, &state, contents.parameters)?;
    if let Some(ema) = contents.ema {
        read_parameters(&files.read(EMA_FILE)?, contents.parameters).map_err(misfit(EMA_FILE))?;
        ema.swap(contents.parameters)?;
    }
    read_parameters(&files.read(MODEL_FILE)?, contents.parameters).map_err(misfit(MODEL_FILE))?;
    read_optimizer(&files.read(OPTIMIZER_FILE)?, contents.optimizer).map_err(misfit(OPTIMIZER_FILE))?;
    tracing::info!(folder = %folder.display(), step = state.step, "checkpoint loaded");
    Ok(state)
}

/// Sets the parameters to the weights of a checkpoint, or to the averaged ones if it has them; returns which. All files are verified.
///
/// # Errors
/// Those of [`load`].
pub fn load_weights(folder: &Path, parameters: &mut Parameters) -> Result<(State, bool), TrainError> {
    let name = folder_name(folder);
    let files = Verified::new(folder)?;
    let state = State::parse(&name, &files.read(STATE_FILE)?)?;
    base::check(&name, &state, parameters)?;
    let averaged = files.has(EMA_FILE);
    let file = if averaged { EMA_FILE } else { MODEL_FILE };
    read_parameters(&files.read(file)?, parameters).map_err(|reason| TrainError::checkpoint(&name, reason))?;
    tracing::info!(folder = %folder.display(), file, "weights of a checkpoint loaded");
    Ok((state, averaged))
}

fn write_weights(path: &Path, tensors: &[(String, Tensor)], updates: Option<u64>) -> Result<(), TrainError> {
    let metadata = updates.map(|updates| (UPDATES.to_owned(), updates.to_string())).into_iter().collect();
    flowmill_weights::write(path, tensors, &metadata).map_err(TrainError::weights("saving a checkpoint"))
}

/// Sets every parameter that a checkpoint stores to its stored value.
fn read_parameters(bytes: &[u8], parameters: &mut Parameters) -> Result<(), String> {
    let file = flowmill_weights::from_bytes(bytes, Path::new(MODEL_FILE)).map_err(|error| error.to_string())?;
    let report = parameters.load(&file.tensors).map_err(|error| error.to_string())?;
    if base::is_whole(parameters, &report) { Ok(()) } else { Err(report.to_string()) }
}

/// Restores the optimizer's state.
fn read_optimizer(bytes: &[u8], optimizer: &mut dyn Optimizer) -> Result<(), String> {
    let mut file = flowmill_weights::from_bytes(bytes, Path::new(OPTIMIZER_FILE)).map_err(|error| error.to_string())?;
    let updates = file.metadata.get(UPDATES).and_then(|text| text.parse().ok());
    optimizer.restore(updates.ok_or("the number of updates is missing")?, &mut file.tensors)
}

/// Reads the optimizer's state of a checkpoint.
///
/// # Errors
/// Those of [`load`].
pub(crate) fn optimizer_state(store: &dyn CheckpointStore, step: u64) -> Result<Vec<(String, Tensor)>, TrainError> {
    let name = name(step);
    let folder = store.path(&name);
    let bytes = std::fs::read(folder.join(OPTIMIZER_FILE));
    let bytes = bytes.map_err(|error| unreadable(&folder, OPTIMIZER_FILE, error))?;
    let file = flowmill_weights::from_bytes(&bytes, Path::new(OPTIMIZER_FILE));
    let file = file.map_err(|error| TrainError::checkpoint(&name, format!("{OPTIMIZER_FILE}: {error}")))?;
    Ok(file.tensors.into_iter().collect())
}

/// Checks that every file of a checkpoint matches its checksum.
///
/// # Errors
/// [`TrainError::Damaged`], or [`TrainError::Unreadable`] when a file cannot be read.
pub fn verify(folder: &Path) -> Result<(), TrainError> {
    Verified::new(folder).map(drop)
}

fn write_checksums(folder: &Path) -> Result<(), TrainError> {
    let mut lines = String::new();
    for name in [EMA_FILE, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE] {
        let path = folder.join(name);
        if path.exists() {
            let sum = checksum(&path).map_err(TrainError::io("read", &path))?;
            lines += &format!("{}  {name}\n", sum.to_hex());
        }
    }
    let path = folder.join(CHECKSUMS_FILE);
    std::fs::write(&path, lines).map_err(TrainError::io("write", &path))
}

/// Hashes a file in pieces, without loading it whole.
pub(crate) fn checksum(path: &Path) -> std::io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(std::fs::File::open(path)?)?;
    Ok(hasher.finalize())
}

/// A checkpoint whose files are all as they were written.
struct Verified<'a> {
    folder: &'a Path,
    names: BTreeSet<String>,
}

impl<'a> Verified<'a> {
    /// Verifies every file that the checksums name.
    fn new(folder: &'a Path) -> Result<Self, TrainError> {
        let damaged = |reason: String| TrainError::Damaged { name: folder_name(folder), reason };
        let path = folder.join(CHECKSUMS_FILE);
        let checksums = std::fs::read(&path).map_err(|error| unreadable(folder, CHECKSUMS_FILE, error))?;
        let garbled = || damaged(format!("{CHECKSUMS_FILE} is not a list of checksums"));
        let checksums = String::from_utf8(checksums).map_err(|_| garbled())?;
        let mut names = BTreeSet::new();
        for line in checksums.lines() {
            let (sum, name) = line.split_once("  ").ok_or_else(garbled)?;
            if ![EMA_FILE, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE].contains(&name) {
                return Err(damaged(format!("{CHECKSUMS_FILE} names an unknown file {name:?}")));
            }
            let found = checksum(&folder.join(name)).map_err(|error| unreadable(folder, name, error))?;
            if found.to_hex().as_str() != sum {
                return Err(damaged(format!("{name} does not match its checksum")));
            }
            names.insert(name.to_owned());
        }
        match [MODEL_FILE, OPTIMIZER_FILE, STATE_FILE].iter().find(|name| !names.contains(**name)) {
            Some(name) => Err(damaged(format!("{CHECKSUMS_FILE} lacks {name}"))),
            None => Ok(Self { folder, names }),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Reads one file.
    fn read(&self, name: &str) -> Result<Vec<u8>, TrainError> {
        if !self.has(name) {
            return Err(TrainError::checkpoint(&folder_name(self.folder), format!("has no {name}")));
        }
        std::fs::read(self.folder.join(name)).map_err(|error| unreadable(self.folder, name, error))
    }
}

/// Classifies an error of reading a checkpoint's file: a missing file is damage, anything else is a problem of the system.
fn unreadable(folder: &Path, file: &str, error: std::io::Error) -> TrainError {
    let name = folder_name(folder);
    match error.kind() {
        ErrorKind::NotFound => TrainError::Damaged { name, reason: format!("{file} is missing") },
        ErrorKind::NotADirectory => TrainError::Damaged { name, reason: "it is a file, not a folder".to_owned() },
        _ => TrainError::Unreadable { name, path: folder.join(file), source: error },
    }
}
