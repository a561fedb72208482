//! A file that only grows, and that a resumed run cuts back to what its checkpoint knows of.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::TrainError;
use crate::synced::sync;

/// An append-only file with a known length.
#[derive(Debug)]
pub(crate) struct AppendFile {
    path: PathBuf,
    file: File,
    /// Bytes that are in the file.
    written: u64,
    /// Bytes that did not fit on a full disk; they go before the next ones.
    pending: Vec<u8>,
}

impl AppendFile {
    /// Opens (or creates) a file and cuts it to `length` bytes; fails when it has fewer.
    pub(crate) fn open(path: &Path, length: u64) -> Result<Self, TrainError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
        }
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let mut file = opened.map_err(TrainError::io("open", path))?;
        let present = file.metadata().map_err(TrainError::io("read", path))?.len();
        if present < length {
            let reason = format!("has {present} bytes where the checkpoint knows of {length}");
            return Err(TrainError::io("resume", path)(std::io::Error::other(reason)));
        }
        file.set_len(length).map_err(TrainError::io("truncate", path))?;
        file.seek(SeekFrom::Start(length)).map_err(TrainError::io("read", path))?;
        Ok(Self { path: path.to_owned(), file, written: length, pending: Vec::new() })
    }

    /// Adds bytes. On a full disk they wait in memory until there is room; [`sync`](Self::sync) tells.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        self.pending.extend_from_slice(bytes);
        match self.flush() {
            Err(error) if error.is_disk_full() => Ok(()),
            flushed => flushed,
        }
    }

    fn flush(&mut self) -> Result<(), TrainError> {
        if let Err(error) = self.file.write_all(&self.pending) {
            // No half line stays.
            let cut = self.file.set_len(self.written).and_then(|()| self.file.seek(SeekFrom::Start(self.written)));
            cut.map_err(TrainError::io("truncate", &self.path))?;
            return Err(TrainError::io("write", &self.path)(error));
        }
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> Result<(), TrainError> {
        self.flush()?;
        sync(&self.file).map_err(TrainError::io("sync", &self.path))
    }

    /// Bytes in the file, all of them after [`sync`](Self::sync).
    pub(crate) fn length(&self) -> u64 {
        self.written
    }
}
