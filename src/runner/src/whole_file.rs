//! Files that commands write outside of experiments: each is complete or absent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::files;

/// A file that is written next to its place under a unique temporary name. Other writers of the same file do not
/// interfere, and an existing file stays until the new one is complete. If it is dropped before that, nothing remains
/// of it.
#[derive(Debug)]
pub struct WholeFile {
    temporary: PathBuf,
    place: PathBuf,
}

impl WholeFile {
    /// Creates an empty file in the folder of `place`.
    ///
    /// # Errors
    /// Returns an error if no file can be created there.
    pub fn beside(place: &Path) -> io::Result<Self> {
        let mut number = 0;
        loop {
            let temporary = place.with_file_name(format!(".flowmill-{}-{number}.partial", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(_) => return Ok(Self { temporary, place: place.to_owned() }),
                // The name is used by this process, or by a killed one with the same number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the path to write to.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Syncs the file and moves it to its place.
    ///
    /// # Errors
    /// Returns an error if it cannot be synced or renamed.
    pub fn put(self) -> io::Result<()> {
        files::sync(&File::open(&self.temporary)?)?;
        fs::rename(&self.temporary, &self.place)
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        // Once the file is in its place there is nothing to remove. Otherwise an earlier error is already reported.
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_of_one_file_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("file");
        let (first, second, dropped) = (
            WholeFile::beside(&place).unwrap(),
            WholeFile::beside(&place).unwrap(),
            WholeFile::beside(&place).unwrap(),
        );
        fs::write(first.path(), "first").unwrap();
        fs::write(second.path(), "second").unwrap();
        drop(dropped);
        first.put().unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "first");
        second.put().unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "second");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(WholeFile::beside(&folder.path().join("absent/file")).is_err());
    }
}
