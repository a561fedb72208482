//! Files that commands leave outside of experiments: whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::files;

/// A file that is being written beside its place, under a name of its own: whoever writes the same file at the same time does not meet
/// it, and what was there stays until the new file is whole. Dropped before that, nothing is left of it.
#[derive(Debug)]
pub struct WholeFile {
    temporary: PathBuf,
    place: PathBuf,
}

impl WholeFile {
    /// An empty file in the folder of `place`.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn beside(place: &Path) -> io::Result<Self> {
        let mut number = 0;
        loop {
            let temporary = place.with_file_name(format!(".flowmill-{}-{number}.partial", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(_) => return Ok(Self { temporary, place: place.to_owned() }),
                // Another of this process, or of one that was killed and had the same number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Puts it in its place, on the disk.
    ///
    /// # Errors
    /// When it cannot be synced or renamed.
    pub fn put(self) -> io::Result<()> {
        files::sync(&File::open(&self.temporary)?)?;
        fs::rename(&self.temporary, &self.place)
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        // Once it is in its place there is nothing to remove. That a remnant cannot be removed is not news after the error before.
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
