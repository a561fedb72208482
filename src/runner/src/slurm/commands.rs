//! The programs of Slurm: `sbatch`, `squeue` and `sacct`.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::SlurmError;
use super::state::{TaskState, state};

/// Beginnings of variables that Slurm and MPI set in a job. They would apply to the jobs of a run that is one itself.
const OF_A_JOB: [&str; 5] = ["SLURM_", "SLURMD_", "OMPI_", "PMI_", "PMIX_"];
/// Variables with such beginnings that are kept, because the user sets them.
const OF_A_USER: [&str; 2] = ["SLURM_CONF", "SLURM_CLUSTERS"];

/// Error messages of Slurm's programs while its daemon does not answer. Such calls are tried again.
const UNREACHABLE: [&str; 5] = [
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "temporarily unable",
    "Resource temporarily unavailable",
];

/// A task of an array: the number of the array's job and its own.
pub(super) type TaskId = (u64, usize);

/// Submits a script with options of `sbatch` and returns the number of the job.
pub(super) fn submit(options: &[String], script: &Path) -> Result<u64, SlurmError> {
    let output = run("sbatch", |command| command.arg("--parsable").args(options).arg(script))?;
    let said = said(&output.stderr);
    if !output.status.success() {
        return Err(match UNREACHABLE.iter().any(|words| said.contains(words)) {
            true => SlurmError::Unreachable { program: "sbatch", said },
            false => SlurmError::Refused { said, options: options.join(" ") },
        });
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    // `12`, or `12;cluster`.
    let number = printed.trim().split(';').next().and_then(|number| number.parse().ok());
    number.ok_or_else(|| SlurmError::Refused {
        said: format!("it printed {:?} instead of the number of a job", printed.trim()),
        options: options.join(" "),
    })
}

/// Returns the states of the tasks of these jobs that Slurm still knows.
pub(super) fn queue(jobs: &[u64]) -> Result<Vec<(TaskId, TaskState)>, SlurmError> {
    let jobs = listed(jobs);
    let options = ["--noheader", "--array", "--states=all", "--format=%i|%T|%r"];
    let output = run("squeue", |command| command.args(options).arg(format!("--jobs={jobs}")))?;
    if output.status.success() {
        return Ok(tasks(&output.stdout));
    }
    let said = said(&output.stderr);
    // They ended some minutes ago.
    if said.contains("Invalid job id") {
        Ok(Vec::new())
    } else {
        Err(SlurmError::Unreachable { program: "squeue", said })
    }
}

/// Returns the states of the tasks of these jobs from Slurm's accounting; none without accounting.
pub(super) fn accounting(jobs: &[u64]) -> Vec<(TaskId, TaskState)> {
    let options = ["--noheader", "--parsable2", "--allocations", "--format=JobID,State"];
    let output = run("sacct", |command| command.args(options).arg(format!("--jobs={}", listed(jobs))));
    output.ok().filter(|output| output.status.success()).map(|output| tasks(&output.stdout)).unwrap_or_default()
}

/// Returns the number of the job with a name, if there is one.
pub(super) fn find(name: &str) -> Result<Option<u64>, SlurmError> {
    let options = ["--noheader", "--states=all", "--format=%F"];
    let output = run("squeue", |command| command.args(options).arg(format!("--name={name}")))?;
    if !output.status.success() {
        return Err(SlurmError::Unreachable { program: "squeue", said: said(&output.stderr) });
    }
    if let Some(number) = String::from_utf8_lossy(&output.stdout).lines().find_map(|line| line.trim().parse().ok()) {
        return Ok(Some(number));
    }
    let options = ["--noheader", "--parsable2", "--allocations", "--format=JobID", "--starttime=now-30days"];
    let output = run("sacct", |command| command.args(options).arg(format!("--name={name}")));
    let printed = output.ok().filter(|output| output.status.success()).map(|output| output.stdout).unwrap_or_default();
    let number = |line: &str| line.split('_').next().and_then(|number| number.trim().parse().ok());
    Ok(String::from_utf8_lossy(&printed).lines().find_map(number))
}

fn run(program: &'static str, with: impl FnOnce(&mut Command) -> &mut Command) -> Result<Output, SlurmError> {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        if OF_A_JOB.iter().any(|prefix| shown.starts_with(prefix)) && !OF_A_USER.contains(&&*shown) {
            command.env_remove(&name);
        }
    }
    let output = with(&mut command).stdin(Stdio::null()).output();
    tracing::debug!(?command, ?output, "Slurm was asked");
    output.map_err(|source| match source.kind() {
        ErrorKind::NotFound => SlurmError::Missing { program },
        _ => SlurmError::Unreachable { program, said: source.to_string() },
    })
}

fn listed(jobs: &[u64]) -> String {
    jobs.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

/// Reads lines of `12_3|RUNNING|None`. Others, such as `12_[4-9]`, are left out.
fn tasks(printed: &[u8]) -> Vec<(TaskId, TaskState)> {
    let task = |line: &str| {
        let mut fields = line.trim().split('|');
        let (job, index) = fields.next()?.split_once('_')?;
        let id = (job.parse().ok()?, index.parse().ok()?);
        Some((id, state(fields.next()?, fields.next().unwrap_or_default())))
    };
    String::from_utf8_lossy(printed).lines().filter_map(task).collect()
}

/// Returns the error messages of a program on one line, without its prefix, such as `sbatch: error: `.
fn said(printed: &[u8]) -> String {
    let printed = String::from_utf8_lossy(printed);
    let lines = printed.lines().map(|line| line.split_once("error: ").map_or(line, |(_, rest)| rest).trim());
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::state::End;

    #[test]
    fn lines_of_squeue_and_sacct_are_read() {
        let printed = b"12_0|PENDING|Resources\n12_1|RUNNING|None\n12_[4-9]|PENDING\n13_0|CANCELLED by 7\nnonsense\n";
        let expected = [
            ((12, 0), TaskState::Pending("Resources".to_owned())),
            ((12, 1), TaskState::Running),
            ((13, 0), TaskState::Ended(End::Cancelled)),
        ];
        assert_eq!(tasks(printed), expected);
        let refused = b"sbatch: error: invalid partition specified: none\nsbatch: error: Batch job submission failed\n";
        assert_eq!(said(refused), "invalid partition specified: none; Batch job submission failed");
    }
}
