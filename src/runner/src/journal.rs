//! The journal: one JSON line per command that ran, for people; nothing reads it to decide anything.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Duration;

use serde::Serialize;

use crate::{Experiment, Holder, StageError};

/// How a command ended.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// All that was asked for is done.
    Done,
    /// A stage failed.
    Failed,
    /// The person stopped it.
    Interrupted,
    /// It died without a word; noted by the run after it.
    Died,
}

#[derive(Serialize)]
struct Line<'a> {
    command: &'a str,
    version: &'a str,
    host: &'a str,
    pid: u32,
    start: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Adds a line.
pub(crate) fn append(
    experiment: &Experiment,
    holder: &Holder,
    version: &str,
    took: Option<Duration>,
    outcome: Outcome,
    error: Option<&str>,
) -> Result<(), StageError> {
    let Holder { pid, host, command, start, .. } = holder;
    let seconds = took.map(|took| (took.as_secs_f64() * 1000.0).round() / 1000.0);
    let line = Line { command, version, host, pid: *pid, start, seconds, outcome, error };
    let mut bytes = serde_json::to_vec(&line).map_err(StageError::other)?;
    bytes.push(b'\n');
    let path = experiment.journal();
    let fail = |e| StageError::file(&path, e);
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path).map_err(fail)?;
    if !ends_with_newline(&mut file).map_err(fail)? {
        bytes.insert(0, b'\n');
    }
    file.write_all(&bytes).map_err(fail)
}

/// A line that a crash tore is left alone, and the next one begins below it.
fn ends_with_newline(file: &mut std::fs::File) -> std::io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
