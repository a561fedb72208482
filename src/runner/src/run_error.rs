//! Errors that end a command.

use std::path::{Path, PathBuf};

use crate::names;
use crate::rejects::RejectionKind;
use crate::{Holder, RecipeError, SlurmError, StageError};

/// The reason why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The recipe is invalid.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The command line names something that does not exist.
    #[error("{0}")]
    Usage(String),
    /// The stage cannot run because the one before it is not finished.
    #[error("{stage} needs {missing}, which {why}; run it first: --stage {number}")]
    NotFinished {
        /// The requested stage.
        stage: String,
        /// The one before it.
        missing: String,
        /// The problem of that stage.
        why: String,
        /// The number of that stage.
        number: u8,
    },
    /// The configuration or inputs of a part have changed since work on it was done, and that work would be lost.
    #[error("{}", describe_loss(self))]
    WouldLose {
        /// The stage's folder: `4-train`.
        stage: String,
        /// The part.
        part: String,
        /// True if the work was finished.
        finished: bool,
        /// The progress of the work: `step 44 of 400`.
        at: Box<str>,
        /// The changes, for people.
        changes: Vec<String>,
        /// The way in which other settings can use the work, in the stage's words.
        reuse: Option<Box<str>>,
        /// The number of the last earlier stage that would have to be made again first.
        earlier: Option<u8>,
    },
    /// Files from which a finished part was made are gone.
    #[error("{}", describe_gone(stage, *number, gone))]
    InputsGone {
        /// The stage's folder: `0-prep`.
        stage: String,
        /// The number of the stage.
        number: u8,
        /// The files, as receipts name them, each once.
        gone: Vec<String>,
    },
    /// A stage failed, but its earlier result and those of the stages after it are intact.
    #[error("{source}\n{}", describe_kept(stage, *next))]
    Kept {
        /// The cause of the failure.
        source: Box<RunError>,
        /// The stage's folder: `0-prep`.
        stage: String,
        /// The number of the stage to continue with, if any can run.
        next: Option<u8>,
    },
    /// Another run works on the experiment.
    #[error("{}", describe_locked(dir, .holder.as_deref(), .file.as_deref()))]
    Locked {
        /// The experiment's folder.
        dir: PathBuf,
        /// The process that works there.
        holder: Option<Box<Holder>>,
        /// The file that replaces a lock if the file system has none.
        file: Option<PathBuf>,
    },
    /// Another process does the part.
    #[error("{}", describe_part_locked(stage, part, .holder.as_deref(), .file.as_deref()))]
    PartLocked {
        /// The stage's folder: `1-embed`.
        stage: String,
        /// The part.
        part: String,
        /// The process that does it.
        holder: Option<Box<Holder>>,
        /// The file that stands for a lock where the file system has none.
        file: Option<PathBuf>,
    },
    /// A part was asked for that is not among those of the phase that can be done now.
    #[error("{}", describe_no_such_part(self))]
    NoSuchPart {
        /// The stage's folder: `1-embed`.
        stage: String,
        /// The part that was asked for.
        part: String,
        /// The title of the first phase of which a part has to run; none when all are done.
        phase: Option<String>,
        /// The parts of it that have to run.
        can_run: Vec<String>,
        /// True if finished parts wait to replace those of a finished result. A run replaces them when their whole phase is done.
        waits: bool,
    },
    /// A stage, or a part of it, failed.
    #[error("{}: {}", where_it_failed(stage, .part.as_deref()), describe_failure(source))]
    Stage {
        /// The stage's folder: `3-pack`.
        stage: String,
        /// The part, if one is to blame.
        part: Option<String>,
        /// The error.
        #[source]
        source: StageError,
    },
    /// A part panicked: a bug in the program, not an error in the data.
    #[error("{stage}/{part}: this is a bug in flowmill, please report it: {message}")]
    Panic {
        /// The stage's folder.
        stage: String,
        /// The part.
        part: String,
        /// The message of the panic, and its place.
        message: String,
    },
    /// More rows were rejected than the recipe allows, or all of them.
    #[error("{}", describe_rejected(self))]
    TooManyRejected {
        /// The stage's folder.
        stage: String,
        /// The number of rejected rows.
        rejected: u64,
        /// The number of rows that came in.
        rows_in: u64,
        /// The number of rejected rows whose source cannot be read.
        sources: usize,
        /// The share that the recipe allows.
        allowed: f64,
        /// The kinds of rejections, the most frequent first.
        kinds: Vec<RejectionKind>,
        /// The table of all of them.
        file: PathBuf,
    },
    /// The experiment's folder cannot be used.
    #[error("{0}")]
    Experiment(#[source] StageError),
    /// Slurm cannot be used, or a job failed.
    #[error(transparent)]
    Slurm(Box<SlurmError>),
    /// The user asked to stop.
    #[error("interrupted; finished work is kept, and the next run continues from there")]
    Interrupted,
}

