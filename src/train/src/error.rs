//! Errors of training, worded so that a person can act on them.

use std::path::PathBuf;

use flowmill_collective::CollectiveError;
use flowmill_nn::NnError;
use flowmill_weights::WeightError;

use crate::device::OutOfDeviceMemory;

/// An error of the caller: of the task, the data source or the checkpoint store.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Reason why training did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting that cannot be used.
    #[error("training: `{key}`: {reason}")]
    Config {
        /// The setting, under its name in the recipe's `train` section.
        key: &'static str,
        /// The problem, and what would be valid.
        reason: String,
    },
    /// The data source returned no batch for an epoch.
    #[error("training: epoch {epoch} has no batches; is the training split empty, or is every item filtered out?")]
    NoData {
        /// The epoch, from 0.
        epoch: u64,
    },
    /// The data source failed.
    #[error("training data: {what}: {source}")]
    Data {
        /// The data being read, such as "batch 3 of epoch 1 (utterances a, b)".
        what: String,
        /// The data source's own error.
        source: BoxError,
    },
    /// The forward pass failed.
    #[error("{what}: {source}")]
    Task {
        /// The computation, such as "step 12, batch 3 of epoch 1".
        what: String,
        /// The task's own error.
        source: BoxError,
    },
    /// The task returned a loss that cannot be averaged: its weight is not a positive number.
    #[error("{what}: the loss has weight {weight}; a batch needs at least one valid frame")]
    Weight {
        /// The computation.
        what: String,
        /// The weight.
        weight: f64,
    },
    /// Parameters that the first step's gradient did not reach, or reached with NaN or infinity.
    #[error("{}", coverage_message(.missing, .non_finite))]
    Coverage {
        /// Trainable parameters without any gradient.
        missing: Vec<String>,
        /// Trainable parameters whose gradient is not finite.
        non_finite: Vec<String>,
    },
    /// Too many steps in a row had a loss or gradient that is not finite.
    #[error(
        "training diverged: {in_a_row} steps in a row up to step {step} had a loss or gradient that is not finite \
         (last loss {loss}; learning rate {rate:e}; parameters with a bad gradient: {parameters}). The batches, seed and \
         norms are in {dump}. Look at those utterances first; then try a lower learning rate, a longer warm-up or a smaller grad_clip"
    )]
    Diverged {
        /// Number of consecutive skipped steps.
        in_a_row: u64,
        /// The last step tried, from 1.
        step: u64,
        /// The loss.
        loss: f64,
        /// The learning rate.
        rate: f64,
        /// Names of parameters whose gradient was not finite, shortened.
        parameters: String,
        /// The last dump.
        dump: PathBuf,
    },
    /// The gradient leaves the range of half precision at the lowest loss scale allowed.
    #[error(
        "step {step}: the gradient overflows fp16, {in_a_row} steps in a row, now at a loss scale of {scale}, which {limit}. Loss {loss}, \
         learning rate {rate:e}, parameters with a bad gradient: {parameters}. A gradient that large means that training diverges or \
         that the model leaves the range of fp16: use precision: bf16 or a lower learning rate; {remedy}"
    )]
    LossScale {
        /// The step, from 1.
        step: u64,
        /// Number of consecutive overflows.
        in_a_row: u64,
        /// The loss scale.
        scale: f64,
        /// Reason why it cannot be lowered.
        limit: String,
        /// The loss.
        loss: f64,
        /// The learning rate.
        rate: f64,
        /// Names of parameters whose gradient was not finite, shortened.
        parameters: String,
        /// The setting to change.
        remedy: &'static str,
    },
    /// Another rank of this training has failed.
    #[error("rank {rank} failed: {message}")]
    OtherRank {
        /// Its number, from 0.
        rank: usize,
        /// Its error.
        message: String,
    },
    /// The ranks of this training cannot exchange something.
    #[error("between ranks: {0}")]
    Ranks(CollectiveError),
    /// A device is out of memory for a batch.
    #[error(transparent)]
    DeviceMemory(Box<OutOfDeviceMemory>),
    /// A loss or gradient that is not finite in a place where steps cannot be skipped.
    #[error(
        "step {step}: the loss is {loss}, the norm of its gradient {grad_norm} (learning rate {rate:e}); try a lower \
         learning rate or a smaller grad_clip"
    )]
    NotFinite {
        /// The step, from 1.
        step: u64,
        /// The loss.
        loss: f64,
        /// The norm of its gradient.
        grad_norm: f64,
        /// The learning rate.
        rate: f64,
    },
    /// A file could not be written or read.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// "write", "read", "truncate" …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A checkpoint whose files are not as they were written: a checksum fails, or a file is missing.
    #[error("checkpoint {name} is damaged: {reason}")]
    Damaged {
        /// The name in the store.
        name: String,
        /// The file, and what is wrong with it.
        reason: String,
    },
    /// A file of a checkpoint that the system cannot read, which does not mean that the checkpoint is damaged.
    #[error(
        "checkpoint {name}: cannot read {}: {source}. The checkpoint itself is not at fault: nothing was changed or deleted. {}, then run the \
         same command again", .path.display(), remedy(.source)
    )]
    Unreadable {
        /// The name in the store.
        name: String,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The folder of the checkpoints is not writable for this user, so nothing of a training would be saved.
    #[error(
        "cannot write in {}, where the checkpoints belong: {source}. Nothing was trained or changed. {}, then run the same command again",
        .folder.display(), right_to_write(is_not_permitted(.source))
    )]
    NotWritable {
        /// The folder.
        folder: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// There are checkpoints, and all are damaged.
    #[error("{}", describe_all_damaged(.damaged, .weights.as_deref()))]
    AllDamaged {
        /// Each folder and its damage, the newest first.
        damaged: Vec<(PathBuf, String)>,
        /// The newest intact weights among them.
        weights: Option<PathBuf>,
    },
    /// A checkpoint that cannot be used.
    #[error("checkpoint {name}: {reason}")]
    Checkpoint {
        /// The name in the store.
        name: String,
        /// The problem.
        reason: String,
    },
    /// A checkpoint that was made by another run.
    #[error(
        "checkpoint {name} was made with other settings ({}); set them back, or train in another folder", .changes.join("; ")
    )]
    OtherRun {
        /// The name in the store.
        name: String,
        /// The settings that differ.
        changes: Vec<String>,
    },
    /// A checkpoint of adapters that were trained on other base weights.
    #[error(
        "checkpoint {name} holds adapters that were trained on other weights than those here, by their checksum: set train.init_from (and \
         the model) to what they were trained on, or train in another folder"
    )]
    OtherBase {
        /// The name in the store.
        name: String,
    },
    /// There is no checkpoint to evaluate.
    #[error("there is no sound checkpoint yet; train first")]
    NoCheckpoint,
    /// There is no data to validate on.
    #[error("there is nothing to validate on: the validation split has no utterances")]
    NothingToValidate,
    /// The dump of a skipped step that cannot be replayed.
    #[error("{}: {fault}", .path.display())]
    Dump {
        /// The dump.
        path: PathBuf,
        /// The reason.
        fault: DumpFault,
    },
    /// The checkpoint store failed.
    #[error("checkpoint {name}: {source}")]
    Store {
        /// The checkpoint's name.
        name: String,
        /// The store's own error.
        source: BoxError,
    },
    /// A weight file could not be read or written.
    #[error("{what}: {source}")]
    Weights {
        /// The action that failed.
        what: String,
        /// The reason.
        source: WeightError,
    },
    /// A tensor operation of the trainer itself failed.
    #[error("{what}: {source}")]
    Tensor {
        /// The computation, and the parameter.
        what: String,
        /// The reason.
        source: NnError,
    },
}

