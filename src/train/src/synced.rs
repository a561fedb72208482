//! Forcing files to the disk, if the file system supports that.

use std::fs::File;
use std::io::{self, ErrorKind};

/// Forces a file to the disk. Some network file systems do not support that; the owner of the experiment reports it.
pub(crate) fn sync(file: &File) -> io::Result<()> {
    match file.sync_data() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}