impl RunError {
    /// All kinds of errors ([`RunError::kind`]).
    pub const KINDS: [&str; 16] = [
        RecipeError::KIND,
        "usage",
        "not-finished",
        "would-lose",
        "inputs-gone",
        "locked",
        "part-locked",
        "no-such-part",
        "disk-full",
        "stage",
        "bug",
        "rejected",
        "experiment",
        SlurmError::KINDS[0],
        SlurmError::KINDS[1],
        "interrupted",
    ];

    /// Returns the program's exit code: 2 for a wrong recipe or command line, 130 if interrupted, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Recipe(_) | Self::Usage(_) | Self::NotFinished { .. } => 2,
            Self::WouldLose { .. } | Self::NoSuchPart { .. } => 2,
            Self::Stage { source: StageError::Recipe(_), .. } => 2,
            Self::Kept { source, .. } => source.exit_code(),
            Self::Interrupted => 130,
            _ => 1,
        }
    }

    /// Returns the kind of the error. It is printed with the error and does not change with the wording;
    /// `docs/ERRORS.md` has a section for each.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Recipe(_) | Self::Stage { source: StageError::Recipe(_), .. } => RecipeError::KIND,
            Self::Usage(_) => "usage",
            Self::NotFinished { .. } => "not-finished",
            Self::WouldLose { .. } => "would-lose",
            Self::InputsGone { .. } => "inputs-gone",
            Self::Kept { source, .. } => source.kind(),
            Self::Locked { .. } => "locked",
            Self::PartLocked { .. } => "part-locked",
            Self::NoSuchPart { .. } => "no-such-part",
            Self::Stage { source, .. } | Self::Experiment(source) if source.is_disk_full() => "disk-full",
            Self::Stage { .. } => "stage",
            Self::Panic { .. } => "bug",
            Self::TooManyRejected { .. } => "rejected",
            Self::Experiment(_) => "experiment",
            Self::Slurm(error) => error.kind(),
            Self::Interrupted => "interrupted",
        }
    }

    pub(crate) fn slurm(error: SlurmError) -> Self {
        Self::Slurm(Box::new(error))
    }

    pub(crate) fn experiment(error: StageError) -> Self {
        Self::Experiment(error)
    }

    pub(crate) fn stage(stage: &str, source: StageError) -> Self {
        match source {
            StageError::Interrupted => Self::Interrupted,
            source => Self::Stage { stage: stage.to_owned(), part: None, source },
        }
    }
}

fn where_it_failed(stage: &str, part: Option<&str>) -> String {
    part.map_or_else(|| stage.to_owned(), |part| format!("{stage}/{part}"))
}

fn describe_locked(dir: &Path, holder: Option<&Holder>, file: Option<&Path>) -> String {
    let who = holder.map_or_else(|| "another run".to_owned(), ToString::to_string);
    format!("{} is in use by {who}; wait for it, or stop it{}", dir.display(), by_hand(file))
}

fn describe_part_locked(stage: &str, part: &str, holder: Option<&Holder>, file: Option<&Path>) -> String {
    let who = holder.map_or_else(|| "another process".to_owned(), ToString::to_string);
    format!("{stage}/{part} is being done by {who}; wait for it with --wait, or do another part{}", by_hand(file))
}

/// Describes the file that replaces a lock, if there is one.
fn by_hand(file: Option<&Path>) -> String {
    let told = |file: &Path| {
        format!(". It holds {}, which another process takes over 90 s after its last sign of life", file.display())
    };
    file.map_or_else(String::new, told)
}