/// Reason why the dump of a skipped step cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DumpFault {
    /// The batch has other utterances than the dump.
    #[error("batch {index} of epoch {epoch} has other utterances now: the data, their order or the seed changed")]
    OtherUtterances {
        /// The batch.
        index: u64,
        /// The epoch, from 0.
        epoch: u64,
    },
    /// The dump was written without weights.
    #[error(
        "holds no weights (train.skipped_weights was 0, or they were not finite themselves), so its step cannot be done again"
    )]
    NoWeights,
    /// The weights of the dump are gone.
    #[error("its weights {file} are gone: only those of the newest dumps stay (train.skipped_weights)")]
    WeightsGone {
        /// Their file.
        file: String,
    },
    /// The weights of the dump have another checksum.
    #[error("its weights {file} do not match their checksum")]
    Checksum {
        /// Their file.
        file: String,
    },
    /// The weights of the dump are of another model.
    #[error("its weights do not fit the recipe's model: {report}")]
    OtherModel {
        /// The item that does not fit.
        report: String,
    },
}

impl TrainError {
    /// Wraps an I/O error with the file and the action.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// Wraps an error of a tensor operation with a description of the computation.
    pub(crate) fn tensor(what: impl Into<String>) -> impl FnOnce(NnError) -> Self {
        let what = what.into();
        move |source| Self::Tensor { what, source }
    }

    /// Wraps an error of a weight file with a description of the action.
    pub(crate) fn weights(what: impl Into<String>) -> impl FnOnce(WeightError) -> Self {
        let what = what.into();
        move |source| Self::Weights { what, source }
    }

