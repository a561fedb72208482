//! Free space on the disk at a path that may not exist yet.

use std::path::{Path, PathBuf};

/// The space on the file system that contains a path.
#[derive(Debug, Clone)]
pub struct Room {
    /// The nearest existing folder.
    pub at: PathBuf,
    /// The bytes that this user may still write.
    pub free: u64,
    /// The total bytes.
    pub total: u64,
    /// True if the file system is writable.
    pub writable: bool,
}

/// Returns the space at `path`, or at the nearest existing folder above it.
///
/// # Errors
/// Returns the error of the system.
pub fn room(path: &Path) -> std::io::Result<Room> {
    let absolute = std::path::absolute(path)?;
    let at = absolute.ancestors().find(|folder| folder.exists()).unwrap_or(&absolute).to_path_buf();
    let answer = rustix::fs::statvfs(&at)?;
    let writable = rustix::fs::access(&at, rustix::fs::Access::WRITE_OK).is_ok();
    Ok(Room {
        free: answer.f_bavail.saturating_mul(answer.f_frsize),
        total: answer.f_blocks.saturating_mul(answer.f_frsize),
        at,
        writable,
    })
}
