//! The sending end of the control socket.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Answer, control};

/// Reason why a command was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No run is listening.
    #[error("nothing is training in {}", .experiment.display())]
    NobodyListens {
        /// The experiment's folder.
        experiment: PathBuf,
    },
    /// The run ended first.
    #[error("the run in {} ended before it answered", .experiment.display())]
    Ended {
        /// The experiment's folder.
        experiment: PathBuf,
    },
    /// The socket cannot be used.
    #[error("the control socket of {}: {source}", .experiment.display())]
    Socket {
        /// The experiment's folder.
        experiment: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

#[derive(Deserialize)]
struct Line {
    done: bool,
    text: String,
}

/// Sends one command to the run that trains in an experiment's folder and waits for its answer, which comes between two steps.
///
/// # Errors
/// When no run listens there, or the run ended before it answered.
pub fn send(experiment: &Path, command: &str) -> Result<Answer, ControlError> {
    let owned = || experiment.to_owned();
    let fail = |source: io::Error| match source.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => ControlError::NobodyListens { experiment: owned() },
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => ControlError::Ended { experiment: owned() },
        _ => ControlError::Socket { experiment: owned(), source },
    };
    let mut stream = control::connect(experiment).map_err(fail)?;
    stream.write_all(format!("{}\n", command.trim()).as_bytes()).map_err(fail)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(fail)?;
    match serde_json::from_str::<Line>(&line) {
        Ok(Line { done: true, text }) => Ok(Ok(text)),
        Ok(Line { done: false, text }) => Ok(Err(text)),
        Err(_) => Err(ControlError::Ended { experiment: owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_listens_that_is_said() {
        let experiment = tempfile::tempdir().unwrap();
        let error = send(experiment.path(), "save").unwrap_err();
        assert!(matches!(error, ControlError::NobodyListens { .. }), "{error}");
        // A socket left by a dead run.
        let control = super::super::Control::open(experiment.path()).unwrap();
        let path = experiment.path().join(super::super::CONTROL_FOLDER).join("socket");
        let kept = path.with_extension("kept");
        std::fs::hard_link(&path, &kept).unwrap();
        drop(control);
        std::fs::rename(&kept, &path).unwrap();
        let error = send(experiment.path(), "save").unwrap_err();
        assert!(matches!(error, ControlError::NobodyListens { .. }), "{error}");
    }
}