    /// Returns whether a cause of this error is a full disk or quota.
    pub(crate) fn is_disk_full(&self) -> bool {
        // Some crates keep the text of the system's error only.
        self.has_cause(|io, text| io.is_some_and(is_disk_full) || text.contains("No space left on device"))
    }

    /// Returns whether a cause of this error is a missing right to write.
    pub(crate) fn is_not_writable(&self) -> bool {
        let codes = ["(os error 1)", "(os error 13)", "(os error 30)"];
        self.has_cause(|io, text| io.is_some_and(is_not_writable) || codes.iter().any(|code| text.contains(code)))
    }

    /// Returns whether a cause of this error is that the operation is not permitted to anybody.
    pub(crate) fn is_not_permitted(&self) -> bool {
        self.has_cause(|io, text| io.is_some_and(is_not_permitted) || text.contains("(os error 1)"))
    }

    /// Returns whether a cause of this error is the system instead of the run: a full disk, a failing device, a
    /// missing right. The same operation may succeed later.
    pub(crate) fn is_of_system(&self) -> bool {
        self.has_cause(|io, text| io.is_some() || text.contains("(os error "))
    }

    /// Returns whether a cause of this error matches: `is_of_kind` gets its text, and the system's error if it is one.
    pub(crate) fn has_cause(&self, is_of_kind: impl Fn(Option<&std::io::Error>, &str) -> bool) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if is_of_kind(error.downcast_ref::<std::io::Error>(), &error.to_string()) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// A checkpoint that cannot be used.
    pub(crate) fn checkpoint(name: &str, reason: impl Into<String>) -> Self {
        Self::Checkpoint { name: name.to_owned(), reason: reason.into() }
    }
}

/// Returns whether the disk or the quota on it is full, or a file may not be as large.
pub(crate) fn is_disk_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Returns whether this user may not write there: EACCES, EPERM or EROFS.
pub(crate) fn is_not_writable(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem)
}

/// Returns whether the error is EPERM, which immutable files cause and which has the kind of EACCES.
fn is_not_permitted(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(1)
}

/// Advice for a folder that cannot be written; `not_permitted` if more than rights are missing.
pub(crate) fn right_to_write(not_permitted: bool) -> &'static str {
    if not_permitted {
        return "If it is immutable or append-only (lsattr shows that), undo it (chattr -i, chattr -a); or give this user the right to write \
                there (chown, chmod)";
    }
    "Give this user the right to write there (chown, chmod), or mount a file system that is read-only as writable (mount -o remount,rw)"
}

/// Describes that all checkpoints are damaged, and what can be done.
fn describe_all_damaged(damaged: &[(PathBuf, String)], weights: Option<&std::path::Path>) -> String {
    let mut text = "every checkpoint is damaged, so training cannot resume:".to_owned();
    for (folder, reason) in damaged {
        text += &format!("\n  {}: {reason}", folder.display());
    }
    text += "\nNothing was trained, changed or deleted:\n- if there is a copy of one of these folders, put it back and run the same command again";
    if let Some(weights) = weights {
        text += &format!(
            "\n- the weights in {0} are whole: to start a new training from them, copy that file elsewhere, set train.init_from to the copy \
             and choose another folder (--exp DIR)",
            weights.display()
        );
    }
    text + "\n- to start over in this folder and lose them, add --force --stage 4"
}

/// Advice for an error of reading a file.
fn remedy(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    // EIO, ENFILE and EMFILE of Linux have no kind of their own.
    match (error.kind(), error.raw_os_error()) {
        (ErrorKind::PermissionDenied, Some(1)) => {
            "If it is immutable or append-only (lsattr shows that), undo it (chattr -i, chattr -a)"
        }
        (ErrorKind::PermissionDenied, _) => "Give this user the right to read it (chown, chmod)",
        (ErrorKind::StaleNetworkFileHandle, _) => "Mount the network file system again",
        (ErrorKind::OutOfMemory, _) => "Free memory, or raise its limit",
        (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, _) => "Make room on the disk",
        (ErrorKind::IsADirectory, _) => "A folder is in its place: move that away and put the file back",
        (_, Some(5)) => {
            "The disk or the network reports a fault: check the system's log (dmesg), and copy the folder to another disk"
        }
        (_, Some(23 | 24)) => "Too many files are open: raise the limit (ulimit -n)",
        _ => "Make it readable",
    }
}

fn coverage_message(missing: &[String], non_finite: &[String]) -> String {
    let mut text = String::from("the first step did not give every trainable parameter a finite gradient.");
    if !missing.is_empty() {
        text += &format!(" No gradient at all ({}): {}.", missing.len(), missing.join(", "));
    }
    if !non_finite.is_empty() {
        text += &format!(" NaN or infinite ({}): {}.", non_finite.len(), non_finite.join(", "));
    }
    text + " A parameter that the loss does not use must be frozen or removed"
}
