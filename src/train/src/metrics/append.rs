//! A log: a file that only grows, and that a resumed run cuts back to the length in its checkpoint.
//!
//! Problems with a log never stop training: one that is shorter than the checkpoint says is continued after its last whole record, a
//! missing one starts over, one that this user may not write is left alone. Each problem is reported once.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::TrainError;
use crate::error::is_disk_full;
use crate::synced::sync;

/// Finds the end of the last whole record within the first bytes of a file.
pub(crate) type WholeRecords<'a> = &'a mut dyn FnMut(&mut File, u64) -> io::Result<u64>;

/// An append-only file with a known length.
#[derive(Debug)]
pub(crate) struct AppendFile {
    path: PathBuf,
    /// `None` if it cannot be written; added bytes are dropped then.
    file: Option<File>,
    /// Bytes that are in the file.
    written: u64,
    /// Bytes that did not fit on a full disk; they are written before the next ones.
    pending: Vec<u8>,
    /// A problem with the file that has not been reported yet.
    trouble: Option<String>,
}

impl AppendFile {
    /// Opens (or creates) a file and cuts it to `length` bytes, or to the end of the last whole record if it is shorter or contains
    /// something else.
    ///
    /// # Errors
    /// When the disk is full.
    pub(crate) fn open(path: &Path, length: u64, whole: WholeRecords<'_>) -> Result<Self, TrainError> {
        let mut log = Self { path: path.to_owned(), file: None, written: length, pending: Vec::new(), trouble: None };
        match log.cut(length, whole) {
            Ok(()) => {}
            Err(error) if is_refused(&error) => log.give_up(&error),
            Err(error) => return Err(TrainError::io("open", path)(error)),
        }
        Ok(log)
    }

    fn cut(&mut self, length: u64, whole: WholeRecords<'_>) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&self.path)?;
        let present = file.metadata()?.len();
        let kept = whole(&mut file, present.min(length))?;
        file.set_len(kept)?;
        file.seek(SeekFrom::Start(kept))?;
        if kept < length {
            self.trouble = Some(match (present, kept) {
                (0, _) => "is missing and starts over".to_owned(),
                (_, 0) => "contains something else and starts over".to_owned(),
                _ => format!("has lost records: it continues after the {kept} of {length} bytes that are intact"),
            });
        }
        (self.file, self.written) = (Some(file), kept);
        Ok(())
    }

    /// Stops writing the file. Its recorded length is unchanged, for a later run that may write it again.
    fn give_up(&mut self, error: &io::Error) {
        self.file = None;
        self.pending = Vec::new();
        self.trouble = Some(format!("cannot be written ({error}) and is not continued"));
    }

    /// Takes the problem with the file, with its name; each is returned once.
    pub(crate) fn trouble(&mut self) -> Option<String> {
        self.trouble.take().map(|trouble| format!("{} {trouble}", self.path.display()))
    }

    /// Adds bytes. On a full disk they wait in memory until there is space; [`sync`](Self::sync) reports it.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if self.file.is_some() {
            self.pending.extend_from_slice(bytes);
            // A full disk is reported when the file must be complete.
            let _later = self.flush();
        }
    }

    /// Writes waiting bytes.
    ///
    /// # Errors
    /// When the disk is full. On any other error the log is given up.
    fn flush(&mut self) -> Result<(), TrainError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let Err(error) = file.write_all(&self.pending) else {
            self.written += self.pending.len() as u64;
            self.pending.clear();
            return Ok(());
        };
        // Removes a partly written line.
        let cut = file.set_len(self.written).and_then(|()| file.seek(SeekFrom::Start(self.written)).map(drop));
        let error = cut.err().unwrap_or(error);
        let full = TrainError::io("write", &self.path)(error);
        if full.is_disk_full() {
            return Err(full);
        }
        if let TrainError::Io { source, .. } = &full {
            self.give_up(source);
        }
        Ok(())
    }

    /// Makes everything added durable.
    ///
    /// # Errors
    /// When the disk is full.
    pub(crate) fn sync(&mut self) -> Result<(), TrainError> {
        self.flush()?;
        let Some(file) = &self.file else { return Ok(()) };
        let Err(error) = sync(file) else { return Ok(()) };
        let failed = TrainError::io("sync", &self.path)(error);
        if failed.is_disk_full() {
            return Err(failed);
        }
        if let TrainError::Io { source, .. } = &failed {
            self.give_up(source);
        }
        Ok(())
    }

    /// Bytes in the file, all of them after [`sync`](Self::sync).
    pub(crate) fn length(&self) -> u64 {
        self.written
    }
}

/// Returns whether a log is given up for an error: for any except a full disk, where it waits until there is space.
pub(crate) fn is_refused(error: &io::Error) -> bool {
    !is_disk_full(error)
}

/// Returns the end of the last whole line within the first `length` bytes.
pub(crate) fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    const CHUNK: u64 = 1 << 16;
    let mut end = length;
    let mut chunk = Vec::new();
    while end > 0 {
        // A complete file ends with its last line, so the first read is short.
        let size = if end == length { 1 } else { CHUNK.min(end) };
        file.seek(SeekFrom::Start(end - size))?;
        chunk.resize(size as usize, 0);
        file.read_exact(&mut chunk)?;
        if let Some(at) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(end - size + at as u64 + 1);
        }
        end -= size;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_goes_on_after_its_last_whole_line_and_says_what_was_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let open = |content: &str, length: u64| {
            std::fs::write(&path, content).unwrap();
            let mut log = AppendFile::open(&path, length, &mut whole_lines).unwrap();
            let trouble = log.trouble();
            log.append(b"new\n");
            log.sync().unwrap();
            (std::fs::read_to_string(&path).unwrap(), trouble.is_some())
        };
        assert_eq!(open("a\nb\nlater\n", 4), ("a\nb\nnew\n".to_owned(), false));
        assert_eq!(open("a\nb", 8), ("a\nnew\n".to_owned(), true));
        assert_eq!(open("a\nb\nc", 5), ("a\nb\nnew\n".to_owned(), true), "another file");
        assert_eq!(open("", 8), ("new\n".to_owned(), true));
        assert_eq!(open(&"x".repeat(200_000), 150_000), ("new\n".to_owned(), true));
        let long = format!("a\n{}", "x".repeat(200_000));
        assert_eq!(open(&long, 150_000), ("a\nnew\n".to_owned(), true));
    }

    #[test]
    fn a_log_that_may_not_be_written_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::create_dir(&path).unwrap();
        let mut log = AppendFile::open(&path, 12, &mut whole_lines).unwrap();
        assert!(log.trouble().is_some() && log.trouble().is_none(), "told once");
        log.append(b"dropped");
        log.sync().unwrap();
        assert_eq!(log.length(), 12);
        assert!(std::fs::read_dir(&path).unwrap().next().is_none());
    }

    #[cfg(unix)]
    #[test]
    fn a_log_that_is_a_link_to_nowhere_or_to_itself_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for (name, target) in [("gone", "none/there"), ("loop", "loop")] {
            let path = folder.path().join(name);
            std::os::unix::fs::symlink(target, &path).unwrap();
            let mut log = AppendFile::open(&path, 12, &mut whole_lines).unwrap();
            assert!(log.trouble().is_some() && log.trouble().is_none(), "{name}: told once");
            log.append(b"dropped");
            log.sync().unwrap();
            assert_eq!(log.length(), 12);
            assert!(path.is_symlink());
        }
    }
}
