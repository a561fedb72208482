//! Room on the disk at a path that may not exist yet.

use std::path::{Path, PathBuf};

/// The room on the file system that holds a path.
#[derive(Debug, Clone)]
pub struct Room {
    /// The nearest folder that exists.
    pub at: PathBuf,
    /// Bytes that this user may still write.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
    /// Whether the file system can be written to at all.
    pub writable: bool,
}

/// Asks for the room at `path`, or at the nearest folder above it that exists.
///
/// # Errors
/// What the system says.
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
