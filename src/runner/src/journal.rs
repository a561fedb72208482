//! The journal: one JSON line per command that ran. It is for people; the program bases no decision on it.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Duration;

use serde::Serialize;

use crate::{Experiment, Holder, StageError};

/// The result of a command.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The command did everything it was asked for.
    Done,
    /// A stage failed.
    Failed,
    /// The user stopped it.
    Interrupted,
    /// The process died without writing an entry. Noted by the next run.
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

/// The key of the last field of a line: the beginning of the BLAKE3 of everything before it.
const CHECK: &str = ",\"check\":\"";
/// The number of hex digits of the hash in a line.
const DIGITS: usize = 16;

/// Appends the hash of a line to it.
fn checked(line: &str) -> String {
    let body = line.strip_suffix('}').unwrap_or(line);
    let hash = blake3::hash(body.as_bytes()).to_hex();
    format!("{body}{CHECK}{}\"}}", &hash[..DIGITS])
}

/// Returns the intact lines of a journal, and the number of other lines.
pub fn read_journal(experiment: &Experiment) -> (Vec<serde_json::Value>, usize) {
    let text = std::fs::read(experiment.journal()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines = Vec::new();
    let mut damaged = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let body = line.rfind(CHECK).map(|end| format!("{}}}", &line[..end]));
        match body.filter(|body| checked(body) == line).and_then(|body| serde_json::from_str(&body).ok()) {
            Some(value) => lines.push(value),
            None => damaged += 1,
        }
    }
    (lines, damaged)
}

/// Appends a line to the journal.
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
    let line = serde_json::to_string(&line).map_err(StageError::other)?;
    let mut bytes = (checked(&line) + "\n").into_bytes();
    let path = experiment.journal();
    let fail = |e| StageError::file(&path, e);
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path).map_err(fail)?;
    if !ends_with_newline(&mut file).map_err(fail)? {
        bytes.insert(0, b'\n');
    }
    file.write_all(&bytes).map_err(fail)
}

/// Returns whether the file ends with a newline. A line torn by a crash is kept, and the next one starts below it.
fn ends_with_newline(file: &mut std::fs::File) -> std::io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_bit_of_a_line_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let experiment = Experiment::at(dir.path()).unwrap();
        let me = Holder::this("run \"}\" ,\"check\":\"");
        append(&experiment, &me, "1", Some(Duration::from_secs(2)), Outcome::Failed, Some("it broke")).unwrap();
        let whole = std::fs::read(experiment.journal()).unwrap();
        let (lines, damaged) = read_journal(&experiment);
        assert_eq!((lines.len(), damaged, lines[0]["error"].as_str()), (1, 0, Some("it broke")));
        for at in 0..whole.len() - 1 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(experiment.journal(), bytes).unwrap();
            assert!(read_journal(&experiment).0.is_empty(), "byte {at}");
        }
    }
}
