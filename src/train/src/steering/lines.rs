//! Files of JSON lines that are durable before they are acknowledged.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::TrainError;
use crate::metrics::is_refused;
use crate::synced::sync;

/// The readable content of a file.
#[derive(Debug)]
pub(super) struct Read<T> {
    /// The lines.
    pub lines: Vec<T>,
    /// A description of the problem with the rest.
    pub trouble: Option<String>,
}

/// Reads the lines of a file; none if it does not exist. A line torn by a crash was never acknowledged and is removed. Unreadable files
/// and invalid lines are left alone and reported.
///
/// # Errors
/// When the disk is full.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Read<T>, TrainError> {
    let read = |lines, trouble: Option<String>| {
        Ok(Read { lines, trouble: trouble.map(|trouble| format!("{} {trouble}", path.display())) })
    };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return read(Vec::new(), None),
        Err(error) if is_refused(&error) => return read(Vec::new(), Some(format!("cannot be read ({error})"))),
        Err(error) => return Err(TrainError::io("read", path)(error)),
    };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < bytes.len() {
        // If it cannot be removed, nothing can be added either.
        let _stays = OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(whole as u64));
    }
    let parsed = bytes[..whole].split_inclusive(|byte| *byte == b'\n').map(serde_json::from_slice::<T>);
    let (mut lines, mut first) = (Vec::new(), None);
    for (number, line) in parsed.enumerate() {
        match line {
            Ok(line) => lines.push(line),
            Err(error) => {
                first.get_or_insert_with(|| format!("has a line {} that is left out: {error}", number + 1));
            }
        }
    }
    read(lines, first)
}

/// Replaces the lines of a file, durably.
///
/// # Errors
/// When they cannot be written.
pub(super) fn replace(path: &Path, lines: &[impl Serialize]) -> Result<(), TrainError> {
    let failed = || TrainError::io("write", path);
    let temporary = path.with_extension("new");
    let mut text = String::new();
    for line in lines {
        text += &serde_json::to_string(line).map_err(|error| failed()(error.into()))?;
        text.push('\n');
    }
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        sync(&file)?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(failed())
}

/// Appends a line durably: as a whole or, on a full disk, not at all.
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

/// Removes a partly written line; returns why it could not be written.
fn take_back(file: &File, length: u64, error: std::io::Error) -> std::io::Result<()> {
    file.set_len(length)?;
    Err(error)
}
