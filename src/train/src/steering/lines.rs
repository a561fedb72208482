//! Files of JSON lines that are on the disk before anybody is told so.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::TrainError;

/// The lines of a file; none when it is not there. Of a line that a crash tore nothing was acknowledged, and it is taken away.
///
/// # Errors
/// When the file cannot be read, or holds something else.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, TrainError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(TrainError::io("read", path)(error)),
    };
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        let cut = OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(whole as u64));
        cut.map_err(TrainError::io("truncate", path))?;
    }
    let lines = text[..whole].lines().map(serde_json::from_str).collect::<Result<_, _>>();
    lines.map_err(|error| TrainError::io("read", path)(error.into()))
}

/// Adds a line, durably: whole or, on a full disk, not at all.
///
/// # Errors
/// When it cannot be written.
pub(super) fn append(path: &Path, line: &impl Serialize) -> Result<(), TrainError> {
    let failed = || TrainError::io("write", path);
    let line = serde_json::to_string(line).map_err(|error| failed()(error.into()))?;
    let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed())?;
    let before = file.metadata().map_err(failed())?.len();
    let written = file.write_all(format!("{line}\n").as_bytes()).and_then(|()| sync(&file));
    written.or_else(|error| take_back(&file, before, error)).map_err(failed())
}

/// Forces a file to the disk, where its file system can do that.
fn sync(file: &File) -> std::io::Result<()> {
    match file.sync_all() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

/// Takes away what was written of a line; gives why it could not be written.
fn take_back(file: &File, length: u64, error: std::io::Error) -> std::io::Result<()> {
    file.set_len(length)?;
    Err(error)
}