fn describe_no_such_part(error: &RunError) -> String {
    let RunError::NoSuchPart { stage, part, phase, can_run, waits } = error else {
        return String::new();
    };
    let what = format!("{stage} has no part `{part}` that can be done now");
    let close = format!("`flowmill run RECIPE --stage {stage} --stop-stage {stage}`");
    match phase {
        Some(phase) if !can_run.is_empty() => {
            let shown: Vec<&str> = can_run.iter().take(10).map(String::as_str).collect();
            let more = can_run.len() - shown.len();
            let more =
                if more > 0 { format!(", and {more} more (flowmill parts RECIPE {stage})") } else { String::new() };
            let shown = shown.join(", ");
            format!(
                "{what}. These parts of the phase `{phase}` can: {shown}{more}. The next phase is planned when all are done"
            )
        }
        Some(phase) if *waits => {
            format!(
                "{what}. All parts of the phase `{phase}` are done and wait to replace the last result; {close} does that and continues"
            )
        }
        _ => format!("{what}. All of its parts are done; {close} finishes the stage"),
    }
}

fn describe_gone(stage: &str, number: u8, gone: &[String]) -> String {
    let shown: Vec<&str> = gone.iter().take(3).map(|name| names::display(name)).collect();
    let more = gone.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "{stage}: input files are gone: {}{more}. Nothing was changed.\n\
         - if a drive is not mounted or they were moved, restore them and run the same command again\n\
         - if they are no longer part of the data, take their rows out of it, or have them rejected with \
         --force --stage {number} --stop-stage {number}",
        shown.join(", ")
    )
}

fn describe_kept(stage: &str, next: Option<u8>) -> String {
    let kept = format!("The last good result of {stage} is unchanged");
    match next {
        Some(next) => format!("{kept}. To continue with it: --stage {next}"),
        None => kept,
    }
}

fn describe_failure(source: &StageError) -> String {
    let text = source.to_string();
    if source.is_disk_full() {
        return format!(
            "{text}; free some space and run again: finished parts are kept, and nothing half-written remains"
        );
    }
    text
}

fn describe_loss(error: &RunError) -> String {
    let RunError::WouldLose { stage, part, finished, at, changes, reuse, earlier } = error else {
        return String::new();
    };
    let changes = changes.join("\n  ");
    let reuse = reuse.as_ref().map(|words| format!("\n- {words}")).unwrap_or_default();
    let anew = match earlier {
        Some(earlier) => format!(
            "run the stages before it first, with --stop-stage {earlier} (if its inputs are the same afterwards, it continues \
             as it is), then add --force --stage {stage}"
        ),
        None => format!("add --force --stage {stage}"),
    };
    let (state, set_back) = match finished {
        true => (
            format!("is finished at {at}, and these changes would restart it from the beginning"),
            "to keep it as it is".to_owned(),
        ),
        false => (
            format!("was interrupted at {at}, and cannot continue with these changes"),
            format!("to continue from {at}"),
        ),
    };
    format!(
        "{stage}/{part} {state}:\n  {changes}\nNothing was changed. Ways to continue:\n\
         - {set_back}, undo these changes and restore missing files\n\
         - to keep it and run this next to it, choose another folder: --exp DIR, or another `name` in the recipe{reuse}\n\
         - to start again here and lose it, {anew}"
    )
}

fn describe_rejected(error: &RunError) -> String {
    let RunError::TooManyRejected { stage, rejected, rows_in, sources, allowed, kinds, file } = error else {
        return String::new();
    };
    let share = 100.0 * *rejected as f64 / (*rows_in).max(1) as f64;
    let mut text = match (rejected == rows_in, *sources) {
        (true, _) => format!("{stage}: all {rows_in} rows were rejected"),
        (false, 0) => format!(
            "{stage}: {rejected} of {rows_in} rows rejected ({share:.1} %), the recipe allows {:.1} % (max_rejected: {allowed})",
            100.0 * allowed
        ),
        (false, sources) => {
            format!(
                "{stage}: {rejected} of {rows_in} rows rejected, {sources} of them because a whole source cannot be read"
            )
        }
    };
    for kind in kinds.iter().take(5) {
        let examples = kind.examples.join(", ");
        text.push_str(&format!("\n  {} × {} (such as {examples})", kind.rows, kind.reason));
        if let (Some(first), true) = (kind.examples.first(), kind.example_reason != kind.reason) {
            text.push_str(&format!("\n      {first}: {}", shortened(&kind.example_reason)));
        }
    }
    if kinds.len() > 5 {
        text.push_str(&format!("\n  and {} more kinds", kinds.len() - 5));
    }
    text.push_str(&format!("\n  all rejected rows with their reasons: flowmill inspect {}", file.display()));
    text
}

/// Returns at most 500 characters of a reason.
fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(500) {
        None => reason.to_owned(),
        Some((end, _)) => format!("{}…", &reason[..end]),
    }
}
