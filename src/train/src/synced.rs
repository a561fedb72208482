//! Forcing files to the disk, where the file system can do that.

use std::fs::File;
use std::io::{self, ErrorKind};

/// Forces a file to the disk. Some network file systems have no such thing; that is told by whoever keeps the experiment.
pub(crate) fn sync(file: &File) -> io::Result<()> {
    match file.sync_data() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}
