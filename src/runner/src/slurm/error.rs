//! Errors of work in Slurm.

use std::path::PathBuf;

use crate::run::count;

/// The reason why work in Slurm did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlurmError {
    /// A program of Slurm is not installed.
    #[error(
        "the program `{program}` was not found: Slurm is not installed here, or not in PATH. Start this on a machine from which jobs are \
         submitted, such as a login node, or leave --executor slurm out"
    )]
    Missing {
        /// The program.
        program: &'static str,
    },
    /// Slurm does not accept a job.
    #[error(
        "sbatch refused the job: {said}\n  its options: {options}\nCorrect `slurm` in the recipe (partition, account, time, memory, cores, flags, max_tasks); \
         `sinfo` and `scontrol show partition` list what there is. Finished parts are kept"
    )]
    Refused {
        /// What it said.
        said: String,
        /// The options of the job.
        options: String,
    },
    /// The daemon does not answer.
    #[error(
        "{program} failed: {said}. Slurm's daemon may be down (`scontrol ping`). Jobs are not affected; run the same command again later, and it finds them"
    )]
    Unreachable {
        /// The program.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// Jobs of another command are still in Slurm.
    #[error(
        "jobs {} of an earlier run with other settings are still in Slurm. Run that command again (flowmill … {}), or end them first: scancel {}",
        list(jobs, ", "), command.join(" "), list(jobs, " ")
    )]
    OtherJobs {
        /// Their numbers.
        jobs: Vec<u64>,
        /// The words of the earlier command.
        command: Vec<String>,
    },
    /// Parts failed for good.
    #[error("{}", describe_failed(stage, parts))]
    Failed {
        /// The stage's folder.
        stage: String,
        /// The parts.
        parts: Vec<FailedPart>,
    },
    /// Jobs were cancelled.
    #[error("{}", describe_cancelled(stage, parts))]
    Cancelled {
        /// The stage's folder.
        stage: String,
        /// The parts.
        parts: Vec<FailedPart>,
    },
}

/// A part whose job failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedPart {
    /// The part, or the whole stage.
    pub part: String,
    /// The failure, and advice.
    pub what: String,
    /// The log of the last attempt.
    pub log: PathBuf,
    /// The error at the end of the log, or its last lines.
    pub said: Vec<String>,
}

/// The number of parts that are described.
const SHOWN: usize = 5;

impl SlurmError {
    /// The kinds of these errors.
    pub(crate) const KINDS: [&str; 2] = ["slurm", "job"];

    /// Returns the kind: `slurm` if it cannot be used, `job` if a job failed.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::Refused { .. } | Self::Unreachable { .. } | Self::OtherJobs { .. } => {
                Self::KINDS[0]
            }
            Self::Failed { .. } | Self::Cancelled { .. } => Self::KINDS[1],
        }
    }
}

fn list(jobs: &[u64], between: &str) -> String {
    jobs.iter().map(u64::to_string).collect::<Vec<_>>().join(between)
}

fn describe_parts(parts: &[FailedPart]) -> String {
    let mut text = String::new();
    for FailedPart { part, what, log, said } in parts.iter().take(SHOWN) {
        text += &format!("\n  {part}: {what}\n    log: {}", log.display());
        for line in said {
            text += &format!("\n    | {line}");
        }
    }
    if parts.len() > SHOWN {
        let logs = parts[0].log.parent().unwrap_or(&parts[0].log);
        text += &format!("\n  and {} more, with logs in {}", parts.len() - SHOWN, logs.display());
    }
    text
}

fn describe_failed(stage: &str, parts: &[FailedPart]) -> String {
    let number = count(parts.len(), "part");
    format!(
        "{number} of {stage} failed in Slurm; finished parts are kept, and the same command tries these again:{}",
        describe_parts(parts)
    )
}

fn describe_cancelled(stage: &str, parts: &[FailedPart]) -> String {
    format!(
        "jobs of {stage} were cancelled; finished parts are kept, and the same command continues:{}",
        describe_parts(parts)
    )
}
